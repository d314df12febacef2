"""`disable` and `enable`: a task that does not start with its transaction, also after an exit."""

from __future__ import annotations

import json

from context import Context


def disabled(context: Context) -> None:
    """Start a context of two tasks, and disable the second one."""
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.task("ts_2", "Echo")
    context.task("ts_3", "Echo", entry=False)
    context.start("--transaction", "T")
    told = context.ctl("disable", "ts_2").stdout
    assert told == "ts_2: disabled; it goes on running (zmsvcctl -c Live stop ts_2)\n"
    assert context.ctl("disable", "ts_2").stdout.startswith("ts_2: already disabled")


def test_a_disabled_task_is_not_started_by_the_next_start_of_the_context(context: Context) -> None:
    disabled(context)
    assert context.task_is("ts_2", "running")["disabled"] is True
    assert context.stop() == 0
    past = context.ctl("--json", "status", check=3).stdout
    tasks = json.loads(past)["contexts"][0]["transactions"][0]["tasks"]
    assert [each["disabled"] for each in tasks] == [False, True, False]
    context.start()
    assert (context.task_is("ts_1", "running")["disabled"], context.tasks()["ts_2"]["sub"]) == (
        False,
        "stopped",
    )
    shown = context.ctl("status").stdout
    assert "Disabled: it does not start with its transaction; rules and orders may start it" in shown
    states = context.ctl("show", "--value", "-p", "UnitFileState", "ts_1", "ts_2", "ts_3").stdout
    assert states.split() == ["enabled", "disabled", "static"]
    context.ctl("start", "--transaction", "T", "ts_2")
    context.task_is("ts_2", "running")


def test_is_enabled_ends_as_that_of_systemctl_does(context: Context) -> None:
    disabled(context)
    assert context.ctl("is-enabled", "ts_1").stdout == "enabled\n"
    assert context.ctl("is-enabled", "ts_2", check=1).stdout == "disabled\n"
    assert context.ctl("is-enabled", "ts_2", "ts_3").stdout == "disabled\nstatic\n"
    unknown = context.ctl("is-enabled", "ts_9", check=4)
    assert (unknown.stdout, "no such task" in unknown.stderr) == ("not-found\n", True)
    context.ctl("exit")
    assert context.wait() == 0
    assert context.ctl("is-enabled", "--quiet", "ts_2", check=1).stdout == ""


def test_now_stops_what_is_disabled_and_starts_what_is_enabled(context: Context) -> None:
    disabled(context)
    told = context.ctl("disable", "--now", "ts_1", "ts_2").stdout.splitlines()
    assert told[:2] == ["ts_1: disabled", "ts_2: already disabled"]
    assert [line.partition(" (")[0] for line in told[2:]] == ["T/ts_1: inactive", "T/ts_2: inactive"]
    assert json.loads(context.ctl("--json", "disable", "--now", "ts_1").stdout)["now"] == {"tasks": []}
    done = json.loads(context.ctl("--json", "enable", "--now", "ts_1", "ts_2").stdout)
    assert [(each["id"], each["disabled"]) for each in done["tasks"]] == [("ts_1", False), ("ts_2", False)]
    assert [(each["id"], each["sub"]) for each in done["now"]["tasks"]] == [
        ("ts_1", "running"),
        ("ts_2", "running"),
    ]
    assert "ts_3" not in context.ctl("enable", "--now", "ts_1").stdout


def test_an_enabled_task_starts_with_the_next_transaction(context: Context) -> None:
    disabled(context)
    context.ctl("start", "--transaction", "T2")
    assert context.tasks("T2")["ts_2"]["sub"] == "waiting"
    assert context.ctl("enable", "ts_2").stdout == "ts_2: enabled\n"
    context.ctl("start", "--transaction", "T3")
    assert context.tasks("T3")["ts_2"]["sub"] == "running"
    events = context.ctl("events", "ts_2").stdout
    assert "disabled" in events
    assert "enabled" in events


def test_the_name_of_a_context_is_answered_with_the_command_of_systemctl(context: Context) -> None:
    disabled(context)
    told = context.ctl("enable", "Live", check=4).stderr
    assert told.endswith("(systemctl enable zmsvc@Live does that for a context)\n")
    refused = context.ctl("enable", "ts_3", check=1).stderr
    assert "ts_3: its <state> is not of the type on_start, so that rules and orders alone start it" in refused
