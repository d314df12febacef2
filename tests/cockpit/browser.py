"""A headless Chromium whose network is that of a test machine. Its steps are JavaScript, which Node runs with
playwright-core: see driver.mjs.
"""

from __future__ import annotations

import json
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).parent
PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""Any of them. The first one is the smallest package of Debian."""
PATIENCE = 60.0
"""Seconds for one step on a busy machine."""


def chromium() -> str | None:
    """Return the path of an installed Chromium."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """A browser, and Node, which drives it, in the network namespace of the process `pid`."""

    def __init__(self, pid: int) -> None:
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "nsenter", "-t", str(pid), "-n", "node", str(HERE / "driver.mjs"), str(chromium())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        self._buffer = b""
        try:
            self.version = self._answer()
        except BaseException:
            self.close()
            raise

    def run(self, code: str, session: str = "", **args: Any) -> Any:
        """Run the body of an asynchronous function of `page`, `frame`, `errors` and `args`. `frame` is the page
        of zmsvc within Cockpit, or null. Each session has cookies of its own. Return what it returns.
        """
        assert self._process.stdin is not None
        line = json.dumps({"session": session, "code": code, "args": args})
        self._process.stdin.write(line.encode() + b"\n")
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        until = time.monotonic() + PATIENCE
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0, until - time.monotonic()))
            data = self._process.stdout.read(1 << 16) if ready else b""
            assert data, "the browser does not answer" if not ready else "the browser has ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def close(self) -> None:
        """End the browser, by force if it does not end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
