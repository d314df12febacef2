"""s6 and runit: both have a directory of services, and a small supervisor process for each. The `finish`
script of a victim starts its heir.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.fleet import SERVICE, Command, Fleet, running
from bench.receiver import Receiver, end


class Suite:
    """s6 or runit. The order to start is the start of the process that scans the directory."""

    name = ""
    scan: tuple[str, ...] = ()
    finish = ""
    """The `finish` script of a victim; $HEIR is the directory of its heir."""
    again = ""
    """The command that starts the service in $0."""
    look = ""
    """The command that shows all services."""
    environment = ""
    files: tuple[tuple[str, str], ...] = ()
    """Further files of each service."""

    def missing(self) -> str:
        return "" if shutil.which(self.scan[0]) else f"it is not installed: apt-get install {self.name}"

    @contextlib.contextmanager
    def open(self, fleet: Fleet, home: Path) -> Iterator[SuiteSession]:
        directory = home / "services"
        with Receiver(home / "receiver") as receiver:
            for name in fleet.entry + fleet.heirs:
                self._service(directory / name, receiver)
            for victim, heir in zip(fleet.victims, fleet.heirs, strict=True):
                _script(directory / victim / "finish", self.finish.replace("$HEIR", str(directory / heir)))
                (directory / heir / "down").touch()
            with contextlib.ExitStack() as stack:
                session = SuiteSession(self, fleet, receiver, directory, stack)
                yield session
                session.end()

    def _service(self, directory: Path, receiver: Receiver) -> None:
        directory.mkdir(parents=True)
        _script(
            directory / "run",
            f"exec {self.environment}{sys.executable} {SERVICE} {directory.name} {receiver.path}",
        )
        for name, text in self.files:
            (directory / name).write_text(text)


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


class SuiteSession:
    tells = False

    def __init__(
        self, suite: Suite, fleet: Fleet, receiver: Receiver, directory: Path, stack: contextlib.ExitStack
    ) -> None:
        self.fleet = fleet
        self.receiver = receiver
        self._suite = suite
        self._directory = directory
        self._stack = stack
        self._pid = 0

    def order_start(self) -> None:
        scan = [*self._suite.scan, str(self._directory)]
        self._pid = self._stack.enter_context(running(scan, self._directory.with_name("log"))).pid

    def started(self) -> None: ...

    def order_stop(self) -> None:
        # For both, this signal means: end all services, and then end.
        os.kill(self._pid, signal.SIGTERM if self._suite.name == "s6" else signal.SIGHUP)

    def stopped(self) -> None: ...

    def end(self) -> None:
        """End the suite, and kill every process that works in its directories. The supervisor processes go on
        without their parent. One of runit hangs if its `finish` script writes to it while it ends.
        """
        with contextlib.suppress(ProcessLookupError):
            self.order_stop()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(process / "cwd").startswith(f"{self._directory}/"):
                    os.kill(int(process.name), signal.SIGKILL)

    def status(self) -> Command:
        return Command(argv=["/bin/sh", "-c", self._suite.look, str(self._directory)])

    def managers(self) -> dict[str, list[int]]:
        children = Path(f"/proc/{self._pid}/task/{self._pid}/children")
        return {
            "scan": [self._pid],
            "supervise": [int(pid) for pid in children.read_text().split()] if children.exists() else [],
        }

    def revive(self, victim: str, heir: str) -> None:
        end(self.receiver.pids[heir])
        Command(argv=["/bin/sh", "-c", self._suite.again, str(self._directory / victim)]).run()
        self.receiver.hear([victim])


class S6(Suite):
    """s6, with notifications of readiness: without them s6 delays each service by a second."""

    name = "s6"
    scan = ("s6-svscan", "-c", "4000")
    # With exit status 125 s6 does not start the service again.
    finish = "s6-svc -o $HEIR; exit 125"
    again = 'exec s6-svc -u "$0"'
    look = 'for each in "$0"/*; do s6-svstat "$each"; done'
    environment = "env BENCH_READY_FD=3 "
    files = (("notification-fd", "3\n"),)


class Runit(Suite):
    name = "runit"
    scan = ("runsvdir",)
    finish = "printf d > supervise/control; printf o > $HEIR/supervise/control"
    again = 'printf u > "$0"/supervise/control'
    look = 'exec sv status "$0"/*'
