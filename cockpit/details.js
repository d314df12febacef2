// The selected task: what it does, the orders to it, why it is in its state, its rules and its journal.
import { element, setAttribute, setText } from "./dom.js";
import { age, bytes, clock, endText, percent, stateText } from "./format.js";
import { ruleText } from "./rules.js";
import { ICONS } from "./graphview.js";

const SIGNALS = ["HUP", "INT", "TERM", "USR1", "USR2", "QUIT", "CONT", "STOP", "KILL"];
const ORDERS = [
    ["start", "Start"],
    ["stop", "Stop"],
    ["restart", "Restart"],
    ["reset-failed", "Reset failed"],
];
const LEVELS = ["bad", "bad", "bad", "bad", "warn", null, null, "debug"];

const NO_ENTRIES = "No entries. Only members of the group systemd-journal or adm see the journal of other users.";

export class Details {
    #host;
    #parts;
    #facts = new Map();
    #drawnWhy;
    #drawnLog;

    /** `order(verb, more)` gives an order to the selected task, `close()` ends the selection. */
    constructor(host, { order, close }) {
        this.#host = host;
        const button = ([verb, title]) =>
            element("button", { type: "button", "data-verb": verb, on: { click: () => order(verb, []) } }, title);
        const signal = element(
            "select",
            { "aria-label": "Signal" },
            ...SIGNALS.map(each => element("option", { value: each }, each)),
        );
        this.#parts = {
            title: element("h2", { id: "details-title" }),
            state: element("span", { class: "badge" }),
            description: element("p", { class: "note" }),
            buttons: element("div", { class: "buttons" }, ...ORDERS.map(button)),
            send: element(
                "button",
                { type: "button", "data-verb": "signal", on: { click: () => order("signal", [signal.value]) } },
                "Send signal",
            ),
            facts: element("dl"),
            why: element("div"),
            rules: element("ul", { class: "plain-list" }),
            log: element("pre", {
                class: "log",
                tabindex: "0",
                role: "region",
                "aria-label": "Journal of the task",
            }),
            logNote: element("p", { class: "note" }),
        };
        const parts = this.#parts;
        host.replaceChildren(
            element(
                "div",
                { class: "head" },
                parts.title,
                parts.state,
                element(
                    "button",
                    { type: "button", class: "plain close", "aria-label": "Close the task", on: { click: close } },
                    "✕",
                ),
            ),
            parts.description,
            parts.buttons,
            element("div", { class: "buttons" }, signal, parts.send),
            parts.facts,
            element("h3", {}, "Why"),
            parts.why,
            element("h3", {}, "Rules"),
            parts.rules,
            element("h3", {}, "Journal"),
            parts.log,
            parts.logNote,
        );
    }

    /** Draw a task; `about` is `{id, task, replicas, cpu, graph, why, log, busy, now}`. */
    draw(about) {
        const { task } = about;
        const parts = this.#parts;
        setText(parts.title, about.id);
        setText(
            parts.state,
            `${ICONS[task?.state] ?? "?"} ${task ? stateText(task.state, task.sub) : "does not run"}`,
        );
        setAttribute(parts.state, "class", `badge ${task?.state ?? "unknown"}`);
        setText(parts.description, about.description);
        for (const each of this.#host.querySelectorAll("[data-verb]")) {
            setAttribute(each, "aria-disabled", about.busy !== null || !task ? "true" : null);
            setAttribute(each, "aria-busy", about.busy === each.getAttribute("data-verb") ? "true" : null);
        }
        this.#drawFacts(about);
        this.#drawRules(about);
        if (this.#drawnWhy !== about.why) this.#drawWhy(about);
        if (this.#drawnLog !== about.log) this.#drawLog(about);
    }

    #drawFacts({ task, replicas, cpu, now }) {
        const held = [
            task?.held ? "stopped by an operator: no rule starts it" : "",
            task?.disabled ? "disabled: it does not start with its transaction" : "",
        ];
        const facts = [
            ["Replicas", replicas > 1 ? `${replicas}; this is the one in the worst state` : ""],
            ["Message", task?.status ?? ""],
            ["Since", task?.since ? `${age(task.since, now)} (${clock(task.since, now)})` : ""],
            ["PID", task?.pid === null || task?.pid === undefined ? "" : String(task.pid)],
            ["User", task?.user ?? ""],
            ["Restarts", task ? String(task.restarts) : ""],
            ["Last exit", endText(task?.exit)],
            ["CPU", percent(cpu)],
            ["Memory", bytes(task?.usage?.memory_bytes)],
            ["Health", task?.health ? [task.health, task.health_text].filter(Boolean).join(": ") : ""],
            ["Held", held.filter(Boolean).join("; ")],
            ["Messages", lossText(task)],
        ];
        for (const [name, text] of facts) {
            const fact = this.#facts.get(name) ?? this.#fact(name);
            setText(fact.value, text);
            setAttribute(fact.root, "hidden", text === "");
        }
    }

    #fact(name) {
        const value = element("dd");
        const root = element("div", {}, element("dt", {}, name), value);
        this.#facts.set(name, { root, value });
        this.#parts.facts.append(root);
        return { root, value };
    }

    #drawRules({ id, base, graph }) {
        const rules = (graph?.rules ?? []).filter(each => each.source === base || each.target === base);
        const texts = [
            ...rules.map(each => `${each.source === null ? "any task" : each.source} – ${ruleText(each)}`),
            ...(graph?.order ?? []).filter(each => each.task === base).map(each => `${each.kind} ${each.target}`),
        ];
        const key = JSON.stringify([id, texts]);
        if (this.#parts.rules.getAttribute("data-key") === key) return;
        setAttribute(this.#parts.rules, "data-key", key);
        this.#parts.rules.replaceChildren(
            ...(texts.length ? texts : ["no rule of the file is about it"]).map(each => element("li", {}, each)),
        );
    }

    #drawWhy({ why, now }) {
        this.#drawnWhy = why;
        if (!why) {
            this.#parts.why.replaceChildren(element("p", { class: "note" }, "asking …"));
        } else if (why.error) {
            this.#parts.why.replaceChildren(element("p", { class: "note bad" }, why.error));
        } else {
            this.#parts.why.replaceChildren(...why.tasks.flatMap(each => whyOf(each, now)));
        }
    }

    #drawLog({ log }) {
        this.#drawnLog = log;
        const { log: host, logNote } = this.#parts;
        const entries = log?.entries ?? [];
        const atEnd = host.scrollTop + host.clientHeight >= host.scrollHeight - 4;
        host.replaceChildren(...entries.map(logLine));
        setAttribute(host, "hidden", !entries.length);
        if (atEnd) host.scrollTop = host.scrollHeight;
        setText(logNote, !log ? "asking …" : (log.error ?? (entries.length ? "" : NO_ENTRIES)));
    }
}

