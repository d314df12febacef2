"""`simulate` and the daemon agree about random contexts: for each task the same events in the same order, each
with the same cause. `make simulate` tries more of them than CI.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import time
from typing import Any

import pytest
from chance import SEED
from context import Context
from waiting import wait_for

TX = "5HGAHZ3WPZUI71PACRPP"
RUNS = int(os.environ.get("ZMSVC_SIMULATIONS", "1"))
CONTEXTS = 20
"""The number of random contexts in one run. Each is a tree of rules, and all are in one context file, because
they know nothing of each other.
"""
ROUNDS = 2
"""The number of events of each tree."""
QUICK = 0.7
"""Seconds after which a start is not quick: twice the longest restart_delay, and some more."""
REACTING = """
def setup(self):
    import os, signal
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))
    signal.signal(signal.SIGWINCH, lambda *_: os._exit(75))
    signal.signal(signal.SIGUSR2, lambda *_: self.update(number=1, wait=False))
"""
EVENTS = {
    "kill {}": signal.SIGKILL,
    "exit {}": signal.SIGUSR1,
    "update {}": signal.SIGUSR2,
    "fail {}=exit-code:75": signal.SIGWINCH,
}
CONDITIONS = {
    "on_fail": ["", "", ' when="signal:SIGKILL"', ' when="exit-code:75 watchdog"', ' after="2 in 1h"'],
    "on_exit": ["", "", ' when="exited"', ' when="requested"'],
    "on_update": ["", ' after="2 in 1h"'],
}
"""The conditions that a rule of a trigger may have."""
Stories = dict[str, list[tuple[str, str]]]


def tree(context: Context, number: int, chance: random.Random) -> list[str]:
    """Add a tree: its root is an entry task, and the rules of one task call each other one.

    What happens must not depend on the speed of the machine. So no task is called twice within one event: a
    task that is restarted fires on_exit and on_start, and perhaps on_recover, and has rules for one of them.
    """
    names = [f"t{number}_{index}" for index in range(chance.randint(2, 3))]
    parents = {name: chance.choice(names[:index]) for index, name in enumerate(names) if index}
    for name in names:
        called = [child for child, parent in parents.items() if parent == name]
        third = chance.choice(("on_start", "on_exit", "on_recover"))
        triggers = ("on_update", "on_fail", third) if called else ()
        rules = {
            trigger: rule(
                trigger,
                chance.choice(("start", "stop", "restart")),
                chance.choice(called),
                chance.choice(CONDITIONS.get(trigger, [""])),
            )
            for trigger in triggers
        }
        options = ""
        if chance.random() < 0.3:
            rules["on_fail"] = rule("on_fail", "restart", name, chance.choice(CONDITIONS["on_fail"][:3]))
            options = "<restart_delay>300ms</restart_delay>"
        waits = name in parents and chance.random() < 0.4
        options += f"<after>{parents[name]}</after>" if waits else ""
        # A child that starts by itself would race with the rules of its parent.
        entry = name == names[0] or (waits and chance.random() < 0.5)
        context.task(name, "Reacting", entry=entry, more_rules="".join(rules.values()), service=options)
    return names


def rule(trigger: str, action: str, call: str, conditions: str) -> str:
    return f"<{trigger}{conditions}><action>{action}</action><call>{call}</call></{trigger}>"


def stories(told: list[dict[str, Any]]) -> Stories:
    """Return the events of each task in order, each with its cause."""
    found: Stories = {}
    for each in told:
        if each["task"]:
            detail = each["detail"]
            cause = detail.get("cause") or {}
            rules = [f"{source['rule']} of {source['task']}" for source in cause.get("sources") or ()]
            why = rules or cause.get("by") or detail.get("rule") or detail.get("reason") or ""
            found.setdefault(each["task"], []).append((each["event"], str(why)))
    return found


def simulated(context: Context, script: list[str]) -> Stories:
    file = context.home / "script"
    file.write_text("\n".join(script))
    told = context.ctl("--json", "simulate", str(context.file), "--script", str(file), "--for", "30s")
    return stories(json.loads(told.stdout)["timeline"])


def history(context: Context) -> Stories:
    """Read the state file, which the daemon writes meanwhile."""
    file = context.home / "state" / context.name / "state.db"
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT task, event, detail FROM events ORDER BY seq").fetchall()
    return stories(
        [{"task": task, "event": event, "detail": json.loads(detail)} for task, event, detail in rows]
    )


def agree(context: Context, script: list[str]) -> float:
    """Wait until the daemon has done what the simulation tells. Return the time."""
    told = simulated(context, script)

    def the_same() -> bool:
        really = history(context)
        differ = {each: (told.get(each), really.get(each)) for each in {**told, **really}}
        differ = {each: both for each, both in differ.items() if both[0] != both[1]}
        assert not differ, f"simulated and real: {differ} after {script}"
        return True

    wait_for(the_same)
    return time.monotonic()


@pytest.mark.parametrize("run", range(RUNS))
def test_simulate_agrees_with_the_daemon_on_random_contexts(context: Context, run: int) -> None:
    print(f"ZMSVC_SEED={SEED + run} ZMSVC_SIMULATIONS=1")
    chance = random.Random(SEED + run)
    context.looped("Reacting", REACTING)
    trees = [tree(context, number, chance) for number in range(CONTEXTS)]
    context.start("--transaction", TX)
    script: list[str] = []
    before = agree(context, script)
    for number in range(ROUNDS):
        # A rule delays a start that follows the last one quickly. In both worlds none does.
        soon = before + QUICK
        wait_for(lambda: time.monotonic() > soon)  # noqa: B023
        running = {name: task["pid"] for name, task in context.tasks().items() if task["sub"] == "running"}
        script.append(f"at {3 * (number + 1)}s")
        for names in trees:
            if alive := [name for name in names if name in running]:
                kind, name = chance.choice([*EVENTS]), chance.choice(alive)
                script.append(kind.format(name))
                os.kill(running[name], EVENTS[kind])
        before = agree(context, script)
