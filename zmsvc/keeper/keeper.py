"""The keeper's loop: one thread, one epoll, no policy. It holds processes and sockets, and runs supervisor and device again.

While a supervisor lives the keeper does what it is told; while none lives it only waits, remembers every end, and starts the next one.
"""

from __future__ import annotations

import errno
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, assert_never

from zmsvc import __version__
from zmsvc.core.errors import ProtocolError, ZmsvcError
from zmsvc.host import linux, notify, packets
from zmsvc.host.complain import complain
from zmsvc.host.paths import Places
from zmsvc.keeper.brood import Brood
from zmsvc.keeper.doors import Doors
from zmsvc.keeper.keyring import Keyring
from zmsvc.keeper.relay import Relay
from zmsvc.keeper.worker import Device, Supervisor
from zmsvc.keeper.zygote_client import ZygoteClient
from zmsvc.protocol import PROTOCOL
from zmsvc.protocol import supervision as sv
from zmsvc.protocol.launch import Descriptors, LaunchSpec

WATCHDOG = 30.0
"""Seconds without a sign of life after which a supervisor is taken for hung, where systemd asks for nothing shorter."""
END_TIMEOUT = 2.5
"""Seconds that the device has for an ordered end; it ends itself after 2 s, unless it is stopped."""
HOPELESS = (errno.EACCES, errno.ENOENT, errno.ENOEXEC)
"""Why a first supervisor cannot be executed: this user cannot reach the Python that runs here, or it is gone."""
MAX_OUTBOX = 100_000
"""Messages that wait for a supervisor that does not read: more than all launches of a large context."""


