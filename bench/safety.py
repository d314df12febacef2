"""Measure the cost of the guards against other users: the start of tasks, and the time from a failure until
another task runs, with each guard and without it.

`python -m bench.safety`, or `make bench-safety`. A guard that cannot be disabled is measured separately, and
compared with the time of a start. The two variants of a pair take turns, and the figures are medians. On a
busy machine two runs of the same variant differ by more than the limit.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import environment, runner
from bench.contenders.zmsvc import Zmsvc
from bench.figures import failure, start
from bench.fleet import Fleet
from bench.plan import PAIRS, Cell
from bench.results import Results
from zmsvc.host import directories
from zmsvc.host.kernel import memfd, unix_sockets
from zmsvc.host.kernel.sockdiag import SockDiag
from zmsvc.host.systemd import datagrams

LIMIT = 0.05
"""The share of a start, or of the time until another task runs, that no guard may cost."""
LAUNCH = bytes(2000)
"""The approximate number of bytes of a launch."""
USER = "nobody"

PLAIN = Zmsvc()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    guard: str
    with_it: Zmsvc
    without: Zmsvc
    counts: bool = True
    """False for an option of the context file, whose cost has no limit."""


PAIRS_OF_GUARDS = (
    Pair(
        guard="the kernel refuses descriptors (SO_PASSRIGHTS)",
        with_it=PLAIN,
        without=Zmsvc(without=("passrights",)),
    ),
    Pair(
        guard="bus over loopback tcp, with its gate; tasks by ipc",
        with_it=Zmsvc(label="zmsvc (tcp)", tcp=True),
        without=PLAIN,
    ),
    Pair(
        guard="no new privileges",
        with_it=Zmsvc(
            label="zmsvc (no new privileges)", service="<no_new_privileges>yes</no_new_privileges>"
        ),
        without=PLAIN,
    ),
    Pair(
        guard="another <user>, with a notify socket of its own",
        with_it=Zmsvc(label=f"zmsvc (user {USER})", service=f"<user>{USER}</user>"),
        without=PLAIN,
        counts=False,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A guard that is measured separately. `starts` is the number of tasks that are started for each time
    that it acts; 0 means that it does not act at a start.
    """

    guard: str
    make: Callable[[], AbstractContextManager[Callable[[], object]]]
    starts: int


@contextmanager
def _launch() -> Iterator[Callable[[], object]]:
    def act() -> None:
        fd = memfd.private("launch", LAUNCH)
        os.pread(fd, len(LAUNCH), 0)
        os.close(fd)

    yield act


@contextmanager
def _peer() -> Iterator[Callable[[], object]]:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()),
    ):
        accepted, _ = listening.accept()
        kernel = SockDiag()
        with accepted:
            yield lambda: kernel.peer(accepted)
        kernel.close()


@contextmanager
def _client() -> Iterator[Callable[[], object]]:
    def act() -> None:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()

    yield act


@contextmanager
def _place() -> Iterator[Callable[[], object]]:
    with tempfile.TemporaryDirectory() as made:
        yield lambda: directories.check(Path(made))


@contextmanager
def _datagram() -> Iterator[Callable[[], object]]:
    """Copy a notification of another user's task, as the thread for this user does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    datagrams.peek_from_start(ours)
    with ours, theirs:

        def act() -> None:
            theirs.send(b"READY=1")
            datagrams.receive(ours, peek=True)
            datagrams.discard(ours, 1)

        yield act


@contextmanager
def _groups() -> Iterator[Callable[[], object]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield lambda: unix_sockets.peer_groups(ours)


def parts(size: int) -> list[Part]:
    return [
        Part(guard="a launch lies in a memory file that only its task reads", make=_launch, starts=1),
        Part(guard="a notification of another user's task is copied first", make=_datagram, starts=1),
        Part(guard="a client of the control socket has a thread", make=_client, starts=size),
        Part(guard="whose groups a client has", make=_groups, starts=size),
        Part(guard="a directory and the way to it are checked", make=_place, starts=size),
        Part(guard="whose a tcp connection is", make=_peer, starts=0),
    ]


def measure(part: Part, times: int) -> float:
    """Return the median of the seconds that a call takes."""
    found: list[float] = []
    with part.make() as act:
        for _ in range(times):
            began = time.perf_counter()
            act()
            found.append(time.perf_counter() - began)
    return statistics.median(found)


def cells(size: int, seconds: float) -> list[Cell]:
    """Return each contender of the pairs once."""
    everybody = dict.fromkeys(each for pair in PAIRS_OF_GUARDS for each in (pair.with_it, pair.without))

    def cell(contender: Zmsvc) -> Cell:
        def run(results: Results, home: Path) -> None:
            home.chmod(0o755)
            with contender.open(Fleet(size=size, pairs=PAIRS), home) as session:
                results.add_all(contender.name, size, start.measure(session))
                results.add("chain", contender.name, size, failure.chain(session, seconds, 1000))

        return Cell(name=contender.name, missing=contender.missing, run=run)

    return [cell(each) for each in everybody]


def report(results: Results, size: int, times: int) -> Iterator[str]:
    """Yield the lines of the tables."""
    yield f"| guard | start of {size + PAIRS}, without | with | cost | failure to other task, without | with | cost | at most {LIMIT:.0%} |"
    yield "|---|---|---|---|---|---|---|---|"
    for pair in PAIRS_OF_GUARDS:
        figures, costs = [], []
        for figure in ("start", "chain"):
            before, after = (results.median(figure, each.name, size) for each in (pair.without, pair.with_it))
            if before and after:
                costs.append(after / before - 1)
                figures += [f"{before * 1e3:.1f} ms", f"{after * 1e3:.1f} ms", f"{costs[-1]:+.1%}"]
            else:
                figures += ["-"] * 3
        word = (
            "not measured"
            if len(costs) < 2
            else ""
            if not pair.counts
            else "met"
            if max(costs) <= LIMIT
            else "**missed**"
        )
        yield f"| {pair.guard} | {' | '.join(figures)} | {word} |"
    for name, why in results.missing.items():
        yield f"\n{name} was not measured: {why}"
    whole = results.median("start", PLAIN.name, size)
    yield "\n| guard by itself | each time | share of a start |"
    yield "|---|---|---|"
    for part in parts(size):
        took = measure(part, times)
        share = f"{took / part.starts * (size + PAIRS) / whole:.2%}" if part.starts and whole else "-"
        yield f"| {part.guard} | {took * 1e6:.0f} us | {share} |"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench.safety", description="Measure what the guards against other users cost."
    )
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3, help="for failures, in each round")
    parser.add_argument("--times", type=int, default=2000, help="for each guard by itself")
    given = parser.parse_args()
    environment.prepare()
    results = runner.run(cells(given.tasks, given.seconds), given.rounds, 1800)
    for line in report(results, given.tasks, given.times):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
