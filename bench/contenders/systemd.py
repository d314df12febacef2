"""systemd: that of this machine, which is booted in namespaces as for the boot tests. Each task is a unit."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from machine import TOOLS, Machine

from bench.contenders.daemon_session import DaemonSession
from bench.fleet import SERVICE, Command, Fleet
from bench.receiver import Receiver

_PYTHON = "/opt/bench/bin/" + Path(sys.executable).name
_INSTALL = (
    "mkdir /opt/bench && cd /mnt && cp -a --parents bin pyvenv.cfg lib/python*/site-packages/*zmq* /opt/bench"
)
"""The booted machine has a /tmp of its own, in which the virtual environment of this Python may lie."""
_UNIT = """[Unit]
StartLimitIntervalSec=0
{more}
[Service]
ExecStart={python} /opt/bench/service.py {kind}-%i /run/bench.receiver
Restart={again}
RestartSec=0
"""


def cannot_boot() -> str:
    """Return the reason why this machine cannot boot another one; empty if it can."""
    if os.geteuid() != 0:
        return "only root can boot a machine"
    lacks = [tool for tool in TOOLS if not shutil.which(tool)]
    return f"a machine cannot be booted without {', '.join(lacks)}" if lacks else ""


class Systemd:
    name = "systemd"

    def missing(self) -> str:
        venv = sys.prefix != sys.base_prefix
        return cannot_boot() or ("" if venv else "it needs a Python in a virtual environment")

    @contextlib.contextmanager
    def open(self, fleet: Fleet, home: Path) -> Iterator[SystemdSession]:
        with (
            Machine("sh", "-c", _INSTALL, checkout=Path(sys.prefix)) as machine,
            Receiver(machine.root / "run/bench.receiver") as receiver,
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
            yield SystemdSession(fleet, receiver, machine)


class SystemdSession(DaemonSession):
    role = "systemd"

    def __init__(self, fleet: Fleet, receiver: Receiver, machine: Machine) -> None:
        super().__init__(fleet, receiver, machine.pid)
        self._machine = machine

    def _run(self, command: str) -> None:
        self.in_background(lambda: self._machine.sh(command, check=False))

    def order_start(self) -> None:
        self._run("systemctl start --no-block fleet.target")

    def order_stop(self) -> None:
        self._run("systemctl stop --no-block 'work@*.service' 'victim@*.service'")

    def stopped(self) -> None:
        self.started()

    def status(self) -> Command:
        enter = ["nsenter", "-t", str(self._machine.pid), "-m", "-p", "-n", "-r", "-w"]
        return Command(argv=[*enter, "systemctl", "--no-pager", "list-units", "work@*"])

    def start_task(self, name: str) -> None:
        self._machine.sh(f"systemctl start {name.replace('-', '@')}.service")
