"""A task is forked from memory that holds nothing of another task: no environment, no configuration, no
key.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from context import Context
from waiting import wait_for_end

SEARCHER = r"""
import json, os, re
from zmsvc.task import SingleTask, TaskService

def readable():
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps.readlines():
            start, end = (int(each, 16) for each in line.split()[0].split("-"))
            try:
                memory.seek(start)
                yield memory.read(end - start)
            except (OSError, OverflowError):
                continue  # not readable, or the kernel's

class Search(SingleTask):
    def run(self):
        # The pattern itself has no digits, so it is not a hit.
        found = {hit.decode() for data in readable() for hit in re.findall(rb"s3cret-[a-z]+-\d{6}", data)}
        with open(os.environ["RESULT"], "w") as file:
            json.dump(sorted(found), file)

class ServiceSearcher(TaskService):
    service_name = "searcher"
    task_class = Search
"""


LONG = f"<padding>{'x' * 5000}</padding>"
"""A long launch, which a shorter one after it would not overwrite as a whole."""


@pytest.fixture
def searching(context: Context) -> Context:
    """A context in which a task with secrets runs, and another one with secrets has run and ended."""
    context.looped("Secretive")
    context.service("Searcher", SEARCHER)
    for name in ("secretive", "ended"):
        secret = f"<environment><TOKEN>s3cret-environment-123456</TOKEN><OF>s3cret-{name}-999999</OF></environment>"
        context.task(
            name,
            "Secretive",
            service=secret,
            config=f"{LONG}<password>s3cret-configuration-234567</password>",
        )
    own = f"<environment><TOKEN>s3cret-own-345678</TOKEN><RESULT>{context.home}/result</RESULT></environment>"
    context.task("searcher", "Searcher", entry=False, service=own)
    context.start("--transaction", "T1")
    context.ctl("stop", "--transaction", "T1", "--task", "ended")
    return context


def secrets_in_memory(context: Context) -> list[str]:
    context.ctl("start", "--transaction", "T1", "--task", "searcher")
    context.task_is("searcher", "exited", "T1")
    found: list[str] = json.loads(Path(context.home / "result").read_text())
    return found


def test_a_task_finds_only_its_own_secret_in_its_memory(searching: Context) -> None:
    assert secrets_in_memory(searching) == ["s3cret-own-345678"]


def test_a_task_of_a_replaced_zygote_finds_only_its_own_secret(searching: Context) -> None:
    zygote = searching.zygote()
    os.kill(zygote, signal.SIGKILL)
    wait_for_end(zygote)
    assert secrets_in_memory(searching) == ["s3cret-own-345678"]
    assert searching.zygote() != zygote
