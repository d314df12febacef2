"""docs/services.md: the claims of the page about shared code and about the end of a task."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from context import Context, Subscriber

SHARED = """
from zmsvc.task import SingleTask, TaskService
from common.units import NAME

class Work(SingleTask):
    def run(self):
        self.update(name=NAME)
        self.wait()

class ServiceShared(TaskService):
    task_class = Work
"""


def write(file: Path, text: str, at: int) -> None:
    """Write a module with a given time, because the cache of Python recognizes a module by time and size."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    os.utime(file, (at, at))


@pytest.mark.parametrize(("kind", "found"), [("Process", "new"), ("Thread", "old")])
def test_edited_code_that_services_share_is_used_by_a_new_process(
    context: Context, home: Path, subscriber: Callable[..., Subscriber], kind: str, found: str
) -> None:
    module = home / "Services/common/units.py"
    write(module, "NAME = 'old'\n", 1_000_000_000)
    context.service("Shared", SHARED)
    context.looped("Other")
    context.task("ts_1", "Shared", kind=kind, entry=False)
    # This Thread task keeps the shared process.
    context.task("ts_2", "Other", kind="Thread")
    context.start("--transaction", "T")
    heard = subscriber(b"control @@@ ")
    context.ctl("start", "--transaction", "T", "ts_1")
    assert heard.control("updated", "ts_1")["content"]["status"]["name"] == "old"
    write(module, "NAME = 'new'\n", 1_000_000_100)
    context.ctl("restart", "--transaction", "T", "ts_1")
    assert heard.control("updated", "ts_1")["content"]["status"]["name"] == found
    context.ctl("stop", "--transaction", "T", "ts_1", "ts_2")
    context.ctl("start", "--transaction", "T", "ts_1")
    assert heard.control("updated", "ts_1")["content"]["status"]["name"] == "new"


def test_a_step_that_takes_longer_than_the_stop_timeout_is_cut_off_unless_it_asks(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    for name, asks, timeout in (("Blind", "False", "1s"), ("Asking", "self.wait(0)", "1min")):
        context.looped(name, f"""
            def step(self):
                import time
                self.update(at="step")
                until = time.monotonic() + 3600
                while time.monotonic() < until and not {asks}:
                    time.sleep(0.01)
            def close(self):
                self.update(at="close")
        """)  # fmt: skip
        context.task(name, name, entry=False, service=f"<stop_timeout>{timeout}</stop_timeout>")
    context.start("--transaction", "T")
    listener = subscriber(b"control @@@ ")
    context.ctl("start", "--transaction", "T", "Blind", "Asking")
    heard = [listener.until(at_step)["header"]["service_id"] for _ in range(2)]
    assert sorted(heard) == ["Asking", "Blind"]
    context.ctl("stop", "--transaction", "T")
    tasks = context.tasks("T")
    assert tasks["Blind"]["exit"]["signal"] == "SIGKILL"
    assert (tasks["Asking"]["exit"]["code"], tasks["Asking"]["exit"]["signal"]) == (0, None)


def at_step(_topic: str, body: dict[str, object]) -> bool:
    return "'at': 'step'" in str(body)
