"""`why` explains the state of a task: from the supervisor, and from the state file of a context that does not
run.
"""

from __future__ import annotations

import json
import os
import pwd
from typing import Any

from context import Context
from waiting import wait_for

TX = "5HGAHZ3WPZUI71PACRPP"
ME = pwd.getpwuid(os.getuid()).pw_name


def why(context: Context, task: str) -> dict[str, Any]:
    (told,) = json.loads(context.ctl("--json", "why", task).stdout)["tasks"]
    return dict(told)


def told_with(context: Context, task: str, text: str) -> dict[str, Any]:
    """Return the explanation if a line of its log has this text."""
    told = why(context, task)
    assert any(text in line for line in told["log"]["lines"]), told["log"]
    return told


def story(told: dict[str, Any]) -> list[str]:
    return [link["text"] for link in told["chain"]]


def test_why_leads_from_a_rule_to_the_exit_the_log_and_the_operator(context: Context) -> None:
    context.looped("Echo")
    context.task(
        "ts_1",
        "Shell",
        kind="Command",
        entry=False,
        config='<command>sh -c "echo out of paper; exit 3"</command>',
        rules={"on_fail": ("start", "ts_2")},
    )
    context.task("ts_2", "Echo", entry=False)
    context.start("--transaction", TX)
    assert "starts when ts_1 fails; ts_1 is inactive (waiting)" in context.ctl("why", "ts_2").stdout
    context.ctl("start", "--no-block", "ts_1")
    context.task_is("ts_2", "running")
    # The output process writes the log, perhaps after the end of the task.
    told = wait_for(lambda: told_with(context, "ts_2", "out of paper"))
    assert story(told) == [
        "ts_2 became ready",
        "the rule on_fail:start:ts_2 of ts_1 fired",
        "ts_1 failed with exit status 3",
        "ts_1 was started",
        "an operator ordered the start of ts_1",
    ]
    assert (told["chain"][-1]["user"], told["chain"][-1]["uid"]) == (ME, os.getuid())
    assert told["complete"]
    shown = context.ctl("why", "ts_2", "ts_1").stdout
    for words in (
        f"ordered the start of ts_1 ({ME})",
        "Log: of ts_1",
        f"zmsvcctl -c {context.name} start ts_1",
    ):
        assert words in shown
    context.ctl("why", "ts_9", check=4)


def test_why_says_who_has_stopped_a_task_also_when_the_context_does_not_run(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.task("ts_2", "Echo")
    context.start("--transaction", TX)
    context.ctl("stop", "ts_1")
    (held,) = why(context, "ts_1")["reasons"]
    assert (held["kind"], held["user"]) == ("held", ME)
    context.ctl("exit")
    context.wait()
    told = context.ctl("--json", "why", "ts_1", "ts_2")
    assert f"{context.name} does not run; this is from its state file, 2" in told.stderr
    first, second = json.loads(told.stdout)["tasks"]
    assert [reason["kind"] for reason in first["reasons"]] == ["context-down", "held"]
    assert context.name in first["advice"][0]["command"]
    assert story(first)[-1] == "an operator ordered the stop of ts_1"
    assert story(second) == ["ts_2 was stopped (status 0)", "an operator ordered the end of the context"]
    assert any("INFO" in line for line in second["log"]["lines"]), second["log"]
    context.ctl("why", "ts_9", check=4)


HANGS = """
def step(self):
    import time
    if self.config["hangs"] == "yes":
        self.a_name_in_the_stack()

def a_name_in_the_stack(self):
    import time
    while True:
        time.sleep(3600)
"""


def test_a_task_that_hangs_writes_its_stacks_before_it_is_killed(context: Context) -> None:
    context.looped("Hung", HANGS)
    context.task("ts_1", "Hung", config="<hangs>yes</hangs>", service="<watchdog>300ms</watchdog>")
    context.task(
        "ts_2",
        "Hung",
        config="<hangs>yes</hangs>",
        service="<stop_timeout>200ms</stop_timeout><fresh>yes</fresh>",
    )
    context.task("ts_3", "Shell", kind="Command", config="<command>sleep 3600</command>")
    context.start("--transaction", TX)
    context.task_is("ts_1", "failed")
    pid = context.tasks()["ts_2"]["pid"]

    def stack() -> dict[str, Any]:
        """A task is ready before its first step."""
        (found,) = json.loads(context.ctl("--json", "stack", "ts_2").stdout)["tasks"]
        assert any("in a_name_in_the_stack" in line for line in found["lines"]), found
        return dict(found)

    found = wait_for(stack)
    assert (found["id"], found["pid"]) == ("ts_2", pid)
    for task, code in (("ts_1", 1), ("ts_3", 1), ("ts_9", 4)):
        context.ctl("stack", task, check=code)
    assert context.tasks()["ts_2"]["pid"] == pid, "it goes on"
    context.ctl("stop", "ts_2")
    for task, reason in (("ts_1", "watchdog"), ("ts_2", "requested")):
        told = wait_for(lambda task=task: told_with(context, task, "in a_name_in_the_stack"))  # type: ignore[misc]
        assert (told["chain"][0]["exit"]["reason"], told["log"]["stacks"]) == (reason, True)
