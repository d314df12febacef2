import assert from "node:assert/strict";
import { test } from "node:test";
import { age, bytes, clock, detailText, endText, percent, span, stateText } from "../../../cockpit/format.js";

test("a time span has its largest unit", () => {
    assert.deepEqual([0, 0.4, 59.9, 60, 3599, 3600, 86399, 86400 * 3].map(span), [
        "0 s",
        "0 s",
        "59 s",
        "1 min",
        "59 min",
        "1 h",
        "23 h",
        "3 d",
    ]);
});

test("a time of the future, as of a machine whose clock is ahead, is now", () => {
    const now = Date.parse("2026-11-30T12:00:00Z");
    assert.equal(age("2026-11-30T12:00:09.000+00:00", now), "0 s");
    assert.equal(age("2026-11-30T11:58:00.000+00:00", now), "2 min");
    assert.equal(age(null, now), "");
    assert.equal(age("soon", now), "");
});

test("a time of day has its date only on another day", () => {
    const noon = new Date(2026, 10, 30, 12, 0, 0, 7);
    assert.equal(clock(noon.toISOString(), noon.getTime()), "12:00:00.007");
    assert.equal(clock(noon.toISOString(), noon.getTime() + 86400_000), "2026-11-30 12:00:00.007");
    assert.equal(clock("soon", 0), "");
});

test("sizes and shares have units, and unknown ones are empty", () => {
    assert.deepEqual([0, 1023, 1024, 1695744, 3 * 2 ** 30, null].map(bytes), [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.6 MiB",
        "3.0 GiB",
        "",
    ]);
    assert.deepEqual([0, 0.032, 2, undefined].map(percent), ["0.0 %", "3.2 %", "200.0 %", ""]);
});

test("a state does not repeat itself", () => {
    assert.equal(stateText("active", "running"), "active (running)");
    assert.equal(stateText("failed", "failed"), "failed");
    assert.equal(stateText(undefined, undefined), "unknown");
});

test("an end has its signal or its status", () => {
    assert.equal(endText({ reason: "signal", signal: "SIGKILL", code: null }), "signal, SIGKILL");
    assert.equal(endText({ reason: "exit-code", signal: null, code: 3 }), "exit-code, status 3");
    assert.equal(endText({ reason: "lost", signal: null, code: null }), "lost");
    assert.equal(endText(null), "");
});

test("details are those of `zmsvcctl events`", () => {
    const sources = [
        { task: "db", trigger: "on_fail" },
        { task: "api", trigger: "on_exit" },
    ];
    assert.equal(
        detailText({ launch: 4, cause: { by: "rule", uid: null, depth: 1, sources } }),
        "launch=4 by=rule after=db:on_fail,api:on_exit",
    );
    assert.equal(
        detailText({ pid: 12, exit_code: null, all: false, for_good: true, waits_for: ["a", "b"] }),
        "pid=12 for_good=yes waits_for=a,b",
    );
    assert.equal(
        detailText({
            ended: [
                { pid: 7, name: "sleep", signal: "SIGKILL" },
                { pid: 8, name: "cat", code: 0 },
            ],
        }),
        "ended=sleep(7):SIGKILL,cat(8):0",
    );
    assert.equal(
        detailText({ update: { celsius: 30, place: { room: "lab" } } }),
        "update=celsius:30,place:room:lab",
    );
    assert.equal(detailText("damaged"), "");
});
