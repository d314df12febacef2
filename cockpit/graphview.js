// The drawing of the graph: SVG that is made when tasks or rules change, and whose classes and texts follow the states.
import { setAttribute, setText, svg } from "./dom.js";
import { stateText } from "./format.js";
import { LABEL, NODE, graphInput, labelWidth, layOut, neighbor, path, shapeOf } from "./layout.js";
import { byFileId } from "./states.js";

/** Milliseconds for which an edge is lit. */
const LIT = 5000;
const ZOOM = { least: 0.3, most: 2, step: 1.25, readable: 0.7 };
const LETTERS = 18;
/** Pixels of a window in which the ranks of the graph go down instead of right. */
const NARROW = 480;

/** Return a text that fits into a node. */
function shortened(text, letters = LETTERS) {
    return text.length > letters ? `${text.slice(0, letters - 1)}…` : text;
}

export class GraphView {
    #host;
    #dagre;
    #select;
    #shape = null;
    #direction = "LR";
    #layout = { width: 0, height: 0, nodes: [], edges: [] };
    #nodes = new Map();
    #edges = new Map();
    #timers = new Map();
    #root = null;
    #zoom = null;
    #focused = null;

    /** `select(id)` is called when a user chooses a task. */
    constructor(host, dagre, select) {
        this.#host = host;
        this.#dagre = dagre;
        this.#select = select;
        // Not at once: a change of sizes within such a call is an error of the page for the browser.
        new ResizeObserver(() => requestAnimationFrame(() => this.#scale())).observe(host);
    }

    /** Draw the document of `graph` with the states of these tasks (a Map); `selected` is the ID in the file. */
    draw(document, tasks, selected, messages) {
        const input = graphInput(document, { messages });
        this.#direction = this.#host.clientWidth < NARROW ? "TB" : "LR";
        const shape = shapeOf(input, this.#direction);
        if (shape !== this.#shape) {
            this.#shape = shape;
            this.#layout = layOut(this.#dagre, input, {
                direction: this.#direction,
                width: Math.max(320, this.#host.clientWidth),
            });
            this.#build();
        }
        const states = tasks ? byFileId(tasks) : new Map();
        for (const [id, parts] of this.#nodes) this.#update(parts, states.get(id), id === selected);
        this.#rove(selected);
    }

    /** Forget the drawing, so that the next one is laid out again. */
    clear() {
        this.#shape = null;
        this.#host.replaceChildren();
    }

    #build() {
        this.#nodes.clear();
        this.#edges.clear();
        const edges = this.#layout.edges.map(edge => this.#edge(edge));
        const nodes = this.#layout.nodes.map(node => this.#node(node));
        this.#root = svg(
            "svg",
            { viewBox: `0 0 ${this.#layout.width} ${this.#layout.height}`, class: "drawing" },
            svg("defs", {}, ...["rule", "order", "message"].map(kind => marker(kind))),
            svg("g", { "aria-hidden": "true" }, ...edges),
            svg(
                "g",
                {
                    role: "listbox",
                    "aria-label": "Graph of tasks",
                    "aria-orientation": "horizontal",
                    on: { keydown: event => this.#key(event) },
                },
                ...nodes,
            ),
        );
        this.#host.replaceChildren(this.#root);
        this.#scale();
    }

    #node(node) {
        const [x, y] = [node.x - NODE.width / 2, node.y - NODE.height / 2];
        if (!node.task) {
            const shape = { x, y, width: NODE.width, height: NODE.height, rx: NODE.height / 2 };
            const name = svg("text", { x: node.x, y: node.y + 4, "text-anchor": "middle" }, node.id);
            return svg("g", { class: "pseudo", "aria-hidden": "true" }, svg("rect", shape), name);
        }
        const { entry, replicas } = node.task;
        const shown = shortened(replicas === null ? node.id : `${node.id} ×${replicas}`, LETTERS - 3);
        const about = svg("title");
        const box = { class: "box", x, y, width: NODE.width, height: NODE.height, rx: 6 };
        const ring = { class: "entry", x: x - 3, y: y - 3, width: NODE.width + 6, height: NODE.height + 6, rx: 8 };
        const side = `M${x + 6},${y}h-1a5,5 0 0 0 -5,5v${NODE.height - 10}a5,5 0 0 0 5,5h1z`;
        const icon = svg("text", {
            x: x + 17,
            y: y + 28,
            class: "icon",
            "text-anchor": "middle",
            "aria-hidden": "true",
        });
        const sub = svg("text", { x: x + 28, y: y + 36, class: "sub" });
        const on = { click: () => this.#select(node.id), focus: () => this.#focusOn(node.id) };
        const root = svg(
            "g",
            { role: "option", tabindex: "-1", "data-task": node.id, on },
            svg("rect", box, about),
            svg("path", { class: "side", d: side }),
            entry ? svg("rect", ring) : null,
            icon,
            svg("text", { x: x + 28, y: y + 20, class: "name" }, shown),
            sub,
        );
        this.#nodes.set(node.id, { root, about, sub, icon, node, shown });
        return root;
    }

    #edge(edge) {
        const kind = edge.action === "stop" ? `${edge.kind} stops` : edge.kind;
        const width = labelWidth(edge);
        const root = svg(
            "g",
            { class: `edge ${kind} ${edge.trigger ?? ""}`, "data-rule": edge.id },
            svg("title", {}, `${edge.source} – ${edge.words} – ${edge.target}`),
            svg("path", { d: path(edge, this.#direction), "marker-end": `url(#end-${edge.kind})` }),
            svg("rect", { x: edge.label.x - width / 2, y: edge.label.y - 8, width, height: 15, rx: 3 }),
            svg(
                "text",
                { x: edge.label.x, y: edge.label.y + 3.5, "text-anchor": "middle" },
                shortened(edge.words, LABEL),
            ),
        );
        this.#edges.set(edge.id, root);
        return root;
    }

    #update({ root, about, sub, icon, node, shown }, task, selected) {
        const state = task?.state ?? "unknown";
        const short = shortened(task?.sub ?? "does not run");
        setAttribute(root, "class", `task ${state}${selected ? " selected" : ""}`);
        setAttribute(root, "aria-selected", String(selected));
        setText(sub, short);
        setText(icon, ICONS[state] ?? "?");
        const told = task ? stateText(task.state, task.sub) : "does not run";
        setText(about, [node.id, told, node.task.description, task?.status].filter(Boolean).join("\n"));
    }

    #focusOn(id) {
        this.#focused = id;
        this.#rove(id);
    }

    /** Let one node alone be reached by Tab; the arrow keys go on from there. */
    #rove(selected) {
        if (!this.#nodes.has(this.#focused)) this.#focused = null;
        const current = this.#focused ?? (this.#nodes.has(selected) ? selected : this.#nodes.keys().next().value);
        for (const [id, { root }] of this.#nodes) setAttribute(root, "tabindex", id === current ? "0" : "-1");
    }

    #key(event) {
        const id = event.target.closest("[data-task]")?.getAttribute("data-task");
        if (!id) return;
        if (event.key === "Enter" || event.key === " ") {
            event.preventDefault();
            this.#select(id);
            return;
        }
        const next = neighbor(
            this.#layout.nodes.filter(each => each.task),
            id,
            event.key,
        );
        if (!next) return;
        event.preventDefault();
        this.#nodes.get(next).root.focus();
    }

    /** Light the edges of rules that have just fired. */
    light(rules) {
        for (const id of rules) {
            const edge = this.#edges.get(id);
            if (!edge) continue;
            clearTimeout(this.#timers.get(id));
            edge.classList.add("lit");
            this.#timers.set(
                id,
                setTimeout(() => edge.classList.remove("lit"), LIT),
            );
        }
    }

    zoomIn() {
        this.#zoomBy(ZOOM.step);
    }

    zoomOut() {
        this.#zoomBy(1 / ZOOM.step);
    }

    /** Show the whole width again. */
    fit() {
        this.#zoom = null;
        this.#scale();
    }

    #zoomBy(factor) {
        this.#zoom = Math.min(ZOOM.most, Math.max(ZOOM.least, this.#scaleNow() * factor));
        this.#scale();
    }

    /** The scale that shows the whole width, as long as one can read it then. */
    #scaleNow() {
        if (this.#zoom !== null) return this.#zoom;
        const fitting = this.#layout.width ? this.#host.clientWidth / this.#layout.width : 1;
        return Math.min(1, Math.max(ZOOM.readable, fitting));
    }

    #scale() {
        if (!this.#root) return;
        const scale = this.#scaleNow();
        setAttribute(this.#root, "width", Math.floor(this.#layout.width * scale));
        setAttribute(this.#root, "height", Math.ceil(this.#layout.height * scale));
    }
}

/** A sign for each state, because color alone tells nothing to many people. */
export const ICONS = { active: "●", inactive: "○", failed: "✕", activating: "◔", deactivating: "◑" };

function marker(kind) {
    const shape =
        kind === "order" ? svg("circle", { cx: 5, cy: 5, r: 3.5 }) : svg("path", { d: "M0,0L10,5L0,10z" });
    return svg(
        "marker",
        {
            id: `end-${kind}`,
            viewBox: "0 0 10 10",
            refX: 9,
            refY: 5,
            markerWidth: 9,
            markerHeight: 9,
            markerUnits: "userSpaceOnUse",
            orient: "auto-start-reverse",
            class: `end ${kind}`,
        },
        shape,
    );
}
