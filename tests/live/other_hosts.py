"""Other hosts of a context, each a keeper of its own on this machine, which connects over loopback with keys
of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import zmq
from cable import Cable
from context import Context
from ports import free_ports
from waiting import PATIENCE, wait_for, wait_for_end

from zmsvc.host.bus import curve_keys

NAMES = ("h2", "h3")
LINE = 'endpoint="tcp://127.0.0.1:'


class Host:
    """A host that runs tasks of a context."""

    def __init__(self, context: Context, name: str, number: int, port: int) -> None:
        self.name = name
        self._context = context
        self._address = f"127.0.0.{number}"
        self.cable = Cable((self._address, port), ("127.0.0.1", port))
        self._home = context.home / name
        self._log = self._home / "daemon.log"
        self._daemon: subprocess.Popen[bytes] | None = None
        self.wrapper: list[str] = []
        self._keys = self._home / "keys" / context.name
        self._keys.mkdir(parents=True)
        self._ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ready.settimeout(PATIENCE)
        self._ready.bind(str(self._home / "ready.sock"))

    def make_keys(self, server: bytes, clients: Path, name: str = "") -> None:
        """Make the keys of a client, as `keys make DIRECTORY` does."""
        public, secret = zmq.curve_keypair()
        (self._keys / "server.key").write_text(curve_keys.text(server))
        (self._keys / "client.key_secret").touch(0o600)
        (self._keys / "client.key_secret").write_text(curve_keys.text(public, secret))
        (clients / f"{name or self.name}.key").write_text(curve_keys.text(public))

    def start(self) -> None:
        """Run its keeper; wait until that is ready."""
        self.launch()
        self.await_ready()

    def launch(self) -> None:
        """Run its keeper. Its copy of the context file has the address of its cable."""
        self._context.write()
        file = self._home / self._context.file.name
        file.write_text(self._context.file.read_text().replace(LINE, f'endpoint="tcp://{self._address}:'))
        own = {
            "ZMSVC_CONFIG_DIR": self._home,
            "ZMSVC_RUNTIME_DIR": self._home / "run",
            "ZMSVC_STATE_DIR": self._home / "state",
            "NOTIFY_SOCKET": self._home / "ready.sock",
        }
        command = [*self.wrapper, sys.executable, "-P", "-m", "zmsvc.keeper"]
        with open(self._log, "ab") as log:
            self._daemon = subprocess.Popen(
                [*command, "--host", self.name, str(file)],
                env=self._context.environment | {key: str(value) for key, value in own.items()},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def await_ready(self) -> None:
        try:
            while "READY=1" not in self._ready.recv(65536).decode().splitlines():
                pass
        except TimeoutError:
            raise AssertionError(f"{self.name} is not ready:\n{self.log}") from None

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def keeper(self) -> int:
        assert self._daemon is not None
        return self._daemon.pid

    @property
    def envoy(self) -> int:
        """The PID of its envoy."""
        for word in Path(f"/proc/{self.keeper}/task/{self.keeper}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if b"zmsvc.envoy" in Path(f"/proc/{word}/cmdline").read_bytes():
                    return int(word)
        raise AssertionError("no envoy runs")

    def kill_envoy(self) -> None:
        pid = wait_for(lambda: self.envoy)
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)

    def holds(self) -> set[int]:
        """Return the launches of the tasks that run here."""
        found = set()
        for word in Path(f"/proc/{self.keeper}/task/{self.keeper}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                variables = Path(f"/proc/{word}/environ").read_bytes().split(b"\0")
                found |= {
                    int(each.partition(b"=")[2]) for each in variables if each.startswith(b"ZMSVC_LAUNCH=")
                }
        # 0 is that of a rehearsal.
        return found - {0}

    def kill(self) -> None:
        """Kill its keeper, and with it all its tasks."""
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.wait(PATIENCE)

    def wait(self) -> int:
        """Wait for the end of its keeper, and return its exit status."""
        assert self._daemon is not None
        return self._daemon.wait(PATIENCE)

    def stop(self) -> int:
        assert self._daemon is not None
        self._daemon.terminate()
        return self.wait()

    def close(self) -> None:
        if self._daemon is not None and self._daemon.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._daemon.terminate()
                self._daemon.wait(2)
            self.kill()
        self.cable.close()
        self._ready.close()


@contextlib.contextmanager
def other_hosts(context: Context) -> Iterator[tuple[Host, ...]]:
    """Yield the hosts h2 and h3 of a context, which do not run yet. Its endpoints are in loopback."""
    subscribe, publish, line = free_ports(3)
    context.subscribe_endpoint = f"tcp://127.0.0.1:{subscribe}"
    context.publish_endpoint = f"tcp://127.0.0.1:{publish}"
    listed = f'<hosts {LINE}{line}" bind="tcp://127.0.0.1:{line}">{" ".join(NAMES)}</hosts>'
    context.edit = lambda text: text.replace("<Context>", f"<Context>{listed}", 1)
    made = tuple(Host(context, name, number, line) for number, name in enumerate(NAMES, 2))
    server = make_keys(context)
    for each in made:
        each.make_keys(server, context.home / "keys" / context.name / "clients")
    try:
        yield made
    finally:
        for each in made:
            each.close()


def make_keys(context: Context) -> bytes:
    """Make the keys of a context, as `keys make` does. Return the public key of its server."""
    directory = context.home / "keys" / context.name
    (directory / "clients").mkdir(parents=True)
    public = b""
    for name in ("client", "server"):
        public, secret = zmq.curve_keypair()
        (directory / f"{name}.key_secret").touch(0o600)
        (directory / f"{name}.key_secret").write_text(curve_keys.text(public, secret))
        (directory / f"{name}.key").write_text(curve_keys.text(public))
    own = (directory / "client.key").read_text()
    (directory / "clients/context.key").write_text(own)
    return public


def start_all(context: Context, hosts: Iterable[Host], **environment: str) -> None:
    """Run the keepers of all hosts and the context, all at once."""
    for each in hosts:
        each.launch()
    context.start("--transaction", "T", **environment)
    for each in hosts:
        each.await_ready()


def placement(*hosts: str) -> str:
    """Return the `<placement>` of a task that may run on these hosts."""
    return "<placement>" + "".join(f"<host>{name}</host>" for name in hosts) + "</placement>"
