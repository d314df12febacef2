// What an event of the history says about a task. The page draws this at once; the answer to `status`, which
// the page asks for after each burst of events, has the last word. Pure.

// EVENT: the fields that it sets, from its details. An event that is not here changes no state.
const EFFECTS = {
    launching: detail => ({ state: "activating", sub: "launching", pid: null, launch: detail.launch }),
    started: detail => ({ state: "active", sub: "running", pid: detail.pid ?? null }),
    "back-off": () => ({ state: "activating", sub: "back-off", pid: null }),
    "start-after": () => ({ state: "activating", sub: "start-after", pid: null }),
    unplaced: detail => ({ state: "activating", sub: "unplaced", pid: null, status: detail.message ?? "" }),
    "stop-after": () => ({ state: "deactivating", sub: "stop-after" }),
    stopping: () => ({ state: "deactivating", sub: "stop-sigterm" }),
    killing: () => ({ state: "deactivating", sub: "stop-sigkill" }),
    stopped: (detail, at) => ({
        state: "inactive",
        sub: detail.reason === "exited" ? "exited" : "stopped",
        pid: null,
        exit: end(detail, at),
    }),
    failed: (detail, at) => ({ state: "failed", sub: "failed", pid: null, exit: end(detail, at) }),
    lost: (_detail, at) => ({
        state: "inactive",
        sub: "waiting",
        pid: null,
        exit: { code: null, signal: null, reason: "lost", at },
    }),
    dependency: detail => ({ state: "inactive", sub: "waiting", pid: null, status: detail.message ?? "" }),
    reloading: () => ({ state: "active", sub: "reload" }),
    "reload-finished": () => ({ state: "active", sub: "running" }),
    "reload-failed": () => ({ state: "active", sub: "running" }),
    unhealthy: detail => ({ health: "unhealthy", health_text: detail.message ?? "" }),
    healthy: detail => ({ health: "healthy", health_text: detail.message ?? "" }),
    adopted: detail => ({ pid: detail.pid ?? null }),
    "main-process": detail => ({ pid: detail.pid ?? null }),
};

/** Events that change which tasks and rules there are. */
const RESHAPING = new Set(["reloaded"]);

function end(detail, at) {
    return { code: detail.exit_code ?? null, signal: detail.signal ?? null, reason: detail.reason ?? "", at };
}

/** Return the transactions of a context in the answer to `status`: a Map of IDs to
 * `{id, state, opened, tasks: Map of IDs to tasks}`, in their order. */
export function transactionsOf(context) {
    const found = new Map();
    for (const each of context.transactions ?? [])
        found.set(each.id, { ...each, tasks: new Map((each.tasks ?? []).map(task => [task.id, task])) });
    return found;
}

/** Return the transactions after these events. Those that do not change stay the same objects. */
export function reduce(transactions, events) {
    const found = new Map(transactions);
    const own = new Set();
    for (const event of events) {
        const effect = Object.hasOwn(EFFECTS, event.event) ? EFFECTS[event.event] : null;
        const task = found.get(event.transaction)?.tasks.get(event.task);
        if (!effect || !task || isOlder(event.at, task.since)) continue;
        if (!own.has(event.transaction)) {
            const before = found.get(event.transaction);
            found.set(event.transaction, { ...before, tasks: new Map(before.tasks) });
            own.add(event.transaction);
        }
        const changes = effect(event.detail ?? {}, event.at);
        if ("state" in changes && changes.state !== task.state) changes.since = event.at;
        found.get(event.transaction).tasks.set(event.task, { ...task, ...changes });
    }
    return found;
}

/** Return true for an event of a time that the answer to `status` has already told of. */
function isOlder(at, since) {
    return Boolean(since) && Date.parse(at) < Date.parse(since);
}

/** Return true if the events can have changed which tasks and rules there are. */
export function reshapes(events) {
    return events.some(each => RESHAPING.has(each.event));
}

/** Return true for a transaction that goes on: an order has not stopped it, as its tasks show. */
export function isOpen(transaction) {
    return ["active", "activating", "failed"].includes(transaction.state) || transaction.resumes === true;
}

/** Return the ID of the transaction to show: the wanted one, else the newest that is open, else the newest. */
export function chosen(transactions, wanted) {
    if (wanted && transactions.has(wanted)) return wanted;
    const all = [...transactions.values()];
    return (all.filter(isOpen).pop() ?? all.pop())?.id ?? null;
}

const WORST_FIRST = ["failed", "deactivating", "activating", "inactive", "active"];

/** Return the task of the file that a running task belongs to: `api` for its replica `api@2`. */
export function base(id) {
    const at = id.lastIndexOf("@");
    return at > 0 ? id.slice(0, at) : id;
}

/** Return the tasks of a transaction by the IDs in the file; of replicas the one in the worst state. */
export function byFileId(tasks) {
    const found = new Map();
    for (const task of tasks.values()) {
        const before = found.get(base(task.id));
        if (!before || WORST_FIRST.indexOf(task.state) < WORST_FIRST.indexOf(before.state))
            found.set(base(task.id), task);
    }
    return found;
}

const STATES = ["active", "activating", "deactivating", "failed", "inactive"];

/** Return how many tasks are in each state, as a Map without zeros. */
export function counts(tasks) {
    const found = new Map(STATES.map(each => [each, 0]));
    for (const { state } of tasks.values()) found.set(state, (found.get(state) ?? 0) + 1);
    return new Map([...found].filter(([, count]) => count));
}

/** Return the share of one CPU that each task has used since the last answer, by `TRANSACTION TASK LAUNCH`.
 * `before` and `after` are `{at: milliseconds, transactions}`. */
export function cpuShares(before, after) {
    const shares = new Map();
    const seconds = before ? (after.at - before.at) / 1000 : 0;
    if (seconds <= 0) return shares;
    for (const [name, { tasks }] of after.transactions) {
        for (const task of tasks.values()) {
            const old = before.transactions.get(name)?.tasks.get(task.id);
            if (!old?.usage || !task.usage || old.launch !== task.launch) continue;
            const used = Math.max(0, task.usage.cpu_seconds - old.usage.cpu_seconds);
            shares.set(usageKey(name, task), used / seconds);
        }
    }
    return shares;
}

/** Return the key of a task in `cpuShares`. */
export function usageKey(transaction, task) {
    return `${transaction} ${task.id} ${task.launch}`;
}
