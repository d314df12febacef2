"""The auxiliary processes of a task in the keeper: real processes, with and without control groups."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import Forks, launch_spec, zygote_client
from needs import need
from waiting import wait_for

from zmsvc.host.kernel import cgroups, processes
from zmsvc.keeper.process_table import ITS_TASK_HAS_ENDED, ProcessTable
from zmsvc.keeper.task_groups import TaskGroups
from zmsvc.protocol.launch import AUXILIARY_GROUP, Descriptors
from zmsvc.protocol.supervision import Executed, Exited, Launched, LaunchFailed, Report

MARK = b"NOTIFY_SOCKET=/nowhere/auxiliary-test"
TASK, OTHER = 1, 2


class Table:
    """A process table, and the reports that it sends."""

    def __init__(self, group: Path | None) -> None:
        self.client: Forks = zygote_client(cgroups=group is not None)
        self.group = group
        self.reports: list[Report] = []
        machine, groups = self.client.machine, TaskGroups(self.client.machine, group)
        self.table = ProcessTable(
            self.reports.append, self.client, MARK, group, groups, machine, self.client.dispatcher
        )
        self._ignore_earlier_children()

    def _ignore_earlier_children(self) -> None:
        """The children that earlier tests have left to this process are no orphans of this keeper."""
        for pid in processes.children_of(os.getpid()):
            fields = processes.stat_fields(pid)
            if fields is not None and fields[0] == b"Z":
                os.waitpid(pid, 0)
            else:
                self.table.workers.add(pid)

    def launch(self, launch: int, *command: str, **more: Any) -> None:
        cgroup = f"TX:ts/{AUXILIARY_GROUP}{launch}" if "auxiliary_of" in more else "TX:ts"
        spec = launch_spec(
            launch=launch,
            service_type="Command",
            command=command,
            notify="/nowhere/auxiliary-test",
            cgroup=cgroup if self.group else None,
            **more,
        )
        self.table.launch(spec, Descriptors())

    def until(self, kind: type[Report], launch: int) -> Any:
        """Handle events until there is a report of this kind."""

        def found() -> Report | None:
            self.client.dispatcher.turn(0)
            for pid in [each.pid for each in self.table.living()]:
                if (info := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                    self.table.read_exec_pipe(pid)
                    os.waitpid(pid, 0)
                    self.table.count_orphans([pid])
                    self.table.reaped(info)
                    self.table.forget_count()
            return next(
                (each for each in self.reports if isinstance(each, kind) and each.launch == launch), None
            )

        return wait_for(found)


@pytest.fixture(params=[False, True], ids=["without groups", "with groups"])
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    group = None
    if request.param:
        need(os.geteuid() == 0, "only root can make a control group")
        mount = cgroups._mount("")
        need(mount, "there is no cgroup v2 hierarchy")
        assert mount is not None
        group = mount / f"zmsvc-auxiliary-{os.getpid()}"
    made = Table(group)
    yield made
    for each in made.table.living():
        os.kill(each.pid, signal.SIGKILL)
        made.until(Exited, each.launch)
    made.client.end()
    if group is not None:

        def removed() -> bool:
            cgroups.remove(group)
            return not group.exists()

        wait_for(removed)


def run(table: Table) -> tuple[Launched, Launched]:
    """Run a task and an auxiliary process, which has a child."""
    table.launch(TASK, "sleep", "3600")
    table.until(Executed, TASK)
    table.launch(OTHER, "sh", "-c", "sleep 3600 & wait", auxiliary_of=TASK, auxiliary="reload")
    table.until(Executed, OTHER)
    return table.until(Launched, TASK), table.until(Launched, OTHER)


def test_an_auxiliary_process_is_killed_with_its_task_and_is_not_left_by_it(table: Table) -> None:
    task, other = run(table)
    (child,) = wait_for(lambda: processes.children_of(other.pid))
    os.kill(task.pid, signal.SIGTERM)
    assert not table.until(Exited, TASK).left, "the auxiliary process is not a process of the task"
    assert table.until(Exited, OTHER).signal == "SIGKILL"
    # One look: a zombie may be reaped before a second one.
    wait_for(lambda: (fields := processes.stat_fields(child)) is None or fields[0] == b"Z")
    for launch in (TASK, OTHER):
        table.table.acknowledge(launch)
    if table.group is not None:
        wait_for(lambda: not (table.group / "TX:ts").exists())  # type: ignore[operator]


def test_the_end_of_an_auxiliary_process_is_reported_and_leaves_the_task_alone(table: Table) -> None:
    table.launch(TASK, "sleep", "3600")
    table.until(Executed, TASK)
    table.launch(OTHER, "sh", "-c", "exit 3", auxiliary_of=TASK, auxiliary="reload")
    assert table.until(Exited, OTHER).code == 3
    table.table.acknowledge(OTHER)
    assert [each.launch for each in table.table.living()] == [TASK]
    assert not table.table.ends()


def test_no_signal_for_the_task_reaches_an_auxiliary_process(table: Table) -> None:
    task, other = run(table)
    table.table.signal(TASK, "SIGTERM", "SIGTERM")
    assert table.until(Exited, TASK).signal == "SIGTERM"
    assert not table.table._records[TASK].others
    assert task.pid != other.pid
    assert table.until(Exited, OTHER).signal == "SIGKILL"


def test_no_auxiliary_process_is_forked_for_a_task_that_has_ended(table: Table) -> None:
    table.launch(TASK, "true")
    table.until(Exited, TASK)
    table.launch(OTHER, "true", auxiliary_of=TASK, auxiliary="reload")
    assert table.until(LaunchFailed, OTHER).why == ITS_TASK_HAS_ENDED
