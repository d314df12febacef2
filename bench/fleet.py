"""The interface of every contender, and its input: a fleet of equal tasks, and pairs of a victim and an heir."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench.receiver import SERVICE, Receiver

__all__ = ["SERVICE", "Command", "Contender", "Receiver", "Fleet", "Session", "program", "running"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """`size` tasks that are restarted when they fail, and `pairs` of a victim and an heir: the failure of the
    victim starts the heir.
    """

    size: int = 0
    pairs: int = 0

    @property
    def workers(self) -> list[str]:
        return [f"work-{number:04}" for number in range(self.size)]

    @property
    def victims(self) -> list[str]:
        return [f"victim-{number:02}" for number in range(self.pairs)]

    @property
    def heirs(self) -> list[str]:
        return [f"heir-{number:02}" for number in range(self.pairs)]

    @property
    def entry(self) -> list[str]:
        """Return the tasks that run after the order to start."""
        return self.workers + self.victims


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program as a user would run it."""

    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def run(self, check: bool = True) -> str:
        done = subprocess.run(
            self.argv,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise RuntimeError(
                f"cannot run {' '.join(self.argv)}: {done.returncode}\n"
                f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        return done.stdout


class Session(Protocol):
    """A contender that runs and has read its configuration of the fleet. No task has been started yet."""

    fleet: Fleet
    receiver: Receiver
    tells: bool
    """True if `started` and `stopped` wait for a report of the contender. Otherwise the reports of the tasks
    are the only measure.
    """

    def order_start(self) -> None:
        """Order the start of all entry tasks, and return when the order has been given."""

    def started(self) -> None:
        """Wait until the contender itself reports that all entry tasks are ready, if it can report that."""

    def order_stop(self) -> None: ...

    def stopped(self) -> None: ...

    def status(self) -> Command:
        """Return the command that shows the status of all tasks."""

    def managers(self) -> dict[str, list[int]]:
        """Return the PIDs of the contender's own processes by role."""

    def revive(self, victim: str, heir: str) -> None:
        """Stop the heir, which has been started, and start the victim again."""


class Contender(Protocol):
    name: str

    def missing(self) -> str:
        """Return the reason why this machine cannot measure the contender; an empty string if it can."""

    def open(self, fleet: Fleet, home: Path) -> contextlib.AbstractContextManager[Session]:
        """Yield a session in an empty directory. At the end, no process or file of it is left."""


@contextlib.contextmanager
def running(
    argv: Sequence[str], log: Path, *, by: signal.Signals = signal.SIGTERM, **more: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the end of the block. Its output goes to a file. The signal `by` ends it."""
    with log.open("ab") as output:
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, **more}
        process: subprocess.Popen[bytes] = subprocess.Popen(argv, stderr=output, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(by)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()


def program(name: str) -> str:
    """Return a program of the environment in which this Python runs, else the one in PATH."""
    own = Path(sys.executable).with_name(name)
    return str(own) if own.exists() else name
