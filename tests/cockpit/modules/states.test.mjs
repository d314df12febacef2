import assert from "node:assert/strict";
import { test } from "node:test";
import {
    base,
    byFileId,
    chosen,
    counts,
    cpuShares,
    isOpen,
    reduce,
    reshapes,
    transactionsOf,
    usageKey,
} from "../../../cockpit/states.js";

const BEGIN = "2026-11-30T12:00:00.000+00:00";
const at = milliseconds => new Date(Date.parse(BEGIN) + milliseconds).toISOString();

function task(id, state, sub, more = {}) {
    return { id, state, sub, pid: null, launch: 1, since: BEGIN, exit: null, usage: null, ...more };
}

function world(...tasks) {
    return transactionsOf({ transactions: [{ id: "TX", state: "active", opened: BEGIN, tasks }] });
}

function event(name, of, detail = {}, after = 5, transaction = "TX") {
    return { seq: after, at: at(after), transaction, task: of, event: name, detail };
}

function stateAfter(...events) {
    const { state, sub } = reduce(world(task("db", "active", "running")), events)
        .get("TX")
        .tasks.get("db");
    return `${state} ${sub}`;
}

test("each event of a life leads to the state that the supervisor has then", () => {
    const expected = {
        launching: "activating launching",
        started: "active running",
        "back-off": "activating back-off",
        unplaced: "activating unplaced",
        "start-after": "activating start-after",
        "stop-after": "deactivating stop-after",
        stopping: "deactivating stop-sigterm",
        killing: "deactivating stop-sigkill",
        failed: "failed failed",
        lost: "inactive waiting",
        dependency: "inactive waiting",
        reloading: "active reload",
        "reload-finished": "active running",
        "reload-failed": "active running",
    };
    for (const [name, state] of Object.entries(expected)) assert.equal(stateAfter(event(name, "db")), state, name);
    assert.equal(stateAfter(event("stopped", "db", { reason: "exited" })), "inactive exited");
    assert.equal(stateAfter(event("stopped", "db", { reason: "requested" })), "inactive stopped");
});

test("a failure travels: the last event of each task decides", () => {
    const before = world(task("db", "active", "running", { pid: 7 }), task("api", "active", "running", { pid: 8 }));
    const after = reduce(before, [
        event("failed", "db", { pid: 7, reason: "signal", exit_code: null, signal: "SIGKILL" }, 1),
        event("rule", "api", { rule: "on_fail:restart:api", source: "db" }, 1),
        event("stopping", "api", {}, 1),
        event("stopped", "api", { reason: "requested", signal: "SIGTERM" }, 4),
        event("launching", "api", { launch: 9 }, 4),
        event("started", "api", { pid: 10, launch: 9 }, 8),
    ]).get("TX").tasks;
    assert.deepEqual(
        { ...after.get("db") },
        task("db", "failed", "failed", {
            since: at(1),
            exit: { code: null, signal: "SIGKILL", reason: "signal", at: at(1) },
        }),
    );
    assert.equal(after.get("api").pid, 10);
    assert.equal(after.get("api").launch, 9);
    assert.equal(after.get("api").since, at(8));
    assert.equal(before.get("TX").tasks.get("db").state, "active", "the world before is not changed");
});

test("events that tell of no state, of other tasks or of an earlier time change nothing", () => {
    const before = world(task("db", "active", "running"));
    for (const each of [
        event("rule", "db"),
        event("requested", ""),
        event("__proto__", "db"),
        event("toString", "db"),
        event("failed", "web"),
        event("failed", "db", {}, 5, "OTHER"),
        event("failed", "db", {}, -1),
    ])
        assert.equal(reduce(before, [each]).get("TX"), before.get("TX"), each.event);
});

test("events that the answer to status has told of already do no harm when they come again", () => {
    const events = [event("stopping", "db", {}, 1), event("stopped", "db", { reason: "requested" }, 2)];
    const before = world(task("db", "inactive", "stopped", { since: at(2) }));
    assert.equal(reduce(before, events).get("TX").tasks.get("db").state, "inactive");
});

test("a reload changes the graph", () => {
    assert.equal(reshapes([event("started", "db")]), false);
    assert.equal(reshapes([event("started", "db"), event("reloaded", "")]), true);
});

test("the newest open transaction is shown, unless another one is wanted", () => {
    const found = transactionsOf({
        transactions: [
            { id: "A", state: "failed" },
            { id: "B", state: "active" },
            { id: "C", state: "inactive" },
        ],
    });
    assert.equal(chosen(found, null), "B");
    assert.equal(chosen(found, "A"), "A");
    assert.equal(chosen(found, "gone"), "B");
    assert.equal(
        chosen(
            transactionsOf({
                transactions: [
                    { id: "A", state: "inactive" },
                    { id: "C", state: "deactivating" },
                ],
            }),
            null,
        ),
        "C",
    );
    assert.equal(chosen(new Map(), "A"), null);
    assert.equal(isOpen({ state: "inactive", resumes: true }), true);
});

test("a task of the file with replicas has the state of the worst one", () => {
    const { tasks } = world(
        task("w@1", "active", "running"),
        task("w@2", "failed", "failed"),
        task("w@3", "inactive", "waiting"),
        task("db", "active", "running"),
    ).get("TX");
    assert.deepEqual(
        [...byFileId(tasks)].map(([id, each]) => [id, each.id]),
        [
            ["w", "w@2"],
            ["db", "db"],
        ],
    );
    assert.deepEqual(
        [...counts(tasks)],
        [
            ["active", 2],
            ["failed", 1],
            ["inactive", 1],
        ],
    );
    assert.deepEqual(["w@2", "w", "@", "w@"].map(base), ["w", "w", "@", "w"]);
});

test("CPU is what a process has used between two answers, and another process begins at nothing", () => {
    const used = (cpu, launch) =>
        task("db", "active", "running", { launch, usage: { cpu_seconds: cpu, memory_bytes: 1 } });
    const before = { at: 1000, transactions: world(used(1, 1)) };
    const shares = (cpu, launch) => cpuShares(before, { at: 3000, transactions: world(used(cpu, launch)) });
    assert.equal(shares(2, 1).get(usageKey("TX", used(2, 1))), 0.5);
    assert.equal(shares(0.1, 2).size, 0);
    assert.equal(
        shares(0.5, 1).get(usageKey("TX", used(2, 1))),
        0,
        "a clock that goes back gives no negative share",
    );
    assert.equal(cpuShares(null, before).size, 0);
});
