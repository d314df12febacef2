"""Measure the ways to fork a task: one clone() with and without the interpreter's hooks, and two forks in a
row.

`python -m bench.forks`, or `make bench-forks`. A fork of this process prepares its memory as the zygote does,
and measures there: from the call until the parent goes on. The child ends at once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping

from bench import environment
from zmsvc.host.kernel import linux
from zmsvc.host.kernel.fork import DoubleFork, Fork, SiblingFork
from zmsvc.host.python import interpreter, page_sharing
from zmsvc.task import warmup


class OneHook:
    """The sibling fork of Python 3.12 and older, in which only the hook of the child can be called. Since
    3.13 this would end the child.
    """

    def __init__(self) -> None:
        self._clone = linux.SiblingClone()
        self._hooks = interpreter.ForkHooks()

    def __call__(self, _cgroup: int | None) -> tuple[int, bool]:
        pid, inside = self._clone(None)
        if pid == 0:
            self._hooks.child()
        return pid, inside


def ways() -> Mapping[str, Callable[[], Fork]]:
    """Return the functions that fork, by name."""
    old = {"sibling fork, only the child's hook": OneHook} if sys.version_info < (3, 13) else {}
    return {**old, "sibling fork, all three hooks": SiblingFork, "two forks": DoubleFork}


def measure(times: int) -> dict[str, list[float]]:
    """Return the seconds of each fork, by name. The ways take turns."""
    made = {name: way() for name, way in ways().items()}
    found: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(times):
        for name, fork in made.items():
            begin = time.perf_counter()
            pid, _ = fork(None)
            if pid == 0:
                os._exit(0)
            found[name].append(time.perf_counter() - begin)
            # The child is a child of the parent of this process, which reaps it.
    return found


def in_zygote(times: int) -> dict[str, list[float]]:
    """Measure in a child of this process, as the zygote is a child of the keeper."""
    linux.become_subreaper()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            warmup.rehearse()
            page_sharing.share()
            os.write(writer, json.dumps(measure(times)).encode() + b"\n")
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as told:
        text = told.read()
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        found: dict[str, list[float]] = json.loads(text)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.forks", description="Measure the ways to fork a task.")
    parser.add_argument("--times", type=int, default=300, metavar="N")
    given = parser.parse_args()
    environment.prepare()
    print(
        f"Python {platform.python_version()}, {given.times} forks each\n\n| | median | least |\n|---|---|---|"
    )
    for name, seconds in in_zygote(given.times).items():
        print(f"| {name} | {statistics.median(seconds) * 1e3:.2f} ms | {min(seconds) * 1e3:.2f} ms |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
