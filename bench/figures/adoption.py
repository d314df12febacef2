"""Adoption: the supervisor is killed with SIGKILL, and the time is taken until the next one knows every task
and answers. Only zmsvc has this figure.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from bench.contenders.zmsvc import ZmsvcSession


def measure(session: ZmsvcSession) -> dict[str, float]:
    """Return `adoption` in seconds. The request is sent at once and waits on the listening socket, which the
    keeper holds.
    """
    before = {name: session.receiver.pids[name] for name in session.fleet.entry}
    old = session.managers()["supervisor"][0]
    begin = time.monotonic()
    os.kill(old, signal.SIGKILL)
    status = ask_next(session, old)
    took = time.monotonic() - begin
    after = {
        task["id"]: task["pid"] for task in status["transactions"][0]["tasks"] if task["sub"] == "running"
    }
    if {name: after.get(name) for name in before} != before:
        raise RuntimeError(
            "cannot measure the adoption: the next supervisor does not know all tasks by their PIDs"
        )
    return {"adoption": took}


def ask_next(session: ZmsvcSession, old: int) -> dict[str, Any]:
    """Return the status that the next supervisor reports. The connection may have ended with the killed
    supervisor.
    """
    while True:
        try:
            status = session.ask(verb="status")["data"]
        except ConnectionError:
            continue
        if status["pid"] != old:
            return dict(status)
