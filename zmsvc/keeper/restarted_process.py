"""The two processes that a keeper runs for a context, supervisor and device: how each is started, and when
it is started again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

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
LONGEST_DELAY = 1.0
FIRST_SIGN = 30.0
"""Seconds that a supervisor has to come up."""
STEADY = 1.0
"""Seconds of running after which an end is no repeated one: the next start is immediate."""


class RestartedProcess:
    """A child that is started again when it ends, at once at first and then with a doubled delay."""

    def __init__(self, outside: KeeperMachine, places: Places, doors: Listeners, cgroup: Path | None) -> None:
        self.outside = outside
        self.places = places
        self.doors = doors
        self.cgroup = cgroup
        self.pid: int | None = None
        self.restarts = 0
        self._started_at = 0.0
        self._again_at: float | None = None
        self._delay = 0.0

    def spawn(self, module: str, arguments: list[str], environment: dict[str, str], fds: list[int]) -> None:
        """Execute a module in the worker's control group. Raises OSError."""
        self.pid = self.outside.spawn(module, arguments, environment, fds)
        self._started_at = self.outside.now()
        self._again_at = None
        if self.cgroup is not None:
            try:
                self.outside.group_of(self.pid, self.cgroup)
            except OSError as error:
                # It runs, and that is what counts.
                complain(f"zmsvcd: cannot move process {self.pid} into {self.cgroup}: {error.strerror}")

    def ended(self) -> None:
        """It is gone: say when the next one starts."""
        now = self.outside.now()
        if now - self._started_at >= STEADY:
            self._delay = 0.0
        self._again_at = now + self._delay
        self._double()
        self.pid = None
        self.restarts += 1

    def put_off(self) -> None:
        """It could not be started, since no process can be had now: say when that is tried again."""
        self._double()
        self._again_at = self.outside.now() + self._delay

    def _double(self) -> None:
        self._delay = min(max(2 * self._delay, FIRST_DELAY), LONGEST_DELAY)

    def due(self) -> float | None:
        return self._again_at

    def is_due(self, now: float) -> bool:
        at = self.due()
        return at is not None and now >= at

    def signal(self, number: int) -> None:
        # The keeper is the parent and has not reaped it, so the PID is still its own.
        if self.pid is not None:
            self.outside.signal_child(self.pid, number)


class SupervisorProcess(RestartedProcess):
    """The brain. One that gives no sign of life is aborted, and killed when that does not end it."""

    def __init__(
        self,
        outside: KeeperMachine,
        arguments: list[str],
        places: Places,
        doors: Listeners,
        watchdog: float,
        cgroup: Path | None,
    ) -> None:
        super().__init__(outside, places, doors, cgroup)
        self.conn: socket.socket | None = None
        self.was_ready = False
        self.leaving = False
        self.replacing = False
        self.protocol = 0
        """Which one it speaks: 0 until it has introduced itself, which one of zmsvc 1.0 never does."""
        self._arguments = arguments
        self._watchdog = watchdog
        self._alive_until = 0.0
        self._aborted = False

    def start(self) -> socket.socket:
        """Start one; what comes back is the keeper's end of the line to it. Raises OSError."""
        mine, its = self.outside.line()
        fds = [its.fileno(), self.doors.control.fileno(), self.doors.notify.fileno()]
        environment = {
            "NOTIFY_SOCKET": str(self.doors.keeper_path),
            "WATCHDOG_USEC": str(int(self._watchdog * 1e6)),
            "ZMSVC_KEEPER_FD": str(fds[0]),
            "ZMSVC_CONTROL_FD": str(fds[1]),
            "ZMSVC_NOTIFY_FD": str(fds[2]),
        }
        try:
            self.spawn("zmsvc.supervisor", self._arguments, environment, fds)
        except OSError:
            mine.close()
            raise
        finally:
            its.close()
        self.conn, self.replacing, self._aborted, self.protocol = mine, False, False, 0
        # On a busy machine a start may take longer than the time between two signs of life: who is shot then
        # never comes up.
        self._alive_until = self.outside.now() + max(self._watchdog, FIRST_SIGN)
        return mine

    def beat(self) -> None:
        self._alive_until = self.outside.now() + self._watchdog

    def due(self) -> float | None:
        return self._alive_until if self.pid is not None else super().due()

    def abort(self) -> None:
        """It hangs. SIGABRT leaves a core and a traceback; SIGKILL follows when it does not even take that
        (it may be stopped).
        """
        self.signal(signal.SIGKILL if self._aborted else signal.SIGABRT)
        self._aborted = True
        self._alive_until = self.outside.now() + min(self._watchdog, 1.0)

    def ended(self) -> None:
        super().ended()
        if self.replacing:
            self._again_at = self.outside.now()


