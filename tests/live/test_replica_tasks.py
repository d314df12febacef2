"""`<replicas>`: one element of the context file, several tasks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from context import Context, Subscriber
from waiting import wait_for

ROOT = Path(__file__).parents[2]
KINDS = ["Process", "Thread", "Command", "fresh"]
NUMBERED = """
def setup(self):
    import os, pathlib
    own = os.environ.get("ZMSVC_REPLICA"), os.environ.get("ZMSVC_TASK"), self.replica, self.service_id
    pathlib.Path(self.config["place"], f"{self.replica}.txt").write_text(repr(own))
"""


def write(context: Context, count: int | None, kind: str = "Process", **more: Any) -> None:
    context.clear_tasks()
    context.looped("Echo", NUMBERED)
    service = "" if count is None else f"<replicas>{count}</replicas>"
    config = f"<place>{context.home}</place>"
    if kind == "fresh":
        kind, service = "Process", f"{service}<fresh>yes</fresh>"
    if kind == "Command":
        program = f'echo "$ZMSVC_REPLICA $ZMSVC_TASK" >{context.home}/$ZMSVC_REPLICA.txt; exec sleep 1000'
        config = f"<command><arg>sh</arg><arg>-c</arg><arg>{program.replace('>', '&gt;')}</arg></command>"
    context.task("ts_100", "Echo", kind=kind, config=config, service=service, **more)
    context.write()


def pids(context: Context) -> dict[str, int]:
    return {name: task["pid"] for name, task in context.tasks().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_each_replica_is_a_task_that_knows_its_number(context: Context, home: Path, kind: str) -> None:
    write(context, 2, kind)
    context.start("--transaction", "T")
    for number in (1, 2):
        context.task_is(f"ts_100@{number}", "running")
        own = wait_for(lambda number=number: (home / f"{number}.txt").read_text())
        expected = {
            "Command": f"{number} ts_100@{number}\n",
            "Thread": f"(None, None, {number}, 'ts_100@{number}')",
        }
        text = f"('{number}', 'ts_100@{number}', {number}, 'ts_100@{number}')"
        assert own == expected.get(kind, text)
    assert [*context.tasks()] == ["ts_100@1", "ts_100@2"]


def test_a_reload_that_changes_the_number_starts_or_stops_only_the_difference(context: Context) -> None:
    write(context, 2)
    context.start("--transaction", "T")
    before = pids(context)
    write(context, 4)
    context.ctl("reload")
    more = pids(context)
    assert [*more] == [f"ts_100@{number}" for number in (1, 2, 3, 4)]
    assert before.items() < more.items()
    assert all(more.values())
    write(context, 1)
    answer = context.ctl("--json", "reload")
    assert json.loads(answer.stdout)["removed"] == ["ts_100@2", "ts_100@3", "ts_100@4"]
    assert wait_for(lambda: len(context.tasks()) == 1)
    assert pids(context) == {"ts_100@1": before["ts_100@1"]}


def test_verbs_take_the_id_of_the_file_for_all_replicas_and_one_with_its_number(context: Context) -> None:
    write(context, 2)
    context.looped("Other")
    context.task("ts_1", "Other")
    context.start("--transaction", "T")
    before = pids(context)
    context.ctl("restart", "--task", "ts_100")
    after = pids(context)
    assert [name for name in before if before[name] == after[name]] == ["ts_1"]
    context.ctl("stop", "--task", "ts_100@2")
    context.task_is("ts_100@2", "stopped")
    assert [each["task"] for each in states(context, "ts_100")] == ["ts_100@1", "ts_100@2"]
    assert context.ctl("is-active", "ts_100@2", check=3).stdout == "inactive\n"
    assert [each["id"] for each in shown(context, "status", "ts_100")] == ["ts_100@1", "ts_100@2"]
    assert [each["id"] for each in shown(context, "status", "ts_100@2")] == ["ts_100@2"]
    assert context.ctl("wait", "--for", "active", "ts_100", "--timeout", "0.1", check=124).returncode == 124
    context.ctl("start", "--transaction", "T", "--task", "ts_100")
    context.ctl("wait", "--for", "active", "ts_100")
    done = json.loads(context.ctl("--json", "restart", "--one-by-one", "ts_1", "ts_100").stdout)["tasks"]
    assert [each["id"] for each in done] == ["ts_1", "ts_100@1", "ts_100@2"]
    properties = context.ctl("show", "ts_100", "-p", "Id").stdout.split()
    assert properties == ["Id=ts_100@1", "Id=ts_100@2"]
    assert context.ctl("top", "ts_100", check=None).stdout.count("ts_100@") == 2
    rows = [json.loads(line) for line in context.ctl("--json", "events", "ts_100").stdout.splitlines()]
    assert {row["task"] for row in rows} == {"ts_100@1", "ts_100@2"}
    log = context.ctl("logs", "ts_100").stdout
    assert "T/ts_100@1" in log
    assert "T/ts_100@2" in log
    assert "T/ts_1 " not in log
    assert "T/ts_100@2" not in context.ctl("logs", "ts_100@1").stdout
    assert "no such task" in context.ctl("stop", "--task", "ts_100@3", check=4).stderr
    context.ctl("exit")
    assert [each["task"] for each in states(context, "ts_100")] == ["ts_100@1", "ts_100@2"]
    assert "ts_100@2" in context.ctl("events", "ts_100").stdout


def shown(context: Context, verb: str, *names: str) -> list[dict[str, Any]]:
    (it,) = json.loads(context.ctl("--json", verb, *names, check=None).stdout)["contexts"]
    return [task for each in it["transactions"] for task in each["tasks"]]


def states(context: Context, task: str) -> list[dict[str, str]]:
    return list(json.loads(context.ctl("--json", "is-active", task, check=None).stdout)["states"])


def old_command(context: Context, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", str(ROOT / "scripts" / "conf_command.py"), *arguments],
        env=context.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_old_client_sees_each_replica_as_a_task_and_orders_all_by_the_id_of_its_file(
    context: Context, subscriber: Any
) -> None:
    write(context, 2)
    context.start("--transaction", "T")
    before = pids(context)
    stranger: Subscriber = subscriber()
    file = ("--context_file", str(context.file), "--transaction", "T")
    order = ("--service_name", "context", "--action", "stop", "--use_file", "--task_id", "ts_100")
    old_command(context, *file, *order)
    stranger.controls("stopped", ("ts_100@1", "ts_100@2"), "T")
    for number in (1, 2):
        context.task_is(f"ts_100@{number}", "stopped")
    old_command(context, *file, "--service_name", "context", "--action", "start")
    for number in (1, 2):
        context.task_is(f"ts_100@{number}", "running", also=lambda task: task["pid"] not in before.values())
    old_command(context, *file, "--service_name", "process", "--action", "stop", "--task_id", "ts_100@2")
    context.task_is("ts_100@2", "stopped")
    assert context.tasks()["ts_100@1"]["sub"] == "running"
    context.send_state_request("T")
    body = stranger.until(lambda _, body: body.get("header", {}).get("action") == "reply_context")
    assert [
        (each["service_id"], each["task"]["id"], "replicas" in json.dumps(each))
        for each in body["content"]["tasks"]
    ] == [("ts_100@1", "ts_100@1", False), ("ts_100@2", "ts_100@2", False)]


def test_a_fault_of_the_number_has_its_line(context: Context) -> None:
    write(context, 0)
    answer = context.ctl("check", str(context.file), check=2)
    assert answer.stderr.startswith(f"{context.file}:2: ")
    assert "replicas" in answer.stderr
    assert "'0'" in answer.stderr
    assert "1 to 1000" in answer.stderr
    context.file.write_text(context.file.read_text().replace('id="ts_100"', 'id="ts_100@1"'))
    assert "the id 'ts_100@1' cannot be one" in context.ctl("check", str(context.file), check=2).stderr
