// Lines of a stream that comes in chunks of any size. Pure.

/** The longest line that is kept, in characters. An event has a few hundred. */
export const MAX_LINE = 1 << 20;

/** Joins chunks and returns whole lines. A line that is too long is dropped and counted. */
export class Lines {
    #begun = "";
    #skips = false;
    dropped = 0;

    /** Take a chunk and return the lines that it completes. */
    push(chunk) {
        const parts = chunk.split("\n");
        const rest = parts.pop();
        const lines = [];
        for (const part of parts) {
            const line = this.#begun + part;
            if (this.#skips || line.length > MAX_LINE) this.dropped += 1;
            else lines.push(line);
            this.#begun = "";
            this.#skips = false;
        }
        this.#begun += rest;
        if (this.#begun.length > MAX_LINE) {
            this.#begun = "";
            this.#skips = true;
        }
        return lines;
    }
}