class DeviceProcess(RestartedProcess):
    """The forwarder. Its listening sockets are made once and outlive it, so no peer is refused while it is
    away.
    """

    def __init__(
        self,
        outside: KeeperMachine,
        places: Places,
        doors: Listeners,
        cgroup: Path | None,
        keyring: Keyring | None,
    ) -> None:
        super().__init__(outside, places, doors, cgroup)
        self._keyring = keyring
        self.settings: RunDevice | None = None
        self.ready = False
        self._alive_until: float | None = None
        """When it is taken for hung; None as long as it has not asked to be watched."""
        self._watchdog = 0.0
        self._dropped: Counter[str] = Counter()
        self._dropped_before: Counter[str] = Counter()
        self._listening: list[socket.socket] = []
        self._own: dict[str, socket.socket] = {}
        """More listening sockets, by the variable that hands each over: in the runtime directory, for the
        context's own tasks.
        """

    def start(self) -> str:
        """Start it as the settings say. Gives the reason when it cannot be started."""
        assert self.settings is not None
        front, back = self.settings.front, self.settings.back
        try:
            if not self._listening:
                self._listening = [endpoints.listen(front), endpoints.listen(back)]
                self._own = self._listen_for_own(front, back)
        except ZmsvcError as error:
            return str(error)
        fds = [sock.fileno() for sock in self._listening]
        arguments = ["--front", front, "--back", back, "--front-fd", str(fds[0]), "--back-fd", str(fds[1])]
        arguments += [
            "--hwm",
            str(self.settings.hwm),
            "--expect",
            str(self.settings.expect if self.restarts else 0),
        ]
        # By the environment: after a downgrade the device is one that does not know them as arguments.
        environment = {
            "NOTIFY_SOCKET": str(self.doors.keeper_path),
            "ZMSVC_KEEPER": str(os.getpid()),
            "ZMSVC_MEMBERS": str(self.places.members_file),
        }
        for variable, sock in self._own.items():
            fds.append(sock.fileno())
            environment[variable] = str(sock.fileno())
        if self._keyring:
            fds.append(self._keyring.server)
            # By descriptor: the file may have been replaced since the others read their half of it.
            arguments += ["--curve", f"/proc/self/fd/{fds[-1]}", "--allow", str(self._keyring.allow)]
        self.ready = False
        self.spawn("zmsvc.device", arguments, environment, fds)
        return ""

    def _listen_for_own(self, front: str, back: str) -> dict[str, socket.socket]:
        """Beside tcp endpoints, so that a thousand tasks pass no gate. Where the path is too long for a
        socket they pass it.
        """
        found = {}
        for variable, place, own in (
            ("ZMSVC_OWN_FRONT_FD", front, self.places.pub_socket),
            ("ZMSVC_OWN_BACK_FD", back, self.places.sub_socket),
        ):
            with contextlib.suppress(ConfigError):
                if place.startswith("tcp://"):
                    found[variable] = endpoints.listen(f"ipc://{own}")
        return found

    def hear(self, words: Mapping[str, str]) -> bool:
        """Note what it says of itself; tell whether the supervisor is to know.

        It asks to be watched while a client is there that could hang it, and says then every second that it
        works.
        """
        if (limit := words.get("WATCHDOG_USEC", "")).isdecimal():
            self._watchdog = int(limit) / 1e6
        if words.keys() & {"WATCHDOG", "WATCHDOG_USEC"}:
            self._alive_until = self.outside.now() + self._watchdog if self._watchdog else None
        if counts := words.get(DROPPED, ""):
            pairs = (each.partition(":") for each in counts.split())
            self._dropped = Counter({name: int(count) for name, _, count in pairs if count.isdecimal()})
        ready = words.get("READY") == "1"
        self.ready = self.ready or ready
        return ready or bool(counts)

    def due(self) -> float | None:
        return self._alive_until if self.pid is not None else super().due()

    def abort(self) -> None:
        complain(
            f"zmsvcd: the device hangs: it gave no sign of life for {self._watchdog:g} s, starting the "
            f"next one"
        )
        self.signal(signal.SIGKILL)
        self._alive_until = None

    def told(self) -> DeviceState:
        return DeviceState(
            pid=self.pid,
            restarts=self.restarts,
            ready=self.ready,
            dropped=dict(self._dropped_before + self._dropped),
        )

    def ended(self) -> None:
        super().ended()
        self.ready, self._alive_until, self._watchdog = False, None, 0.0
        self._dropped_before += self._dropped
        self._dropped = Counter()

    def close(self) -> None:
        """The context is over: nobody listens any more, and the files of ipc endpoints go."""
        for sock in (*self._listening, *self._own.values()):
            at = endpoints.address(sock)
            sock.detach()  # see Listeners.close
            if at.startswith("ipc:///"):
                Path(at.removeprefix("ipc://")).unlink(missing_ok=True)
