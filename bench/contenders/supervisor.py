"""Supervisor: `startsecs` is 0, there are no log files, and orders go by XML-RPC. An event listener starts
heirs, as its manual recommends.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.contenders.daemon_session import DaemonSession
from bench.fleet import SERVICE, Command, Fleet, program, running
from bench.receiver import PATIENCE, Receiver

_HEAD = """[unix_http_server]
file={home}/rpc
[supervisord]
nodaemon=true
logfile=/dev/null
logfile_maxbytes=0
loglevel=critical
pidfile={home}/pid
minfds=10000
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{home}/rpc
[eventlistener:chain]
command={python} -m bench.contenders.supervisor {home}
events=PROCESS_STATE_EXITED
stdout_logfile=NONE
stderr_logfile=NONE
"""
_PROGRAM = """[program:{name}]
command={python} {service} {name} {receiver}
autostart=false
autorestart={again}
startsecs=0
startretries=1000000
stdout_logfile=NONE
stderr_logfile=NONE
"""


class Supervisor:
    name = "Supervisor"

    def missing(self) -> str:
        return "" if importlib.util.find_spec("supervisor") else "it is not installed: pip install '.[bench]'"

    @contextlib.contextmanager
    def open(self, fleet: Fleet, home: Path) -> Iterator[SupervisorSession]:
        with Receiver(home / "receiver") as receiver:
            parts = [_HEAD.format(home=home, python=sys.executable)]
            for name in fleet.entry + fleet.heirs:
                again = "true" if name in fleet.workers else "false"
                parts.append(
                    _PROGRAM.format(
                        name=name, python=sys.executable, service=SERVICE, receiver=receiver.path, again=again
                    )
                )
            parts.append(f"[group:entry]\nprograms={','.join(fleet.entry)}\n")
            (home / "conf").write_text("\n".join(parts))
            # By now Supervisor has stopped its tasks. Its own orderly end takes many seconds, which the
            # benchmark does not measure.
            with running(
                [program("supervisord"), "-c", str(home / "conf")], home / "log", by=signal.SIGKILL
            ) as process:
                session = SupervisorSession(fleet, receiver, home, process.pid)
                session.wait_for_daemon()
                yield session


def proxy(home: Path) -> Any:
    # Supervisor may not be installed.
    from xmlrpc.client import ServerProxy

    from supervisor.xmlrpc import SupervisorTransport

    return ServerProxy(
        "http://127.0.0.1", transport=SupervisorTransport(None, None, f"unix://{home}/rpc")
    ).supervisor


class SupervisorSession(DaemonSession):
    def __init__(self, fleet: Fleet, receiver: Receiver, home: Path, pid: int) -> None:
        super().__init__(fleet, receiver, pid)
        self._home = home

    def wait_for_daemon(self) -> None:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                assert proxy(self._home).getState()["statename"] == "RUNNING"
                return
            except OSError:
                time.sleep(0.02)  # No measurement runs yet.
        raise RuntimeError("cannot measure Supervisor: it does not answer")

    def _call(self, verb: str) -> None:
        # If the tasks did not come up, the daemon is killed while the order waits for its answer.
        with contextlib.suppress(OSError, http.client.HTTPException):
            getattr(proxy(self._home), verb)("entry", False)

    def order_start(self) -> None:
        # The call returns when all tasks have been started. The reports of the tasks must be received before
        # that.
        self.in_background(lambda: self._call("startProcessGroup"))

    def order_stop(self) -> None:
        self.in_background(lambda: self._call("stopProcessGroup"))

    def stopped(self) -> None:
        self.started()

    def status(self) -> Command:
        return Command(argv=[program("supervisorctl"), "-c", str(self._home / "conf"), "status"])

    def start_task(self, name: str) -> None:
        proxy(self._home).startProcess(f"entry:{name}", False)


def listen(home: Path) -> None:
    """Run the event listener of Supervisor: start the heir when a victim ends."""
    while True:
        print("READY", flush=True)
        header = dict(word.split(":") for word in sys.stdin.readline().split())
        body = dict(word.split(":") for word in sys.stdin.read(int(header["len"])).split())
        name = body["processname"]
        if name.startswith("victim-"):
            proxy(home).startProcess(name.replace("victim", "heir"), False)
        print("RESULT 2\nOK", end="", flush=True)


if __name__ == "__main__":
    listen(Path(sys.argv[1]))
