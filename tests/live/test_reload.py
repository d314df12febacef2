"""`zmsvcctl reload`: the context file is read again, and only what differs is touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from context import Context, Ear
from waiting import wait_for, wait_for_end

TX = "5HGAHZ3WPZUI71PACRPP"


def test_only_what_differs_is_touched(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.task("ts_2", "Echo")
    context.task("ts_3", "Echo")
    context.start("--transaction", TX)
    before = {name: task["pid"] for name, task in context.tasks().items()}
    context.clear_tasks()
    context.task("ts_1", "Echo")
    context.task("ts_2", "Echo", config="<colour>red</colour>")
    context.task("ts_4", "Echo")
    context.write()
    context.ctl("reload")
    pids = {name: context.task_is(name, "running")["pid"] for name in ("ts_1", "ts_4")}
    assert pids["ts_1"] == before["ts_1"]
    context.task_is("ts_2", "running", also=lambda task: task["pid"] != before["ts_2"])
    wait_for(lambda: "ts_3" not in context.tasks())
    wait_for_end(before["ts_3"])


@pytest.mark.parametrize("killed", [False, True], ids=["supervisor lives", "supervisor dies meanwhile"])
def test_the_stop_of_a_removed_task_is_told_with_what_the_old_file_said(
    context: Context, home: Path, ear: Callable[..., Ear], killed: bool
) -> None:
    context.looped("Echo")
    context.looped(
        "Slow", f"def close(self):\n    while not __import__('os').path.exists('{home}/go'):\n        __import__('time').sleep(0.01)"
    )
    context.task("ts_1", "Echo")
    context.task("ts_2", "Slow", service="<stop_timeout>30s</stop_timeout>")
    context.start("--transaction", TX)
    pid = context.tasks()["ts_2"]["pid"]
    listener = ear()
    context.clear_tasks()
    context.task("ts_1", "Echo")
    context.write()
    context.ctl("reload")
    order = listener.until(lambda topic, body: topic == "process" and body["header"]["action"] == "stop")
    assert (order["id"], order["instance"], order["header"]["service_name"]) == ("ts_2", "Slow", "slow")
    shown = context.tasks()["ts_2"]
    assert (shown["name"], shown["instance"], shown["description"]) == ("slow", "Slow", "Slow")
    if killed:
        context.kill_supervisor()
    (home / "go").touch()
    stopped = listener.control("stopped", "ts_2")
    assert stopped["header"] == {"service_transaction": TX, "service_id": "ts_2", "action": "stopped", "service_name": "slow"}
    status: dict[str, Any] = stopped["content"]["status"]
    assert (status["device_action"], status["reason"], status["pid"]) == ("act", "requested", pid)
    # The message goes out before the line is written.
    (line,) = wait_for(lambda: [line for line in context.log.read_text().splitlines() if "INFO: stopped " in line])
    assert " Slow[" in line, "journalctl -t Slow finds its end"
