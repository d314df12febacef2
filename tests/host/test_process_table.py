"""The process table of the keeper, with plain directories as control groups, and numbers as forks."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from forked import Nest, launch_spec, reap, zygote_client
from waiting import PATIENCE, wait_for

from zmsvc.keeper.process_table import ProcessTable, _KnownChildren
from zmsvc.keeper.task_groups import TaskGroups
from zmsvc.protocol.launch import Descriptors
from zmsvc.protocol.supervision import Exited, Gone, Launched


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProcessTable:
    pids = count(2**22 + 1)  # higher than any PID of the kernel
    zygote = zygote_client(cgroups=True)
    monkeypatch.setattr(
        zygote,
        "fork",
        lambda spec, cgroup, fds, done, failed: (cgroup.mkdir(exist_ok=True), done(next(pids), 1)),
    )
    groups = TaskGroups(zygote.machine, tmp_path)
    return ProcessTable(
        lambda message: None, zygote, b"", tmp_path, groups, zygote.machine, zygote.dispatcher
    )


def test_an_acknowledgment_during_the_next_fork_keeps_the_cgroup_of_the_next_launch(
    table: ProcessTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forked: list[Any] = []
    table.launch(launch_spec(launch=1, cgroup="TX:ts_100"), Descriptors())
    table.reaped(end(2**22 + 1))
    monkeypatch.setattr(table._zygote, "fork", lambda spec, cgroup, fds, done, failed: forked.append(done))
    table.launch(launch_spec(launch=2, cgroup="TX:ts_100"), Descriptors())
    table.acknowledge(1)
    assert (tmp_path / "TX:ts_100").is_dir()
    forked[0](2**22 + 2, 1)
    table.reaped(end(2**22 + 2))
    table.acknowledge(2)
    assert not (tmp_path / "TX:ts_100").exists()


def test_without_a_zygote_a_named_main_process_leaves_no_negative_number_of_children() -> None:
    zygote = zygote_client(cgroups=False)
    assert zygote.pid is None
    assert len(_KnownChildren({}, {}, zygote, {2**22 + 1})) == 0


def test_the_report_of_an_end_has_the_cpu_time_of_the_process(table: ProcessTable) -> None:
    told: list[Any] = []
    table._report = told.append
    table.launch(launch_spec(launch=1, cgroup="TX:ts_100"), Descriptors())
    table.reaped(end(2**22 + 1), 1.5)
    assert [each.cpu for each in told if isinstance(each, Exited)] == [1.5]


def test_the_cpu_time_of_a_former_main_process_counts(table: ProcessTable) -> None:
    table.launch(launch_spec(launch=1, cgroup="TX:ts_100"), Descriptors())
    record = table._records[1]
    record.previous_main = record.pid, record.start_time
    table._named_mains.add(1)
    table._become_main(record, 2**22 + 9, 1)
    table.reaped(end(2**22 + 1), 1.5)
    assert record.cpu == 1.5


@pytest.mark.parametrize("command", [False, True])
def test_the_end_of_a_task_that_dies_before_its_pid_is_known_is_reported(
    nest: Nest, monkeypatch: pytest.MonkeyPatch, *, command: bool
) -> None:
    """The out-of-memory killer may choose a process that the zygote has just forked. Without its end the task
    would never end, or would end as the next process that has its PID.
    """
    zygote = zygote_client(most_warm=1)
    told: list[Any] = []
    table = ProcessTable(
        told.append, zygote, b"", None, TaskGroups(zygote.machine, None), zygote.machine, zygote.dispatcher
    )
    nest.looped("def step(self): pass")
    zygote.start()
    try:
        until = time.monotonic() + PATIENCE
        while not zygote.has_greeted:
            zygote.dispatcher.turn(until - time.monotonic())
        changes: dict[str, Any] = {"service_type": "Command", "command": ("true",)} if command else {}
        # Other tests may have left children to this process.
        before = {*zygote.machine.children()}
        table.launch(nest.spec(launch=7, **changes), Descriptors())
        pid = wait_for(lambda: next(iter({*zygote.machine.children()} - before), 0))
        os.kill(pid, signal.SIGKILL)
        assert reap(pid) == -signal.SIGKILL
        table.reaped(SimpleNamespace(si_pid=pid, si_code=os.CLD_KILLED, si_status=signal.SIGKILL))
        assert told == []
        # The order to kill it waits for its PID, which may be that of another process by then.
        table.kill(7)
        signaled: list[Any] = []
        with monkeypatch.context() as patched:
            patched.setattr(zygote.machine, "signal_child", lambda *each: signaled.append(each))
            while not told:
                zygote.dispatcher.turn(until - time.monotonic())
    finally:
        zygote.end()
    launched, ended, gone = told
    assert signaled == []
    assert gone == Gone(launch=7)
    assert isinstance(launched, Launched)
    assert isinstance(ended, Exited)
    assert (launched.launch, launched.pid, ended.launch, ended.signal) == (7, pid, 7, "SIGKILL")
    assert not table._by_pid


def end(pid: int) -> Any:
    return SimpleNamespace(si_pid=pid, si_code=os.CLD_EXITED, si_status=0)


def test_a_late_acknowledgment_keeps_the_cgroup_of_the_next_launch(
    table: ProcessTable, tmp_path: Path
) -> None:
    """The restart is ordered before the end of the old launch is acknowledged, and the new process may not
    have moved yet.
    """
    for launch in (1, 2):
        table.launch(launch_spec(launch=launch, cgroup="TX:ts_100"), Descriptors())
        table.reaped(end(2**22 + 1))
    table.acknowledge(1)
    assert (tmp_path / "TX:ts_100").is_dir()
    table.reaped(end(2**22 + 2))
    table.acknowledge(2)
    assert not (tmp_path / "TX:ts_100").exists()


def test_no_signal_goes_to_a_process_that_has_the_pid_of_a_named_main_process(table: ProcessTable) -> None:
    """The parent of the named process has reaped it, and the kernel has given its PID away."""
    table.launch(launch_spec(launch=1, cgroup="TX:ts_100"), Descriptors())
    with subprocess.Popen(["sleep", "60"]) as other:
        table._named_mains.add(1)
        table._become_main(table._records[1], other.pid, 1)
        table.signal(1, "SIGKILL")
        other.terminate()
    assert other.returncode == -signal.SIGTERM, "SIGKILL would have been faster"
