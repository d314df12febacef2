"""Spare tasks of a real zygote: which of them rehearse a start, and which launches are given to one.
`tests/live/test_given_launches.py` shows what happens when one of the processes dies.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import waiting
from forked import Forks, Nest, reap, zygote_client

from zmsvc.keeper.spare_tasks import SpareTask
from zmsvc.protocol.launch import Descriptors


@pytest.fixture
def forks(nest: Nest) -> Iterator[Forks]:
    nest.looped("""
        def step(self):
            pass
    """)
    made = zygote_client(most_warm=1)
    made.start()
    yield made
    children = [*made.spare_pids]
    made.end()
    for pid in children:
        reap(pid)


def next_spare(forks: Forks, nest: Nest) -> SpareTask:
    """Wait until a spare task waits for a launch."""
    assert forks.spares is not None
    until = time.monotonic() + waiting.PATIENCE
    while (spare := forks.spares.ready_for(nest.spec())) is None:
        assert time.monotonic() < until
        due = forks.due()
        forks.dispatcher.turn(waiting.PATIENCE if due is None else max(0.0, due - time.monotonic()))
        forks.on_time(time.monotonic())
    return spare


def given(forks: Forks, nest: Nest) -> SpareTask:
    """Give a launch to the next spare task, and wait until the task is ready."""
    spare = next_spare(forks, nest)
    found = forks.give(nest.spec(), None, Descriptors())
    assert found is not None
    assert found[0] == spare.pid
    said = nest.next()
    while said.pid != spare.pid or ("READY", "1") not in said.lines:
        said = nest.next()
    return spare


def test_only_so_many_tasks_come_from_warm_spare_tasks(forks: Forks, nest: Nest) -> None:
    """A warm one copies more memory than a fork."""
    assert forks.give(nest.spec(), None, Descriptors()) is None
    tasks = [forks.forked(nest.spec(), None, Descriptors())]
    spares = [given(forks, nest), given(forks, nest)]
    assert [spare.warm for spare in spares] == [True, False]
    os.kill(spares[0].pid, signal.SIGTERM)
    assert reap(spares[0].pid) == 0
    assert not forks.spare_ended(spares[0].pid)
    spares += [given(forks, nest), given(forks, nest)]
    assert [spare.warm for spare in spares[2:]] == [True, False]
    for pid in [*tasks, *(spare.pid for spare in spares[1:])]:
        os.kill(pid, signal.SIGTERM)
        assert reap(pid) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"fresh": True},
        {"service_type": "Thread"},
        {"auxiliary_of": 1, "auxiliary": "health"},
        {"memory_max": 1 << 30},
        {"memory_accounting": True},
    ],
)
def test_a_launch_that_needs_another_process_is_not_given_to_a_spare_task(
    forks: Forks, nest: Nest, changes: dict[str, Any]
) -> None:
    assert forks.give(nest.spec(), None, Descriptors()) is None
    pid = forks.forked(nest.spec(), None, Descriptors())
    next_spare(forks, nest)
    assert forks.give(nest.spec(**changes), None, Descriptors()) is None
    os.kill(pid, signal.SIGKILL)
    reap(pid)


def test_a_spare_task_that_ends_before_its_pid_is_known_is_no_child(forks: Forks, nest: Nest) -> None:
    """One with a PID that is free again would be counted as a child, and the end of the process that gets this PID
    would be taken for its own.
    """
    assert forks.give(nest.spec(), None, Descriptors()) is None
    task = forks.forked(nest.spec(), None, Descriptors())
    before = {*forks.machine.children()}
    while not forks.forks_spare:
        due = forks.due()
        assert due is not None
        forks.on_time(due)
    spare = waiting.wait_for(lambda: next(iter({*forks.machine.children()} - before), 0))
    os.kill(spare, signal.SIGKILL)
    assert reap(spare) == -signal.SIGKILL
    assert not forks.spare_ended(spare)
    forks.unknown_ended(SimpleNamespace(si_pid=spare, si_code=os.CLD_KILLED, si_status=signal.SIGKILL), 0.0)
    while forks.forks_spare:
        forks.dispatcher.turn(waiting.PATIENCE)
    assert not forks.spare_pids
    os.kill(task, signal.SIGKILL)
    reap(task)
