// The table of events, the newest first, with a filter. It says how many events it does not show.
import { element, setAttribute, setChildren, setText } from "./dom.js";
import { clock, detailText } from "./format.js";
import { base } from "./states.js";

/** How many events are shown at once. */
const SHOWN = 200;

/** Return the events that match, the newest first: those of `task` if it is named, in which each word occurs. */
export function matching(events, words, task) {
    return events
        .filter(
            each =>
                (!task || base(String(each.task)) === base(task) || (each.detail?.source ?? null) === task) &&
                (!words.length || words.every(word => textOf(each).includes(word))),
        )
        .reverse();
}

function textOf(event) {
    return `${event.transaction} ${event.task} ${event.event} ${detailText(event.detail)}`.toLowerCase();
}

export class HistoryView {
    #body = element("tbody");
    #note;
    #rows = new Map();

    constructor(table, note) {
        this.#note = note;
        // A narrow window shows a row as a block, and a browser may then forget what it is: so the roles are said.
        setAttribute(table, "role", "table");
        setAttribute(this.#body, "role", "rowgroup");
        table.append(
            element("caption", { class: "hidden" }, "Events of the context, the newest first"),
            element(
                "thead",
                { role: "rowgroup" },
                element(
                    "tr",
                    { role: "row" },
                    ...["Time", "Task", "Event", "Details"].map(each =>
                        element("th", { scope: "col", role: "columnheader" }, each),
                    ),
                ),
            ),
            this.#body,
        );
    }

    draw(events, words, task, now) {
        const found = matching(events, words, task);
        const shown = found.slice(0, SHOWN);
        const rows = new Map(shown.map(each => [each.seq, this.#rows.get(each.seq) ?? row(each, now)]));
        this.#rows = rows;
        setChildren(this.#body, [...rows.values()]);
        const hidden = found.length - shown.length;
        setText(
            this.#note,
            !found.length
                ? "No event matches."
                : hidden
                  ? `${hidden} older events are not shown: zmsvcctl events shows all.`
                  : "",
        );
    }
}

const BAD = new Set([
    "failed",
    "lost",
    "killing",
    "survivor",
    "unhealthy",
    "rule-refused",
    "reload-failed",
    "dependency",
]);
const RULES = new Set(["rule"]);

function row(event, now) {
    const kind = BAD.has(event.event) ? "bad" : RULES.has(event.event) ? "rule" : null;
    const cell = (text, more = {}) => element("td", { role: "cell", ...more }, text);
    return element(
        "tr",
        { role: "row", class: kind },
        cell(clock(event.at, now), { class: "time", title: event.at }),
        cell(event.task || "–", { title: event.transaction || null }),
        cell(event.event),
        cell(detailText(event.detail), { class: "detail" }),
    );
}
