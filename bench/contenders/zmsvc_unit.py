"""zmsvc as `make install` installs it: under its unit, on a systemd that is booted in namespaces. The unit has a
seccomp filter that hides clone3(2). Its tasks have control groups and log to the journal.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from context import Context
from machine import Machine

from bench.contenders.systemd import cannot_boot
from bench.contenders.zmsvc import EAGER, ControlSession, add_tasks
from bench.fleet import Command, Fleet
from bench.receiver import Receiver

CHECKOUT = Path(__file__).parents[2]
_NAME = "Bench"
_UNIT = f"zmsvc@{_NAME}.service"
_RECEIVER = Path("/run/bench.receiver")
_NO_TASKS = """[Service]
ExecStart=
ExecStart=/usr/local/bin/zmsvcd --foreground --no-autostart %i
"""


class ZmsvcUnit:
    name = "zmsvc (unit)"

    def missing(self) -> str:
        return cannot_boot()

    @contextlib.contextmanager
    def open(self, fleet: Fleet, home: Path) -> Iterator[UnitSession]:
        with installed() as machine, Receiver(machine.root / _RECEIVER.relative_to("/")) as receiver:
            context = Context(machine.root / "etc/zmsvc", _NAME)
            context.edit = lambda text: text.replace(str(machine.root), "")
            context.subscribe_endpoint, context.publish_endpoint = (
                f"ipc:///run/zmsvc/{_NAME}/{end}" for end in ("sub", "pub")
            )
            add_tasks(context, fleet, _RECEIVER, EAGER)
            context.write()
            machine.put(f"/etc/systemd/system/{_UNIT}.d/start.conf", _NO_TASKS)
            machine.sh(f"systemctl daemon-reload; systemctl start {_UNIT}")
            yield UnitSession(machine, fleet, receiver)


@contextlib.contextmanager
def installed() -> Iterator[Machine]:
    """Yield a booted machine on which zmsvc is installed and no context runs."""
    with Machine("make", "-C", "/mnt", "install", checkout=CHECKOUT) as machine:
        yield machine


class UnitSession(ControlSession):
    def __init__(self, machine: Machine, fleet: Fleet, receiver: Receiver) -> None:
        super().__init__(machine.root / f"run/zmsvc/{_NAME}/control.sock", fleet, receiver)
        self._machine = machine

    def status(self) -> Command:
        enter = ["nsenter", "-t", str(self._machine.pid), "-m", "-p", "-n", "-r", "-w"]
        return Command(argv=[*enter, "zmsvcctl", "-c", _NAME, "status"])

    def managers(self) -> dict[str, list[int]]:
        """Return the processes in the control groups of the unit that are not those of tasks."""
        found: dict[str, list[int]] = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                group = (process / "cgroup").read_text()
                if re.search(rf"/{re.escape(_UNIT)}/(?!tasks/)", group):
                    role = (process / "comm").read_text().strip()
                    found.setdefault(role, []).append(int(process.name))
        return found
