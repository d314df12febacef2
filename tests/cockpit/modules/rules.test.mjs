import assert from "node:assert/strict";
import { test } from "node:test";
import { firedRules, ruleIndex, ruleText } from "../../../cockpit/rules.js";

const RULES = [
    {
        id: "db:on_fail:restart:api",
        source: "db",
        trigger: "on_fail",
        action: "restart",
        target: "api",
        only: null,
        when: null,
        after: null,
    },
    {
        id: "db:on_fail:stop:api when watchdog after 3 in 60s",
        source: "db",
        trigger: "on_fail",
        action: "stop",
        target: "api",
        only: null,
        when: "watchdog",
        after: "3 in 60s",
    },
    {
        id: "db:on_fail:start:mail:not on-success",
        source: "db",
        trigger: "on_fail",
        action: "start",
        target: "mail",
        only: "not on-success",
        when: null,
        after: null,
    },
    {
        id: ":on_any_fail:start:alarm",
        source: null,
        trigger: "on_any_fail",
        action: "start",
        target: "alarm",
        only: null,
        when: null,
        after: null,
    },
];
const fired = (rule, source, event = "rule") => firedRules(ruleIndex(RULES), { event, detail: { rule, source } });

test("an event names the rule that has fired", () => {
    assert.deepEqual(fired("on_fail:restart:api", "db"), [RULES[0].id]);
    assert.deepEqual(fired("on_fail:stop:api when watchdog after 3 in 60s", "db"), [RULES[1].id]);
    assert.deepEqual(fired("on_fail:start:mail", "db"), [RULES[2].id]);
    assert.deepEqual(fired("on_any_fail:start:alarm", "db"), [RULES[3].id]);
    assert.deepEqual(fired("on_fail:restart:api", "db", "rule-refused"), [RULES[0].id]);
});

test("replicas stand for their task of the file", () => {
    assert.deepEqual(fired("on_fail:restart:api@2", "db@1"), [RULES[0].id]);
    assert.deepEqual(fired("on_fail:stop:api@2 when watchdog after 3 in 60s", "db@13"), [RULES[1].id]);
});

test("an event of another kind, or of a rule that is gone, lights nothing", () => {
    assert.deepEqual(fired("on_fail:restart:api", "db", "started"), []);
    assert.deepEqual(fired("on_fail:restart:other", "db"), []);
    assert.deepEqual(firedRules(ruleIndex(RULES), { event: "rule", detail: null }), []);
});

test("a rule is a sentence with its conditions", () => {
    assert.equal(ruleText(RULES[0]), "on_fail: restart api");
    assert.equal(ruleText(RULES[1]), "on_fail: stop api (when watchdog, after 3 in 60s)");
});
