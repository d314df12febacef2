"""zmsvc: the real daemon, which is started by hand, and its control socket. Its tasks connect to the bus
before they are ready. `zmsvc_unit.py` has the same under its unit.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from context import Context
from ports import free_ports
from waiting import wait_for

from bench.fleet import Command, Fleet
from bench.receiver import PATIENCE, Receiver, end

TRANSACTION = "BENCH"

WORK = """
import socket
import time

from zmsvc.task import LoopedTask, TaskService


class Waiting(LoopedTask):
    \"\"\"Says that it runs, and connects to the bus: its first message waits for the device.\"\"\"

    interval = 86400.0

    def setup(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.sendto(b"%s %d" % (self.service_id.encode(), time.monotonic_ns()), self.config["receiver"])
        self.publish("bench", {"header": {"service_id": self.service_id}})

    def step(self):
        pass


class ServiceWork(TaskService):
    service_name = "work"
    task_class = Waiting
"""

ASYNC = """
import asyncio

from zmsvc.task import AsyncTask, TaskService


class Waiting(AsyncTask):
    async def run(self):
        await asyncio.Event().wait()


class ServiceIdleAsync(TaskService):
    service_name = "idle"
    task_class = Waiting
"""
EAGER = "<restart_delay>0</restart_delay><restart_max_delay>0</restart_max_delay>"
"""All contenders restart tasks without a delay."""


class Zmsvc:
    """`beside` is the number of further tasks that run and are not measured, a quarter of each kind. With
    `disk` the state file is on a disk. With `cgroups` the daemon gets a control group, as it does from systemd (Delegate=yes). `without` names
    shortcuts for ZMSVC_DISABLE. `wrapper` is a command that runs the daemon, by executing the rest of its
    arguments. With `tcp` the bus is at loopback ports. `service` is XML in the `<service>` of each task. A
    contender with `tcp`, `service`, `beside` or `disk` has a `label`.
    """

    def __init__(
        self,
        *,
        cgroups: bool = False,
        without: Sequence[str] = (),
        wrapper: Sequence[str] = (),
        tcp: bool = False,
        service: str = "",
        beside: int = 0,
        disk: bool = False,
        label: str = "",
    ) -> None:
        self.name = label or (
            "zmsvc (cgroups)" if cgroups else f"zmsvc (no {', '.join(without)})" if without else "zmsvc"
        )
        self._tcp, self._service = tcp, service
        self._beside, self._disk = beside, disk
        self._cgroups = cgroups
        self._without = without
        self._wrapper = wrapper

    def missing(self) -> str:
        if self._cgroups and (os.geteuid() != 0 or _cgroup_base() is None):
            return "only root can give it a control group, where there is cgroup v2"
        return ""

    @contextlib.contextmanager
    def open(self, fleet: Fleet, home: Path) -> Iterator[ZmsvcSession]:
        context = Context(home, "Bench")
        context.wrapper = [*self._wrapper]
        with (
            Receiver(home / "receiver") as receiver,
            _control_group(self._cgroups) as group,
            tempfile.TemporaryDirectory(prefix="zmb", dir="/var/tmp") as disk,
        ):
            if self._tcp:
                context.subscribe_endpoint, context.publish_endpoint = (
                    f"tcp://127.0.0.1:{port}" for port in free_ports(2)
                )
            add_tasks(context, fleet, receiver.path, EAGER + self._service)
            _add_others(context, self._beside)
            try:
                with group:
                    # The log goes to the file alone, as with `--detach`.
                    context.start(
                        "--no-autostart",
                        ZMSVC_LOG=str(home / "context.log"),
                        ZMSVC_DISABLE=",".join(self._without),
                        ZMSVC_STATE_DIR=disk if self._disk else context.environment["ZMSVC_STATE_DIR"],
                    )
                yield ZmsvcSession(context, fleet, receiver)
            finally:
                context.close()


def add_tasks(context: Context, fleet: Fleet, receiver: Path, service: str) -> None:
    context.service("Work", WORK)
    config = f"<receiver>{receiver}</receiver>"
    for name in fleet.workers:
        context.task(name, "Work", config=config, service=service, rules={"on_fail": ("restart", name)})
    for victim, heir in zip(fleet.victims, fleet.heirs, strict=True):
        context.task(victim, "Work", config=config, service=service, rules={"on_fail": ("start", heir)})
        context.task(heir, "Work", config=config, service=service, entry=False)


def _add_others(context: Context, count: int) -> None:
    if count:
        context.looped("Idle")
        context.service("IdleAsync", ASYNC)
    kinds = (("Idle", "Process"), ("Idle", "Thread"), ("IdleAsync", "Process"), ("Sleep", "Command"))
    for number in range(count):
        instance, kind = kinds[number % len(kinds)]
        config = "<command>sleep infinity</command>" if kind == "Command" else ""
        context.task(f"other-{number:03}", instance, kind=kind, config=config)


class ControlSession:
    """Orders go over the control socket. The answer comes when all tasks are ready, or have ended."""

    tells = True

    def __init__(self, control: Path, fleet: Fleet, receiver: Receiver) -> None:
        self._control = control
        self.fleet = fleet
        self.receiver = receiver
        self._pending: socket.socket | None = None

    def order_start(self) -> None:
        self._order(verb="start", transaction=TRANSACTION)

    def started(self) -> None:
        self.answered()

    def order_stop(self) -> None:
        self._order(verb="stop", transaction=TRANSACTION)

    def stopped(self) -> None:
        self.answered()

    def revive(self, victim: str, heir: str) -> None:
        # This does not stop the task by an order, because no rule starts a task that an operator has stopped.
        end(self.receiver.pids[heir])
        self.ask(verb="start", transaction=TRANSACTION, tasks=[victim])
        self.receiver.hear([victim])

    def ask(self, **request: Any) -> dict[str, Any]:
        self._order(**request)
        return self.answered()

    def _order(self, **request: Any) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(str(self._control))
        sock.sendall(json.dumps(request).encode() + b"\n")
        self._pending = sock

    def answered(self) -> dict[str, Any]:
        """Return the answer to the last order."""
        assert self._pending is not None
        with self._pending as sock, sock.makefile("rb") as answers:
            line = answers.readline()
        self._pending = None
        if not line:
            raise ConnectionError(f"the supervisor hung up; the end of its log:\n{self._end_of_log()}")
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            raise RuntimeError(f"cannot measure zmsvc: {answer}")
        return answer

    def _end_of_log(self) -> str:
        return "(none)"


class ZmsvcSession(ControlSession):
    def __init__(self, context: Context, fleet: Fleet, receiver: Receiver) -> None:
        super().__init__(context.runtime / context.name / "control.sock", fleet, receiver)
        self.context = context

    def status(self) -> Command:
        argv = [sys.executable, "-P", "-m", "zmsvc.ctl", "-c", self.context.name, "status"]
        return Command(argv=argv, environment=self.context.environment)

    def managers(self) -> dict[str, list[int]]:
        status = self.ask(verb="status")["data"]
        own = {"keeper": "keeper_pid", "supervisor": "pid", "device": "device_pid"}
        forks = {"zygote": [self.context.zygote()], "spare task": wait_for(self.context.spare_tasks)}
        return forks | {role: [status[name]] for role, name in own.items()}

    def _end_of_log(self) -> str:
        return self.context.log.read_text()[-1000:]


def _cgroup_base() -> Path | None:
    bases = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
    return next((base for base in bases if (base / "cgroup.procs").exists()), None)


@contextlib.contextmanager
def _control_group(wanted: bool) -> Iterator[contextlib.AbstractContextManager[None]]:
    """Yield a delegated control group: processes that the block starts begin in it."""
    base = _cgroup_base() if wanted else None
    if base is None:
        yield contextlib.nullcontext()
        return
    group = base / f"zmbench-{os.getpid()}"
    group.mkdir()
    os.setxattr(group, "trusted.delegate", b"1")
    try:
        yield _inside(group)
    finally:
        (group / "cgroup.kill").write_text("1")
        for path, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(path)


@contextlib.contextmanager
def _inside(group: Path) -> Iterator[None]:
    before = _own_group(group.parent)
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (before / "cgroup.procs").write_text(str(os.getpid()))


def _own_group(base: Path) -> Path:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return base / line[3:].strip().lstrip("/")
    return base
