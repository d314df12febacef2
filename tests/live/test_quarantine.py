"""The quarantine: messages that tasks could not handle are kept, shown, sent again and dropped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from context import Context, Subscriber
from waiting import wait_for

SERVICE = """
import os
from zmsvc.task import MessageTask, TaskService

class Work(MessageTask):
    topics = ("numbers",)
    def on_message(self, message):
        if not os.path.exists(self.config["mended"]) and message.content["n"] == 13:
            raise ValueError("thirteen\\x1b")
        self.update(n=message.content["n"], user=os.getuid(), number=message.sequence)

class ServiceWork(TaskService):
    task_class = Work
"""


def quarantined(context: Context) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = context.ask_again(verb="quarantine")["data"]["messages"]
    return found


@pytest.mark.parametrize("kind", ["Process", "Thread"])
def test_a_message_that_a_task_sets_aside_is_kept_shown_sent_again_and_dropped(
    context: Context, home: Path, subscriber: Callable[..., Subscriber], kind: str
) -> None:
    # As root, the task runs as another user, who can neither read nor write the quarantine.
    user = "<user>daemon</user>" if kind == "Process" and os.geteuid() == 0 else ""
    home.chmod(0o755)
    context.service("Work", SERVICE)
    service = f"{user}<poison_action>set-aside</poison_action>"
    mended = home / "mended"
    for task in ("ts_1", "ts_2"):
        context.task(task, "Work", kind=kind, service=service, config=f"<mended>{mended}</mended>")
    context.start("--transaction", "T")
    heard = subscriber(b"control @@@ ")
    large = "x" * (100 << 10)
    poisonous = (
        '{"header": {"service_id": "me", "launch": 1, "sequence": 8}, "content": {"n": 13, "large": "%s"}}'
    )
    context.ctl("send", "numbers", poisonous % large)
    context.ctl("send", "numbers", '{"content": {"n": 2}}')
    heard.controls("updated", ("ts_1", "ts_2"), "T")
    wait_for(lambda: len(quarantined(context)) == 2)
    # The next supervisor has all messages of its predecessor.
    context.kill_supervisor()
    (one,) = (each for each in quarantined(context) if each["task"] == "ts_1")
    assert (one["topic"], one["sender"], one["sequence"], one["error"]) == (
        "numbers", "me", 8, "ValueError: thirteen\x1b",
    )  # fmt: skip
    assert context.tasks("T")["ts_1"]["poisoned"] == 1
    shown = context.ctl("quarantine", "show", str(one["id"])).stdout
    assert "raise ValueError" in shown
    assert large in shown
    assert "\x1b" not in shown
    listed = context.ctl("quarantine", "list", "ts_1").stdout
    assert "ValueError: thirteen" in listed
    assert "ts_2" not in listed
    assert "\x1b" not in listed
    assert (home / "state" / context.name / "state.db").stat().st_mode & 0o777 == 0o600

    mended.touch()
    context.ctl("quarantine", "send", str(one["id"]))
    told = heard.control("updated", "ts_1")["content"]["status"]
    assert (told["n"], told["number"]) == (13, None)
    context.ctl("send", "numbers", '{"content": {"n": 3}}')
    assert heard.control("updated", "ts_2")["content"]["status"]["n"] == 3, "ts_2 was sent nothing again"
    context.ctl("quarantine", "drop", str(one["id"]))
    assert context.ctl("quarantine", "drop", str(one["id"]), check=4).stderr.endswith(
        "not in the quarantine\n"
    )
    assert [each["task"] for each in quarantined(context)] == ["ts_2"]
    assert context.stop() == 0
    done = context.ctl("--json", "quarantine")
    assert f"{context.name} does not run; this is from its state file" in done.stderr
    (other,) = json.loads(done.stdout)["messages"]
    assert other["task"] == "ts_2"
    again = context.ctl("--json", "quarantine", "show", str(other["id"]))
    assert json.loads(again.stdout)["messages"][0]["frame"].startswith("numbers @@@ ")
