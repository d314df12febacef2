import assert from "node:assert/strict";
import { test } from "node:test";
import { Context } from "../../../cockpit/context.js";
import { joined, stateOf } from "../../../cockpit/contexts.js";
import { matching } from "../../../cockpit/historyview.js";
import { noticesOf } from "../../../cockpit/overview.js";

const BEGIN = Date.parse("2026-11-30T12:00:00Z");
const at = milliseconds => new Date(BEGIN + milliseconds).toISOString();
const settled = () => new Promise(resolve => setTimeout(resolve, 5));

/** A zmsvcctl whose answers a test chooses; `asked` has the calls. */
class FakeCtl {
    asked = [];
    tasks = [
        { id: "db", state: "active", sub: "running", pid: 7, launch: 1, since: at(0), usage: null, exit: null },
    ];
    failure = "";
    gate = null;

    async #answer(name, value) {
        this.asked.push(name);
        if (name === "status") await this.gate;
        if (this.failure) throw new Error(this.failure);
        return value();
    }
    status = () =>
        this.#answer("status", () => ({
            contexts: [{ name: "Shop", pid: 12, transactions: [{ id: "TX", state: "active", tasks: this.tasks }] }],
        }));
    graph = what =>
        this.#answer(`graph ${what}`, () => ({
            tasks: [],
            rules: [{ id: "db:on_fail:start:api", source: "db", only: null }],
            order: [],
            topics: [],
        }));
    why = (_name, run, task) => this.#answer(`why ${run} ${task}`, () => ({ tasks: [] }));
    logs = (_name, run, task) => this.#answer(`logs ${run} ${task}`, () => []);
    events = (_name, _count, give, lose) => {
        this.asked.push("events");
        Object.assign(this, { give, lose });
        return () => this.asked.push("end of events");
    };
}

function begun(context) {
    const ctl = new FakeCtl();
    const calls = [];
    const made = new Context("Shop", ctl, {
        changed: () => calls.push("changed"),
        fired: rules => calls.push(...rules),
        lost: () => calls.push("lost"),
    });
    context.after(() => made.close());
    return { ctl, calls, made };
}

const event = (seq, name, task = "db", detail = {}, after = seq) => ({
    seq,
    at: at(after),
    transaction: "TX",
    task,
    event: name,
    detail,
});
const stateOfDb = made => made.transactions.get("TX")?.tasks.get("db").state;

test("a context is asked once for status and graph, and one process follows its events", async context => {
    const { ctl, made } = begun(context);
    made.open();
    await settled();
    assert.deepEqual(ctl.asked.toSorted?.() ?? [...ctl.asked].sort(), ["events", "graph Shop", "status"]);
    assert.deepEqual([stateOfDb(made), made.run, made.runs, made.follows], ["active", "TX", true, true]);
});

test("an event is drawn before any answer to a question about it", async context => {
    const { ctl, calls, made } = begun(context);
    made.open();
    await settled();
    const asked = ctl.asked.length;
    ctl.give([event(1, "failed"), event(2, "rule", "api", { rule: "on_fail:start:api", source: "db" })]);
    assert.equal(stateOfDb(made), "failed");
    assert.equal(calls.includes("db:on_fail:start:api"), true);
    assert.equal(ctl.asked.length, asked);
});

test("an answer that is older than the events after it does not undo them", async context => {
    const { ctl, made } = begun(context);
    let open;
    ctl.gate = new Promise(resolve => {
        open = resolve;
    });
    made.open();
    await settled();
    ctl.give([event(1, "failed")]);
    open();
    await settled();
    assert.equal(stateOfDb(made), "failed");
});

test("a thousand events ask for the status once", async context => {
    const { ctl, made } = begun(context);
    made.open();
    await settled();
    for (let seq = 1; seq <= 1000; seq += 1) ctl.give([event(seq, seq % 2 ? "stopping" : "started")]);
    await settled();
    assert.equal(ctl.asked.filter(each => each === "status").length, 1);
    assert.equal(made.events.length, 1000);
    ctl.give([event(1001, "stopping")]);
    assert.deepEqual([made.events.length, made.events[0].seq], [1000, 2]);
});

