"""Answers to `state`/`top`. A process, the sampler, measures the tasks of a transaction while the loop goes
on. It answers one question after the other, and a question that waits already is not queued again. So a flood
of equal questions costs one process at a time and gets one answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any, Protocol

from zmsvc.core.errors import UsageError
from zmsvc.core.frozen import frozen
from zmsvc.core.world import World
from zmsvc.supervisor import status_report

OPTIONS = ("memory_maps", "open_connections", "opened_files")
PATIENCE = 30.0
"""The limit in seconds for one measurement."""
MAX_WAITING = 64
"""The number of different questions that may wait; more are refused."""


@frozen
class Question:
    """A question for the figures of a transaction, with options. `head` is the header of the answer as
    JSON.
    """

    transaction: str
    wanted: tuple[str, ...]
    head: str


log = logging.getLogger(__name__)


class TopPublisher(Protocol):
    """The part of bus.py that publishes answers."""

    @property
    def world(self) -> World: ...

    def publish_top(self, head: Mapping[str, Any], rows: list[Any]) -> None:
        """Publish the answer to one question: its header, and a row for each task."""


class Top:
    """The questions that wait, and the sampler that answers the first of them."""

    def __init__(self, publisher: TopPublisher) -> None:
        self._publisher = publisher
        self._waiting: dict[Question, None] = {}
        self._work: asyncio.Task[None] | None = None

    def ask(self, transaction: str, configuration: Any, head: Mapping[str, Any]) -> None:
        """Take a question for the figures of a transaction. Raises UsageError when too many questions
        wait.
        """
        given = configuration if isinstance(configuration, Mapping) else {}
        wanted = tuple(str(given.get(name, ""))[:8] for name in OPTIONS)
        question = Question(transaction=transaction, wanted=wanted, head=json.dumps(head))
        if question not in self._waiting and len(self._waiting) >= MAX_WAITING:
            raise UsageError(f"cannot answer top: {MAX_WAITING} questions wait already")
        self._waiting[question] = None
        if self._work is None or self._work.done():
            self._work = asyncio.get_running_loop().create_task(self._answer())

    def close(self) -> None:
        if self._work is not None:
            self._work.cancel()

    async def _answer(self) -> None:
        while self._waiting:
            question = next(iter(self._waiting))
            try:
                rows = await self._sample(question.transaction, question.wanted)
            except (OSError, ValueError, TimeoutError) as error:
                log.warning(
                    "Cannot answer top for %s: %s",
                    question.transaction,
                    error or f"it took longer than {PATIENCE:g} s",
                )
            else:
                self._publisher.publish_top(json.loads(question.head), rows)
            finally:
                del self._waiting[question]

    async def _sample(self, transaction: str, wanted: tuple[str, ...]) -> list[Any]:
        world = self._publisher.world
        tasks = [
            # The PID of a task on another host means nothing here.
            {**status_report.top_row(world, key, task), "pid": None if task.host else task.pid}
            for key, task in status_report.tasks_of(world, transaction)
        ]
        sampler_input = json.dumps(
            {"options": dict(zip(OPTIONS, wanted, strict=True)), "tasks": tasks}
        ).encode()
        # -P: do not import modules from the working directory.
        command = (sys.executable, "-P", "-m", "zmsvc.supervisor.sampler")
        sampler = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(PATIENCE):
                output, _ = await sampler.communicate(sampler_input)
        finally:
            if sampler.returncode is None:
                sampler.kill()
                await sampler.wait()
        if sampler.returncode != 0:
            raise ValueError(f"the sampler ended with status {sampler.returncode}")
        rows = json.loads(output)
        return rows if isinstance(rows, list) else []
