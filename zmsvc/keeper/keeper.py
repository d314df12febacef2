"""The loop of the keeper: one thread, one epoll, no decisions. The keeper owns the processes and sockets of a
context and restarts the supervisor and the device.

The keeper carries out the orders of a running supervisor. Without a supervisor it only reaps, records the
ends, and starts the next supervisor.
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
from zmsvc.core.errors import ConfigError, ProtocolError, ZmsvcError
from zmsvc.host import seqpacket
from zmsvc.host.complain import complain
from zmsvc.host.kernel import linux
from zmsvc.host.paths import Places
from zmsvc.keeper import spare_tasks
from zmsvc.keeper.dispatcher import READ, WRITE, Dispatcher, attempt
from zmsvc.keeper.fdstore_process import FdstoreProcess
from zmsvc.keeper.keyring import Keyring
from zmsvc.keeper.launch_record import describe, exit_status_of
from zmsvc.keeper.listeners import Listeners
from zmsvc.keeper.machine import ChildEnd, KeeperMachine, Machine
from zmsvc.keeper.output import OutputClient
from zmsvc.keeper.process_table import ProcessTable
from zmsvc.keeper.relay import Relay
from zmsvc.keeper.restarted_process import SUPERVISOR, DeviceProcess, SupervisorProcess
from zmsvc.keeper.task_groups import TaskGroups
from zmsvc.keeper.watcher_process import WatcherProcess
from zmsvc.keeper.zygote_client import ZygoteClient
from zmsvc.protocol import PROTOCOL, PROTOCOL_BARRIER, PROTOCOL_STORES, watching
from zmsvc.protocol import supervision as sv
from zmsvc.protocol.launch import Descriptors, LaunchSpec

WATCHDOG = 30.0
"""Seconds without WATCHDOG=1 after which the keeper takes the supervisor for hung. If the unit has a
WatchdogSec=, half of that time applies instead.
"""
END_TIMEOUT = 2.5
"""Seconds that the device has to end after SIGTERM. It ends itself within 2 s, unless it is stopped
(SIGSTOP).
"""
HOPELESS = (errno.EACCES, errno.ENOENT, errno.ENOEXEC)
"""Errors by which the first supervisor cannot be executed at all: this user cannot reach the Python
interpreter, or it has been removed.
"""
MAX_ORDERS = 1000
"""Orders of the supervisor that the keeper carries out in one turn, before it serves other descriptors."""
SAME_CTRL_C = 0.25
"""Seconds after the first Ctrl-C in which a second SIGINT is the same Ctrl-C: npm and other wrappers forward
the signal that the terminal has already sent.
"""
FLUSH_RETRY = 0.1
"""Seconds until the keeper tries again to send a message for which the kernel had no memory or descriptor."""
MAX_OUTBOX = 100_000
"""Unsent messages after which the keeper kills a supervisor that does not read. This is more than all
launches of a large context.
"""


class Keeper:
    """The keeper of one context. `program` is the module that runs as supervisor. `run` returns the exit
    status of the daemon.
    """

    def __init__(
        self,
        places: Places,
        listeners: Listeners,
        arguments: list[str],
        cgroup: Path | None,
        keyring: Keyring | None,
        machine: KeeperMachine | None = None,
        program: str = SUPERVISOR,
    ) -> None:
        machine = self._machine = machine or Machine()
        self._listeners, self._keyring, self._cgroup = listeners, keyring, cgroup
        self._keeper_id = os.urandom(16).hex()
        self._has_capabilities = os.geteuid() != 0 and linux.has_capabilities()
        """True if tasks would inherit capabilities (AmbientCapabilities=), and could become root by them."""
        self._without_service_manager = "NOTIFY_SOCKET" not in os.environ
        """True if a person started the keeper, and not a service manager."""
        watchdog = _watchdog_of_unit() / 2 or WATCHDOG
        self._dispatcher = Dispatcher(machine)
        self._systemd = Relay(os.environ.pop("NOTIFY_SOCKET", None), self._dispatcher)
        self._outbox: deque[tuple[sv.Report, dict[str, int]]] = deque()
        self._flush_at: float | None = None
        """The time of the next try to send, after the kernel had no memory or descriptor for a message."""
        self._may_reap = True
        """False if no signal has come since the kernel was last asked for ended children: none has ended."""
        self._stopping = False
        self._waits_since_stop: float | None = None
        """The time at which the keeper waited again after the first signal that ends the context. A second
        SIGINT is measured from here: work of the keeper must not make a forwarded signal late.
        """
        self._ending: float | None = None
        self._nothing_left, self._status = False, 0
        self.ready: Callable[[str, str], None] = lambda _error, _notes: None
        """Called once, when the context becomes ready for the first time. The arguments name the parts that
        failed at once, and have further messages as a JSON list.
        """
        common, dispatcher = (machine, places, listeners), self._dispatcher
        self._output = OutputClient(*common, self._in_group("output"), dispatcher, self._report_line)
        tasks = cgroup / "tasks" if cgroup else None
        groups = TaskGroups(machine, tasks)
        self._stores = FdstoreProcess(*common, self._in_group("fdstore"), dispatcher, self._report_stores)
        self._zygote = ZygoteClient(
            machine,
            dispatcher,
            cgroups=cgroup is not None,
            groups=groups,
            on_greeting=self._report_zygote,
            output=self._output,
            stores=self._stores,
            spares=spare_tasks.unless_disabled(machine, dispatcher, self._in_group("spare")),
        )
        self._process_table = ProcessTable(
            self._report, self._zygote, places.context_mark, tasks, groups, machine, self._dispatcher
        )
        curve = keyring.client if keyring else None
        self._watcher = WatcherProcess(*common, self._in_group("watcher"), dispatcher, curve, self._report)
        self._supervisor = SupervisorProcess(
            machine, arguments, places, listeners, watchdog, self._in_group("supervisor"), program
        )
        self._device = DeviceProcess(machine, places, listeners, self._in_group("device"), keyring)

    def _in_group(self, name: str) -> Path | None:
        return self._cgroup / name if self._cgroup else None

    # --- the loop

    def run(self) -> int:
        linux.become_subreaper()
        wakeup = self._catch_signals()
        self._dispatcher.watch(wakeup, lambda: self._on_signals(wakeup))
        self.begin()
        while not self.is_over():
            self.turn()
        self._device.close()
        self._zygote.sockets.close()
        return self._status

    def begin(self) -> None:
        """Start the workers that the context needs first."""
        self._output.capture()
        # The zygote first: its start takes longer than the supervisor needs until it orders a launch.
        self._start_zygote()
        self._dispatcher.watch(self._listeners.keeper.fileno(), self._on_notify)
        attempt(self._start_supervisor)
        attempt(self._start_output)

    def turn(self) -> None:
        """Wait for the next events and handle them. No exception ends the keeper."""
        if self._stopping and self._waits_since_stop is None:
            self._waits_since_stop = self._machine.now()
        self._dispatcher.turn(self.timeout())
        # Ends are handled after messages, so `executed` of a program is reported before its end.
        if self._may_reap:
            attempt(self._reap)
        attempt(self._on_time)

    def _catch_signals(self) -> int:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, _ignore_signal)
        return reader

    def _on_signals(self, reader: int) -> None:
        self.handle_signals(set(os.read(reader, 4096)))

    def handle_signals(self, numbers: Iterable[int]) -> None:
        """Handle signals that the keeper received."""
        # Reap after any signal: if the wakeup pipe was full, the number of SIGCHLD is not in it.
        self._may_reap = True
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT) and not self._stopping:
                self._stopping = True
                if number == signal.SIGINT and sys.stderr.isatty():
                    complain("zmsvcd: stopping (press Ctrl-C again to kill what has not ended)")
                self._report(sv.StopAll(signal=signal.Signals(number).name))
            elif number == signal.SIGINT and self._is_another_ctrl_c():
                self._report(sv.StopAll(signal=signal.Signals(number).name, now=True))
            elif number == signal.SIGHUP:
                self._output.reopen()
                self._report(sv.Reload())

    def _is_another_ctrl_c(self) -> bool:
        since = self._waits_since_stop
        return since is not None and self._machine.now() - since >= SAME_CTRL_C

    def timeout(self) -> float | None:
        """Return the seconds until something is due, or None if nothing has a time."""
        workers = (
            (
                self._supervisor.due(),
                self._device.due(),
                self._output.due(),
                self._stores.due(),
                self._watcher.due(),
            )
            if self._ending is None
            else (self._ending,)
        )
        others = (self._zygote.due(), self._process_table.due(), self._dispatcher.due(), self._flush_at)
        due = [at for at in (*workers, *others) if at is not None]
        return max(0.0, min(due) - self._machine.now()) if due else None

    def _on_time(self) -> None:
        now = self._machine.now()
        if self._zygote.due() is not None:
            attempt(lambda: self._zygote.on_time(now))
        if self._process_table.due() is not None:
            attempt(lambda: self._process_table.on_time(now))
        if self._flush_at is not None and now >= self._flush_at:
            self._flush_at = None
            attempt(self._flush)
        attempt(self._check_end if self._ending is not None else self._check_workers)

    def _check_end(self) -> None:
        assert self._ending is not None
        now = self._machine.now()
        # The kernel gives the children of an orphan to the keeper only when the orphan has ended, so each
        # search may find more orphans.
        self._nothing_left = not self._process_table.kill_everything()
        if now >= self._ending:
            self._ending = now + END_TIMEOUT
            self._device.signal(signal.SIGKILL)
            self._output.signal(signal.SIGKILL)

    def _check_workers(self) -> None:
        now = self._machine.now()
        if self._supervisor.pid is None and self._supervisor.is_due(now):
            self._start_supervisor()
        elif self._supervisor.pid is not None and self._supervisor.is_due(now):
            if self._supervisor.is_hung(now):
                self._supervisor.abort()
            self._systemd.send("WATCHDOG=1")
        if self._device.is_due(now):
            if self._device.pid is None:
                self._start_device()
            elif self._device.is_hung(now):
                self._device.abort()
        if self._output.is_due(now):
            if self._output.pid is None:
                self._start_output()
            elif self._output.is_hung(now):
                self._output.abort()
        if self._stores.is_due(now):
            self._stores.start()
        if self._watcher.is_due(now):
            if self._watcher.pid is None:
                self._start_watcher()
            elif self._watcher.is_hung(now):
                self._watcher.abort()

    def _know_worker(self, pid: int | None) -> None:
        """Note a child that is not a task. None stands for one that could not be started. It must not count,
        because the keeper compares the number of known children with that of its children to find orphans.
        """
        if pid is not None:
            self._process_table.workers.add(pid)

    # --- the output process

    def _start_output(self) -> None:
        if self._output.wanted:
            self._output.start()
            self._know_worker(self._output.pid)

    def _report_line(self, launch: int) -> None:
        self._process_table.line_seen(launch)

    # --- the fdstore process

    def _report_stores(self, new_channel: bool) -> None:
        """Report the contents of the descriptor stores to a supervisor that knows the report."""
        self._know_worker(self._stores.pid)
        for _, fds in self._outbox:
            # The channel may have been closed meanwhile.
            fds.pop("channel", None)
        if self._supervisor.protocol < PROTOCOL_STORES:
            return
        channel = self._stores.channel
        fds = {"channel": channel.fileno()} if new_channel and channel is not None else {}
        self._report(self._stores.contents, fds)

    # --- the watcher process

    def _start_watcher(self) -> None:
        self._watcher.start()
        self._know_worker(self._watcher.pid)

    def _watch_topics(self, order: watching.WatchTopics) -> None:
        self._watcher.watch(order)
        self._know_worker(self._watcher.pid)

    # --- the zygote

    def _start_zygote(self) -> None:
        try:
            self._zygote.start()
        except OSError as error:
            # The first launch starts the zygote again.
            complain(f"zmsvcd: cannot start the zygote: {error.strerror}")

    def _report_zygote(self) -> None:
        self._report(sv.ZygoteState(version=self._zygote.version))

    # --- the supervisor

    def _start_supervisor(self) -> None:
        self._outbox.clear()
        try:
            conn = self._supervisor.start(self._stores.channel)
            self._watch_supervisor(conn)
        except OSError as error:
            if error.errno in HOPELESS and not self._supervisor.was_ready:
                complain(
                    f"zmsvcd: cannot start the supervisor with {sys.executable}: {error.strerror} (is this "
                    f"Python still installed?)"
                )
                self._status = 1
                self._end()
                return
            # Too many processes, for example. The tasks keep running, and the keeper tries again.
            complain(f"zmsvcd: cannot start the supervisor: {error.strerror}; trying again")
            self._supervisor.postpone()
            return
        self._know_worker(self._supervisor.pid)
        self._report(
            sv.Hello(
                epoch=self._keeper_id,
                restarts=self._supervisor.restarts,
                stopping=self._stopping,
                children=self._process_table.living(),
                ends=self._process_table.ends(),
                device=self._device.state(),
                cgroup=str(self._cgroup / "tasks") if self._cgroup else None,
                curve=self._keyring.client if self._keyring else None,
                protocol=PROTOCOL,
                version=__version__,
                zygote_version=self._zygote.version,
                users=len(self._listeners.notify_of),
            )
        )
        for uid in self._listeners.notify_of:
            self._report_notify_socket(uid)

    def _watch_supervisor(self, conn: socket.socket) -> None:
        try:
            self._dispatcher.watch(
                conn.fileno(), lambda: self._on_message(conn), drop=lambda: self._abandon_supervisor(conn)
            )
        except OSError:
            self._abandon_supervisor(conn)
            raise

    def _abandon_supervisor(self, conn: socket.socket) -> None:
        """Disconnect and kill a supervisor with which the keeper cannot communicate. The next one gets the
        full state.
        """
        self._disconnect(conn)
        self._supervisor.signal(signal.SIGKILL)

    def _report_notify_socket(self, uid: int) -> None:
        self._report(sv.NotifySocket(uid=uid), {"socket": self._listeners.notify_of[uid].fileno()})

    def _report(self, message: sv.Report, fds: dict[str, int] | None = None) -> None:
        """Send a report to the supervisor; queue it if the supervisor does not read now. Ends are never lost:
        the keeper repeats them to the next supervisor.
        """
        if self._supervisor.conn is None:
            return
        if len(self._outbox) >= MAX_OUTBOX:
            # The supervisor hangs and would miss messages. Kill it: the next one gets the full state.
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
            # The kernel has no memory or no descriptor.
            self._flush_at = self._machine.now() + FLUSH_RETRY
            return
        self._dispatcher.expect(conn.fileno(), READ | WRITE if self._outbox else READ)

    def _on_message(self, conn: socket.socket, limit: int = MAX_ORDERS) -> None:
        self._flush()
        for _ in range(limit):
            if self._supervisor.conn is not conn:
                return
            try:
                order = seqpacket.receive_message(conn, sv.ORDERS)
            except BlockingIOError:
                return
            except ProtocolError as error:
                # The supervisor is of another release. Its other orders are still valid.
                complain(f"zmsvcd: the supervisor: {error}")
                continue
            if order is None:
                self._disconnect(conn)
                return
            if self._supervisor.protocol < PROTOCOL_BARRIER and not isinstance(order, sv.Introduce):
                attempt(self._zygote.barriers.open_all)
            # An order that fails must not stop the orders after it.
            if not attempt(partial(self._carry_out, order)) and isinstance(order, LaunchSpec):
                self._report(
                    sv.LaunchFailed(launch=order.launch, why="internal error of the keeper (see its log)")
                )

    def _disconnect(self, conn: socket.socket) -> None:
        if self._supervisor.conn is conn:
            self._supervisor.conn = None
        self._dispatcher.unwatch(conn.fileno())
        conn.close()
        # The next supervisor repeats each launch that is in the state file and unknown to the keeper.
        self._zygote.cancel_all()

    def _carry_out(self, order: sv.Order) -> None:
        match order:
            case LaunchSpec():
                self._launch(order)
            case sv.SignalTask():
                if order.all:
                    self._process_table.signal_all(order.launch, order.signal)
                else:
                    self._process_table.signal(order.launch, order.signal, order.rest)
            case sv.SetMain():
                self._process_table.set_main(order.launch, order.pid, order.start_time)
            case sv.KillTask():
                self._process_table.kill(order.launch)
            case sv.OpenBarrier():
                self._zygote.barriers.open(order.launches)
            case sv.HoldSockets():
                self._know_worker(self._zygote.sockets.hold(order.sockets))
            case sv.HoldStores():
                self._stores.hold(order.limits)
            case sv.KeepWatches():
                self._watcher.keep(order.launches)
            case watching.WatchTopics():
                self._watch_topics(order)
            case sv.Acknowledge():
                self._watcher.forget(order.launch)
                self._process_table.acknowledge(order.launch)
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
        try:
            spec, fds = self._keyring.keys_for(order) if self._keyring else (order, Descriptors())
        except ConfigError as error:
            self._report(sv.LaunchFailed(launch=order.launch, why=str(error)))
            return
        if self._has_capabilities:
            spec = replace(spec, drop_capabilities=True)
        if self._without_service_manager and spec.user is not None:
            spec = replace(spec, own_environment=True)
        if spec.uid is not None:
            uid, known = spec.uid, spec.uid in self._listeners.notify_of
            try:
                spec = replace(spec, notify=str(self._listeners.notify_path(uid)))
            except (ZmsvcError, OSError) as error:
                self._report(sv.LaunchFailed(launch=spec.launch, why=str(error)))
                return
            if not known:
                self._report_notify_socket(uid)
        self._process_table.launch(spec, fds)

    # --- the device

    def _start_device(self) -> None:
        try:
            problem = self._device.start()
        except OSError as error:
            problem = f"cannot start the device: {error.strerror}; trying again"
            complain(f"zmsvcd: {problem}")
            self._device.postpone()
        self._know_worker(self._device.pid)
        self._report(replace(self._device.state(), problem=problem))

    # --- notifications of supervisor and device

    def _on_notify(self) -> None:
        while (datagram := self._machine.receive(self._listeners.keeper)) is not None:
            for fd in datagram.fds:
                os.close(fd)
            fields = dict(datagram.lines)
            if datagram.pid == self._supervisor.pid:
                self._supervisor.note_sign_of_life()
                if "WATCHDOG" in fields:
                    self._output.check()
                    self._watcher.check()
                if fields.get("READY") == "1" and not self._supervisor.was_ready:
                    self._supervisor.was_ready = True
                    self._machine.release_spares()
                    self.ready(fields.get("X_ZMSVC_ERROR", ""), fields.get("X_ZMSVC_NOTES", ""))
                self._systemd.pass_on(datagram.lines)
            elif datagram.pid == self._device.pid and self._device.on_notification(fields):
                self._report(self._device.state())

    # --- ends

    def _reap(self) -> None:
        ends: list[tuple[ChildEnd, float]] = []
        # Clear this before the kernel is asked: a signal that comes meanwhile sets it again in the next turn.
        self._may_reap = False
        if not attempt(partial(self._collect_ends, ends)):
            self._may_reap = True
        if not ends:
            return
        attempt(lambda: self._process_table.count_orphans([info.si_pid for info, _ in ends]))
        for info, cpu in ends:
            attempt(partial(self._child_ended, info, cpu))
        self._process_table.forget_count()

    def _collect_ends(self, ends: list[tuple[ChildEnd, float]]) -> None:
        while (info := self._machine.ended_child()) is not None:
            attempt(partial(self._process_table.read_exec_pipe, info.si_pid))
            # Always reap: `ended_child` would otherwise return this child again, for ever.
            ends.append((info, self._machine.reap(info.si_pid)))

    def _child_ended(self, info: ChildEnd, cpu: float) -> None:
        self._process_table.workers.discard(info.si_pid)
        if info.si_pid == self._supervisor.pid:
            self._supervisor_ended(info)
        elif info.si_pid == self._device.pid:
            self._device.ended()
            self._report(self._device.state())
        elif info.si_pid == self._output.pid:
            self._output.ended()
        elif info.si_pid == self._stores.pid:
            self._stores.ended()
        elif info.si_pid == self._watcher.pid:
            self._watcher.ended()
        elif info.si_pid == self._zygote.pid:
            self._zygote.reaped()
        elif not self._zygote.spare_ended(info.si_pid):
            self._process_table.reaped(info, cpu)

    def _supervisor_ended(self, info: ChildEnd) -> None:
        # The PID is free for reuse from here on.
        conn, self._supervisor.pid = self._supervisor.conn, None
        if conn is not None:
            # Orders that the supervisor sent before its end are still carried out: a launch that is in the
            # state file must happen.
            self._on_message(conn, MAX_OUTBOX)
        if self._supervisor.conn is not None:
            self._disconnect(self._supervisor.conn)
        came_up = self._supervisor.was_ready or self._supervisor.leaving or self._supervisor.replacing
        given_up = info.si_code == os.CLD_EXITED and not came_up
        self._supervisor.ended()
        if given_up:
            # The supervisor has ended without becoming ready, and has written the reason to stderr: a faulty
            # file, a state file of a newer version, a port in use.
            self._status = info.si_status or 1
        if self._supervisor.leaving or given_up:
            self._end()
        else:
            complain(
                f"zmsvcd: the supervisor ended ({describe(exit_status_of(info))}), starting the next one"
            )

    def _end(self) -> None:
        """End what is left of the context."""
        self._ending = self._machine.now() + END_TIMEOUT
        self._zygote.close()
        self._stores.kill()
        self._watcher.kill()
        self._device.signal(signal.SIGTERM)

    def is_over(self) -> bool:
        """Return True if the context has ended and none of its processes is left."""
        return (
            self._ending is not None
            and self._device.pid is None
            and self._nothing_left
            and self._stores.is_over()
            and self._watcher.pid is None
            and self._output.finish()
        )


def _watchdog_of_unit() -> float:
    """Return WatchdogSec= of the unit in seconds, or 0. Remove it from the environment, which children
    inherit.
    """
    os.environ.pop("WATCHDOG_PID", None)
    return int(os.environ.pop("WATCHDOG_USEC", 0)) / 1e6


def _ignore_signal(_number: int, _frame: object) -> None:
    """Do nothing. With a handler, the signal reaches the wakeup pipe."""
