"""`zmsvcctl reload`: the context file is read again, and only tasks that differ are changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from context import Context, Subscriber
from waiting import wait_for, wait_for_end

TX = "5HGAHZ3WPZUI71PACRPP"


def test_reload_touches_only_changed_tasks(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.task("ts_2", "Echo")
    context.task("ts_3", "Echo")
    context.start("--transaction", TX)
    before = {name: task["pid"] for name, task in context.tasks().items()}
    context.clear_tasks()
    context.task("ts_1", "Echo")
    context.task("ts_2", "Echo", config="<color>red</color>")
    context.task("ts_4", "Echo")
    context.write()
    context.ctl("reload")
    pids = {name: context.task_is(name, "running")["pid"] for name in ("ts_1", "ts_4")}
    assert pids["ts_1"] == before["ts_1"]
    context.task_is("ts_2", "running", also=lambda task: task["pid"] != before["ts_2"])
    wait_for(lambda: "ts_3" not in context.tasks())
    wait_for_end(before["ts_3"])


def test_the_age_of_a_transaction_is_that_of_its_state(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", TX)

    def since() -> float:
        """Return the time at which the transaction entered its state, which is that of its only task. Each
        time is converted by the clock of its answer.
        """
        (transaction,) = context.status()["transactions"]
        of_all, of_task = (
            datetime.fromisoformat(each["since"]).timestamp()
            for each in (transaction, transaction["tasks"][0])
        )
        assert of_all == pytest.approx(of_task, abs=0.0015)
        return of_all

    begun = since()
    os.kill(context.tasks()["ts_1"]["pid"], 9)
    context.task_is("ts_1", "failed")
    failed = since()
    context.ctl("start", "--transaction", TX)
    assert begun < failed < since()


def test_the_verbs_that_print_nothing_answer_as_json_too(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", TX)
    sent = json.loads(context.ctl("--json", "send", "news", "{}").stdout)
    assert sent == {"topic": "news", "bytes": len(b"news @@@ {}"), "wanted": False}
    drawn = json.loads(context.ctl("--json", "graph", str(context.file)).stdout)
    assert (drawn["context"], drawn["format"]) == (context.name, "dot")
    assert drawn["graph"] == context.ctl("graph", str(context.file)).stdout
    assert json.loads(context.ctl("--json", "exit").stdout) == {"context": context.name, "ended": True}


def test_reload_is_answered_when_the_removed_tasks_have_ended(context: Context) -> None:
    context.looped("Echo")
    context.looped("Slow", "def close(self):\n    __import__('threading').Event().wait(0.5)")
    context.task("ts_1", "Echo")
    context.task("ts_2", "Slow")
    context.start("--transaction", TX)
    pid = context.tasks()["ts_2"]["pid"]
    context.clear_tasks()
    context.task("ts_1", "Echo")
    context.write()
    assert "removed: ts_2" in context.ctl("reload").stdout
    assert not os.path.exists(f"/proc/{pid}")


def test_reload_names_the_changed_tasks_that_cannot_start(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.task("ts_2", "Echo")
    context.start("--transaction", TX)
    context.clear_tasks()
    context.task("ts_1", "Echo")
    context.task("ts_2", "NoSuchService")
    context.write()
    answer = context.ctl("reload", check=1)
    assert "changed: ts_2" in answer.stdout
    assert "cannot reload ts_2: failed" in answer.stderr
    assert "NoSuchService" in answer.stderr


@pytest.mark.parametrize("killed", [False, True], ids=["supervisor lives", "supervisor dies meanwhile"])
def test_the_stop_of_a_removed_task_is_published_with_its_old_definition(
    context: Context, home: Path, subscriber: Callable[..., Subscriber], killed: bool
) -> None:
    context.looped("Echo")
    context.looped(
        "Slow",
        f"def close(self):\n    while not __import__('os').path.exists('{home}/go'):\n        "
        f"__import__('time').sleep(0.01)",
    )
    context.task("ts_1", "Echo")
    context.task("ts_2", "Slow", service="<stop_timeout>30s</stop_timeout>")
    context.start("--transaction", TX)
    pid = context.tasks()["ts_2"]["pid"]
    listener = subscriber()
    context.clear_tasks()
    context.task("ts_1", "Echo")
    context.write()
    context.ctl("--no-block", "reload")
    order = listener.until(lambda topic, body: topic == "process" and body["header"]["action"] == "stop")
    assert (order["id"], order["instance"], order["header"]["service_name"]) == ("ts_2", "Slow", "slow")
    shown = context.tasks()["ts_2"]
    assert (shown["name"], shown["instance"], shown["description"]) == ("slow", "Slow", "Slow")
    if killed:
        context.kill_supervisor()
        # The next one waits half a second for the device, and what it says before the device answers is lost.
        subscriber()
    (home / "go").touch()
    stopped = listener.control("stopped", "ts_2")
    assert stopped["header"] == {
        "service_transaction": TX,
        "service_id": "ts_2",
        "action": "stopped",
        "service_name": "slow",
    }
    status: dict[str, Any] = stopped["content"]["status"]
    assert (status["device_action"], status["reason"], status["pid"]) == ("act", "requested", pid)
    # The message is published before the line is written.
    (line,) = wait_for(
        lambda: [line for line in context.log.read_text().splitlines() if "INFO: stopped " in line]
    )
    assert " Slow[" in line, "journalctl -t Slow finds its end"


def test_a_reload_of_a_file_that_cannot_be_read_says_so_and_changes_nothing(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", TX)
    pid = context.tasks()["ts_1"]["pid"]
    context.file.rename(context.home / "elsewhere.xml")
    told = context.ctl("--json", "reload", check=2)
    assert told.stderr == f"zmsvcctl: cannot reload: cannot read {context.file}: no such file or directory\n"
    answer = json.loads(told.stdout)
    assert (answer["error"], answer["code"]) == (told.stderr.removeprefix("zmsvcctl: ").strip(), 2)
    assert context.tasks()["ts_1"]["pid"] == pid