function lossText(task) {
    const counts = [
        ["dropped", task?.dropped],
        ["missed", task?.missed],
        ["poisoned", task?.poisoned],
    ];
    return counts
        .filter(([, count]) => count)
        .map(([word, count]) => `${count} ${word}`)
        .join(", ");
}

/** The reasons and the rules that could start the task, the chain of causes, and what helps. */
function whyOf(task, now) {
    const list = (items, name) => (items.length ? element("ul", { class: `plain-list ${name}` }, ...items) : null);
    const timed = (text, at) =>
        element("li", {}, at ? element("span", { class: "time" }, `${clock(at, now)} `) : null, text);
    const reasons = task.reasons.map(each =>
        timed(
            `${each.text}${each.until ? `, until ${clock(each.until, now)}` : ""}${each.user ? ` (${each.user})` : ""}`,
            each.at,
        ),
    );
    const chain = task.chain.map(each => timed(`${each.text}${each.user ? ` (${each.user})` : ""}`, each.at));
    const rules = task.rules.map(each =>
        element("li", {}, `${each.text}${each.of ? ` (${each.counted} of ${each.of})` : ""}`),
    );
    const advice = task.advice.map(each =>
        element(
            "li",
            {},
            each.text,
            each.command ? ": " : "",
            each.command ? element("code", {}, each.command) : null,
        ),
    );
    const found = [list(reasons, "reasons"), list(chain, "chain"), list(rules, "could"), list(advice, "advice")];
    return found.some(Boolean)
        ? found.filter(Boolean)
        : [element("p", { class: "note" }, "It has not been started yet.")];
}

function logLine(entry) {
    const text = Array.isArray(entry.MESSAGE) ? "(binary data)" : String(entry.MESSAGE ?? "");
    const at = new Date(Number(entry.__REALTIME_TIMESTAMP) / 1000);
    return element(
        "span",
        { class: LEVELS[Number(entry.PRIORITY ?? 6)] ?? null },
        element("span", { class: "time" }, `${clock(at, at)} `),
        `${text}\n`,
    );
}
