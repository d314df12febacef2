"""The topics of a task in the source of its class: `check` finds what a start finds, and runs no code."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zmsvc.core.errors import LaunchError
from zmsvc.host.config import reader
from zmsvc.host.config.message_source import TaskMessages, messages_of
from zmsvc.host.config.subscribe_check import check_subscriptions
from zmsvc.task import loader
from zmsvc.task.subscriptions import topics_before_ready

COMMON = """
NEWS = "news"
from zmsvc.task import MessageTask
class Listener(MessageTask):
    topics = (NEWS,)
    def on_message(self, message): ...
"""
HEAD = """
import zmsvc.task
from zmsvc.task import AsyncTask, LoopedTask, MessageTask, SingleTask, TaskService
from common.base import NEWS, Listener
TOPICS = [NEWS, "b"]
def made(): return ("x",)
"""
CONTEXT = """<Context>
  <ContextID>context001</ContextID>
  <TaskService id="ts_1" topic="process" instance="Work" serviceType="{kind}"><Task>
    <message><header><action>start</action><service_name>work</service_name></header>
      <content><configuration>
        <location>.</location>
        {given}
      </configuration></content></message>
    <state type="on_start"/>
  </Task></TaskService>
</Context>
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "common").mkdir()
    (tmp_path / "common/base.py").write_text(COMMON)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def service(folder: Path, code: str) -> None:
    (folder / "Work").mkdir()
    (folder / "Work/ServiceWork.py").write_text(
        f"{HEAD}{code}\nclass ServiceWork(TaskService):\n    task_class = Work\n"
    )


@pytest.mark.parametrize(
    ("code", "known"),
    [
        ("class Work(MessageTask):\n    topics = TOPICS", ("MessageTask", False, ("news", "b"), None)),
        ("class Work(Listener):\n    publishes = ()", ("MessageTask", True, ("news",), ())),
        (
            "class Work(zmsvc.task.LoopedTask):\n    topics: str = 'a'\n    publishes = ('x', NEWS, 'x')",
            ("LoopedTask", False, ("a",), ("x", "news")),
        ),
        ("class Work(AsyncTask):\n    topics = made()", ("AsyncTask", False, None, None)),
        ("class Work(SingleTask): pass", ("SingleTask", False, (), None)),
        ("import other\nclass Work(other.Base, MessageTask): pass", (None, None, None, None)),
        ("class Work(Work): pass", (None, None, None, None)),
        ("Work = made()", (None, None, None, None)),
        ("class Work(MessageTask):\n    topics = 'a @@@ b'", ("MessageTask", False, None, None)),
    ],
)
def test_the_topics_of_a_class_are_read_from_its_source(
    folder: Path, code: str, known: tuple[Any, ...]
) -> None:
    service(folder, code)
    base, hears, topics, publishes = known
    expected = TaskMessages(base=base, hears=hears, topics=topics, publishes=publishes)
    assert messages_of(folder, "Work") == expected
    assert "common.base" not in sys.modules


HEARING = "    def on_message(self, message): ..."


@pytest.mark.parametrize("kind", ["Process", "Thread"])
@pytest.mark.parametrize(
    ("code", "given", "fault"),
    [
        (f"class Work(LoopedTask):\n{HEARING}", "<subscribe>a</subscribe>", ""),
        (f"class Work(LoopedTask):\n{HEARING}", "<subscribe/>", ""),
        ("class Work(LoopedTask): pass", "<subscribe>a @@@ b</subscribe>", ""),
        (
            f"class Work(LoopedTask):\n{HEARING}",
            "<subscribe>a</subscribe>\n<subscribe>b @@@ c</subscribe>",
            "8: ts_1: <subscribe>: 'b @@@ c' cannot be a topic, expected the name of a topic, without @@@",
        ),
        (
            "class Work(SingleTask):\n    topics = NEWS",
            "<subscribe><topic>a</topic></subscribe>",
            "7: ts_1: <subscribe>: \"{'topic': 'a'}\" is not a text, expected the name of a topic, without @@@",
        ),
        (
            "class Work(Listener): pass",
            "<subscribe>a</subscribe><subscribe/>",
            "7: ts_1: <subscribe>: a topic is empty, expected the name of a topic, without @@@",
        ),
        (
            "class Work(Listener): pass",
            "<subscribe/>",
            "7: ts_1: the task lives on messages and has no topics, expected <subscribe> with one",
        ),
        (
            f"class Work(MessageTask):\n{HEARING}",
            "",
            "5: ts_1: the task lives on messages and has no topics, expected <subscribe> with one",
        ),
        ("class Work(Listener): pass", "", ""),
    ],
)
def test_check_and_start_find_the_same_faults_of_subscribe(
    folder: Path, kind: str, code: str, given: str, fault: str
) -> None:
    service(folder, code)
    file = folder / "Context-X.xml"
    file.write_text(CONTEXT.format(given=given, kind=kind))
    context = reader.load(file)
    found = check_subscriptions(context, str(file))
    assert found == ([f"{file}:{fault}"] if fault else [])
    task = object.__new__(loader.load("Work", [str(folder)]).task_class)
    task.log = logging.getLogger("test")
    try:
        topics_before_ready(task, context.tasks["ts_1"].configuration.get("subscribe"))
        refused = False
    except LaunchError:
        refused = True
    assert refused == bool(fault)
