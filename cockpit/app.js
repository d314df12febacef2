// The page: it chooses a context by the place that the browser shows, gives orders, and has the views draw.
import * as dagre from "./dagre.js";
import { drawCheck } from "./checkview.js";
import { Context } from "./context.js";
import { Contexts } from "./contexts.js";
import { Details } from "./details.js";
import { byId, element, setAttribute, setText } from "./dom.js";
import { GraphView } from "./graphview.js";
import { HistoryView } from "./historyview.js";
import { drawContexts, drawNotices, drawOverview } from "./overview.js";
import { base, byFileId, usageKey } from "./states.js";
import { TableView } from "./tableview.js";
import { followStyle } from "./theme.js";
import { FILES } from "./units.js";
import * as zmsvcctl from "./zmsvcctl.js";

/** Milliseconds between two samples of CPU and memory, which no event announces. Only of a page that is visible. */
const SAMPLE = 5000;

class Page {
    #contexts = new Contexts(zmsvcctl, () => this.#listed());
    #context = null;
    #run = null;
    #busy = null;
    #frame = null;
    #graph = new GraphView(byId("graph"), dagre, id => this.#select(id));
    #table = new TableView(byId("tasks"), { select: id => this.#select(id), redraw: () => this.#draw() });
    #history = new HistoryView(byId("history"), byId("history-note"));
    #details = new Details(byId("details"), {
        order: (verb, more) => this.#order(verb, this.#context.run, this.#context.task, more),
        close: () => this.#select(null),
    });

    start() {
        for (const id of ["task-filter", "history-filter", "history-task", "messages"])
            byId(id).addEventListener("input", () => this.#draw());
        byId("refresh").addEventListener("click", () => this.#refresh());
        byId("check").addEventListener("click", () => this.#check());
        byId("transaction").addEventListener("change", event =>
            this.#go(this.#context.name, null, event.target.value),
        );
        byId("zoom-in").addEventListener("click", () => this.#graph.zoomIn());
        byId("zoom-out").addEventListener("click", () => this.#graph.zoomOut());
        byId("zoom-fit").addEventListener("click", () => this.#graph.fit());
        cockpit.addEventListener("locationchanged", () => this.#arrive());
        document.addEventListener("visibilitychange", () => !document.hidden && this.#refresh());
        document.addEventListener(
            "keydown",
            event => event.key === "Escape" && this.#context?.task && this.#select(null),
        );
        addEventListener("resize", () => this.#draw());
        setInterval(() => !document.hidden && this.#context?.follows && this.#context.refresh(), SAMPLE);
        this.#arrive();
        this.#contexts.refresh();
    }

    #refresh() {
        this.#contexts.refresh();
        this.#context?.askGraph();
        this.#context?.refresh();
    }

    #listed() {
        const { all } = this.#contexts;
        if (!this.#context && all.size) {
            const first = [...all.values()].find(each => each.listens) ?? all.values().next().value;
            cockpit.location.replace([first.name]);
        }
        const known = all.get(this.#context?.name);
        if (known) this.#context.tell(known.listens, known.file);
        this.#draw();
    }

    // --- places: #/CONTEXT/TASK?transaction=ID

    #go(name, task, run) {
        cockpit.location.go([name, task].filter(Boolean), run ? { transaction: run } : {});
    }

    #select(task) {
        this.#go(this.#context.name, task, this.#run);
    }

    #arrive() {
        const [name = null, task = null] = cockpit.location.path;
        this.#run = cockpit.location.options.transaction ?? null;
        if (name !== (this.#context?.name ?? null)) this.#open(name);
        if (this.#context?.select(this.#run, task) && task) this.#reveal();
        this.#draw();
    }

    /** In a narrow window the selected task is below the graph, perhaps out of sight. */
    #reveal() {
        requestAnimationFrame(() => byId("details").scrollIntoView({ block: "nearest" }));
    }

    #open(name) {
        this.#context?.close();
        this.#graph.clear();
        byId("check-result").replaceChildren();
        byId("alerts").replaceChildren();
        this.#context = null;
        if (!name) return;
        const context = new Context(name, zmsvcctl, {
            changed: () => this.#draw(),
            fired: rules => this.#graph.light(rules),
            lost: () => this.#contexts.refresh(),
        });
        this.#context = context;
        context.open();
        const known = this.#contexts.all?.get(name);
        if (known) context.tell(known.listens, known.file);
    }

    // --- orders

    async #order(verb, run, task, more = []) {
        if (this.#busy !== null) return;
        const context = this.#context;
        this.#busy = verb;
        byId("alerts").replaceChildren();
        this.#draw();
        try {
            const answer = await zmsvcctl.order(context.name, verb, run, task, more);
            if (run === null && answer.transaction) this.#go(context.name, context.task, answer.transaction);
        } catch (error) {
            this.#alert(error.message);
        }
        this.#busy = null;
        context.refresh();
        this.#draw();
    }

    #alert(text) {
        const close = () => byId("alerts").replaceChildren();
        const button = { type: "button", class: "plain", "aria-label": "Close the message", on: { click: close } };
        const parts = [element("span", {}, text), element("button", button, "✕")];
        byId("alerts").replaceChildren(element("div", { class: "alert bad" }, ...parts));
    }

    async #check() {
        const host = byId("check-result");
        setAttribute(byId("check"), "aria-busy", "true");
        try {
            const answer = await zmsvcctl.check(this.#file());
            const files = new Set(answer.files[0].problems.filter(each => each.line).map(each => each.file));
            drawCheck(host, answer, new Map(await Promise.all([...files].map(linesOf))));
        } catch (error) {
            host.replaceChildren(element("p", { class: "bad" }, error.message));
        }
        setAttribute(byId("check"), "aria-busy", null);
    }

    #file() {
        return this.#context.status?.file ?? this.#contexts.fileOf(this.#context.name);
    }

    // --- drawing: at most once in a frame

    #draw() {
        this.#frame ??= requestAnimationFrame(() => {
            this.#frame = null;
            this.#drawNow();
        });
    }

    #drawNow() {
        const { all, error } = this.#contexts;
        const context = this.#context;
        if (all) drawContexts(all, context?.name, name => this.#go(name, null, null));
        const none = `There is no context: no file ${FILES}/Context-NAME.xml, and none runs.`;
        setText(byId("empty"), all && !context ? error || none : "");
        setAttribute(byId("empty"), "hidden", !all || context !== null);
        setAttribute(byId("content"), "hidden", !context || (!context.status && !context.graph));
        if (!context) return;
        const known = all?.get(context.name);
        drawNotices(context, known, () => cockpit.jump(`/system/services#/zmsvc@${context.name}.service`));
        this.#drawContext(context, Date.now());
    }

    #drawContext(context, now) {
        const order = verb =>
            this.#order(verb === "new" ? "start" : verb, verb === "new" ? null : context.run, null);
        drawOverview(context, this.#busy, order, now);
        const tasks = context.transactions.get(context.run)?.tasks ?? new Map();
        const graph = context.graph ?? graphOf(tasks);
        setAttribute(byId("messages-field"), "hidden", !graph.topics.length);
        this.#graph.draw(graph, tasks, context.task && base(context.task), byId("messages").checked);
        this.#table.draw(context, tasks, words("task-filter"), now);
        this.#history.draw(
            context.events,
            words("history-filter"),
            byId("history-task").checked ? context.task : null,
            now,
        );
        setText(byId("file-name"), this.#file());
        setAttribute(byId("details"), "hidden", !context.task);
        setAttribute(byId("content"), "class", context.task ? "grid beside" : "grid");
        if (context.task) this.#details.draw(this.#about(context, graph, tasks, now));
    }

    /** Return all that is shown of the selected task. */
    #about({ task: id, run, shares, why, log }, graph, tasks, now) {
        const task = tasks.get(id) ?? byFileId(tasks).get(id) ?? null;
        const written = graph.tasks.find(each => each.id === base(id));
        const kind = written ? `${written.type} ${written.instance}`.trim() : "";
        return {
            id,
            base: base(id),
            task,
            graph,
            why,
            log,
            now,
            busy: this.#busy,
            replicas: [...tasks.keys()].filter(each => each !== id && base(each) === id).length,
            cpu: task ? shares.get(usageKey(run, task)) : undefined,
            description: [task?.description ?? written?.description, kind].filter(Boolean).join(" – "),
        };
    }
}

/** Return a graph of tasks without rules, for a file that cannot be read. */
function graphOf(tasks) {
    const written = each => ({ ...each, id: base(each.id), type: "", replicas: null });
    return { tasks: [...byFileId(tasks).values()].map(written), rules: [], order: [], topics: [] };
}

/** Return a file with its lines, of which there are none if this user may not read it. */
async function linesOf(file) {
    const text = await cockpit
        .file(file)
        .read()
        .catch(() => null);
    return [file, (text ?? "").split("\n")];
}

function words(id) {
    return byId(id).value.toLowerCase().split(/\s+/).filter(Boolean);
}

followStyle();
new Page().start();
