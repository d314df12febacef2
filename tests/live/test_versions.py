"""Processes of several releases: an upgrade replaces files while processes run. These go on, or say why they
cannot.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from context import Context
from releases import ROOT, ZMSVC_1_0, Installed, edited, extracted
from waiting import wait_for, wait_for_end

from zmsvc import __version__
from zmsvc.protocol import PROTOCOL

PYTHON_TASKS = sys.version_info < (3, 13)
"""zmsvc 1.0 cannot fork on Python 3.13 and newer."""

the_old_keeper_forks = pytest.mark.skipif(
    not PYTHON_TASKS, reason="the keeper of zmsvc 1.0 cannot fork on this Python"
)


@pytest.fixture
def old(home: Path) -> Path:
    return extracted(ZMSVC_1_0, home)


def fill(context: Context) -> None:
    """Add tasks of each type that the old release can run, and one that a rule starts when another one
    fails.
    """
    (context.home / "Services").mkdir(exist_ok=True)
    context.task(
        "cmd",
        "Cmd",
        kind="Command",
        config="<command>sleep 3600</command>",
        rules={"on_fail": ("start", "next")},
    )
    context.task("next", "Next", entry=False, kind="Command", config="<command>sleep 3600</command>")
    if PYTHON_TASKS:
        context.looped("Work", "interval = 0.05\ndef step(self):\n    self.update(n=1)\n")
        context.task("py", "Work")
        context.task("thread", "Work", kind="Thread")


def start(context: Context, installed: Installed, *arguments: str) -> None:
    # PYTHONDONTWRITEBYTECODE: the directory of the release must not change. WATCHDOG_USEC: a supervisor of
    # 1.0 may hang when it leaves, because it waits for the keeper. The watchdog of the keeper ends it.
    watchdog = {"WATCHDOG_USEC": "6000000"}
    context.start(*arguments, PYTHONPATH=str(installed.path), PYTHONDONTWRITEBYTECODE="1", **watchdog)


def shown(context: Context) -> dict[str, Any]:
    """Return the output of `zmsvcctl --json status`, of the current release."""
    found: dict[str, Any] = json.loads(context.ctl("--json", "status", check=None).stdout)["contexts"][0]
    return found


def pids(context: Context, transaction: str | None = None) -> dict[str, int]:
    return {name: task["pid"] for name, task in context.tasks(transaction).items() if task["pid"] is not None}


def versions(context: Context) -> tuple[str | None, str | None, str | None]:
    told = shown(context)
    return told["supervisor_version"], told["keeper_version"], told["zygote_version"]


def go_through_a_life(context: Context, transaction: str) -> None:
    """Exercise a supervisor: starts, an exit with a rule, its own crash, a reload, a restart, the device's
    end, a stop.
    """
    context.ctl("start", "--transaction", transaction)
    before = pids(context, transaction)
    os.kill(before["cmd"], signal.SIGKILL)
    ended = context.task_is("cmd", "failed", transaction)
    assert (ended["exit"]["signal"], ended["exit"]["reason"]) == ("SIGKILL", "signal")
    context.task_is("next", "running", transaction)
    between = pids(context, transaction)
    context.kill_supervisor()
    assert pids(context, transaction) == between, "tasks outlive a supervisor"
    context.task("late", "Late", kind="Command", config="<command>sleep 3600</command>")
    context.write()
    assert "late" in context.ctl("reload").stdout
    context.task_is("late", "running", transaction)
    context.ctl("restart", "--transaction", transaction, "--task", "next")
    assert pids(context, transaction)["next"] != between["next"]
    device = context.status()["device_pid"]
    os.kill(device, signal.SIGKILL)
    wait_for_end(device)
    wait_for(lambda: context.status()["device_pid"] not in (None, device))
    context.ctl("stop", "--transaction", transaction)
    assert pids(context, transaction) == {}


def ends_whole(context: Context, *of_it: int) -> None:
    assert context.stop() == 0, context.log.read_text()
    for pid in of_it:
        wait_for_end(pid)


@the_old_keeper_forks
@pytest.mark.parametrize("way", ["crash", "reexec"])
def test_todays_supervisor_serves_under_the_keeper_of_1_0(
    context: Context, home: Path, old: Path, way: str
) -> None:
    fill(context)
    installed = Installed(home, old)
    start(context, installed, "--transaction", "T1")
    before = pids(context)
    assert versions(context) == (None, None, None)
    installed.replace(ROOT)
    if way == "crash":
        context.kill_supervisor()
    else:
        context.ctl("reexec")
    told = shown(context)
    assert (told["supervisor_version"], told["keeper_version"], told["zygote_version"]) == (
        __version__,
        None,
        None,
    )
    assert (told["version"], told["restart_needed"]) == (__version__, True)
    assert pids(context) == before, "tasks outlive an upgrade"
    go_through_a_life(context, "T2")
    ends_whole(context, *before.values())


@the_old_keeper_forks
def test_a_signal_that_the_keeper_of_1_0_does_not_know_ends_neither_it_nor_the_tasks(
    context: Context, home: Path, old: Path
) -> None:
    fill(context)
    installed = Installed(home, old)
    start(context, installed, "--transaction", "T1")
    before = pids(context)
    keeper = context.status()["keeper_pid"]
    installed.replace(ROOT)
    context.kill_supervisor()
    refused = context.ctl("signal", "RTMIN+3", "cmd", check=1)
    assert "the keeper (zmsvc 1.0) does not know SIGRTMIN+3" in refused.stderr
    context.clear_tasks()
    service = "<stop_signal>RTMIN+3</stop_signal>"
    context.task("cmd", "Cmd", kind="Command", config="<command>sleep 3600</command>", service=service)
    context.write()
    context.ctl("reload")
    assert pids(context)["cmd"] == before["cmd"], "the reload changes the signal in place"
    context.ctl("stop", "--task", "cmd")
    assert context.tasks()["cmd"]["exit"]["signal"] == "SIGTERM"
    assert context.status()["keeper_pid"] == keeper
    ends_whole(context, *before.values())


def test_the_supervisor_of_1_0_serves_under_todays_keeper(context: Context, home: Path, old: Path) -> None:
    """This happens after a downgrade. The state file has the same schema, and a keeper speaks every earlier
    protocol. A task that was waiting for others before its first step no longer waits.
    """
    fill(context)
    os.mkfifo(gate := home / "gate")
    context.service(
        "Slow",
        f"""
