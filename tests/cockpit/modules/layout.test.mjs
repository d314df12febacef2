import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { ANY, NODE, OTHERS, border, graphInput, layOut, neighbor, path, shapeOf } from "../../../cockpit/layout.js";

const task = id => ({
    id,
    name: id,
    instance: id,
    description: "",
    type: "Command",
    entry: true,
    replicas: null,
    state: null,
});
const rule = (source, target, more = {}) => ({
    id: `${source ?? ""}:on_fail:start:${target}`,
    source,
    trigger: "on_fail",
    action: "start",
    target,
    only: null,
    when: null,
    after: null,
    ...more,
});
const graph = (tasks, rules = [], order = [], topics = []) => ({ tasks: tasks.map(task), rules, order, topics });

// A layout that needs no library: each node has its place by its number.
const FAKE = {
    graphlib: {
        Graph: class {
            #nodes = new Map();
            #edges = new Map();
            #label = {};
            setGraph(label) {
                this.#label = label;
            }
            setDefaultEdgeLabel() {}
            setNode(id, label) {
                this.#nodes.set(id, { ...label, x: 200 * this.#nodes.size + 100, y: 100 });
            }
            setEdge(source, target, label, name) {
                this.#edges.set(name, { ...label, source, target });
            }
            node(id) {
                return this.#nodes.get(id);
            }
            edge(source, target, name) {
                const { x: from } = this.node(source);
                const { x: to } = this.node(target);
                return {
                    x: (from + to) / 2,
                    y: 100,
                    points: [
                        { x: from, y: 100 },
                        { x: (from + to) / 2, y: 100 },
                        { x: to, y: 100 },
                    ],
                };
            }
            graph() {
                return { ...this.#label, width: 200 * this.#nodes.size, height: 200 };
            }
            nodes() {
                return [...this.#nodes.keys()];
            }
        },
    },
    layout() {},
};

test("the input has a node for each task and an edge for each rule", () => {
    const { nodes, edges } = graphInput(
        graph(["db", "api"], [rule("db", "api", { after: "3 in 60s", when: "watchdog" })]),
    );
    assert.deepEqual(
        nodes.map(each => each.id),
        ["db", "api"],
    );
    assert.deepEqual(edges, [
        {
            id: "db:on_fail:start:api",
            source: "db",
            target: "api",
            kind: "rule",
            words: "on_fail: start, when watchdog, after 3 in 60s",
            trigger: "on_fail",
            action: "start",
        },
    ]);
});

test("rules of the context begin at a node of their own, and those of no task are left out", () => {
    const { nodes, edges } = graphInput(
        graph(["alarm"], [rule(null, "alarm"), rule("gone", "alarm"), rule("alarm", "gone")]),
    );
    assert.deepEqual(
        nodes.map(each => [each.id, each.task === null]),
        [
            ["alarm", false],
            [ANY, true],
        ],
    );
    assert.deepEqual(
        edges.map(each => [each.source, each.target]),
        [[ANY, "alarm"]],
    );
});

test("order is drawn from the task that waits", () => {
    const { edges } = graphInput(
        graph(
            ["api", "db"],
            [],
            [
                { task: "api", kind: "requires", target: "db" },
                { task: "api", kind: "after", target: "gone" },
            ],
        ),
    );
    assert.deepEqual(
        edges.map(each => [each.source, each.target, each.kind, each.words]),
        [["api", "db", "order", "requires"]],
    );
});

test("messages are drawn on demand, one edge for all topics of a pair", () => {
    const topics = [
        { topic: "heat", senders: [{ task: "db" }], hearers: ["api"] },
        { topic: "cold", senders: [{ task: "db" }], hearers: ["api"] },
        { topic: "odd", senders: [{ task: null }], hearers: [] },
    ];
    const document = graph(["db", "api"], [], [], topics);
    assert.deepEqual(graphInput(document).edges, []);
    const { nodes, edges } = graphInput(document, { messages: true });
    assert.deepEqual(
        edges.map(each => [each.source, each.target, each.words]),
        [
            ["db", "api", "heat, cold"],
            [OTHERS, OTHERS, "odd"],
        ],
    );
    assert.equal(nodes.at(-1).id, OTHERS);
});

test("hostile IDs of a graph do no harm", () => {
    const { nodes, edges } = graphInput(graph(["__proto__", "constructor"], [rule("__proto__", "constructor")]));
    assert.deepEqual(
        nodes.map(each => each.id),
        ["__proto__", "constructor"],
    );
    assert.equal(edges.length, 1);
    assert.equal(layOut(FAKE, { nodes, edges }).nodes.length, 2);
});

test("the same tasks and rules have the same shape, whatever their states are", () => {
    const before = graph(["db", "api"], [rule("db", "api")]);
    const after = { ...before, tasks: before.tasks.map(each => ({ ...each, state: "failed" })) };
    assert.equal(shapeOf(graphInput(before), "LR"), shapeOf(graphInput(after), "LR"));
    assert.notEqual(shapeOf(graphInput(before), "LR"), shapeOf(graphInput(before), "TB"));
    assert.notEqual(shapeOf(graphInput(before), "LR"), shapeOf(graphInput(graph(["db", "api"])), "LR"));
});

test("lines end at the sides of nodes", () => {
    const node = { x: 100, y: 100 };
    assert.deepEqual(border(node, { x: 500, y: 100 }), { x: 100 + NODE.width / 2, y: 100 });
    assert.deepEqual(border(node, { x: 0, y: 110 }), { x: 100 - NODE.width / 2, y: 103 });
    assert.deepEqual(border(node, { x: 100, y: 500 }, true), { x: 100, y: 100 + NODE.height / 2 });
    const {
        edges: [edge],
    } = layOut(FAKE, graphInput(graph(["db", "api"], [rule("db", "api")])));
    assert.deepEqual(
        edge.points.map(each => each.x),
        [100 + NODE.width / 2, 200, 300 - NODE.width / 2],
    );
});

test("an arrow from a task to itself is a loop above it, beside it in a narrow window", () => {
    const input = graphInput(graph(["db"], [rule("db", "db")]));
    const wide = layOut(FAKE, input);
    assert.ok(wide.edges[0].points.every(each => each.y <= wide.nodes[0].y - NODE.height / 2));
    assert.ok(wide.edges[0].label.y > 0 && wide.height > wide.nodes[0].y);
    const narrow = layOut(FAKE, input, { direction: "TB" });
    assert.ok(narrow.edges[0].points.every(each => each.x >= narrow.nodes[0].x + NODE.width / 2));
    assert.match(path(wide.edges[0]), /^M[-\d.,]+C[-\d., ]+$/);
});

test("tasks without an arrow stand in a grid as wide as the window, and none on another one", () => {
    const names = Array.from({ length: 200 }, (_, index) => `t${index}`);
    const { nodes, width } = layOut(FAKE, graphInput(graph(names)), { width: 900 });
    assert.equal(nodes.length, 200);
    assert.ok(
        width <= 900 && nodes.every(each => each.x - NODE.width / 2 >= 0 && each.x + NODE.width / 2 <= width),
    );
    assert.equal(new Set(nodes.map(each => `${each.x} ${each.y}`)).size, 200);
});

test("keys lead to the nearest node in their direction", () => {
    const nodes = [
        { id: "a", x: 0, y: 0 },
        { id: "b", x: 200, y: 10 },
        { id: "c", x: 220, y: 200 },
        { id: "d", x: 0, y: 210 },
    ];
    const from = (id, key) => neighbor(nodes, id, key);
    assert.deepEqual(
        [from("a", "ArrowRight"), from("a", "ArrowDown"), from("c", "ArrowLeft"), from("c", "ArrowUp")],
        ["b", "d", "d", "b"],
    );
    assert.deepEqual(
        [from("a", "ArrowLeft"), from("a", "x"), from("gone", "ArrowUp"), from("b", "Home"), from("b", "End")],
        [null, null, null, "a", "d"],
    );
});

const DAGRE = new URL("../../../cockpit/node_modules/@dagrejs/dagre/dist/dagre.esm.js", import.meta.url);
test(
    "dagre places connected tasks side by side",
    { skip: existsSync(DAGRE) ? false : "npm has not installed dagre" },
    async () => {
        const dagre = await import(DAGRE);
        const names = Array.from({ length: 200 }, (_, index) => `t${index}`);
        const rules = names.slice(1).map((id, index) => rule(names[index - (index % 7)], id));
        const began = performance.now();
        const { nodes, edges, width, height } = layOut(
            dagre,
            graphInput(graph(names, [...rules, rule("t3", "t3"), rule(null, "t9")])),
        );
        assert.ok(performance.now() - began < 10_000);
        assert.equal(nodes.length, 201);
        assert.equal(edges.length, 201);
        for (const { x, y } of nodes) assert.ok(x > 0 && x < width && y > 0 && y < height);
        for (const one of nodes)
            for (const other of nodes)
                assert.ok(
                    one === other ||
                        Math.abs(one.x - other.x) >= NODE.width ||
                        Math.abs(one.y - other.y) >= NODE.height,
                    `${one.id} lies on ${other.id}`,
                );
    },
);
