"""Rules with `when` and `after`, and on_recover: they fire for the ends that they name, at the event that they
count to, and when a task is ready again.
"""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from context import Context

TX = "5HGAHZ3WPZUI71PACRPP"
FAILING = """
def setup(self):
    import os, signal
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(75))
    signal.signal(signal.SIGUSR2, lambda *_: os._exit(1))
"""
RULES = {
    "ts_1": "<on_fail{}>",
    "again": '<on_fail when="exit-code:75 watchdog"{}>',
    "crash": '<on_fail when="signal:SEGV"{}>',
    "alarm": '<on_fail when="exit-code" after="3 in 1h"{}>',
    "healthy": "<on_recover{}>",
}


def files(context: Context) -> None:
    """Write a context with several rules for one trigger: each starts another task."""
    context.looped("Echo")
    context.looped("Failing", FAILING)
    rules = "".join(
        f"{head.format('')}<action>{'restart' if call == 'ts_1' else 'start'}</action><call>{call}</call>"
        f"</{head[1 : head.index('{')].split()[0]}>"
        for call, head in RULES.items()
    )
    context.task(
        "ts_1", "Failing", more_rules=rules, service="<restart_delay>0</restart_delay><watchdog>1h</watchdog>"
    )
    for name in RULES:
        if name != "ts_1":
            context.task(name, "Echo", entry=False)
    context.write()


def fail(context: Context, number: signal.Signals) -> None:
    """Let ts_1 fail, and wait until it runs again."""
    pid = context.tasks()["ts_1"]["pid"]
    os.kill(pid, number)
    context.task_is("ts_1", "running", also=lambda task: task["pid"] not in (pid, None))


def started(context: Context) -> set[str]:
    """Return the tasks that rules have started."""
    return {name for name, task in context.tasks().items() if name != "ts_1" and task["launch"]}


def why(context: Context, task: str) -> dict[str, Any]:
    (told,) = context.ask(verb="why", transaction=TX, tasks=[task])["data"]["tasks"]
    return dict(told["rules"][0])


def test_each_rule_fires_for_its_own_cause_and_counts_across_a_crash_of_the_supervisor(
    context: Context,
) -> None:
    files(context)
    script = context.home / "script"
    failures = ("ts_1", "ts_1=exit-code:75", "ts_1=exit-code:2")
    script.write_text(
        "kill supervisor\n".join(f"at {10 * n + 10}s\nfail {each}\n" for n, each in enumerate(failures))
    )
    told = json.loads(context.ctl("--json", "simulate", str(context.file), "--script", str(script)).stdout)
    assert {each["id"]: each["sub"] for each in told["tasks"]} == {
        name: "waiting" if name == "crash" else "running" for name in RULES
    }
    context.start("--transaction", TX)
    fail(context, signal.SIGUSR2)
    context.task_is("healthy", "running")
    assert started(context) == {"healthy"}
    told = why(context, "again")
    assert (
        "starts when ts_1 fails (exit-code:75 or watchdog), and its last end was another one (exit-code:1)"
        in (told["text"])
    )
    assert (why(context, "alarm")["counted"], why(context, "alarm")["of"]) == (1, 3)
    os.kill(context.status()["pid"], signal.SIGKILL)
    fail(context, signal.SIGUSR1)
    assert context.task_is("again", "running")["cause"]["sources"][0]["exit"]["code"] == 75
    assert started(context) == {"healthy", "again"}
    assert why(context, "alarm")["counted"] == 2
    fail(context, signal.SIGUSR2)
    (source,) = context.task_is("alarm", "running")["cause"]["sources"]
    assert source["rule"] == "on_fail:start:alarm when exit-code after 3 in 3600s"
    assert started(context) == {"healthy", "again", "alarm"}
