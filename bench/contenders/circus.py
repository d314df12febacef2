"""Circus: it checks its processes ten times a second instead of every five seconds, and has no warm-up delay
and no statistics. A subscriber to its events starts heirs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zmq

from bench.contenders.daemon_session import DaemonSession
from bench.fleet import SERVICE, Command, Fleet, program, running
from bench.receiver import PATIENCE, Receiver

_HEAD = """[circus]
endpoint = ipc://{home}/endpoint
pubsub_endpoint = ipc://{home}/events
check_delay = 0.1
warmup_delay = 0
statsd = False
loglevel = CRITICAL
"""
_WATCHER = """[watcher:{name}]
cmd = {python} {service} {name} {receiver}
autostart = False
respawn = {again}
warmup_delay = 0
graceful_timeout = 5
max_retry = -1
copy_env = True
"""


class Circus:
    name = "Circus"

    def missing(self) -> str:
        return "" if importlib.util.find_spec("circus") else "it is not installed: pip install '.[bench]'"

    @contextlib.contextmanager
    def open(self, fleet: Fleet, home: Path) -> Iterator[CircusSession]:
        with Receiver(home / "receiver") as receiver:
            parts = [_HEAD.format(home=home)]
            for name in fleet.entry + fleet.heirs:
                parts.append(
                    _WATCHER.format(
                        name=name,
                        python=sys.executable,
                        service=SERVICE,
                        receiver=receiver.path,
                        again=name in fleet.workers,
                    )
                )
            (home / "circus.ini").write_text("\n".join(parts))
            listener = [sys.executable, "-m", "bench.contenders.circus", str(home)]
            # By now Circus has stopped its tasks. Its own orderly end takes many seconds, which the benchmark
            # does not measure.
            with (
                running(
                    [program("circusd"), str(home / "circus.ini")], home / "log", by=signal.SIGKILL
                ) as process,
                running(listener, home / "log"),
            ):
                session = CircusSession(fleet, receiver, home, process.pid)
                session.call("list")
                try:
                    yield session
                finally:
                    session.close()


class CircusSession(DaemonSession):
    def __init__(self, fleet: Fleet, receiver: Receiver, home: Path, pid: int) -> None:
        super().__init__(fleet, receiver, pid)
        self._home = home
        self._client: Any = None

    def call(self, command: str, **properties: Any) -> dict[str, Any]:
        """Send one command and return the answer. While Circus executes another command, it refuses this one,
        which is then sent again.
        """
        # Circus may not be installed.
        from circus.client import CircusClient

        if self._client is None:
            self._client = CircusClient(endpoint=f"ipc://{self._home}/endpoint", timeout=PATIENCE)
        until = time.monotonic() + PATIENCE
        while True:
            answer: dict[str, Any] = self._client.send_message(command, **properties)
            if answer.get("status") != "error":
                return answer
            if "already running" not in str(answer.get("reason")) or time.monotonic() > until:
                raise RuntimeError(f"cannot measure Circus: {answer}")
            time.sleep(0.01)

    def close(self) -> None:
        if self._client is not None:
            self._client.stop()

    def order_start(self) -> None:
        # Start the tasks one by one: a start by a pattern leaves out those that the start of the daemon has
        # left out.
        self.in_background(self._start_each)

    def _start_each(self) -> None:
        for name in self.fleet.entry:
            self.call("start", name=name, match="simple", waiting=True)

    def order_stop(self) -> None:
        self.call("stop", name="[wv]*", match="glob", waiting=False)

    def stopped(self) -> None: ...

    def status(self) -> Command:
        return Command(argv=[program("circusctl"), "--endpoint", f"ipc://{self._home}/endpoint", "status"])

    def start_task(self, name: str) -> None:
        self.call("start", name=name, waiting=True)


def listen(home: Path) -> None:
    """Start the heir when Circus publishes the `reap` event of the victim. A plugin would do the same, with
    more layers between.
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    events = context.socket(zmq.SUB)
    events.subscribe(b"watcher.victim-")
    events.connect(f"ipc://{home}/events")
    # Circus refuses an order while it is busy, and `call` then repeats it.
    session = CircusSession(Fleet(), None, home, 0)  # type: ignore[arg-type]
    while True:
        topic = events.recv_multipart()[0].decode()
        _, name, event = topic.split(".")
        if event == "reap":
            session.call("start", name=name.replace("victim", "heir"), waiting=False)


if __name__ == "__main__":
    listen(Path(sys.argv[1]))
