"""systemd: this machine's own, booted in namespaces as for the boot tests. Each task is a unit."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from machine import TOOLS, Machine

from bench.ear import Ear, end
from bench.fleet import SERVICE, Command, Fleet

_PYTHON = "/opt/bench/bin/" + Path(sys.executable).name
_INSTALL = (
    "mkdir /opt/bench && cd /mnt && cp -a --parents bin pyvenv.cfg lib/python*/site-packages/*zmq* /opt/bench"
)
"""The virtual environment may lie where the machine has a /tmp of its own."""
_UNIT = """[Unit]
StartLimitIntervalSec=0
{more}
[Service]
ExecStart={python} /opt/bench/service.py {kind}-%i /run/bench.ear
Restart={again}
RestartSec=0
"""


class Systemd:
    name = "systemd"

    def missing(self) -> str:
        if os.geteuid() != 0:
            return "only root can boot a machine"
        lacks = [tool for tool in TOOLS if not shutil.which(tool)]
        if lacks:
            return f"a machine cannot be booted without {', '.join(lacks)}"
        return "" if sys.prefix != sys.base_prefix else "it needs a Python in a virtual environment"

    @contextlib.contextmanager
    def open(self, fleet: Fleet, home: Path) -> Iterator[SystemdSession]:
        with (
            Machine("sh", "-c", _INSTALL, checkout=Path(sys.prefix)) as machine,
            Ear(machine.root / "run/bench.ear") as ear,
        ):
            machine.put("/opt/bench/service.py", SERVICE.read_text())
            for kind, again, more in (
                ("work", "always", ""),
                ("victim", "no", "OnFailure=heir@%i.service"),
                ("heir", "no", ""),
            ):
                machine.put(
                    f"/etc/systemd/system/{kind}@.service",
                    _UNIT.format(kind=kind, python=_PYTHON, again=again, more=more),
                )
            wants = " ".join(name.replace("-", "@") + ".service" for name in fleet.entry)
            machine.put("/etc/systemd/system/fleet.target", f"[Unit]\nWants={wants}\n")
            machine.sh("systemctl daemon-reload")
            yield SystemdSession(fleet, ear, machine)


class SystemdSession:
    tells = False

    def __init__(self, fleet: Fleet, ear: Ear, machine: Machine) -> None:
        self.fleet = fleet
        self.ear = ear
        self._machine = machine
        self._order: threading.Thread | None = None

    def _in_background(self, command: str) -> None:
        self._order = threading.Thread(target=lambda: self._machine.sh(command, check=False))
        self._order.start()

    def order_start(self) -> None:
        self._in_background("systemctl start --no-block fleet.target")

    def started(self) -> None:
        assert self._order is not None
        self._order.join()

    def order_stop(self) -> None:
        self._in_background("systemctl stop --no-block 'work@*.service' 'victim@*.service'")

    def stopped(self) -> None:
        self.started()

    def status(self) -> Command:
        enter = ["nsenter", "-t", str(self._machine.pid), "-m", "-p", "-n", "-r", "-w"]
        return Command(argv=[*enter, "systemctl", "--no-pager", "list-units", "work@*"])

    def managers(self) -> dict[str, list[int]]:
        return {"systemd": [self._machine.pid]}

    def revive(self, victim: str, heir: str) -> None:
        end(self.ear.pids[heir])
        self._machine.sh(f"systemctl start {victim.replace('-', '@')}.service")
        self.ear.hear([victim])
