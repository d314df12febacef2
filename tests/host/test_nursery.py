"""The keeper's line to the template: what a fork is like, and that no template that dies or hangs takes a launch along."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import waiting
from forked import Nest

from zmsvc.host import linux, packets
from zmsvc.keeper.nursery import Nursery
from zmsvc.protocol import forking
from zmsvc.protocol.launch import Descriptors
from zmsvc.task import rehearsal


@pytest.fixture
def nest(tmp_path: Path) -> Iterator[Nest]:
    made = Nest(tmp_path)
    yield made
    made.close()


@pytest.fixture
def forks(nest: Nest) -> Iterator[Nursery]:
    nest.looped("""
        def step(self):
            pass
    """)
    made = Nursery(cgroups=False)
    made.start()
    yield made
    template = made.pid
    made.ended()
    if template is not None:
        reap(template)


def reap(pid: int) -> int:
    """The exit status, or minus the signal, of a child that is about to end."""
    waiting.wait_for_end(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def launch(forks: Nursery, nest: Nest) -> int:
    """Fork a task and wait until it says READY."""
    pid = forks.fork(nest.spec(), None, Descriptors())
    said = nest.next()
    while ("READY", "1") not in said.lines:
        said = nest.next()
    assert said.pid == pid
    return pid


def stop(pid: int, nest: Nest) -> None:
    os.kill(pid, signal.SIGTERM)
    assert reap(pid) == 0, nest.logged()


def test_a_task_is_a_child_of_the_keeper_in_a_session_of_its_own(forks: Nursery, nest: Nest) -> None:
    pid = launch(forks, nest)
    fields = linux.stat_fields(pid)
    assert fields is not None
    assert (int(fields[1]), int(fields[3])) == (os.getpid(), pid)
    stop(pid, nest)


def test_a_template_that_was_killed_is_replaced_by_the_next_launch(forks: Nursery, nest: Nest) -> None:
    first = forks.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert reap(first) == -signal.SIGKILL
    stop(launch(forks, nest), nest)
    assert forks.pid not in (None, first)


def test_a_launch_outlives_several_templates(forks: Nursery, nest: Nest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the first ones is killed as soon as it is there, before it can answer."""
    dead = [forks.pid]
    start = forks.start

    def start_and_kill() -> None:
        start()
        if len(dead) < 4:
            assert forks.pid is not None
            os.kill(forks.pid, signal.SIGKILL)
            dead.append(forks.pid)

    monkeypatch.setattr(forks, "start", start_and_kill)
    assert dead[0] is not None
    os.kill(dead[0], signal.SIGKILL)
    stop(launch(forks, nest), nest)
    for pid in dead:
        assert pid is not None
        assert reap(pid) == -signal.SIGKILL
    assert nest.rest() == ["STOPPING=1"]


def test_a_template_that_was_stopped_is_killed_and_replaced(forks: Nursery, nest: Nest) -> None:
    first = forks.pid
    assert first is not None
    assert forks._line is not None
    forks._line.settimeout(0.1)
    os.kill(first, signal.SIGSTOP)
    pid = launch(forks, nest)
    assert reap(first) == -signal.SIGKILL
    stop(pid, nest)
    assert nest.rest() == ["STOPPING=1"], "the launch that the stopped template never saw was done as well"


def test_a_task_whose_pid_got_lost_does_nothing(forks: Nursery, nest: Nest) -> None:
    """The template dies between the fork and its answer: the keeper never opens the gate."""
    assert forks._line is not None
    template = forks.pid
    assert template is not None
    packets.send_data(forks._line, forking.encode_launch(nest.spec(pidfile=str(nest.home / "pid")), Descriptors()), {})
    pid = int(forks._line.recv(64))
    os.kill(template, signal.SIGKILL)
    reap(template)
    forks.ended()
    assert reap(pid) == 203
    assert nest.empty()
    assert not (nest.home / "pid").exists()
    assert not nest.log.exists()


def test_a_fork_that_is_refused_says_why(nest: Nest) -> None:
    made = Nursery(cgroups=True)
    made.start()
    template = made.pid
    assert template is not None
    try:
        with pytest.raises(OSError, match="No such file"):
            made.fork(nest.spec(), Path("/proc/no-control-group"), Descriptors())
    finally:
        made.ended()
        reap(template)


def test_a_rehearsal_leaves_nothing_behind() -> None:
    """In a process of its own, for that is what it is meant for."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            rehearsal.rehearse()  # the first one lets go of what it finds
            gc.collect()
            # A thread that was joined is seen in /proc for a moment longer.
            waiting.wait_for(lambda: len(os.listdir("/proc/self/task")) == 1)
            before = _about_this_process()
            rehearsal.rehearse()
            waiting.wait_for(lambda: _about_this_process() == before)
            status = 0
        finally:
            os._exit(status)
    assert reap(pid) == 0


def _about_this_process() -> tuple[object, ...]:
    return (
        sorted(os.listdir("/proc/self/fd")),
        os.listdir("/proc/self/task"),
        dict(os.environ),
        linux.environment_of(os.getpid()),
        os.getcwd(),
        linux.process_name(os.getpid()),
        [os.readlink(f"/proc/self/fd/{fd}") for fd in (1, 2)],
        [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)],
    )
