// Where the tasks and the arrows of the graph are. dagre computes the places of connected tasks; tasks without an
// arrow stand in a grid below, and an arrow from a task to itself is a loop above it. Pure: nothing is drawn here.

export const NODE = { width: 152, height: 46 };
/** The room that a loop needs beside its node: above it, or at its right if ranks go down. */
const LOOP = { above: 32, beside: 120, width: 40 };
const GAP = { node: 16, rank: 26, edge: 12 };
const MARGIN = 14;
/** The width of a letter of a label. */
export const LETTER = 6;
/** The label of the widest edge, in letters. A longer one is shortened. */
export const LABEL = 34;

/** The node from which the rules of the context lead. It cannot be the ID of a task, which has no blank. */
export const ANY = "any task";
/** The node of the clients of the bus that are no tasks. */
export const OTHERS = "other clients";

/**
 * Return the nodes and edges of the document of `zmsvcctl --json graph`: nodes `{id, task}`, whose `task` is null for
 * ANY and OTHERS; edges `{id, source, target, kind, words, trigger, action}`. `kind` is `rule`, `order` or `message`;
 * the ID of a rule's edge is that of the rule.
 */
export function graphInput(graph, { messages = false } = {}) {
    const nodes = new Map(graph.tasks.map(task => [task.id, { id: task.id, task }]));
    const edges = [
        ...ruleEdges(graph, nodes),
        ...orderEdges(graph, nodes),
        ...(messages ? messageEdges(graph, nodes) : []),
    ];
    return { nodes: [...nodes.values()], edges };
}

function ruleEdges(graph, nodes) {
    const rules = graph.rules.filter(
        rule => nodes.has(rule.target) && (rule.source === null || nodes.has(rule.source)),
    );
    if (rules.some(rule => rule.source === null)) nodes.set(ANY, { id: ANY, task: null });
    return rules.map(rule => ({
        id: rule.id,
        source: rule.source ?? ANY,
        target: rule.target,
        kind: "rule",
        words: [
            `${rule.trigger}: ${rule.action}`,
            ...(rule.only ? [rule.only] : []),
            ...(rule.when ? [`when ${rule.when}`] : []),
            ...(rule.after ? [`after ${rule.after}`] : []),
        ].join(", "),
        trigger: rule.trigger,
        action: rule.action,
    }));
}

function orderEdges(graph, nodes) {
    return graph.order
        .filter(each => nodes.has(each.task) && nodes.has(each.target))
        .map(each => ({
            id: `${each.task}:${each.kind}:${each.target}`,
            source: each.task,
            target: each.target,
            kind: "order",
            words: each.kind,
            trigger: null,
            action: null,
        }));
}

/** Return one edge for each pair of sender and hearer, with the names of their topics. */
function messageEdges(graph, nodes) {
    const pairs = new Map();
    for (const topic of graph.topics) {
        const senders = topic.senders.map(each => (nodes.get(each.task)?.task ? each.task : OTHERS));
        const hearers = topic.hearers.map(each => (nodes.get(each)?.task ? each : OTHERS));
        for (const source of new Set(senders.length ? senders : [OTHERS]))
            for (const target of new Set(hearers.length ? hearers : [OTHERS])) {
                if (source === OTHERS || target === OTHERS) nodes.set(OTHERS, { id: OTHERS, task: null });
                const key = JSON.stringify([source, target]);
                pairs.set(key, { source, target, topics: [...(pairs.get(key)?.topics ?? []), topic.topic] });
            }
    }
    return [...pairs.values()].map(({ source, target, topics }) => ({
        id: `${source}:message:${target}`,
        source,
        target,
        kind: "message",
        words: topics.join(", "),
        trigger: null,
        action: null,
    }));
}

/** Return a text that is equal for two inputs if and only if they have the same layout. */
export function shapeOf(input, options) {
    return JSON.stringify([
        options,
        input.nodes.map(each => each.id),
        input.edges.map(each => [each.id, each.source, each.target, each.words]),
    ]);
}

