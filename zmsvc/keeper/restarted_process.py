"""The workers that the keeper restarts, above all supervisor and device: the way each is started, and the
time at which it is started again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from zmsvc.core.deadline import Deadline
from zmsvc.core.errors import ConfigError, ZmsvcError
from zmsvc.host.bus import endpoints
from zmsvc.host.complain import complain
from zmsvc.host.paths import Places
from zmsvc.host.systemd.notify import DROPPED
from zmsvc.keeper.keyring import Keyring
from zmsvc.keeper.listeners import Listeners
from zmsvc.keeper.machine import KeeperMachine
from zmsvc.protocol.supervision import DeviceState, RunDevice

FIRST_DELAY = 0.05
MAX_DELAY = 1.0
START_TIMEOUT = 30.0
"""Seconds that a supervisor has for its start."""
STABLE_AFTER = 1.0
"""Seconds. If a process ran for so long, the next one starts at once."""


class RestartedProcess:
    """A child that the keeper restarts when it ends: the first time at once, then after a delay that
    doubles.
    """

    def __init__(
        self, machine: KeeperMachine, places: Places, listeners: Listeners, cgroup: Path | None
    ) -> None:
        self.machine = machine
        self.places = places
        self.listeners = listeners
        self.cgroup = cgroup
        self.pid: int | None = None
        self.restarts = 0
        self._started_at = 0.0
        self._restart_at: float | None = None
        self._delay = 0.0

    def spawn(self, module: str, arguments: list[str], environment: dict[str, str], fds: list[int]) -> None:
        """Execute a module in the worker's control group. Raises OSError."""
        self.pid = self.machine.spawn(module, arguments, environment, fds)
        self._started_at = self.machine.now()
        self._restart_at = None
        if self.cgroup is not None:
            try:
                self.machine.move_to_cgroup(self.pid, self.cgroup)
            except OSError as error:
                # The process runs, which matters more than its control group.
                complain(f"zmsvcd: cannot move process {self.pid} into {self.cgroup}: {error.strerror}")

    def ended(self) -> None:
        """Note the end and schedule the next start."""
        now = self.machine.now()
        if now - self._started_at >= STABLE_AFTER:
            self._delay = 0.0
        self._restart_at = now + self._delay
        self._double_delay()
        self.pid = None
        self.restarts += 1

    def postpone(self) -> None:
        """Schedule another try after a failed start."""
        self._double_delay()
        self._restart_at = self.machine.now() + self._delay

    def _double_delay(self) -> None:
        self._delay = min(max(2 * self._delay, FIRST_DELAY), MAX_DELAY)

    def due(self) -> float | None:
        return self._restart_at

    def is_due(self, now: float) -> bool:
        at = self.due()
        return at is not None and now >= at

    def signal(self, number: int) -> None:
        # The keeper has not reaped this child, so no other process has the PID.
        if self.pid is not None:
            self.machine.signal_child(self.pid, number)


SUPERVISOR = "zmsvc.supervisor"
ENVOY = "zmsvc.envoy"
"""The program in the place of the supervisor on a host whose tasks have their supervisor elsewhere."""


class WatchedProcess(RestartedProcess):
    """A child that the keeper replaces if it gives no sign of life in its time."""

    def __init__(
        self, machine: KeeperMachine, places: Places, listeners: Listeners, cgroup: Path | None
    ) -> None:
        super().__init__(machine, places, listeners, cgroup)
        self._deadline = Deadline()

    def due(self) -> float | None:
        """Return the time of the next start, or by which a running process has to give a sign of life."""
        return self._deadline.due if self.pid is not None else super().due()

    def is_hung(self, now: float) -> bool:
        """Return True if there was no sign of life in time."""
        return self._deadline.is_over(now)

    def ended(self) -> None:
        super().ended()
        self._deadline.clear()


