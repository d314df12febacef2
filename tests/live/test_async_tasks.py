"""AsyncTask under the real daemon, in each kind of process that a task can have."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from context import Context, Subscriber

SERVICE = """
import asyncio
from zmsvc.task import AsyncTask, TaskService

class Work(AsyncTask):
    async def run(self):
        async with asyncio.TaskGroup() as group:
            group.create_task(self.forever())
    async def forever(self):
        try:
            await self.update_async(at="run")
            await asyncio.sleep(3600)
        finally:
            self.update(at="canceled")

class ServiceAsync(TaskService):
    task_class = Work
"""


@pytest.mark.parametrize("kind", ["Process", "Thread", "fresh"])
def test_a_stop_cancels_a_coroutine_in_every_kind_of_process(
    context: Context, subscriber: Callable[..., Subscriber], kind: str
) -> None:
    context.service("Async", SERVICE)
    more = "<fresh>yes</fresh>" if kind == "fresh" else ""
    context.task("ts_1", "Async", kind="Thread" if kind == "Thread" else "Process", service=more, entry=False)
    context.start("--transaction", "T")
    heard = subscriber(b"control @@@ ")
    context.ctl("start", "--transaction", "T", "ts_1")
    assert heard.control("updated", "ts_1")["content"]["status"]["at"] == "run"
    context.ctl("stop", "--transaction", "T", "ts_1")
    assert heard.control("updated", "ts_1")["content"]["status"]["at"] == "canceled"
    assert context.tasks("T")["ts_1"]["exit"] | {"at": ""} == {
        "code": 0,
        "signal": None,
        "reason": "requested",
        "at": "",
    }