/**
 * Return `{width, height, nodes: [{id, task, x, y}], edges: [{..., points, label: {x, y}}]}` with the centers of nodes.
 * `direction` is LR or TB; `width` is that of the window, in which the grid has to fit.
 */
export function layOut(dagre, input, { direction = "LR", width = 900 } = {}) {
    const loops = new Map();
    for (const edge of input.edges)
        if (edge.source === edge.target) loops.set(edge.source, [...(loops.get(edge.source) ?? []), edge]);
    const connected = new Set(
        input.edges.filter(each => each.source !== each.target).flatMap(each => [each.source, each.target]),
    );
    const drawn = withDagre(dagre, input, connected, loops, direction);
    const alone = input.nodes.filter(each => !connected.has(each.id));
    return inGrid(drawn, alone, loops, Math.max(width, drawn.width), direction === "TB");
}

/** Return the room of a node with its loops. */
function room(loops, id, down) {
    const count = loops.get(id)?.length ?? 0;
    return {
        width: NODE.width + (down && count ? LOOP.beside : 0),
        height: down ? Math.max(NODE.height, count * 18) : NODE.height + count * LOOP.above,
    };
}

function withDagre(dagre, input, connected, loops, direction) {
    if (!connected.size) return { width: 0, height: 0, nodes: [], edges: [] };
    const down = direction === "TB";
    const graph = new dagre.graphlib.Graph({ multigraph: true });
    graph.setGraph({
        rankdir: direction,
        nodesep: GAP.node,
        ranksep: GAP.rank,
        edgesep: GAP.edge,
        marginx: MARGIN,
        marginy: MARGIN,
    });
    graph.setDefaultEdgeLabel(() => ({}));
    const lines = input.edges.filter(each => each.source !== each.target);
    for (const { id } of input.nodes) if (connected.has(id)) graph.setNode(id, room(loops, id, down));
    for (const edge of lines)
        graph.setEdge(edge.source, edge.target, { width: labelWidth(edge), height: 16, labelpos: "c" }, edge.id);
    dagre.layout(graph);
    const placed = input.nodes
        .filter(each => connected.has(each.id))
        .map(node => {
            // The loops are above the node, or at its right: the node has the rest of the room.
            const { x, y, width, height } = graph.node(node.id);
            return { ...node, x: x - (width - NODE.width) / 2, y: down ? y : y + (height - NODE.height) / 2 };
        });
    const places = new Map(placed.map(each => [each.id, each]));
    const edges = lines.map(edge => {
        const { points, x, y } = graph.edge(edge.source, edge.target, edge.id);
        const inner = points.slice(1, -1);
        const first = border(places.get(edge.source), inner[0], down);
        const last = border(places.get(edge.target), inner[inner.length - 1], down);
        return { ...edge, points: [first, ...inner, last], label: { x, y } };
    });
    const { width, height } = graph.graph();
    return {
        width,
        height,
        nodes: placed,
        edges: [...edges, ...placed.flatMap(node => loopsOf(node, loops, down))],
    };
}

/** Return the width of the label of an edge. */
export function labelWidth(edge) {
    return Math.min(edge.words.length, LABEL) * LETTER + 8;
}

/**
 * Return the point at which a line to `to` leaves a node: in the middle of a side, or a bit towards `to`, so that
 * several lines do not lie on each other. The ends of dagre's lines are at the border of the room with the loops.
 */
export function border(node, to, down = false) {
    const some = (distance, most) => Math.max(-most, Math.min(most, distance * 0.3));
    return down
        ? {
              x: node.x + some(to.x - node.x, NODE.width / 2 - 16),
              y: node.y + (Math.sign(to.y - node.y) * NODE.height) / 2,
          }
        : {
              x: node.x + (Math.sign(to.x - node.x) * NODE.width) / 2,
              y: node.y + some(to.y - node.y, NODE.height / 2 - 8),
          };
}