class SupervisorProcess(WatchedProcess):
    """The supervisor, or the envoy in its place. To one that sends no watchdog ping, the keeper sends
    SIGABRT, and SIGKILL if that does not end it.
    """

    def __init__(
        self,
        machine: KeeperMachine,
        arguments: list[str],
        places: Places,
        listeners: Listeners,
        watchdog: float,
        cgroup: Path | None,
        program: str = SUPERVISOR,
    ) -> None:
        super().__init__(machine, places, listeners, cgroup)
        self.conn: socket.socket | None = None
        self.was_ready = False
        self.leaving = False
        self.replacing = False
        self.protocol = 0
        """The protocol that this supervisor speaks: 0 until it introduces itself, which a supervisor of zmsvc
        1.0 never does.
        """
        self._arguments = arguments
        self._program = program
        self._watchdog = watchdog
        self._aborted = False

    def start(self, fdstore: socket.socket | None = None) -> socket.socket:
        """Start a supervisor; return the keeper's end of the channel to it. `fdstore` is the channel to the
        fdstore process, if one runs. Raises OSError.
        """
        keeper_end, supervisor_end = self.machine.channel()
        fds = [supervisor_end.fileno(), self.listeners.control.fileno(), self.listeners.notify.fileno()]
        environment = {
            "NOTIFY_SOCKET": str(self.listeners.keeper_path),
            "WATCHDOG_USEC": str(int(self._watchdog * 1e6)),
            "ZMSVC_KEEPER_FD": str(fds[0]),
            "ZMSVC_CONTROL_FD": str(fds[1]),
            "ZMSVC_NOTIFY_FD": str(fds[2]),
        }
        if fdstore is not None:
            # Pass the channel at the start and not by a message: the first datagrams that the supervisor
            # reads may bring descriptors.
            fds.append(fdstore.fileno())
            environment["ZMSVC_FDSTORE_FD"] = str(fds[3])
        try:
            self.spawn(self._program, self._arguments, environment, fds)
        except OSError:
            keeper_end.close()
            raise
        finally:
            supervisor_end.close()
        self.conn, self.replacing, self._aborted, self.protocol = keeper_end, False, False, 0
        # On a busy machine a start may take longer than the watchdog interval. If the keeper killed the
        # supervisor then, none would ever become ready.
        self._deadline.begin(self.machine.now(), max(self._watchdog, START_TIMEOUT))
        return keeper_end

    def note_sign_of_life(self) -> None:
        self._deadline.begin(self.machine.now(), self._watchdog)

    def abort(self) -> None:
        """End a hung supervisor. SIGABRT leaves a core and a traceback. SIGKILL follows if that does not end
        it, because it may be stopped (SIGSTOP).
        """
        self.signal(signal.SIGKILL if self._aborted else signal.SIGABRT)
        self._aborted = True
        self._deadline.begin(self.machine.now(), min(self._watchdog, 1.0))

    def ended(self) -> None:
        super().ended()
        if self.replacing:
            self._restart_at = self.machine.now()


