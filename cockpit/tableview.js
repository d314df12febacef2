// The table of the tasks of a transaction. A row is kept as long as its task, so only what changes is drawn.
import { element, setAttribute, setChildren, setText } from "./dom.js";
import { age, bytes, endText, percent, stateText } from "./format.js";
import { ICONS } from "./graphview.js";
import { usageKey } from "./states.js";

/** The columns: `text` of a cell, `key` to sort by; `wide` ones are hidden in a narrow window, of which `number`s
 * begin with the greatest when they are sorted. */
const COLUMNS = [
    { name: "task", title: "Task", text: each => each.task.id },
    { name: "state", title: "State", text: each => stateText(each.task.state, each.task.sub) },
    {
        name: "since",
        title: "Since",
        text: each => age(each.task.since, each.now),
        key: each => -Date.parse(each.task.since ?? 0),
    },
    {
        name: "restarts",
        title: "Restarts",
        text: each => String(each.task.restarts ?? ""),
        key: each => each.task.restarts ?? 0,
        wide: true,
        number: true,
    },
    { name: "exit", title: "Last exit", text: each => endText(each.task.exit), wide: true },
    {
        name: "cpu",
        title: "CPU",
        text: each => percent(each.cpu),
        key: each => each.cpu ?? -1,
        wide: true,
        number: true,
    },
    {
        name: "memory",
        title: "Memory",
        text: each => bytes(memory(each)),
        key: each => memory(each) ?? -1,
        wide: true,
        number: true,
    },
];

function memory({ task }) {
    return task.usage?.memory_bytes;
}

function classOf({ name, wide, number }) {
    return [`of-${name}`, wide ? "wide" : "", number ? "number" : ""].filter(Boolean).join(" ");
}

export class TableView {
    #rows = new Map();
    #body = element("tbody");
    #heads = new Map();
    #column = null;
    #rises = true;
    #select;
    #redraw;

    /** `select(id)` is called when a user chooses a task, `redraw()` when the order of the rows changes. */
    constructor(table, { select, redraw }) {
        this.#select = select;
        this.#redraw = redraw;
        const heads = COLUMNS.map(each => this.#head(each));
        const caption = element("caption", { class: "hidden" }, "Tasks of the transaction");
        table.append(caption, element("thead", {}, element("tr", {}, ...heads)), this.#body);
        this.#body.addEventListener("keydown", event => this.#key(event));
    }

    #head(column) {
        const button = { type: "button", class: "sort", on: { click: () => this.#sortBy(column) } };
        const head = element(
            "th",
            { scope: "col", class: classOf(column) },
            element("button", button, column.title),
        );
        this.#heads.set(column, head);
        return head;
    }

    /** Sort by a column; at the second time the other way round, at the third as the file has the tasks. */
    #sortBy(column) {
        const first = !column.number;
        if (this.#column !== column) [this.#column, this.#rises] = [column, first];
        else if (this.#rises === first) this.#rises = !first;
        else this.#column = null;
        for (const [each, head] of this.#heads) {
            const sorted = each === this.#column;
            setAttribute(head, "aria-sort", sorted ? (this.#rises ? "ascending" : "descending") : null);
        }
        this.#redraw();
    }

    /** Draw the tasks (a Map) of the chosen transaction of a context; each word has to occur in a row that is shown. */
    draw({ run: transaction, shares, task: selected }, tasks, words, now) {
        const shown = [];
        for (const task of tasks.values()) {
            const entry = { task, now, cpu: task.usage ? shares.get(usageKey(transaction, task)) : undefined };
            const row = this.#row(task.id);
            this.#update(row, entry, task.id === selected);
            const text = `${task.id} ${task.instance} ${task.description} ${task.state} ${task.sub}`.toLowerCase();
            if (words.every(word => text.includes(word))) shown.push([entry, row]);
        }
        for (const id of [...this.#rows.keys()]) if (!tasks.has(id)) this.#rows.delete(id);
        if (this.#column) {
            const key = this.#column.key ?? this.#column.text;
            const sign = this.#rises ? 1 : -1;
            shown.sort(([left], [right]) => sign * compared(key(left), key(right)));
        }
        setChildren(
            this.#body,
            shown.map(([, row]) => row.root),
        );
        this.#rove(selected);
    }

    #row(id) {
        const known = this.#rows.get(id);
        if (known) return known;
        const on = { click: () => this.#select(id) };
        const button = element("button", { type: "button", class: "link", "data-task": id }, id);
        const icon = element("span", { class: "icon", "aria-hidden": "true" });
        const state = element("span");
        const cells = new Map(
            COLUMNS.map(column => {
                if (column.name === "task")
                    return [column, element("th", { scope: "row", class: classOf(column) }, button)];
                const parts = column.name === "state" ? [icon, " ", state] : [];
                return [column, element("td", { class: classOf(column) }, ...parts)];
            }),
        );
        const made = { root: element("tr", { on }, ...cells.values()), cells, button, icon, state };
        this.#rows.set(id, made);
        return made;
    }

    #update({ root, cells, button, icon, state }, entry, selected) {
        const { task } = entry;
        setAttribute(root, "class", `${task.state}${selected ? " selected" : ""}`);
        setAttribute(root, "title", task.description || null);
        setAttribute(button, "aria-current", selected ? "true" : null);
        setText(icon, ICONS[task.state] ?? "?");
        for (const [column, cell] of cells) {
            if (column.name === "state") setText(state, column.text(entry));
            else if (column.name !== "task") setText(cell, column.text(entry));
            if (column.name === "since") setAttribute(cell, "title", task.since);
        }
    }

    /** Let one button alone be reached by Tab; the arrow keys go on from there. */
    #rove(selected) {
        const buttons = [...this.#body.querySelectorAll("button.link")];
        const current =
            buttons.find(each => each === document.activeElement) ??
            buttons.find(each => each.getAttribute("data-task") === selected) ??
            buttons[0];
        for (const each of buttons) setAttribute(each, "tabindex", each === current ? "0" : "-1");
    }

    #key(event) {
        const buttons = [...this.#body.querySelectorAll("button.link")];
        const here = buttons.indexOf(event.target);
        const to = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: buttons.length - 1 }[event.key];
        if (here < 0 || !buttons[to]) return;
        event.preventDefault();
        buttons[to].focus();
        this.#rove(null);
    }
}

function compared(left, right) {
    return typeof left === "number" ? left - right : left.localeCompare(right);
}
