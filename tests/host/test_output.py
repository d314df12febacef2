"""The output process by itself: many pipes, a full disk, an unread standard error, and a keeper of another
release.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from needs import need
from waiting import PATIENCE, context_switches, wait_for, wait_for_line, wait_until_still

from zmsvc.core.ready_line import SEARCHED
from zmsvc.host import seqpacket
from zmsvc.protocol import output as protocol


class Running:
    """The output process. The test takes the place of the keeper."""

    def __init__(self, log: str, stderr: int = subprocess.DEVNULL) -> None:
        self.line, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.line.settimeout(PATIENCE)
        arguments = ["--line", str(its.fileno()), "--log", log, "--name", "Echo"]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "zmsvc.output", *arguments],
            pass_fds=[its.fileno()],
            stderr=stderr,
            stdin=subprocess.DEVNULL,
        )
        its.close()

    def pipe(self, number: int, task: str = "ts", line: str = "") -> int:
        """Send a new pipe. Return the end for a task."""
        read, write = os.pipe2(os.O_CLOEXEC)
        about = protocol.TakePipe(
            pipe=number, identifier="Echo", pid=7, transaction="TX", task=task, line=line
        )
        seqpacket.send(self.line, protocol.ORDERS.encode(about), {"read": read})
        os.close(read)
        return write

    def report(self) -> protocol.Report | None:
        return seqpacket.receive_message(self.line, protocol.REPORTS)

    def end(self) -> int:
        self.line.close()
        return self.process.wait(PATIENCE)


@pytest.fixture
def run() -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def start(log: str, **more: int) -> Running:
        made.append(Running(log, **more))
        return made[-1]

    yield start
    for each in made:
        each.line.close()
        each.process.kill()
        each.process.wait()


def test_the_contents_of_a_pipe_are_written_before_its_end_is_reported(
    run: Callable[..., Running], tmp_path: Path
) -> None:
    running = run(str(tmp_path / "log"))
    write = running.pipe(1)
    os.write(write, b"one\n<3>two\nthree")
    os.close(write)
    assert running.report() == protocol.Ended(pipe=1)
    texts = [line.partition("Echo[7] TX/ts ")[2] for line in (tmp_path / "log").read_text().splitlines()]
    assert texts == ["INFO: one", "ERROR: two", "INFO: three"]
    assert running.end() == 0


def test_a_thousand_tasks_have_their_lines_and_no_pipe_is_left(
    run: Callable[..., Running], tmp_path: Path
) -> None:
    running = run(str(tmp_path / "log"))
    for number in range(1000):
        write = running.pipe(number, f"t{number}")
        os.write(write, b"from %d\n" % number)
        os.close(write)
    # The process goes on while the keeper reads no reports.
    assert {running.report() for _ in range(1000)} == {protocol.Ended(pipe=number) for number in range(1000)}
    found = re.findall(r"TX/t(\d+) INFO: from (\d+)\n", (tmp_path / "log").read_text())
    assert sorted(int(task) for task, number in found if task == number) == list(range(1000))
    assert not [
        each
        for each in Path(f"/proc/{running.process.pid}/fd").iterdir()
        if os.readlink(each).startswith("pipe:")
    ]


def test_a_flood_of_one_task_does_not_hold_up_another(run: Callable[..., Running], tmp_path: Path) -> None:
    running = run(str(tmp_path / "log"))
    loud = running.pipe(1, "loud")
    # It ends when the line is seen. The limit protects the disk if that never happens: it is reached after 10 s.
    words = ["sh", "-c", "yes $(printf %04000d 0) | head -c 3000000000"]
    flood = subprocess.Popen(words, stdout=loud, start_new_session=True)
    os.close(loud)
    wait_for(lambda: (tmp_path / "log").exists() and (tmp_path / "log").stat().st_size > 1_000_000)
    quiet = running.pipe(2, "quiet")
    read = [b""]
    with open(tmp_path / "log", "rb") as log:
        log.seek(0, os.SEEK_END)
        os.write(quiet, b"here\n")

        def seen() -> bool:
            # To read the whole log again takes longer than the flood does.
            read[0] = read[0][-100:] + log.read()
            return b"TX/quiet INFO: here" in read[0]

        wait_for(seen)
    assert flood.poll() is None, "the line waited for the end of the flood"
    os.killpg(flood.pid, signal.SIGKILL)
    flood.wait()
    os.close(quiet)


def test_an_idle_output_process_does_not_wake_up(run: Callable[..., Running], tmp_path: Path) -> None:
    running = run(f"{tmp_path}/log+stderr")
    write = running.pipe(1)
    os.write(write, b"one\n")
    wait_for(lambda: (tmp_path / "log").exists() and (tmp_path / "log").read_text())
    wait_until_still(lambda: context_switches(running.process.pid), 1.0)
    assert running.process.poll() is None
    os.close(write)


def test_a_full_disk_loses_lines_which_are_counted_and_standard_error_goes_on(
    run: Callable[..., Running], tmp_path: Path
) -> None:
    need(os.geteuid() == 0, "only root can make a device")
    log = tmp_path / "log"
    reader, writer = os.pipe()
    running = run(f"{log}+stderr", stderr=writer)
    os.close(writer)
    write = running.pipe(1)
    os.write(write, b"before\n")
    wait_for(lambda: log.exists() and "before" in log.read_text())
    log.unlink()
    os.mknod(log, stat.S_IFCHR | 0o660, os.makedev(1, 7))  # /dev/full
    os.write(write, b"lost 1\nlost 2\n")
    with open(reader, "rb", buffering=0) as stderr:
        assert wait_for_line(stderr, "lost 2")
        assert wait_for_line(stderr, "Cannot write to")
        log.unlink()
        os.write(write, b"after\n")
        assert wait_for_line(stderr, "after")
    wait_for(lambda: log.exists() and "2 lines (" in log.read_text())
    assert "after" in log.read_text()
    os.close(write)


def test_an_unread_standard_error_blocks_nothing(run: Callable[..., Running], tmp_path: Path) -> None:
    reader, writer = os.pipe()
    running = run(f"{tmp_path}/log+stderr", stderr=writer)
    os.close(writer)
    write = running.pipe(1)
    for number in range(400):
        os.write(write, b"%d %s\n" % (number, b"x" * 10_000))
    wait_for(lambda: " 399 x" in (tmp_path / "log").read_text())
    os.write(write, b"more\n")
    os.close(write)
    assert running.report() == protocol.Ended(pipe=1)
    assert running.end() == 0, "it waits for the reader no longer than a moment"
    os.close(reader)


def test_an_unknown_order_is_ignored(run: Callable[..., Running], tmp_path: Path) -> None:
    running = run(str(tmp_path / "log"))
    running.line.send(json.dumps({"op": "of-a-later-release", "value": 1}).encode())
    running.line.send(b"no object")
    seqpacket.send(running.line, protocol.ORDERS.encode(protocol.Ping()))
    assert running.report() == protocol.Pong()


def test_pipes_are_drained_when_the_keeper_is_gone(run: Callable[..., Running], tmp_path: Path) -> None:
    running = run(str(tmp_path / "log"))
    write = running.pipe(1)
    os.write(write, b"last\nwords")
    assert running.end() == 0
    assert [line.partition("INFO: ")[2] for line in (tmp_path / "log").read_text().splitlines()] == [
        "last",
        "words",
    ]
    os.close(write)


# --- the line of `<ready>`


def test_the_first_whole_line_with_the_pattern_is_reported_once(
    run: Callable[..., Running], tmp_path: Path
) -> None:
    running = run(str(tmp_path / "log"))
    write = running.pipe(1, line="^up on [0-9]+$")
    os.write(write, b"up on x\nnot up on 1\n\n\xffup on 1\n\x1e6 / /\x1fup on 1\nup on")
    wait_for(lambda: b"not up" in (tmp_path / "log").read_bytes())
    seqpacket.send(running.line, protocol.ORDERS.encode(protocol.Ping()))
    assert running.report() == protocol.Pong(), "none of these lines is it, and the last one is not whole"
    os.write(write, b" 1\r\nup on 2\n")
    assert running.report() == protocol.LineSeen(pipe=1)
    os.write(write, b"up on 3\n")
    os.close(write)
    assert running.report() == protocol.Ended(pipe=1)
    assert running.end() == 0


@pytest.mark.parametrize(
    ("start", "seen"), [(b"<3>", True), (b"x" * (SEARCHED - 2), True), (b"x" * SEARCHED, False)]
)
def test_the_pattern_is_searched_after_the_priority_and_at_the_start_of_a_long_line(
    run: Callable[..., Running], tmp_path: Path, start: bytes, seen: bool
) -> None:
    running = run(str(tmp_path / "log"))
    write = running.pipe(1, line="^x*up")
    os.write(write, start + b"up\n")
    os.close(write)
    reports = [running.report()] + ([running.report()] if seen else [])
    assert reports == [protocol.LineSeen(pipe=1)] * seen + [protocol.Ended(pipe=1)]


def test_a_search_without_end_is_given_up_and_holds_up_nothing_else(
    run: Callable[..., Running], tmp_path: Path
) -> None:
    running = run(str(tmp_path / "log"))
    slow, other = running.pipe(1, "slow", line="^(a+)+$"), running.pipe(2, "other", line="up")
    os.write(slow, b"a" * 1000 + b"!\naaa\n")
    os.write(other, b"up\n")
    assert running.report() == protocol.LineSeen(pipe=2)
    os.write(slow, b"aaa\n")
    os.close(slow)
    assert running.report() == protocol.Ended(pipe=1)
    log = (tmp_path / "log").read_text()
    assert "TX/slow took more than 0.5 s of CPU time: no further line is searched" in log
    assert log.count("TX/slow INFO: a") == 3, "all of its lines are written"
    os.close(other)


def test_a_pattern_of_another_version_of_python_is_named_and_the_output_is_written(
    run: Callable[..., Running], tmp_path: Path
) -> None:
    running = run(str(tmp_path / "log"))
    write = running.pipe(1, line="(")
    os.write(write, b"one\n")
    os.close(write)
    assert running.report() == protocol.Ended(pipe=1)
    log = (tmp_path / "log").read_text()
    assert "Cannot search the output of TX/ts for its <ready>: missing )" in log
    assert "TX/ts INFO: one" in log