class DeviceProcess(WatchedProcess):
    """The device. Its listening sockets are created once and outlive it, so no client is refused while no
    device runs.
    """

    def __init__(
        self,
        machine: KeeperMachine,
        places: Places,
        listeners: Listeners,
        cgroup: Path | None,
        keyring: Keyring | None,
    ) -> None:
        super().__init__(machine, places, listeners, cgroup)
        self._keyring = keyring
        self.settings: RunDevice | None = None
        self.ready = False
        self._watchdog = 0.0
        """The seconds within which the next sign of life has to come; 0 unless the device asks for a
        watchdog.
        """
        self._dropped: Counter[str] = Counter()
        self._dropped_before: Counter[str] = Counter()
        self._listening: list[socket.socket] = []
        self._local: dict[str, socket.socket] = {}
        """Further listening sockets, in the runtime directory, for tasks of the context. The key is the
        environment variable that tells the device the descriptor.
        """

    def start(self) -> str:
        """Start the device with its settings. Return the reason if it cannot be started."""
        assert self.settings is not None
        publish_bind, subscribe_bind = self.settings.front, self.settings.back
        try:
            if not self._listening:
                self._listening = [endpoints.listen(publish_bind), endpoints.listen(subscribe_bind)]
                self._local = self._listen_locally(publish_bind, subscribe_bind)
        except ZmsvcError as error:
            return str(error)
        fds = [sock.fileno() for sock in self._listening]
        arguments = [
            "--front",
            publish_bind,
            "--back",
            subscribe_bind,
            "--front-fd",
            str(fds[0]),
            "--back-fd",
            str(fds[1]),
        ]
        arguments += [
            "--hwm",
            str(self.settings.hwm),
            "--expect",
            str(self.settings.expect if self.restarts else 0),
        ]
        # Pass these in the environment: after a downgrade, the device would refuse unknown arguments.
        environment = {
            "NOTIFY_SOCKET": str(self.listeners.keeper_path),
            "ZMSVC_KEEPER": str(os.getpid()),
            "ZMSVC_MEMBERS": str(self.places.members_file),
        }
        for variable, sock in self._local.items():
            fds.append(sock.fileno())
            environment[variable] = str(sock.fileno())
        if self._keyring and self._keyring.server is not None:
            fds.append(self._keyring.server)
            # Pass the key as a descriptor: the file may have been replaced since the keeper read the public
            # key.
            arguments += ["--curve", f"/proc/self/fd/{fds[-1]}", "--allow", str(self._keyring.allow)]
        self.ready = False
        self.spawn("zmsvc.device", arguments, environment, fds)
        return ""

    def _listen_locally(self, publish_bind: str, subscribe_bind: str) -> dict[str, socket.socket]:
        """Create local sockets beside tcp endpoints, so that a thousand tasks need not pass the loopback
        gate. If the path is too long for a socket, tasks use the tcp endpoint.
        """
        found = {}
        for variable, endpoint, path in (
            ("ZMSVC_OWN_FRONT_FD", publish_bind, self.places.publish_socket),
            ("ZMSVC_OWN_BACK_FD", subscribe_bind, self.places.subscribe_socket),
        ):
            with contextlib.suppress(ConfigError):
                if endpoint.startswith("tcp://"):
                    found[variable] = endpoints.listen(f"ipc://{path}")
        return found

    def on_notification(self, fields: Mapping[str, str]) -> bool:
        """Handle a notification of the device; return True if the supervisor needs to know the new state.

        The device asks for a watchdog while a client is connected that could hang it, and then sends a ping
        every second.
        """
        if (limit := fields.get("WATCHDOG_USEC", "")).isdecimal():
            self._watchdog = int(limit) / 1e6
        if fields.keys() & {"WATCHDOG", "WATCHDOG_USEC"}:
            self.note_sign_of_life()
        if counts := fields.get(DROPPED, ""):
            pairs = (each.partition(":") for each in counts.split())
            self._dropped = Counter({name: int(count) for name, _, count in pairs if count.isdecimal()})
        ready = fields.get("READY") == "1"
        self.ready = self.ready or ready
        return ready or bool(counts)

    def note_sign_of_life(self) -> None:
        if self._watchdog:
            self._deadline.begin(self.machine.now(), self._watchdog)
        else:
            self._deadline.clear()

    def abort(self) -> None:
        complain(
            f"zmsvcd: the device hangs: it gave no sign of life for {self._watchdog:g} s, starting the "
            f"next one"
        )
        self.signal(signal.SIGKILL)
        self._deadline.clear()

    def state(self) -> DeviceState:
        return DeviceState(
            pid=self.pid,
            restarts=self.restarts,
            ready=self.ready,
            dropped=dict(self._dropped_before + self._dropped),
        )

    def ended(self) -> None:
        super().ended()
        self.ready, self._watchdog = False, 0.0
        self._dropped_before += self._dropped
        self._dropped = Counter()

    def close(self) -> None:
        """Remove the files of ipc endpoints at the end of the context."""
        for sock in (*self._listening, *self._local.values()):
            at = endpoints.address(sock)
            sock.detach()  # see Listeners.close
            if at.startswith("ipc:///"):
                Path(at.removeprefix("ipc://")).unlink(missing_ok=True)
