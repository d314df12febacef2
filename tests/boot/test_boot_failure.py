"""The journal and OnFailure= of a unit after a task has failed for good."""

from __future__ import annotations

import json
from collections.abc import Callable

from installed import Installed, task
from waiting import wait_for

ACTION = "<failure_action>exit</failure_action>"


def kill(context: Installed, name: str) -> None:
    (pid,) = [pid for (_, task_id), pid in context.pids().items() if task_id == name]
    context.machine.sh(f"kill -KILL {pid}")


def test_onfailure_of_the_unit_acts_when_an_important_task_has_failed_for_good(
    context: Callable[..., Installed],
) -> None:
    important = context("Important", task("ts_100", "Talker", service=ACTION), task("ts_101", "Talker"))
    machine = important.machine
    machine.put(
        "/etc/systemd/system/told@.service", "[Service]\nType=oneshot\nExecStart=/bin/touch /run/told-%i\n"
    )
    machine.put(f"/etc/systemd/system/{important.unit}.d/told.conf", "[Unit]\nOnFailure=told@%N.service\n")
    machine.sh("systemctl daemon-reload")
    important.start()
    kill(important, "ts_100")
    wait_for(lambda: machine.sh("ls /run", check=False).stdout.count("told-zmsvc"))
    assert important.show("ActiveState") == "failed"
    assert important.show("ExecMainStatus") == "9"
    assert important.show("NRestarts") == "0", "systemd would start it again with Restart=on-failure"
    machine.sh("rm -f /run/told-* /etc/systemd/system/told@.service")
    machine.sh(f"rm -r /etc/systemd/system/{important.unit}.d; systemctl daemon-reload")
    important.start()
    assert [name for _, name in important.pids()] == ["ts_100", "ts_101"], "the transaction is resumed"


def test_a_context_that_fails_while_it_starts_has_not_started(context: Callable[..., Installed]) -> None:
    program = task(
        "ts_100", "Ends", service=ACTION, configuration="<command>false</command><notify>yes</notify>"
    )
    refused = context("Ends", program.replace('serviceType="Process"', 'serviceType="Command"'))
    assert refused.machine.sh(f"systemctl start {refused.unit}", check=False).returncode == 1
    assert refused.show("ActiveState") == "failed"
    assert refused.show("ExecMainStatus") == "9"


def test_a_task_that_has_failed_for_good_has_priority_err_in_the_journal(
    context: Callable[..., Installed],
) -> None:
    rule = "<on_fail><action>restart</action><call>ts_100</call></on_fail>"
    failing = context("Failing", task("ts_100", "Talker", rules=rule), task("ts_101", "Talker"))
    failing.start()
    for name in ("ts_100", "ts_101"):
        kill(failing, name)
    wait_for(lambda: len(failing.entries("ZMSVC_EVENT=failed")) == 2)
    priorities = {entry["ZMSVC_TASK"]: entry["PRIORITY"] for entry in failing.entries("ZMSVC_EVENT=failed")}
    assert priorities == {"ts_100": "4", "ts_101": "3"}, json.dumps(failing.entries("ZMSVC_EVENT=failed"))