class Keeper:
    """One context's keeper. `run` gives the exit status of the daemon."""

    def __init__(self, places: Places, doors: Doors, arguments: list[str], cgroup: Path | None, keyring: Keyring | None) -> None:
        self._doors = doors
        self._keyring = keyring
        self._cgroup = cgroup
        self._epoch = os.urandom(16).hex()
        self._capable = os.geteuid() != 0 and linux.has_capabilities()
        """Whether tasks would inherit capabilities (AmbientCapabilities= of the unit), by which any of them could become root."""
        self._by_hand = "NOTIFY_SOCKET" not in os.environ
        """A person started this, and no service manager."""
        systemd_wants = int(os.environ.pop("WATCHDOG_USEC", 0)) / 1e6
        os.environ.pop("WATCHDOG_PID", None)
        self._selector = selectors.DefaultSelector()
        self._systemd = Relay(os.environ.pop("NOTIFY_SOCKET", None), self._selector)
        self._outbox: deque[tuple[sv.Report, dict[str, int]]] = deque()
        self._stopping = False
        self._ending: float | None = None
        self._empty = False
        self._status = 0
        self.ready: Callable[[str], None] = lambda _error: None
        """Called once, when the context is ready for the first time, with what of it has failed at once."""
        unwatch = self._selector.unregister
        self._zygote = ZygoteClient(cgroups=cgroup is not None, watch=self._watch, unwatch=unwatch, greeted=self._tell_zygote)
        tasks = cgroup / "tasks" if cgroup else None
        self._brood = Brood(self._tell, self._zygote, places.mark, tasks, self._watch, unwatch)
        self._supervisor = Supervisor(arguments, places, doors, systemd_wants / 2 or WATCHDOG, self._in_group("supervisor"))
        self._device = Device(places, doors, self._in_group("device"), keyring)

    def _in_group(self, name: str) -> Path | None:
        return self._cgroup / name if self._cgroup else None

    # --- the loop

    def run(self) -> int:
        linux.become_subreaper()
        # First, since it takes longer than the supervisor until it wants a task.
        self._start_zygote()
        wakeup = self._catch_signals()
        self._watch(wakeup, lambda: self._on_signals(wakeup))
        self._watch(self._doors.keeper.fileno(), self._on_notify)
        self._start_supervisor()
        while not self._over():
            for key, _ in self._selector.select(self._timeout()):
                key.data()
            # Ends are taken after messages: a program that was executed and has ended was executed first.
            self._reap()
            self._on_time()
        self._device.close()
        return self._status

    def _catch_signals(self) -> int:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, _nothing)
        return reader

    def _watch(self, fd: int, call: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, call)

    def _on_signals(self, reader: int) -> None:
        for number in set(os.read(reader, 4096)):
            if number in (signal.SIGTERM, signal.SIGINT) and not self._stopping:
                self._stopping = True
                self._tell(sv.StopAll(signal=signal.Signals(number).name))
            elif number == signal.SIGHUP:
                self._tell(sv.Reload())

    def _timeout(self) -> float | None:
        workers = (self._supervisor.due(), self._device.due()) if self._ending is None else (self._ending,)
        due = [at for at in workers if at is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _on_time(self) -> None:
        now = time.monotonic()
        if self._ending is not None:
            # An orphan's children become ours only when it is dead, so each look may find new ones.
            self._empty = not self._brood.kill_everything()
            if now >= self._ending:
                self._device.signal(signal.SIGKILL)
                self._ending = now + END_TIMEOUT
            return
        if self._supervisor.pid is None and self._supervisor.is_due(now):
            self._start_supervisor()
        elif self._supervisor.pid is not None and self._supervisor.is_due(now):
            self._supervisor.abort()
            self._systemd.say("WATCHDOG=1")
        if self._device.is_due(now):
            if self._device.pid is None:
                self._start_device()
            else:
                self._device.abort()

    # --- the zygote

    def _start_zygote(self) -> None:
        try:
            self._zygote.start()
        except OSError as error:
            # The first launch tries it again.
            complain(f"zmsvcd: cannot start the zygote: {error.strerror}")

    def _tell_zygote(self) -> None:
        self._tell(sv.ZygoteState(version=self._zygote.version))

    # --- the supervisor

    def _start_supervisor(self) -> None:
        self._outbox.clear()
        try:
            conn = self._supervisor.start()
        except OSError as error:
            if error.errno in HOPELESS and not self._supervisor.was_ready:
                complain(f"zmsvcd: cannot start the supervisor with {sys.executable}: {error.strerror}")
                self._status = 1
                self._end()
                return
            # A task that has used up all processes must not take the others along: they run on, and this is tried again.
            complain(f"zmsvcd: cannot start the supervisor: {error.strerror}; trying again")
            self._supervisor.put_off()
            return
        self._brood.others.add(self._supervisor.pid or 0)
        self._watch(conn.fileno(), lambda: self._on_message(conn))
        self._tell(
            sv.Hello(
                epoch=self._epoch,
                restarts=self._supervisor.restarts,
                stopping=self._stopping,
                children=self._brood.living(),
                ends=self._brood.ends(),
                device=self._device.told(),
                cgroup=str(self._cgroup / "tasks") if self._cgroup else None,
                curve=self._keyring.client if self._keyring else None,
                protocol=PROTOCOL,
                version=__version__,
                zygote_version=self._zygote.version,
                users=len(self._doors.notify_of),
            )
        )
        for uid in self._doors.notify_of:
            self._tell_notify_socket(uid)

    def _tell_notify_socket(self, uid: int) -> None:
        self._tell(sv.NotifySocket(uid=uid), {"socket": self._doors.notify_of[uid].fileno()})

    def _tell(self, message: sv.Report, fds: dict[str, int] | None = None) -> None:
        """Send to the supervisor; what it does not take now waits for it. Ends are never lost: the next one is told again."""
        if self._supervisor.conn is None:
            return
        if len(self._outbox) >= MAX_OUTBOX:
            # It hangs, and what it misses it would never hear of: the next one is told how things stand.
            self._supervisor.signal(signal.SIGKILL)
            return
        self._outbox.append((message, fds or {}))
        self._flush()

    def _flush(self) -> None:
        conn = self._supervisor.conn
        if conn is None:
            return
        try:
            while self._outbox:
                message, fds = self._outbox[0]
                packets.send(conn, sv.REPORTS.encode(message), fds)
                self._outbox.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._outbox.clear()
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outbox else 0)
        self._selector.modify(conn, events, lambda: self._on_message(conn))

    def _on_message(self, conn: socket.socket) -> None:
        self._flush()
        while self._supervisor.conn is conn:
            try:
                order = packets.receive_message(conn, sv.ORDERS)
            except BlockingIOError:
                return
            except ProtocolError as error:
                # Of a supervisor of another release; what it orders beside is still good.
                complain(f"zmsvcd: the supervisor: {error}")
                continue
            if order is None:
                self._hang_up(conn)
                return
            self._obey(order)

    def _hang_up(self, conn: socket.socket) -> None:
        self._selector.unregister(conn)
        conn.close()
        self._supervisor.conn = None

    def _obey(self, order: sv.Order) -> None:
        match order:
            case LaunchSpec():
                self._launch(order)
            case sv.SignalTask():
                self._brood.signal(order.launch, order.signal)
            case sv.KillTask():
                self._brood.kill(order.launch)
            case sv.Acknowledge():
                self._brood.acknowledge(order.launch)
            case sv.RunDevice():
                self._device.settings = order
                if self._device.pid is None:
                    self._start_device()
            case sv.RestartDevice():
                self._device.signal(signal.SIGTERM)
            case sv.ReplaceDevice():
                if order.pid == self._device.pid:
                    self._device.signal(signal.SIGKILL)
            case sv.Leave():
                self._supervisor.leaving = True
                self._status = order.status
            case sv.Reexec():
                self._supervisor.replacing = True
            case sv.Introduce():
                self._supervisor.protocol = order.protocol
            case _:
                assert_never(order)

    def _launch(self, order: LaunchSpec) -> None:
        spec, fds = self._keyring.hand_to(order) if self._keyring else (order, Descriptors())
        if self._capable:
            spec = replace(spec, drop_capabilities=True)
        if spec.uid is not None:
            uid, known = spec.uid, spec.uid in self._doors.notify_of
            try:
                spec = replace(spec, notify=str(self._doors.notify_path(uid)), own_environment=self._by_hand)
            except ZmsvcError as error:
                self._tell(sv.LaunchFailed(launch=spec.launch, why=str(error)))
                return
            if not known:
                self._tell_notify_socket(uid)
        self._brood.launch(spec, fds)

    # --- the device

    def _start_device(self) -> None:
        try:
            problem = self._device.start()
        except OSError as error:
            problem = f"cannot start the device: {error.strerror}; trying again"
            complain(f"zmsvcd: {problem}")
            self._device.put_off()
        if self._device.pid is not None:
            self._brood.others.add(self._device.pid)
        self._tell(replace(self._device.told(), problem=problem))

    # --- notifications of supervisor and device

    def _on_notify(self) -> None:
        while (datagram := notify.receive(self._doors.keeper)) is not None:
            for fd in datagram.fds:
                os.close(fd)
            words = dict(datagram.lines)
            if datagram.pid == self._supervisor.pid:
                self._supervisor.beat()
                if words.get("READY") == "1" and not self._supervisor.was_ready:
                    self._supervisor.was_ready = True
                    self.ready(words.get("X_ZMSVC_ERROR", ""))
                self._systemd.say("\n".join(f"{name}={value}" for name, value in datagram.lines))
            elif datagram.pid == self._device.pid and self._device.hear(words):
                self._tell(self._device.told())

    # --- ends

    def _reap(self) -> None:
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                return
            if info is None:
                return
            self._brood.others.discard(info.si_pid)
            if info.si_pid == self._supervisor.pid:
                self._supervisor_ended(info)
            elif info.si_pid == self._device.pid:
                self._device.ended()
                self._tell(self._device.told())
            elif info.si_pid == self._zygote.pid:
                # Not at the next launch, which would have to wait for it.
                again = self._zygote.worked and self._ending is None
                self._zygote.ended()
                if again:
                    self._start_zygote()
            else:
                self._brood.reaped(info)

    def _supervisor_ended(self, info: Any) -> None:
        conn = self._supervisor.conn
        if conn is not None:
            # Orders that it sent before its end still count: a launch that is in the state file must happen.
            self._on_message(conn)
        if self._supervisor.conn is not None:
            self._hang_up(self._supervisor.conn)
        given_up = info.si_code == os.CLD_EXITED and not self._supervisor.was_ready and not self._supervisor.leaving
        self._supervisor.ended()
        if given_up:
            # It never came up, and it said why on stderr: a bad file, a state file of a newer version, a port in use.
            self._status = info.si_status or 1
        if self._supervisor.leaving or given_up:
            self._end()
        else:
            complain(f"zmsvcd: the supervisor ended ({_told(info)}), starting the next one")

    def _end(self) -> None:
        """The context is over: nothing of it may stay."""
        self._ending = time.monotonic() + END_TIMEOUT
        self._device.signal(signal.SIGTERM)

    def _over(self) -> bool:
        return self._ending is not None and self._device.pid is None and self._empty


def _nothing(_number: int, _frame: object) -> None:
    """A handler, so that the signal reaches the wakeup pipe."""


def _told(info: Any) -> str:
    return f"status {info.si_status}" if info.si_code == os.CLD_EXITED else f"signal {info.si_status}"
