"""All four triggers with all three actions, entry actions, and cases without a rule: stopped by the operator,
--no-triggers, another transaction.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from context import Context, Subscriber
from waiting import wait_for

TX = "5HGAHZ3WPZUI71PACRPP"
TRIGGERS = ("on_start", "on_update", "on_fail", "on_exit")
ACTIONS = ("start", "stop", "restart")

ENDS = """
from zmsvc.task import SingleTask, TaskService
class Work(SingleTask):
    def run(self):
        {body}
class Service{name}(TaskService):
    task_class = Work
"""


def services(context: Context) -> None:
    context.looped("Echo")
    context.looped("Updates", "def step(self):\n    self.update(n=1)")
    context.service("Fails", ENDS.format(name="Fails", body="raise RuntimeError('on purpose')"))
    context.service("Ends", ENDS.format(name="Ends", body="pass"))


def test_every_trigger_does_every_action(context: Context) -> None:
    services(context)
    service = {"on_start": "Echo", "on_update": "Updates", "on_fail": "Fails", "on_exit": "Ends"}
    pairs = list(product(TRIGGERS, ACTIONS))
    for trigger, action in pairs:
        name = f"{trigger}-{action}"
        context.task(name, service[trigger], entry=False, rules={trigger: (action, f"{name}-target")})
        context.task(f"{name}-target", "Echo", entry=action != "start")
    context.start("--transaction", TX)
    before = context.tasks()
    context.ask(
        verb="start", transaction=TX, tasks=[f"{trigger}-{action}" for trigger, action in pairs], block=False
    )

    def obeyed(trigger: str, action: str) -> None:
        name = f"{trigger}-{action}-target"
        pid = before[name]["pid"]
        assert (pid is None) == (action == "start")
        task = context.task_is(
            name, "stopped" if action == "stop" else "running", also=lambda task: task["pid"] != pid
        )
        assert task["restarts"] == 0, "it has not failed itself"
        if action == "stop":
            assert (task["exit"]["reason"], task["held"]) == ("requested", False)
        else:
            assert task["cause"]["sources"][-1]["task"] == f"{trigger}-{action}"
            assert task["cause"]["sources"][-1]["trigger"] == trigger

    for trigger, action in pairs:
        obeyed(trigger, action)


def test_a_trigger_fires_the_rules_of_its_own_kind_only(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    services(context)
    rules = {trigger: ("start", f"{trigger}-target") for trigger in TRIGGERS}
    context.task("ends", "Ends", entry=False, rules=rules)
    for trigger in TRIGGERS:
        context.task(f"{trigger}-target", "Echo", entry=False)
    context.start("--transaction", TX)
    listener = subscriber(b"control @@@ ")
    context.ask(verb="start", transaction=TX, tasks=["ends"], block=False)
    # These two come in any order: the first rule fires when the task is ready, the other one when it ends,
    # and each target takes some time.
    awaited = {"on_start-target", "on_exit-target"}

    def all_started(topic: str, body: dict[str, Any]) -> bool:
        if topic == "control" and body["header"]["action"] == "started":
            awaited.discard(body["header"]["service_id"])
        return not awaited

    listener.until(all_started)
    subs = {trigger: context.tasks()[f"{trigger}-target"]["sub"] for trigger in TRIGGERS}
    assert subs == {"on_start": "running", "on_update": "waiting", "on_fail": "waiting", "on_exit": "running"}


@pytest.mark.parametrize("action", ["on_start", "start_now"])
def test_entry_actions_run_with_their_transaction_and_others_wait(context: Context, action: str) -> None:
    services(context)
    context.task("entry", "Echo", entry=action)
    for other in ("on_update", "on_fail", "on_exit", ""):
        context.task(f"waits{other}", "Echo", entry=other)
    context.start("--transaction", TX)
    assert {name: task["sub"] for name, task in context.tasks().items()} == {
        "entry": "running",
        "waitson_update": "waiting",
        "waitson_fail": "waiting",
        "waitson_exit": "waiting",
        "waits": "waiting",
    }


def test_a_rule_stays_in_its_own_transaction(context: Context) -> None:
    services(context)
    context.task("ts_1", "Echo", rules={"on_fail": ("restart", "ts_2")})
    context.task("ts_2", "Echo")
    context.start("--transaction", "A")
    context.ctl("start", "--transaction", "B")
    before = {name: {task: each["pid"] for task, each in context.tasks(name).items()} for name in "AB"}
    os.kill(before["A"]["ts_1"], signal.SIGKILL)
    context.task_is("ts_2", "running", "A", also=lambda task: task["pid"] != before["A"]["ts_2"])
    assert {task: each["pid"] for task, each in context.tasks("B").items()} == before["B"]
    assert all(each["restarts"] == 0 for each in context.tasks("B").values())


def test_a_stop_by_the_operator_beats_every_rule(context: Context) -> None:
    services(context)
    context.task("ts_1", "Echo", rules={"on_exit": ("restart", "ts_1")})
    for trigger, service in (
        ("on_start", "Echo"),
        ("on_update", "Updates"),
        ("on_fail", "Fails"),
        ("on_exit", "Ends"),
    ):
        context.task(trigger, service, entry=False, rules={trigger: ("start", "ts_1")})
    context.start("--transaction", TX)
    context.ctl("stop", "--task", "ts_1")
    for trigger in TRIGGERS:
        context.ask(verb="start", transaction=TX, tasks=[trigger], block=False)

    def refused() -> set[str]:
        events = [
            event
            for event in events_of(context)
            if event["event"] == "rule-refused" and event["task"] == "ts_1"
        ]
        return {event["detail"]["source"] for event in events}

    for trigger, sub in zip(TRIGGERS, ("running", "running", "failed", "exited"), strict=True):
        context.task_is(trigger, sub, also=lambda _task, trigger=trigger: trigger in refused())
    task = context.tasks()["ts_1"]
    assert (task["sub"], task["held"], task["restarts"]) == ("stopped", True, 0)
    context.ctl("start", "--transaction", TX, "--task", "ts_1")
    assert context.tasks()["ts_1"]["held"] is False


@pytest.mark.parametrize("kind", ["Process", "Thread", "Command"])
def test_the_option_restart_starts_a_task_after_the_ends_that_it_names(context: Context, kind: str) -> None:
    context.service("Ends", ENDS.format(name="Ends", body="pass"))
    context.service("Fails", ENDS.format(name="Fails", body="raise RuntimeError('on purpose')"))
    cases = [
        ("Ends", "no", False),
        ("Ends", "on-failure", False),
        ("Ends", "always", True),
        ("Fails", "no", False),
        ("Fails", "on-failure", True),
        ("Fails", "on-abnormal", False),
        ("Fails", "on-watchdog", False),
        ("Fails", "always", True),
    ]
    for instance, restart, _ in cases:
        program = f"<command>/bin/{'true' if instance == 'Ends' else 'false'}</command>"
        context.task(
            f"{instance}-{restart}",
            instance,
            kind=kind,
            config=program if kind == "Command" else "",
            service=f"<restart>{restart}</restart><restart_delay>0</restart_delay>",
        )
    context.start("--transaction", TX)
    for instance, restart, again in cases:
        name = f"{instance}-{restart}"
        if again:
            wait_for(lambda name=name: started_again(context, name))
        else:
            context.task_is(name, "exited" if instance == "Ends" else "failed")
    assert {f"{instance}-{restart}" for instance, restart, again in cases if again} == {
        event["task"] for event in events_of(context) if event["event"] == "rule"
    }


def started_again(context: Context, name: str) -> bool:
    cause = context.tasks()[name]["cause"]
    assert cause["by"] == "rule"
    return bool([source["task"] for source in cause["sources"]] == [name])


def events_of(context: Context) -> list[dict[str, Any]]:
    return [json.loads(line) for line in context.ctl("--json", "events", "-n", "1000").stdout.splitlines()]


def test_no_triggers_fires_none_and_without_it_on_exit_fires(context: Context) -> None:
    services(context)
    context.task("ts_1", "Echo", rules={"on_exit": ("start", "ts_2")})
    context.task("ts_2", "Echo", entry=False)
    context.start("--transaction", TX)
    context.ctl("stop", "--no-triggers", "--task", "ts_1")
    assert context.tasks()["ts_2"]["sub"] == "waiting"
    context.ctl("start", "--transaction", TX, "--task", "ts_1")
    context.ctl("stop", "--task", "ts_1")
    context.task_is("ts_2", "running")


def test_stopping_a_whole_transaction_fires_none(context: Context) -> None:
    services(context)
    context.task("ts_1", "Echo", rules={"on_exit": ("start", "ts_2"), "on_fail": ("start", "ts_2")})
    context.task("ts_2", "Echo", entry=False)
    context.start("--transaction", TX)
    context.ctl("stop", "--transaction", TX)
    assert {name: task["sub"] for name, task in context.tasks().items()} == {
        "ts_1": "stopped",
        "ts_2": "waiting",
    }
