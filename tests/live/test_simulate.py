"""`simulate` says what a context would do, and agrees with the daemon."""

from __future__ import annotations

import json
from typing import Any

from context import Context

TX = "5HGAHZ3WPZUI71PACRPP"


def three(context: Context) -> None:
    context.looped("Echo")
    context.task(
        "ts_1", "Echo", rules={"on_fail": ("start", "ts_2")}, service="<restart_delay>1s</restart_delay>"
    )
    context.task(
        "ts_2", "Echo", entry=False, rules={"on_start": ("start", "ts_3"), "on_fail": ("restart", "ts_2")}
    )
    context.task("ts_3", "Echo", entry=False, service="<after>ts_1</after>")
    context.write()


def stories(told: list[dict[str, Any]]) -> dict[str, list[tuple[str, str]]]:
    """Return the events of each task in order, each with its cause."""
    found: dict[str, list[tuple[str, str]]] = {}
    for each in told:
        if each["task"]:
            detail = each["detail"]
            sources = (detail.get("cause") or {}).get("sources") or ()
            cause = [source["rule"] for source in sources] or detail.get("rule") or detail.get("reason") or ""
            found.setdefault(each["task"], []).append((each["event"], str(cause)))
    return found


def test_simulate_tells_what_the_daemon_then_does(context: Context) -> None:
    three(context)
    told = json.loads(
        context.ctl("--json", "simulate", str(context.file), "--kill", "ts_1", "--kill", "ts_2").stdout
    )
    context.start("--transaction", TX)
    context.ctl("signal", "KILL", "ts_1")
    first = context.task_is("ts_2", "running")["pid"]
    context.task_is("ts_3", "running")
    context.ctl("signal", "KILL", "ts_2")
    context.task_is("ts_2", "running", also=lambda task: task["pid"] != first)
    really = [json.loads(line) for line in context.ctl("--json", "events").stdout.splitlines()]
    orders = {"signaled"}
    assert stories(told["timeline"]) == stories([each for each in really if each["event"] not in orders])
    assert [(each["id"], each["sub"]) for each in told["tasks"]] == [
        (name, task["sub"]) for name, task in context.tasks().items()
    ]


def test_simulate_tries_each_failure_and_each_expectation(context: Context) -> None:
    three(context)
    shown = context.ctl("simulate", str(context.file), "--matrix").stdout
    assert "fail(ts_1=signal)  ts_1  ts_2:1 ts_3:1" in " ".join(shown.split(" ")).replace("   ", "  "), shown
    holds = "after fail(ts_1): active(ts_2) and active(ts_3) within 5s"
    wrong = "after fail(ts_1): active(ts_1) within 5s"
    assert f": {holds}" in context.ctl("simulate", str(context.file), "--expect", holds).stdout
    beside = context.file.with_suffix(".expect")
    beside.write_text(f"# of this file\n{holds}\n{wrong}\n")
    told = context.ctl("simulate", str(context.file), check=1).stdout
    assert f"does not hold: {wrong}\n  within 5 s: ts_1 is failed (failed)" in told
    assert "rule=on_fail:start:ts_2" in told, "the counter-example"
    beside.write_text("after fail(ts_9): active(ts_1) within 5s\n")
    assert f"{beside}:1: " in context.ctl("simulate", str(context.file), check=2).stderr
    script = context.home / "script"
    script.write_text("at 5s\nfail ts_1=oom-kill\n")
    assert "reason=oom-kill" in context.ctl("simulate", str(context.file), "--script", str(script)).stdout
    context.ctl("simulate", str(context.file), "--fail", "ts_2", check=2)