from pathlib import Path
from zmsvc.task import LoopedTask, TaskService
Path({str(gate)!r}).read_bytes()
class Slow(LoopedTask):
    pass
class ServiceSlow(TaskService):
    task_class = Slow
""",
    )
    context.looped("Say", "def step(self):\n    self.update(n=1)\n")
    context.task("slow", "Slow", entry=False)
    context.task("say", "Say", entry=False)
    installed = Installed(home, ROOT)
    start(context, installed, "--transaction", "T1")
    assert versions(context) == (__version__, __version__, __version__)
    context.ctl("start", "--no-block", "--transaction", "T1", "slow", "say")
    context.task_is("say", "running")
    before = pids(context)
    installed.replace(old)
    assert "replaced" in context.ctl("reexec").stdout
    assert versions(context) == (None, None, None)
    assert pids(context) == before
    wait_for(lambda: context.tasks()["say"]["action"] == "updated")
    context.ctl("stop", "--task", "slow")
    context.ctl("stop", "--task", "say")
    go_through_a_life(context, "T2")
    ends_whole(context, *before.values())


@the_old_keeper_forks
def test_after_a_restart_everything_is_of_the_installed_release(
    context: Context, home: Path, old: Path
) -> None:
    fill(context)
    installed = Installed(home, old)
    start(context, installed, "--transaction", "T1")
    installed.replace(ROOT)
    assert context.stop() == 0
    start(context, installed)
    assert versions(context) == (__version__, __version__, __version__)
    assert shown(context)["restart_needed"] is False


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "why"),
    [
        (
            "protocol/__init__.py",
            r"^PROTOCOL = .*\n((.*\n)*?)OLDEST = .*",
            r"PROTOCOL = 9\n\1OLDEST = 9",
            f"speaks protocols 9 to 9, the running keeper ({__version__}) protocol {PROTOCOL}; only a restart of "
            f"the context renews the keeper",
        ),
        (
            "supervisor/loop.py",
            r"^import asyncio$",
            "import no_such_library",
            "ModuleNotFoundError: No module named 'no_such_library'",
        ),
        ("core/engine.py", r"\A", "broken(\n", "SyntaxError: '(' was never closed"),
    ],
    ids=["another protocol", "a library is missing", "half a file"],
)
def test_reexec_is_refused_where_the_installed_supervisor_could_not_take_over(
    context: Context, home: Path, file: str, pattern: str, replacement: str, why: str
) -> None:
    fill(context)
    installed = Installed(home, ROOT)
    start(context, installed, "--transaction", "T1")
    before = context.status()
    installed.replace(edited(home, "broken", file, pattern, replacement))
    refused = context.ctl("reexec", check=1)
    assert refused.stderr.startswith("zmsvcctl: cannot reexec: the installed ")
    assert why in refused.stderr
    assert refused.stderr.endswith("This supervisor goes on\n")
    after = context.status()
    assert (after["pid"], after["restarts"]) == (before["pid"], before["restarts"])
    context.ctl("restart", "--transaction", "T1", "--task", "cmd")
    installed.replace(ROOT)
    ends_whole(context, after["pid"])
