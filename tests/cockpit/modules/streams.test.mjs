import assert from "node:assert/strict";
import { test } from "node:test";
import { Lines, MAX_LINE } from "../../../cockpit/lines.js";
import { Pace, Questions } from "../../../cockpit/questions.js";

test("lines come whole, however the stream is cut", () => {
    const text = '{"seq": 1}\n{"seq": 2}\n\n{"seq": 3}\n';
    for (let size = 1; size <= text.length; size += 1) {
        const lines = new Lines();
        const found = [];
        for (let index = 0; index < text.length; index += size)
            found.push(...lines.push(text.slice(index, index + size)));
        assert.deepEqual(found, ['{"seq": 1}', '{"seq": 2}', "", '{"seq": 3}']);
    }
});

test("a line without an end does not fill the memory, and the next one is read", () => {
    const lines = new Lines();
    for (let count = 0; count < 40; count += 1) assert.deepEqual(lines.push("x".repeat(MAX_LINE / 16)), []);
    assert.deepEqual(lines.push("end\nnext\n"), ["next"]);
    assert.equal(lines.dropped, 1);
    assert.deepEqual(lines.push(`${"y".repeat(MAX_LINE + 1)}\nlast\n`), ["last"]);
    assert.equal(lines.dropped, 2);
});

test("questions are asked one at a time, and a later one of the same name replaces one that waits", async () => {
    const questions = new Questions();
    const asked = [];
    let running = 0;
    let open;
    const ask = (name, wait) =>
        questions.put(name, async () => {
            running += 1;
            assert.equal(running, 1);
            asked.push(name + (wait ? "" : " later"));
            if (wait) await wait;
            running -= 1;
        });
    ask(
        "status",
        new Promise(resolve => {
            open = resolve;
        }),
    );
    for (const name of ["status", "why", "status", "status"]) ask(name);
    assert.deepEqual(asked, ["status"]);
    open();
    await new Promise(resolve => {
        setImmediate(resolve);
    });
    assert.deepEqual(asked, ["status", "why later", "status later"]);
});

test("a question that fails does not keep the next one from being asked", async context => {
    context.mock.method(console, "error", () => {});
    const questions = new Questions();
    const asked = [];
    questions.put("bad", () => Promise.reject(new Error("refused")));
    questions.put("good", async () => asked.push("good"));
    await new Promise(resolve => {
        setImmediate(resolve);
    });
    assert.deepEqual(asked, ["good"]);
});

test("a storm of events asks at once, and then once in a pause", () => {
    let now = 0;
    let timer = null;
    const acts = [];
    const pace = new Pace(() => acts.push(now), 1000, {
        now: () => now,
        set: (act, wait) => {
            assert.equal(timer, null, "one timer at a time");
            timer = { act, at: now + wait };
            return timer;
        },
        clear: () => {
            timer = null;
        },
    });
    for (now = 0; now < 3500; now += 10) {
        pace.request();
        if (timer && timer.at <= now) {
            const { act } = timer;
            timer = null;
            act();
        }
    }
    assert.deepEqual(acts, [0, 1000, 2000, 3000]);
    pace.cancel();
    assert.equal(timer, null);
});
