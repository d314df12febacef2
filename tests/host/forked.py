"""Tasks as the keeper starts them: forked, in their own sessions, with a real notify socket that the test
reads.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import textwrap
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import waiting

from zmsvc.core import messages
from zmsvc.host.bus.sockets import Publisher
from zmsvc.host.systemd import datagrams
from zmsvc.keeper.dispatcher import Dispatcher
from zmsvc.keeper.machine import Machine
from zmsvc.keeper.spare_tasks import SpareTasks
from zmsvc.keeper.task_groups import TaskGroups
from zmsvc.keeper.zygote_client import ZygoteClient
from zmsvc.protocol.launch import Descriptors, LaunchSpec
from zmsvc.task import runner

LOOPED = """
from zmsvc.task import LoopedTask, TaskService
import os, subprocess, threading, time

class Work(LoopedTask):
    interval = 3600.0
{body}

class Service{name}(TaskService):
    service_name = "{name}"
    task_class = Work
"""
SINGLE = LOOPED.replace("LoopedTask", "SingleTask").replace("    interval = 3600.0\n", "")


NO_DESCRIPTORS = Descriptors()


def launch_spec(**changes: Any) -> LaunchSpec:
    """Return the launch of a task, with these changes."""
    told: dict[str, Any] = {
        "launch": 17,
        "context": "Echo",
        "context_id": "context001",
        "transaction": "TX",
        "task": "ts_100",
        "instance": "Work",
        "service_name": "work",
        "service_type": "Process",
        "device_action": "act",
        "description": "",
        "configuration": {},
        "search": (),
        "command": (),
        "frontend": "",
        "backend": "",
        "cause": {"by": "operator", "uid": 0, "depth": 0, "sources": []},
        "notify": "",
        "log": "stderr",
    }
    return LaunchSpec(**{**told, **changes})


class Forks(ZygoteClient):
    """A client with its own selector, which forks one task at a time."""

    def __init__(self, *, cgroups: bool, most_warm: int | None) -> None:
        self.machine = Machine()
        self.dispatcher = Dispatcher(self.machine)
        groups = TaskGroups(self.machine, None)
        self.spares = (
            None if most_warm is None else SpareTasks(self.machine, self.dispatcher, None, most_warm)
        )
        super().__init__(
            self.machine,
            self.dispatcher,
            cgroups=cgroups,
            groups=groups,
            on_greeting=lambda: None,
            spares=self.spares,
        )

    def forked(self, spec: LaunchSpec, cgroup: Path | None, fds: Descriptors) -> int:
        """Fork a task and wait for its PID. Raises OSError."""
        found: list[int | OSError] = []
        self.fork(spec, cgroup, fds, lambda pid, _started: found.append(pid), found.append)
        until = time.monotonic() + waiting.PATIENCE
        while not found:
            assert time.monotonic() < until
            due = self.due()
            self.dispatcher.turn(waiting.PATIENCE if due is None else max(0.0, due - time.monotonic()))
            self.on_time(time.monotonic())
        if isinstance(found[0], OSError):
            raise found[0]
        return found[0]

    def end(self) -> None:
        """Let the zygote end, and reap it."""
        zygote = self.pid
        self.ended()
        if zygote is not None:
            reap(zygote)


def zygote_client(*, cgroups: bool = False, most_warm: int | None = None) -> Forks:
    """Return a client that handles events of its zygote only while it forks. It has spare tasks if
    `most_warm` of them may be warm.
    """
    return Forks(cgroups=cgroups, most_warm=most_warm)


class Task:
    """A forked task."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.reaped: int | None = None

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self) -> int:
        """Wait for the end of the task. Return the exit status, or minus the signal."""
        if self.reaped is None:
            self.reaped = reap(self.pid)
        return self.reaped

    def close(self) -> None:
        if self.reaped is None:
            os.kill(self.pid, signal.SIGKILL)
            self.end()


