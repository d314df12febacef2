"""A keeper that hangs: the supervisor goes on to answer, and reports to the keeper later."""

from __future__ import annotations

import os
import signal

from context import Context
from test_output_of_tasks import command

RELOADS = 8
"""Each has two notifications for the keeper, whose socket holds 10 without a setting of the machine."""


def test_the_supervisor_does_not_wait_for_a_stopped_keeper(context: Context) -> None:
    command(context, "ts", "exec sleep 3600")
    context.start()
    keeper = context.daemon.pid
    os.kill(keeper, signal.SIGSTOP)
    try:
        for _ in range(RELOADS):
            assert context.ask(verb="reload")["ok"]
        assert context.tasks()["ts"]["sub"] == "running"
    finally:
        os.kill(keeper, signal.SIGCONT)
    for _ in range(RELOADS):
        context.wait_for_notification("RELOADING=1")
        context.wait_for_notification("READY=1")