function loopsOf(node, loops, down) {
    return (loops.get(node.id) ?? []).map((edge, index, all) => {
        if (down) {
            const side = node.x + NODE.width / 2;
            const middle = node.y + (index - (all.length - 1) / 2) * 18;
            const points = [
                [0, -5],
                [24, -12],
                [24, 12],
                [0, 5],
            ].map(([right, low]) => ({ x: side + right, y: middle + low }));
            return { ...edge, loop: true, points, label: { x: side + 20 + labelWidth(edge) / 2, y: middle } };
        }
        const top = node.y - NODE.height / 2;
        const half = LOOP.width / 2 + index * 14;
        const up = LOOP.above * (index + 1) - 10;
        const points = [
            [-half, 0],
            [-half, -up],
            [half, -up],
            [half, 0],
        ].map(([right, low]) => ({ x: node.x + right, y: top + low }));
        return { ...edge, loop: true, points, label: { x: node.x, y: top - up - 2 } };
    });
}

function inGrid(drawn, alone, loops, width, down) {
    const rooms = new Map(alone.map(each => [each.id, room(loops, each.id, down)]));
    const wide = Math.max(NODE.width, ...alone.map(each => rooms.get(each.id).width));
    const columns = Math.max(1, Math.floor((width - 2 * MARGIN + GAP.node) / (wide + GAP.node)));
    let top = drawn.height ? drawn.height + GAP.node : MARGIN;
    const nodes = [];
    for (let index = 0; index < alone.length; index += columns) {
        const row = alone.slice(index, index + columns);
        const height = Math.max(...row.map(each => rooms.get(each.id).height));
        row.forEach((node, column) => {
            nodes.push({
                ...node,
                x: MARGIN + column * (wide + GAP.node) + NODE.width / 2,
                y: top + height - NODE.height / 2,
            });
        });
        top += height + GAP.node;
    }
    const used = Math.min(columns, alone.length) * (wide + GAP.node) - GAP.node + 2 * MARGIN;
    return {
        width: Math.max(drawn.width, alone.length ? used : 0),
        height: alone.length ? top - GAP.node + MARGIN : drawn.height,
        nodes: [...drawn.nodes, ...nodes],
        edges: [...drawn.edges, ...nodes.flatMap(node => loopsOf(node, loops, down))],
    };
}

/**
 * Return the attribute `d` of a smooth line through the points, which at each of them runs along the ranks; of a loop,
 * one curve.
 */
export function path({ points, loop = false }, direction = "LR") {
    const at = ({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`;
    if (loop) return `M${at(points[0])}C${points.slice(1).map(at).join(" ")}`;
    let text = `M${at(points[0])}`;
    for (let index = 1; index < points.length; index += 1) {
        const [from, to] = [points[index - 1], points[index]];
        const [x, y] = [(from.x + to.x) / 2, (from.y + to.y) / 2];
        const bends =
            direction === "LR"
                ? [
                      { x, y: from.y },
                      { x, y: to.y },
                  ]
                : [
                      { x: from.x, y },
                      { x: to.x, y },
                  ];
        text += `C${[...bends, to].map(at).join(" ")}`;
    }
    return text;
}

const DIRECTIONS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

/** Return the ID of the node to which a key leads from `id`: the nearest in that direction, or the first or the last
 * one. Null if the key means nothing here, or nothing is there. */
export function neighbor(nodes, id, key) {
    if (key === "Home") return nodes[0]?.id ?? null;
    if (key === "End") return nodes[nodes.length - 1]?.id ?? null;
    const from = nodes.find(each => each.id === id);
    if (!from || !(key in DIRECTIONS)) return null;
    const [right, down] = DIRECTIONS[key];
    let best = null;
    for (const node of nodes) {
        const ahead = (node.x - from.x) * right + (node.y - from.y) * down;
        const aside = Math.abs((node.x - from.x) * down) + Math.abs((node.y - from.y) * right);
        if (ahead <= 0) continue;
        const distance = ahead + 2 * aside;
        if (!best || distance < best.distance) best = { id: node.id, distance };
    }
    return best?.id ?? null;
}
