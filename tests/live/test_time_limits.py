"""Time limits: more time on request, start limits, rings that are slowed down; and `reexec`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from context import Context
from waiting import wait_for_end

ASK = """
def ask(self):
    import os, socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"EXTEND_TIMEOUT_USEC=20000000", os.environ["NOTIFY_SOCKET"])
"""
LATE = "import time\nuntil = time.monotonic() + 5\nwhile time.monotonic() < until:\n    time.sleep(0.05)"


def late(where: str) -> str:
    """Return the body of a task that asks for more time in this method, and takes it."""
    body = "\n".join(f"    {line}" for line in ["self.ask()", *LATE.splitlines()])
    return f"{ASK}\ndef {where}(self):\n{body}"


def test_a_task_that_asks_for_more_time_gets_it_to_start_and_to_stop(context: Context) -> None:
    context.looped("Starts", late("setup"))
    context.looped("Stops", late("close"))
    context.looped("Dumb", late("setup").replace("self.ask()", "pass"))
    context.task("starts", "Starts", entry=False, service="<start_timeout>4s</start_timeout>")
    context.task("stops", "Stops", service="<stop_timeout>4s</stop_timeout>")
    context.task("dumb", "Dumb", entry=False, service="<start_timeout>4s</start_timeout>")
    context.start("--transaction", "T")
    context.ctl("start", "--task", "starts")
    context.ctl("stop", "--task", "stops")
    assert context.tasks()["starts"]["sub"] == "running"
    end = context.tasks()["stops"]["exit"]
    assert (end["code"], end["signal"], end["reason"]) == (0, None, "requested")
    assert "not-ready" in context.ctl("start", "--task", "dumb", check=1).stderr
    assert context.tasks()["dumb"]["exit"]["reason"] == "not-ready"


def test_a_start_limit_is_reported_and_cleared_by_reset_failed(context: Context) -> None:
    context.looped("Frail", "def step(self):\n    raise SystemExit(3)")
    limits = "<restart_delay>10ms</restart_delay><start_limit_burst>3</start_limit_burst><start_limit_interval>1h</start_limit_interval>"
    context.task("ts_1", "Frail", service=limits, rules={"on_fail": ("restart", "ts_1")})
    context.start("--transaction", "T")
    failed = context.task_is("ts_1", "failed", also=lambda task: task["exit"]["reason"] == "start-limit")
    assert (failed["restarts"], failed["exit"]["code"]) == (3, 3), (
        "the first start is none by a rule; the exit is the last one's"
    )
    assert "started 3 times by rules within 3600 s" in context.ctl("status", check=3).stdout
    context.ctl("reset-failed", "--task", "ts_1")
    assert context.tasks()["ts_1"]["sub"] == "waiting"
    context.ctl("start", "--task", "ts_1", check=None)
    again = context.task_is("ts_1", "failed", also=lambda task: task["exit"]["reason"] == "start-limit")
    assert again["restarts"] == 6, "three more by the rule; the one by hand is none"


def test_a_ring_of_rules_is_slowed_and_status_says_so(context: Context) -> None:
    context.service(
        "Once",
        """
        from zmsvc.task import SingleTask, TaskService
        class Work(SingleTask):
            def run(self):
                pass
        class ServiceOnce(TaskService):
            task_class = Work
        """,
    )
    # A lap takes less than the delay on any machine, so the second one waits for the rest of an hour.
    hour = "<restart_delay>1h</restart_delay>"
    context.task("one", "Once", service=hour, rules={"on_exit": ("start", "other")})
    context.task("other", "Once", entry=False, service=hour, rules={"on_exit": ("start", "one")})
    context.start("--transaction", "T")
    task = context.task_is("one", "back-off", also=lambda task: "slowed" in task["status"])
    assert task["status"].startswith("starts again in ")
    assert context.tasks()["other"]["exit"]["code"] == 0, "the first lap was not slowed"
    assert "slowed: its rules start it too quickly" in context.ctl("status", check=None).stdout
    assert context.ask(verb="stop", transaction="T")["ok"], "a ring ends when it is told to"


def test_reexec_replaces_the_supervisor_alone_and_runs_what_is_installed_now(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", "T")
    before, pids = context.status(), {name: task["pid"] for name, task in context.tasks().items()}
    context.ctl("reexec")
    after = context.status()
    wait_for_end(before["pid"])
    assert after["pid"] != before["pid"]
    assert {name: task["pid"] for name, task in context.tasks().items()} == pids
    for name in ("keeper_pid", "device_pid", "device_restarts"):
        assert after[name] == before[name]
    assert b"zmsvc.supervisor" in Path(f"/proc/{after['pid']}/cmdline").read_bytes(), (
        "a program that was executed, no fork"
    )
    os.kill(context.tasks()["ts_1"]["pid"], signal.SIGKILL)
    assert context.task_is("ts_1", "failed")["exit"]["signal"] == "SIGKILL", "it is in charge"
