"""A context that zmsvcctl makes of commands runs without changes, by its name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from context import Context
from waiting import wait_for


@pytest.fixture
def made(context: Context) -> Iterator[Context]:
    """An empty directory of context files. At the end, the daemon that the test has started is stopped."""
    yield context
    context.ctl("exit", check=None)


def start(context: Context) -> None:
    """Start the daemon with the name of the context, as its unit does."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "zmsvc.keeper", "--detach", context.name],
        env=context.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_created_command_runs_and_starts_again_after_a_failure(made: Context) -> None:
    made.ctl("create", "--context_name", made.name, "--command", "sleep 1000")
    words = ["--command", "sh -c 'kill -9 $$'", "--task_id", "once", "--restart", "no"]
    made.ctl("create", "--context_name", made.name, *words, "--entry_action", "on_exit")
    start(made)
    first = made.task_is("sleep", "running")["pid"]
    made.ctl("start", "--task", "once", check=None)
    made.task_is("once", "failed")
    os.kill(first, 9)
    again = made.task_is("sleep", "running", also=lambda task: task["pid"] != first)
    assert (again["restarts"], made.tasks()["once"]["restarts"]) == (1, 0)
    assert wait_for(lambda: made.tasks()["once"]["sub"] == "failed")
