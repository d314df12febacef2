// The questions of the page to zmsvcctl: one at a time, each kind at most once in the queue. Pure except for timers.

/** Asks one question after the other, so that the page never has two processes of this kind. A question that waits
 * is replaced by a later one of the same name. */
export class Questions {
    #waiting = new Map();
    #busy = false;

    /** Ask by calling `question`, which returns a promise, when all before it are answered. */
    put(name, question) {
        this.#waiting.delete(name);
        this.#waiting.set(name, question);
        if (!this.#busy) void this.#run();
    }

    /** Drop the questions that wait. */
    clear() {
        this.#waiting.clear();
    }

    async #run() {
        this.#busy = true;
        while (this.#waiting.size) {
            const [name, question] = this.#waiting.entries().next().value;
            this.#waiting.delete(name);
            try {
                await question();
            } catch (error) {
                console.error(`zmsvc: ${name}:`, error);
            }
        }
        this.#busy = false;
    }
}

/** Calls `act` at the first request, and then at most once in `pause` milliseconds, however many requests come. */
export class Pace {
    #act;
    #pause;
    #clock;
    #timer = null;
    #last = -Infinity;

    constructor(
        act,
        pause,
        clock = {
            now: () => performance.now(),
            set: setTimeout.bind(globalThis),
            clear: clearTimeout.bind(globalThis),
        },
    ) {
        this.#act = act;
        this.#pause = pause;
        this.#clock = clock;
    }

    request() {
        if (this.#timer !== null) return;
        const wait = Math.max(0, this.#last + this.#pause - this.#clock.now());
        this.#timer = this.#clock.set(() => {
            this.#timer = null;
            this.#last = this.#clock.now();
            this.#act();
        }, wait);
    }

    cancel() {
        if (this.#timer !== null) this.#clock.clear(this.#timer);
        this.#timer = null;
    }
}
