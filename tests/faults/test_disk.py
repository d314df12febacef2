"""The disk of the state file is full or read-only, and the supervisor dies: the next one starts, works from
memory, and saves later.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from context import Context
from disks import Disk, disk
from waiting import stop_process, wait_for, wait_for_end

BIG = "def setup(self):\n    self.update(text='x' * 20_000)"
"""Each start of this task writes more text than fits into free space of the file."""


@pytest.fixture
def state(home: Path) -> Iterator[Disk]:
    with disk(home / "state") as made:
        yield made


@pytest.fixture
def managed(context: Context, state: Disk) -> Context:
    """A context whose log is not on that disk."""
    context.looped("Echo")
    context.looped("Big", BIG)
    context.task("steady", "Echo")
    context.task("frail", "Echo", rules={"on_fail": ("start", "heir")})
    context.task("heir", "Big", entry=False)
    context.start("--transaction", "T", ZMSVC_LOG="stderr")
    return context


def no_file_is_damaged(context: Context) -> None:
    assert not list((context.home / "state" / context.name).glob("state.db.damaged-*"))


def ends_rules_and_orders_work(context: Context) -> None:
    """Check that ends are noticed, rules fire, and orders are carried out."""
    frail = context.tasks()["frail"]["pid"]
    os.kill(frail, signal.SIGKILL)
    assert context.task_is("frail", "failed")["exit"]["signal"] == "SIGKILL"
    context.task_is("heir", "running")
    for _ in range(20):
        assert context.ask(verb="restart", transaction="T", tasks=["heir"])["ok"]
    assert "cannot save state" in context.status()["unsaved"]
    assert write_errors(context) > 0


def write_errors(context: Context) -> float:
    """Return how many attempts to write the state file have failed."""
    totals = context.status(usage=True)["totals"]
    return sum(float(each["value"]) for each in totals if each["total"] == "write-errors")


def saved_again(context: Context) -> None:
    """Check that decisions that were made meanwhile survive the next crash."""
    wait_for(lambda: not context.status()["unsaved"])
    heir, errors = context.tasks()["heir"], write_errors(context)
    context.kill_supervisor()
    after = context.tasks()["heir"]
    assert write_errors(context) == errors > 0
    assert (after["pid"], after["restarts"], after["sub"]) == (heir["pid"], heir["restarts"], "running")
    no_file_is_damaged(context)


def test_a_thread_that_starts_again_on_a_full_disk_is_known_to_be_ready(
    context: Context, state: Disk
) -> None:
    """The new launch has the process and the member ID of the launch that ended, which is not acknowledged
    while its end cannot be saved.
    """
    context.looped("Echo")
    for name in ("member", "other"):
        context.task(name, "Echo", kind="Thread")
    context.start("--transaction", "T", ZMSVC_LOG="stderr")
    with state.full():
        for _ in range(20):
            assert context.ask(verb="restart", transaction="T", tasks=["member"])["ok"]
    assert context.tasks()["member"]["sub"] == "running"


@pytest.mark.parametrize("end", ["killed", "replaced"])
def test_a_supervisor_that_ends_on_a_full_disk_is_followed_by_one_that_manages(
    managed: Context, state: Disk, end: str
) -> None:
    """A supervisor that ends by itself closes the state file and removes the files beside it. There is no
    room to create them again.
    """
    steady = managed.tasks()["steady"]["pid"]
    with state.full():
        before = managed.status()
        if end == "killed":
            managed.kill_supervisor()
        else:
            assert managed.ask(verb="reexec")["ok"]
            wait_for_end(before["pid"])
        assert managed.status()["restarts"] == 1
        ends_rules_and_orders_work(managed)
        assert managed.status()["restarts"] == 1
    saved_again(managed)
    assert managed.tasks()["steady"]["pid"] == steady
    assert managed.ctl("events", "-n", "1").returncode == 0


def test_a_context_that_starts_on_a_full_disk_has_its_state(managed: Context, state: Disk) -> None:
    managed.ctl("stop", "--task", "steady")
    assert managed.stop() == 0
    with state.full():
        managed.start(ZMSVC_LOG="stderr")
        tasks = managed.tasks("T")
        assert (tasks["steady"]["held"], tasks["frail"]["sub"]) == (True, "running")
        no_file_is_damaged(managed)
    managed.ask(verb="start", transaction="T", tasks=["heir"])
    saved_again(managed)


def test_a_context_that_never_ran_says_that_the_disk_is_full(context: Context, state: Disk) -> None:
    context.looped("Echo")
    context.task("steady", "Echo")
    (state.path / context.name).mkdir()
    with state.full():
        context.start(ready=False, ZMSVC_LOG="stderr")
        assert context.wait() == 1
    assert "cannot open state file" in context.log.read_text()
    assert "Traceback" not in context.log.read_text()


def test_a_supervisor_that_dies_on_a_read_only_disk_is_followed_by_one_that_manages(
    managed: Context, state: Disk
) -> None:
    steady, supervisor = managed.tasks()["steady"]["pid"], managed.status()["pid"]
    assert managed.daemon is not None
    stop_process(managed.daemon.pid)
    try:
        os.kill(supervisor, signal.SIGKILL)
        wait_for_end(supervisor)
        state.remount("ro")
    finally:
        os.kill(managed.daemon.pid, signal.SIGCONT)
    ends_rules_and_orders_work(managed)
    state.remount("rw")
    saved_again(managed)
    assert managed.tasks()["steady"]["pid"] == steady