test("events that come again, as after a lost connection, are kept once", async context => {
    const { ctl, made } = begun(context);
    made.open();
    await settled();
    ctl.give([event(1, "launching"), event(2, "started")]);
    ctl.give([event(1, "launching"), event(2, "started"), event(3, "stopping")]);
    assert.deepEqual(
        made.events.map(each => each.seq),
        [1, 2, 3],
    );
});

test("a refused user gets the reason once, without a loop of processes", async context => {
    const { ctl, calls, made } = begun(context);
    ctl.failure = "permission denied";
    made.open();
    await settled();
    ctl.lose("permission denied");
    await settled();
    assert.deepEqual(
        [made.problem, made.runs, made.follows, made.transactions.size],
        ["permission denied", false, false, 0],
    );
    assert.equal(calls.includes("lost"), true);
    const asked = ctl.asked.length;
    await settled();
    assert.equal(ctl.asked.length, asked);
});

test("the selected task is asked about, and an answer about another one is dropped", async context => {
    const { ctl, made } = begun(context);
    made.open();
    await settled();
    assert.equal(made.select(null, "db"), true);
    assert.equal(made.select(null, "db"), false);
    made.select(null, "api");
    await settled();
    assert.equal(ctl.asked.includes("why TX api"), true);
    assert.equal(ctl.asked.includes("logs TX db"), false);
    assert.deepEqual([made.why, made.log], [{ tasks: [] }, { entries: [] }]);
});

test("the graph of a context that does not run is that of its file", async context => {
    const { ctl, made } = begun(context);
    ctl.failure = "no such context";
    made.open();
    made.tell(false, "/etc/zmsvc/Context-Shop.xml");
    await settled();
    assert.equal(ctl.asked.includes("graph /etc/zmsvc/Context-Shop.xml"), true);
});

test("a closed context asks and draws nothing", async context => {
    const { ctl, calls, made } = begun(context);
    made.open();
    await settled();
    made.close();
    const asked = ctl.asked.length;
    calls.length = 0;
    made.refresh();
    await settled();
    assert.deepEqual([ctl.asked.slice(asked).filter(each => each !== "status"), calls], [[], []]);
    assert.equal(ctl.asked.includes("end of events"), true);
});

test("the list has running contexts, units and files, each once", () => {
    const listed = [{ name: "Shop", state: "failed", file: "/srv/shop.xml" }];
    const units = new Map([
        ["Shop", { state: "active" }],
        ["Old", { state: "failed" }],
    ]);
    const found = joined(listed, units, ["Echo", "Shop"]);
    assert.deepEqual([...found.keys()], ["Echo", "Old", "Shop"]);
    assert.deepEqual([...found.values()].map(stateOf), ["inactive", "failed", "failed"]);
    assert.deepEqual(
        [found.get("Shop").file, found.get("Echo").file],
        ["/srv/shop.xml", "/etc/zmsvc/Context-Echo.xml"],
    );
});

test("notices name what is wrong and the way out", () => {
    const notices = (more, known) =>
        noticesOf({ name: "Shop", problem: "", graphError: "", status: null, ...more }, known).map(
            ([text]) => text,
        );
    assert.deepEqual(notices({}, { listens: true }), []);
    assert.match(
        notices({ problem: "no" }, { listens: false, unit: "failed" })[0],
        /its unit has failed.*zmsvc@Shop.service/,
    );
    assert.deepEqual(notices({ problem: "permission denied" }, { listens: true }), ["permission denied"]);
    assert.match(notices({ status: { need_reload: true } })[0], /zmsvcctl -c Shop reload/);
    assert.match(notices({ status: { unsaved: "disk full" } })[0], /disk full/);
    assert.match(
        notices({ status: { restart_needed: true, version: "2", keeper_version: "1" } })[0],
        /2 is installed, and 1 runs/,
    );
});

test("the history is filtered by words and by task, the newest first", () => {
    const events = [
        event(1, "failed"),
        event(2, "rule", "api", { source: "db" }),
        event(3, "started", "web@2", { pid: 9 }),
    ];
    const found = (words, task) => matching(events, words, task).map(each => each.seq);
    assert.deepEqual(
        [found([], null), found(["web", "pid=9"], null), found([], "db"), found([], "web"), found(["no"], null)],
        [[3, 2, 1], [3], [2, 1], [3], []],
    );
});