class Nest:
    """A directory with services, and the tasks that were forked from them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = home / "log"
        self.notify = datagrams.bind(home / "n", 0o666)
        self.tasks: list[Task] = []
        self.endpoints = {"frontend": f"ipc://{home}/front", "backend": f"ipc://{home}/back"}

    def close(self) -> None:
        for task in self.tasks:
            task.close()
        self.notify.close()

    # --- services

    def service(self, name: str, code: str, location: str = "Services") -> None:
        """Add a service with this module."""
        folder = self.home / location / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
        (folder / f"Service{name}.py").write_text(textwrap.dedent(code))

    def looped(self, body: str, name: str = "Work") -> None:
        """Add a service whose LoopedTask has these methods."""
        self.service(name, LOOPED.format(name=name, body=textwrap.indent(textwrap.dedent(body), "    ")))

    def single(self, body: str, name: str = "Work") -> None:
        """Add a service whose SingleTask has these methods."""
        self.service(name, SINGLE.format(name=name, body=textwrap.indent(textwrap.dedent(body), "    ")))

    # --- tasks

    def spec(self, **changes: Any) -> LaunchSpec:
        """Return the launch that the supervisor would send."""
        places = {
            "search": (str(self.home / "Services"),),
            "notify": str(self.home / "n"),
            "log": str(self.log),
        }
        return launch_spec(**{**places, **self.endpoints, **changes})

    def fork(self, fds: Descriptors = NO_DESCRIPTORS, **changes: Any) -> Task:
        """Fork a task as zmsvc.zygote does."""
        spec = self.spec(**changes)
        pid = os.fork()
        if pid == 0:
            status = 99
            try:
                # Like the zygote: a garbage cycle of the tests that is collected in the task would close a
                # descriptor by its number, which is by then one of the task: libzmq then aborts.
                gc.freeze()
                os.setsid()
                warnings.simplefilter("ignore")  # the filters for warnings of pytest do not apply to services
                signal.setitimer(signal.ITIMER_REAL, 0)
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
                    signal.signal(number, signal.SIG_DFL)
                runner.prepare_zygote(fds.given().values())
                status = runner.run(spec, fds)
            finally:
                os._exit(status)
        self.tasks.append(Task(pid))
        return self.tasks[-1]

    # --- what they say

    def next(self, deadline: float = waiting.PATIENCE) -> datagrams.Datagram:
        """Return the next datagram."""
        assert select.select([self.notify], [], [], deadline)[0], (
            f"nothing was said within {deadline:g} s; the log:\n{self.logged()}"
        )
        datagram = datagrams.receive(self.notify)
        assert datagram is not None
        return datagram

    def until(self, word: str) -> dict[str, str]:
        """Return the next datagram that has a line with this key, and drop those before it."""
        until = time.monotonic() + waiting.PATIENCE
        while word not in (said := dict((datagram := self.next()).lines)):
            assert time.monotonic() < until
        update, report = datagrams.texts_of(datagram)
        texts = {"X_ZMSVC_UPDATE": update, "X_ZMSVC_POISON": report}
        return said | {key: text for key, text in texts.items() if text is not None}

    def rest(self) -> list[str]:
        """Return the first line of each datagram that waits now."""
        found = []
        while (datagram := datagrams.receive(self.notify)) is not None:
            found.append("=".join(datagram.lines[0]))
            datagrams.texts_of(datagram)
        return found

    def empty(self) -> bool:
        """Return True if there are no further notifications."""
        try:
            self.notify.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False

    def logged(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


def reap(pid: int) -> int:
    """Wait for the end of a child. Return its exit status, or minus the signal."""
    waiting.wait_for_end(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def environment_of(pid: int) -> Mapping[str, str]:
    """Return the environment with which a program was executed."""
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


def update(nest: Nest) -> dict[str, Any]:
    """Return the items of the next update."""
    items = json.loads(nest.until("X_ZMSVC_SEQ")["X_ZMSVC_UPDATE"])
    assert isinstance(items, dict)
    return items


def control(transaction: str, task: str, number: int = 0) -> bytes:
    head = messages.header(transaction=transaction, service_id=task, action="updated", service_name="other")
    return messages.encode(
        "control", messages.control(head, success=True, device_action="act", pid=1, items={"number": number})
    )


def await_subscription(publisher: Publisher) -> None:
    """Wait until this publisher knows the subscription of the task."""
    waiting.wait_for(lambda: publisher.has_subscriber(b'control @@@ {"header":{"service_transaction":"TX"'))
