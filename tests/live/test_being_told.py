"""Reports of a failure: by a rule that starts a Command, by `<on_any_fail>`, and by the end of the daemon
that `failure_action` orders. A crash of the supervisor loses nothing and repeats nothing.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from context import Context
from waiting import stop_process, wait_for, wait_for_end

TX = "TX"
ANY_FAIL = "<on_any_fail><action>start</action><call>alert</call></on_any_fail>"


def command(context: Context, name: str, script: str, **more: object) -> None:
    (context.home / "Services").mkdir(exist_ok=True)
    words = f"<command><arg>sh</arg><arg>-c</arg><arg>{escape(script)}</arg></command>"
    context.task(name, "Shell", config=words, kind="Command", **more)  # type: ignore[arg-type]


def alert(context: Context) -> Path:
    """Add a task that writes the cause of each start as a line of a file. Return the file."""
    told = context.home / "told"
    script = (
        f"echo $ZMSVC_CAUSE_TRIGGER $ZMSVC_CAUSE_TASK $ZMSVC_CAUSE_EXIT_REASON "
        f"$ZMSVC_CAUSE_EXIT_CODE$ZMSVC_CAUSE_EXIT_SIGNAL >> {told}"
    )
    command(context, "alert", script, entry=False)
    return told


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def events(context: Context, event: str) -> list[dict[str, Any]]:
    """Return the rows of this event in the history, in order."""
    rows = map(json.loads, context.ctl("--json", "events").stdout.splitlines())
    return [row for row in rows if row["event"] == event]


def kill_task(context: Context, name: str) -> None:
    pid = context.tasks()[name]["pid"]
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("of_context", [False, True])
def test_an_alert_command_has_what_failed_in_its_environment(context: Context, of_context: bool) -> None:
    told = alert(context)
    command(context, "job", "exec sleep 1000", rules={} if of_context else {"on_fail": ("start", "alert")})
    if of_context:
        context.element(ANY_FAIL)
    context.start("--transaction", TX)
    kill_task(context, "job")
    context.task_is("alert", "exited")
    trigger = "on_any_fail" if of_context else "on_fail"
    assert lines(told) == [f"{trigger} job signal SIGKILL"]


@pytest.mark.parametrize("of_context", [False, True])
def test_an_alert_is_given_once_if_the_supervisor_dies_at_the_failure(
    context: Context, of_context: bool
) -> None:
    told = alert(context)
    command(context, "job", "exec sleep 1000", rules={} if of_context else {"on_fail": ("start", "alert")})
    if of_context:
        context.element(ANY_FAIL)
    context.start("--transaction", TX)
    job, supervisor = context.tasks()["job"]["pid"], int(context.status()["pid"])
    stop_process(supervisor)
    os.kill(job, signal.SIGKILL)
    wait_for_end(job)
    os.kill(supervisor, signal.SIGKILL)
    wait_for_end(supervisor)
    wait_for(lambda: context.ask_again(verb="status"))
    context.task_is("alert", "exited")
    context.kill_supervisor()
    wait_for(lambda: context.ask_again(verb="status"))
    assert len(lines(told)) == 1
    assert context.task_is("alert", "exited")["restarts"] == 0
    assert [row["task"] for row in events(context, "failed")] == ["job"]


def test_failure_action_exit_stops_everything_and_ends_with_status_9(context: Context) -> None:
    command(context, "job", "exec sleep 1000", service="<failure_action>exit</failure_action>")
    command(context, "other", "exec sleep 1000")
    context.start("--transaction", TX)
    other = context.tasks()["other"]["pid"]
    kill_task(context, "job")
    assert context.wait() == 9
    wait_for_end(other)
    context.start()
    assert context.task_is("job", "running", TX)["pid"], "the next start resumes the transaction"


def test_failure_action_exit_is_carried_out_by_the_next_supervisor(context: Context) -> None:
    command(context, "job", "exec sleep 1000", service="<failure_action>exit</failure_action>")
    deaf = "trap '' TERM; echo ignores the stop signal; while :; do sleep 0.1; done"
    command(
        context, "deaf", deaf, service="<stop_timeout>infinity</stop_timeout><kill_mode>mixed</kill_mode>"
    )
    context.start("--transaction", TX)
    wait_for(lambda: "ignores the stop signal" in context.ctl("logs", "deaf").stdout)
    deaf_pid = context.tasks()["deaf"]["pid"]
    kill_task(context, "job")
    context.task_is("deaf", "stop-sigterm")
    context.kill_supervisor()
    wait_for(lambda: context.ask_again(verb="status"))
    os.kill(deaf_pid, signal.SIGKILL)
    assert context.wait() == 9


def test_a_context_that_fails_while_it_starts_is_not_ready(context: Context) -> None:
    command(context, "job", "exit 1", service="<failure_action>exit</failure_action>")
    context.task("slow", "Slow")
    context.looped("Slow", "def setup(self):\n    self.wait(1000)\n")
    context.start(ready=False)
    assert context.wait() == 9
    assert "READY=1" not in context.log.read_text()


def test_failure_action_stop_stops_the_transaction(context: Context) -> None:
    command(context, "job", "exec sleep 1000", service="<failure_action>stop</failure_action>")
    command(context, "other", "exec sleep 1000")
    context.start("--transaction", TX)
    context.ctl("start", "--transaction", "T2")
    pid = context.tasks(TX)["job"]["pid"]
    os.kill(pid, signal.SIGKILL)
    context.task_is("other", "stopped", TX)
    assert context.tasks(TX)["job"]["state"] == "failed"
    assert context.tasks("T2")["job"]["sub"] == "running"
    assert [row["task"] for row in events(context, "failure-action")] == ["job"]


def test_a_task_that_has_failed_for_good_is_marked_so_in_the_history(context: Context) -> None:
    command(context, "job", "exec sleep 1000")
    command(context, "again", "exec sleep 1000", rules={"on_fail": ("restart", "again")})
    context.start("--transaction", TX)
    kill_task(context, "again")
    context.task_is("again", "running", also=lambda task: task["restarts"] == 1)
    kill_task(context, "job")
    context.task_is("job", "failed")
    marks = {row["task"]: row["detail"].get("for_good") for row in events(context, "failed")}
    assert marks == {"again": None, "job": True}
    assert "for_good=yes" in context.ctl("events", "job").stdout
