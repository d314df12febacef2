"""The tutorial of the manual in a directory: the old scripts, run as a person does."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from ports import free_ports
from waiting import PATIENCE

ROOT = Path(__file__).parents[2]


class Tutorial:
    """The scripts and the processes that they start; `close()` ends those that are left. Two free ports
    replace those of the manual.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("ZMSVC_", "NOTIFY_", "WATCHDOG_", "JOURNAL_"))
        }
        places = {f"ZMSVC_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "RUNTIME", "STATE")}
        self.environment = kept | places | {"PYTHONUNBUFFERED": "1"}
        self.running: list[subprocess.Popen[bytes]] = []
        self.sub_port, self.pub_port = free_ports()

    def script(self, name: str, *arguments: str) -> list[str]:
        return [sys.executable, "-P", str(ROOT / "scripts" / name), *arguments]

    def run(self, name: str, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.script(name, *arguments),
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def conf(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run conf_command.py at the endpoint of the context."""
        return self.run(
            "conf_command.py", f"--endpoint=tcp://127.0.0.1:{self.pub_port}", *arguments, status=status
        )

    def ask(self, *arguments: str) -> dict[str, Any]:
        """Ask by conf_command.py, with the endpoint for replies. Return the reply."""
        said = self.conf(*arguments, f"--sub_endpoint=tcp://127.0.0.1:{self.sub_port}", "--wait").stdout
        reply: dict[str, Any] = json.loads(said[said.index("\n{") :])
        return reply

    def begin(self, name: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        with open(self.home / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                self.script(name, *arguments),
                cwd=self.home,
                env=self.environment | environment,
                bufsize=0,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.running.append(process)
        return process

    def begin_context(self, file: str) -> subprocess.Popen[bytes]:
        """Start service_context.py and wait for its READY=1, as systemd would."""
        path = self.home / "ready.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(path))
            ready.settimeout(PATIENCE)
            process = self.begin("service_context.py", file, NOTIFY_SOCKET=str(path))
            while b"READY=1" not in ready.recv(65536).split(b"\n"):
                pass
        return process

    def own_ports(self, file: Path) -> None:
        """Replace the ports of the manual by ours."""
        text = re.sub(r"\b5556\b", str(self.sub_port), file.read_text())
        file.write_text(re.sub(r"\b5557\b", str(self.pub_port), text))

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()
