"""The keeper's loop: one thread, one epoll, no policy. It holds processes and sockets, and runs supervisor
and device again.

While a supervisor lives the keeper does what it is told; while none lives it only waits, remembers every end,
and starts the next one.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import assert_never

from zmsvc import __version__
from zmsvc.core.errors import ProtocolError, ZmsvcError
from zmsvc.host import seqpacket
from zmsvc.host.complain import complain
from zmsvc.host.kernel import linux
from zmsvc.host.paths import Places
from zmsvc.keeper.dispatcher import READ, WRITE, Dispatcher, attempt
from zmsvc.keeper.keyring import Keyring
from zmsvc.keeper.launch_record import how_of, words
from zmsvc.keeper.listeners import Listeners
from zmsvc.keeper.machine import ChildEnd, KeeperMachine, Machine
from zmsvc.keeper.output import OutputClient
from zmsvc.keeper.process_table import ProcessTable
from zmsvc.keeper.relay import Relay
from zmsvc.keeper.restarted_process import DeviceProcess, SupervisorProcess
from zmsvc.keeper.zygote_client import ZygoteClient
from zmsvc.protocol import PROTOCOL
from zmsvc.protocol import supervision as sv
from zmsvc.protocol.launch import Descriptors, LaunchSpec

WATCHDOG = 30.0
"""Seconds without a sign of life after which a supervisor is taken for hung, where systemd asks for
nothing shorter.
"""
END_TIMEOUT = 2.5
"""Seconds that the device has for an ordered end; it ends itself after 2 s, unless it is stopped."""
HOPELESS = (errno.EACCES, errno.ENOENT, errno.ENOEXEC)
"""Why a first supervisor cannot be executed: this user cannot reach the Python that runs here, or it is
gone.
"""
ORDERS = 1000
"""Orders that are taken before others have their turn."""
SAME_PRESS = 0.25
"""Seconds after the first Ctrl-C in which another one is the same: npm and other wrappers pass on what the
terminal has sent already.
"""
FLUSH_AGAIN = 0.1
"""Seconds until a message is tried again that the kernel had no room for."""
MAX_OUTBOX = 100_000
"""Messages that wait for a supervisor that does not read: more than all launches of a large context."""


class Keeper:
    """One context's keeper. `run` gives the exit status of the daemon."""

    def __init__(
        self,
        places: Places,
        doors: Listeners,
        arguments: list[str],
        cgroup: Path | None,
        keyring: Keyring | None,
        outside: KeeperMachine | None = None,
    ) -> None:
        outside = self._outside = outside or Machine()
        self._doors = doors
        self._keyring = keyring
        self._cgroup = cgroup
        self._epoch = os.urandom(16).hex()
        self._capable = os.geteuid() != 0 and linux.has_capabilities()
        """Whether tasks would inherit capabilities (AmbientCapabilities= of the unit), by which any of
        them could become root.
        """
        self._by_hand = "NOTIFY_SOCKET" not in os.environ
        """A person started this, and no service manager."""
        systemd_wants = int(os.environ.pop("WATCHDOG_USEC", 0)) / 1e6
        os.environ.pop("WATCHDOG_PID", None)
        self._dispatcher = Dispatcher(outside)
        self._systemd = Relay(os.environ.pop("NOTIFY_SOCKET", None), self._dispatcher)
        self._outbox: deque[tuple[sv.Report, dict[str, int]]] = deque()
        self._flush_at: float | None = None
        """When what waits is tried again, since the kernel had no room for it."""
        self._stopping = False
        self._asked_at = 0.0
        """When the first signal came that ends the context."""
        self._ending: float | None = None
        self._empty = False
        self._status = 0
        self.ready: Callable[[str], None] = lambda _error: None
        """Called once, when the context is ready for the first time, with what of it has failed at once."""
        self._output = OutputClient(outside, places, doors, self._in_group("output"), self._dispatcher)
        cgroups = cgroup is not None
        self._zygote = ZygoteClient(
            outside, self._dispatcher, cgroups=cgroups, greeted=self._tell_zygote, output=self._output
        )
        tasks = cgroup / "tasks" if cgroup else None
        self._brood = ProcessTable(self._tell, self._zygote, places.mark, tasks, outside, self._dispatcher)
        watchdog = systemd_wants / 2 or WATCHDOG
        self._supervisor = SupervisorProcess(
            outside, arguments, places, doors, watchdog, self._in_group("supervisor")
        )
        self._device = DeviceProcess(outside, places, doors, self._in_group("device"), keyring)

    def _in_group(self, name: str) -> Path | None:
        return self._cgroup / name if self._cgroup else None

    # --- the loop

    def run(self) -> int:
        linux.become_subreaper()
        wakeup = self._catch_signals()
        self._dispatcher.watch(wakeup, lambda: self._on_signals(wakeup))
        self.begin()
        while not self.over():
            self.turn()
        self._device.close()
        return self._status

    def begin(self) -> None:
        """Start what the context needs first."""
        self._output.capture()
        # The zygote takes longer than the supervisor takes until it wants a task.
        self._start_zygote()
        self._dispatcher.watch(self._doors.keeper.fileno(), self._on_notify)
        attempt(self._start_supervisor)
        attempt(self._start_output)

    def turn(self) -> None:
        """Wait for what happens next, and answer it. Nothing that is raised on the way ends the keeper."""
        self._dispatcher.turn(self.timeout())
        # Ends are taken after messages: a program that was executed and has ended was executed first.
        attempt(self._reap)
        attempt(self._on_time)

    def _catch_signals(self) -> int:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, _nothing)
        return reader

    def _on_signals(self, reader: int) -> None:
        self.signalled(set(os.read(reader, 4096)))

    def signalled(self, numbers: Iterable[int]) -> None:
        """The keeper got these signals."""
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT) and not self._stopping:
                self._stopping = True
                self._asked_at = self._outside.now()
                if number == signal.SIGINT and sys.stderr.isatty():
                    complain("zmsvcd: stopping (Ctrl-C again kills what has not ended)")
                self._tell(sv.StopAll(signal=signal.Signals(number).name))
            elif number == signal.SIGINT and self._outside.now() - self._asked_at >= SAME_PRESS:
                self._tell(sv.StopAll(signal=signal.Signals(number).name, now=True))
            elif number == signal.SIGHUP:
                self._output.reopen()
                self._tell(sv.Reload())

    def timeout(self) -> float | None:
        """Return the seconds until the next `turn` has something to do, if nothing happens before; None
        when it has not.
        """
        workers = (
            (self._supervisor.due(), self._device.due(), self._output.due())
            if self._ending is None
            else (self._ending,)
        )
        others = (self._zygote.due(), self._brood.due(), self._dispatcher.due(), self._flush_at)
        due = [at for at in (*workers, *others) if at is not None]
        return max(0.0, min(due) - self._outside.now()) if due else None

    def _on_time(self) -> None:
        now = self._outside.now()
        if self._zygote.due() is not None:
            attempt(lambda: self._zygote.on_time(now))
        if self._brood.due() is not None:
            attempt(lambda: self._brood.on_time(now))
        if self._flush_at is not None and now >= self._flush_at:
            self._flush_at = None
            attempt(self._flush)
        attempt(self._on_end if self._ending is not None else self._on_workers)

    def _on_end(self) -> None:
        assert self._ending is not None
        now = self._outside.now()
        # An orphan's children become ours only when it is dead, so each look may find new ones.
        self._empty = not self._brood.kill_everything()
        if now >= self._ending:
            self._ending = now + END_TIMEOUT
            self._device.signal(signal.SIGKILL)
            self._output.signal(signal.SIGKILL)

    def _on_workers(self) -> None:
        now = self._outside.now()
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
        if self._output.is_due(now):
            self._start_output()

    # --- the output process

    def _start_output(self) -> None:
        if self._output.wanted:
            self._output.start()
            self._brood.others.add(self._output.pid or 0)

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
            self._watch_supervisor(conn)
        except OSError as error:
            if error.errno in HOPELESS and not self._supervisor.was_ready:
                complain(f"zmsvcd: cannot start the supervisor with {sys.executable}: {error.strerror}")
                self._status = 1
                self._end()
                return
            # A task that has used up all processes must not take the others along: they run on, and this is
            # tried again.
            complain(f"zmsvcd: cannot start the supervisor: {error.strerror}; trying again")
            self._supervisor.put_off()
            return
        self._brood.others.add(self._supervisor.pid or 0)
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

    def _watch_supervisor(self, conn: socket.socket) -> None:
        try:
            self._dispatcher.watch(
                conn.fileno(), lambda: self._on_message(conn), drop=lambda: self._give_up_supervisor(conn)
            )
        except OSError:
            self._give_up_supervisor(conn)
            raise

    def _give_up_supervisor(self, conn: socket.socket) -> None:
        """Nothing can be had of it, or told it: the next one is told how things stand."""
        self._hang_up(conn)
        self._supervisor.signal(signal.SIGKILL)

    def _tell_notify_socket(self, uid: int) -> None:
        self._tell(sv.NotifySocket(uid=uid), {"socket": self._doors.notify_of[uid].fileno()})

    def _tell(self, message: sv.Report, fds: dict[str, int] | None = None) -> None:
        """Send to the supervisor; what it does not take now waits for it. Ends are never lost: the next
        one is told again.
        """
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
                seqpacket.send(conn, sv.REPORTS.encode(message), fds)
                self._outbox.popleft()
        except BlockingIOError:
            pass
        except ConnectionError:
            self._outbox.clear()
            return
        except OSError:
            # No memory, or no descriptor.
            self._flush_at = self._outside.now() + FLUSH_AGAIN
            return
        self._dispatcher.expect(conn.fileno(), READ | WRITE if self._outbox else READ)

    def _on_message(self, conn: socket.socket, most: int = ORDERS) -> None:
        self._flush()
        for _ in range(most):
            if self._supervisor.conn is not conn:
                return
            try:
                order = seqpacket.receive_message(conn, sv.ORDERS)
            except BlockingIOError:
                return
            except ProtocolError as error:
                # Of a supervisor of another release; what it orders beside is still good.
                complain(f"zmsvcd: the supervisor: {error}")
                continue
            if order is None:
                self._hang_up(conn)
                return
            # One order that cannot be carried out is no reason to refuse the others.
            if not attempt(partial(self._obey, order)) and isinstance(order, LaunchSpec):
                self._tell(
                    sv.LaunchFailed(
                        launch=order.launch, why="the keeper has met an error, which its log tells"
                    )
                )

    def _hang_up(self, conn: socket.socket) -> None:
        if self._supervisor.conn is conn:
            self._supervisor.conn = None
        self._dispatcher.unwatch(conn.fileno())
        conn.close()
        # The next supervisor orders again what it finds in the state file and not here.
        self._zygote.forget_all()

    def _obey(self, order: sv.Order) -> None:
        match order:
            case LaunchSpec():
                self._launch(order)
            case sv.SignalTask():
                self._brood.signal(order.launch, order.signal, order.rest)
            case sv.SetMain():
                self._brood.set_main(order.launch, order.pid, order.start_time)
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
        if self._by_hand and spec.user is not None:
            spec = replace(spec, own_environment=True)
        if spec.uid is not None:
            uid, known = spec.uid, spec.uid in self._doors.notify_of
            try:
                spec = replace(spec, notify=str(self._doors.notify_path(uid)))
            except (ZmsvcError, OSError) as error:
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
        while (datagram := self._outside.said(self._doors.keeper)) is not None:
            for fd in datagram.fds:
                os.close(fd)
            words = dict(datagram.lines)
            if datagram.pid == self._supervisor.pid:
                self._supervisor.beat()
                if "WATCHDOG" in words:
                    self._output.look()
                if words.get("READY") == "1" and not self._supervisor.was_ready:
                    self._supervisor.was_ready = True
                    self.ready(words.get("X_ZMSVC_ERROR", ""))
                self._systemd.say("\n".join(f"{name}={value}" for name, value in datagram.lines))
            elif datagram.pid == self._device.pid and self._device.hear(words):
                self._tell(self._device.told())

    # --- ends

    def _reap(self) -> None:
        ends: list[ChildEnd] = []
        attempt(partial(self._take_ends, ends))
        if not ends:
            return
        attempt(lambda: self._brood.count_orphans([info.si_pid for info in ends]))
        for info in ends:
            attempt(partial(self._child_ended, info))
        self._brood.forget_count()

    def _take_ends(self, ends: list[ChildEnd]) -> None:
        while (info := self._outside.ended()) is not None:
            attempt(partial(self._brood.look_once_more, info.si_pid))
            # In any case: else it would be the next one, too, and for ever.
            self._outside.reap(info.si_pid)
            ends.append(info)

    def _child_ended(self, info: ChildEnd) -> None:
        self._brood.others.discard(info.si_pid)
        if info.si_pid == self._supervisor.pid:
            self._supervisor_ended(info)
        elif info.si_pid == self._device.pid:
            self._device.ended()
            self._tell(self._device.told())
        elif info.si_pid == self._output.pid:
            self._output.ended()
        elif info.si_pid == self._zygote.pid:
            self._zygote.reaped()
        else:
            self._brood.reaped(info)

    def _supervisor_ended(self, info: ChildEnd) -> None:
        # Its PID is nobody's from here on.
        conn, self._supervisor.pid = self._supervisor.conn, None
        if conn is not None:
            # Orders that it sent before its end still count: a launch that is in the state file must happen.
            self._on_message(conn, MAX_OUTBOX)
        if self._supervisor.conn is not None:
            self._hang_up(self._supervisor.conn)
        come_up = self._supervisor.was_ready or self._supervisor.leaving or self._supervisor.replacing
        given_up = info.si_code == os.CLD_EXITED and not come_up
        self._supervisor.ended()
        if given_up:
            # It never came up, and it said why on stderr: a bad file, a state file of a newer version, a port
            # in use.
            self._status = info.si_status or 1
        if self._supervisor.leaving or given_up:
            self._end()
        else:
            complain(f"zmsvcd: the supervisor ended ({words(how_of(info))}), starting the next one")

    def _end(self) -> None:
        """The context is over: nothing of it may stay."""
        self._ending = self._outside.now() + END_TIMEOUT
        self._zygote.close()
        self._device.signal(signal.SIGTERM)

    def over(self) -> bool:
        """Tell whether the context has ended, and nothing of it is left."""
        return self._ending is not None and self._device.pid is None and self._empty and self._output.over()


def _nothing(_number: int, _frame: object) -> None:
    """A handler, so that the signal reaches the wakeup pipe."""
