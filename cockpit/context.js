// What the page knows of one context: it asks zmsvcctl, follows the events, and calls back when something is new. No
// element of the page is known here.
import { Pace, Questions } from "./questions.js";
import { firedRules, ruleIndex } from "./rules.js";
import { base, chosen, cpuShares, reduce, reshapes, transactionsOf } from "./states.js";

/** Milliseconds between two questions about the status, however many events there are: a ring of rules has no end. */
const STATUS_PAUSE = 1000;
/** Milliseconds between two questions about the selected task, which read the journal. */
const ABOUT_PAUSE = 2000;
/** Milliseconds between two tries to follow the events. */
const FOLLOW_PAUSE = 5000;
/** How many events are asked for and kept, and how many entries of the log. */
export const KEPT = 1000;
const LOG_LINES = 100;

export class Context {
    status = null;
    /** A Map of IDs to transactions, as the last answer and the events after it tell. */
    transactions = new Map();
    graph = null;
    graphError = "";
    /** Why the status is unknown; empty if it is not. */
    problem = "";
    /** The share of one CPU of each task, by `usageKey`. */
    shares = new Map();
    events = [];
    run = null;
    task = null;
    /** Answers about the selected task; null until they are there, `{error}` if they are refused. */
    why = null;
    log = null;

    #ctl;
    #changed;
    #fired;
    #lost;
    #questions = new Questions();
    #statusPace = new Pace(() => this.#askStatus(), STATUS_PAUSE);
    #aboutPace = new Pace(() => this.#askAbout(), ABOUT_PAUSE);
    #followPace = new Pace(() => this.#follow(), FOLLOW_PAUSE);
    #wantedRun = null;
    #measured = null;
    #meanwhile = null;
    #rules = new Map();
    #file = null;
    #end = null;
    #closed = false;

    /**
     * `ctl` are the calls of zmsvcctl.js. `changed()` is called when something is to be drawn, `fired(rules)` with the
     * IDs of rules that have just fired, `lost()` when the events end.
     */
    constructor(name, ctl, { changed, fired, lost }) {
        this.name = name;
        this.#ctl = ctl;
        this.#changed = () => this.#closed || changed();
        this.#fired = fired;
        this.#lost = lost;
    }

    open() {
        this.#followPace.request();
        this.askGraph();
        this.refresh();
    }

    close() {
        this.#closed = true;
        this.#end?.();
        for (const pace of [this.#statusPace, this.#aboutPace, this.#followPace]) pace.cancel();
        this.#questions.clear();
    }

    /** True while the events are followed. */
    get follows() {
        return this.#end !== null;
    }

    /** True if the supervisor has answered the last question about the status. */
    get runs() {
        return Boolean(this.status?.pid);
    }

    /** Ask for the status soon. */
    refresh() {
        this.#statusPace.request();
    }

    /** Take what the list of contexts tells of this one. `file` is its file, if it is known. */
    tell(listens, file) {
        this.#file = listens ? null : file;
        if (listens !== this.runs) this.refresh();
        if (!this.graph) this.askGraph();
    }

    /** Select a transaction (null: the newest one) and a task (or null). Return true if they are others than before. */
    select(run, task) {
        const before = [this.run, this.task];
        this.#wantedRun = run;
        this.run = chosen(this.transactions, run);
        this.task = task;
        if (before[0] === this.run && before[1] === task) return false;
        this.why = this.log = null;
        this.#askAbout();
        return true;
    }

    // --- questions

    #askStatus() {
        this.#questions.put("status", async () => {
            this.#meanwhile = [];
            try {
                this.#takeStatus((await this.#ctl.status(this.name)).contexts[0]);
            } catch (error) {
                this.problem = error.message;
                this.status = this.#measured = null;
                this.transactions = new Map();
            }
            this.#meanwhile = null;
            this.#changed();
        });
    }

    #takeStatus(status) {
        const measured = { at: performance.now(), transactions: transactionsOf(status) };
        this.shares = cpuShares(this.#measured, measured);
        this.#measured = measured;
        this.status = status;
        this.problem = "";
        // The answer may be older than events that have come meanwhile.
        this.transactions = reduce(measured.transactions, this.#meanwhile);
        this.run = chosen(this.transactions, this.#wantedRun);
        if (this.task && !this.why) this.#aboutPace.request();
        if (this.runs && !this.follows) this.#followPace.request();
        if (this.runs && this.graphError) this.askGraph();
    }

    askGraph() {
        this.#questions.put("graph", async () => {
            try {
                // zmsvcctl of a user looks in the directory of that user for a context that does not run.
                this.graph = await this.#ctl.graph(this.#file ?? this.name);
                this.graphError = "";
            } catch (error) {
                this.graphError = error.message;
            }
            this.#rules = ruleIndex(this.graph?.rules ?? []);
            this.#changed();
        });
    }

    #askAbout() {
        const { run, task } = this;
        if (!run || !task) return;
        const ask = (name, question) =>
            this.#questions.put(name, async () => {
                const still = () => this.run === run && this.task === task;
                if (!still()) return;
                const answer = await question().catch(error => ({ error: error.message }));
                if (still()) this[name] = answer;
                this.#changed();
            });
        ask("why", () => this.#ctl.why(this.name, run, task));
        ask("log", async () => ({ entries: await this.#ctl.logs(this.name, run, task, LOG_LINES) }));
    }

    // --- events

    #follow() {
        if (this.#closed || this.follows) return;
        this.#end = this.#ctl.events(
            this.name,
            KEPT,
            events => this.#takeEvents(events),
            () => {
                this.#end = null;
                this.refresh();
                this.#lost();
            },
        );
    }

    #takeEvents(events) {
        const last = this.events.at(-1)?.seq ?? -1;
        // When they are followed again, all of them come again; after its removal a state file
        // begins to count from 1.
        if (events[0].seq <= last) this.events = [];
        this.events = [...this.events, ...events].slice(-KEPT);
        this.#meanwhile?.push(...events);
        if (this.#measured) {
            this.transactions = reduce(this.transactions, events);
            this.#fired(
                events.filter(each => each.transaction === this.run).flatMap(each => firedRules(this.#rules, each)),
            );
        }
        if (this.task && events.some(each => base(each.task) === base(this.task))) this.#aboutPace.request();
        if (reshapes(events)) this.askGraph();
        this.refresh();
        this.#changed();
    }
}
