// The contexts that there are: those that zmsvcctl knows, those of systemd's units, and those with a file.
import { Pace, Questions } from "./questions.js";
import { FILES, Units, fileNames } from "./units.js";

/** Milliseconds between two questions: the start of a unit makes several signals. */
const PAUSE = 300;

export class Contexts {
    /** A Map of names to `{name, state, listens, file, unit}` with the state of the unit; null until it is known. */
    all = null;
    /** Why zmsvcctl does not list them; empty if it does. */
    error = "";

    #ctl;
    #changed;
    #questions = new Questions();
    #pace = new Pace(() => this.#ask(), PAUSE);
    #units = new Units(() => this.refresh());

    constructor(ctl, changed) {
        this.#ctl = ctl;
        this.#changed = changed;
    }

    refresh() {
        this.#pace.request();
    }

    /** Return the file of a context. */
    fileOf(name) {
        return this.all?.get(name)?.file ?? `${FILES}/Context-${name}.xml`;
    }

    #ask() {
        this.#questions.put("list", async () => {
            const [list, units, files] = await Promise.all([
                this.#ctl.contexts().catch(error => ({ contexts: [], error })),
                this.#units.states().catch(() => new Map()),
                fileNames(),
            ]);
            this.error = list.error?.message ?? "";
            this.all = joined(list.contexts, units, files);
            this.#changed();
        });
    }
}

/** Return the contexts by their names, sorted. */
export function joined(listed, units, files) {
    const found = new Map(listed.map(each => [each.name, { ...each, listens: each.state !== "inactive" }]));
    for (const name of [...units.keys(), ...files])
        if (!found.has(name))
            found.set(name, { name, state: "inactive", listens: false, file: `${FILES}/Context-${name}.xml` });
    for (const [name, { state }] of units) found.get(name).unit = state;
    return new Map([...found].sort(([left], [right]) => left.localeCompare(right)));
}

/** Return the state to show: that of the tasks, or that of the unit if the context does not run. */
export function stateOf(context) {
    if (context.listens) return context.state;
    return context.unit === "failed" || context.unit === "activating" ? context.unit : "inactive";
}
