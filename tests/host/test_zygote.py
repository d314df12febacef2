"""The client of the zygote: the result of a fork, and that no launch is lost when a zygote dies or hangs."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import waiting
from forked import Forks, Nest, reap, zygote_client

from zmsvc import __version__
from zmsvc.core.deadline import LATE
from zmsvc.host import seqpacket
from zmsvc.host.kernel import memfd, processes
from zmsvc.keeper import zygote_client as keeper_client
from zmsvc.protocol import forking
from zmsvc.protocol.launch import Descriptors
from zmsvc.task import warmup


@pytest.fixture
def forks(nest: Nest) -> Iterator[Forks]:
    nest.looped("""
        def step(self):
            pass
    """)
    made = zygote_client()
    made.start()
    yield made
    made.end()


def launch(forks: Forks, nest: Nest) -> int:
    """Fork a task and wait for its READY."""
    return ready(forks.forked(nest.spec(), None, Descriptors()), nest)


def ready(pid: int, nest: Nest) -> int:
    """Wait for READY of a task, and return its PID."""
    said = nest.next()
    while ("READY", "1") not in said.lines:
        said = nest.next()
    assert said.pid == pid
    return pid


def stop(pid: int, nest: Nest) -> None:
    os.kill(pid, signal.SIGTERM)
    assert reap(pid) == 0, nest.logged()


def test_a_task_is_a_child_of_the_keeper_in_a_session_of_its_own(forks: Forks, nest: Nest) -> None:
    pid = launch(forks, nest)
    fields = processes.stat_fields(pid)
    assert fields is not None
    assert (int(fields[1]), int(fields[3])) == (os.getpid(), pid)
    stop(pid, nest)


def test_a_zygote_has_no_library_that_makes_each_fork_slower(forks: Forks, nest: Nest) -> None:
    """The kernel copies each mapping at a fork, and tears it down at the end of a task."""
    stop(launch(forks, nest), nest)
    loaded = {Path(line.split()[-1]).name.partition(".")[0] for line in _maps(forks)}
    assert any(name.startswith(("python", "libpython")) for name in loaded)
    assert loaded & {"_bz2", "_lzma", "zlib", "termios"} == set()


def _maps(forks: Forks) -> list[str]:
    return Path(f"/proc/{forks.pid}/maps").read_text().splitlines()


def test_a_zygote_that_was_killed_is_replaced_by_the_next_launch(forks: Forks, nest: Nest) -> None:
    first = forks.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert reap(first) == -signal.SIGKILL
    stop(launch(forks, nest), nest)
    assert forks.pid not in (None, first)


def test_a_launch_outlives_several_zygotes(forks: Forks, nest: Nest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the first zygotes is killed as soon as it exists, before it can answer."""
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


def test_a_zygote_that_was_stopped_is_killed_and_replaced(forks: Forks, nest: Nest) -> None:
    first = forks.pid
    assert first is not None
    forks.answer_timeout = 4.0
    os.kill(first, signal.SIGSTOP)
    pid = launch(forks, nest)
    assert reap(first) == -signal.SIGKILL
    stop(pid, nest)
    assert nest.rest() == ["STOPPING=1"], "the launch that the stopped zygote never saw was done as well"


def test_a_zygote_that_stood_still_with_the_keeper_is_not_replaced(forks: Forks, nest: Nest) -> None:
    stop(launch(forks, nest), nest)
    first = forks.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    forked: list[int] = []
    forks.fork(nest.spec(), None, Descriptors(), lambda pid, _: forked.append(pid), pytest.fail)
    due = forks.due()
    assert due is not None
    forks.on_time(due + 2 * LATE)
    os.kill(first, signal.SIGCONT)
    while not forked:
        forks.dispatcher.turn(waiting.PATIENCE)
    assert forks.pid == first
    stop(ready(forked[0], nest), nest)


def test_a_task_whose_pid_was_lost_runs_no_code(forks: Forks, nest: Nest) -> None:
    """The zygote dies between the fork and its answer: the keeper never opens the gate."""
    assert forks._channel is not None
    zygote = forks.pid
    assert zygote is not None
    forks._channel.setblocking(True)
    assert forking.decode_hello(forks._channel.recv(forking.PACKET)) == (__version__, forking.PROTOCOL)
    memory = memfd.private("launch", forking.encode_launch(nest.spec(pidfile=str(nest.home / "pid"))))
    seqpacket.send_data(forks._channel, *forking.order(Descriptors(), memory))
    os.close(memory)
    pid = int(forks._channel.recv(64))
    os.kill(zygote, signal.SIGKILL)
    reap(zygote)
    forks.ended()
    assert reap(pid) == 203
    assert nest.empty()
    assert not (nest.home / "pid").exists()
    assert not nest.log.exists()


def test_a_fork_that_is_refused_says_why(nest: Nest) -> None:
    made = zygote_client(cgroups=True)
    made.start()
    assert made.pid is not None
    try:
        with pytest.raises(OSError, match="No such file"):
            made.forked(nest.spec(), Path("/proc/no-control-group"), Descriptors())
    finally:
        made.end()


def test_a_zygote_that_cannot_start_is_not_retried_at_each_launch(
    nest: Nest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The modules of the zygote are missing, as during an upgrade. After 5 tries every launch fails at once,
    for a second.
    """
    package = tmp_path / "broken" / "zmsvc"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('half of an upgrade')")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    # The test may take longer than a second for its launches.
    monkeypatch.setattr(keeper_client, "PAUSE", waiting.PATIENCE)
    made = zygote_client()
    started = []
    start = made.start
    monkeypatch.setattr(made, "start", lambda: (start(), started.append(made.pid)))
    for _ in range(3):
        with pytest.raises(OSError, match="died each time"):
            made.forked(nest.spec(), None, Descriptors())
    assert len(started) == 5
    for pid in started:
        os.waitpid(pid, 0)


def test_a_zygote_refuses_a_keeper_of_a_protocol_that_it_does_not_speak() -> None:
    told = subprocess.run(
        [
            sys.executable,
            "-m",
            "zmsvc.zygote",
            "--line",
            "0",
            "--gate",
            "0",
            "--keeper",
            "1",
            "--protocol",
            "0",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 1
    assert (
        f"the keeper speaks protocol 0, the installed zmsvc {__version__} speaks 1 to {forking.PROTOCOL}; "
        "restart the context" in told.stderr
    )


def test_a_rehearsal_leaves_nothing_behind() -> None:
    """This runs in a process of its own, as the rehearsal of a zygote does."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            warmup.rehearse()  # the first collection frees objects from before
            gc.collect()
            # A thread that was joined is in /proc for a moment longer.
            waiting.wait_for(lambda: len(os.listdir("/proc/self/task")) == 1)
            before = _about_this_process()
            warmup.rehearse()
            waiting.wait_for(lambda: _about_this_process() == before)
            status = 0
        except AssertionError:
            traceback.print_exc()
        finally:
            os._exit(status)
    # The child may wait for two facts.
    waiting.wait_for_end(pid, 4 * waiting.PATIENCE)
    assert reap(pid) == 0


def _about_this_process() -> tuple[object, ...]:
    return (
        sorted(os.listdir("/proc/self/fd")),
        os.listdir("/proc/self/task"),
        dict(os.environ),
        processes.environment_of(os.getpid()),
        os.getcwd(),
        processes.process_name(os.getpid()),
        [os.readlink(f"/proc/self/fd/{fd}") for fd in (1, 2)],
        [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)],
    )
