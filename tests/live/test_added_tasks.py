"""The tasks of `Context-NAME.d/*.xml` live as those of the context file do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from context import Context
from waiting import wait_for_end

TX = "5HGAHZ3WPZUI71PACRPP"


def part(context: Context, name: str, *tasks: str, command: str = "sleep 1000") -> Path:
    """Write a file of the directory, with Commands that have these IDs."""
    directory = context.file.with_suffix(".d")
    directory.mkdir(exist_ok=True)
    file = directory / f"{name}.xml"
    elements = "\n".join(
        f"<TaskService id='{task}' instance='Program' serviceType='Command'><Task><message>"
        f"<header><action>start</action><service_name>program</service_name></header><content>"
        f"<configuration><command>{command}</command></configuration></content></message>"
        f"<state type='on_start'/></Task></TaskService>"
        for task in tasks
    )
    file.write_text(f"<Context>\n{elements}\n</Context>\n")
    return file


@pytest.fixture
def running(context: Context) -> Context:
    """A context with a task of its own file, and one of its directory."""
    context.looped("Echo")
    context.task("ts_1", "Echo")
    part(context, "a", "a_1")
    context.start("--transaction", TX)
    for task in ("ts_1", "a_1"):
        context.task_is(task, "running")
    return context


def pids(context: Context) -> dict[str, int]:
    return {name: task["pid"] for name, task in context.tasks().items()}


def test_a_reload_adds_changes_and_removes_tasks_of_the_directory(running: Context) -> None:
    before = pids(running)
    part(running, "b", "b_1")
    planned = json.loads(running.ctl("--json", "reload", "--dry-run").stdout)
    assert planned["added"] == ["b_1"]
    assert "changed, not reloaded" in running.ctl("status").stdout
    running.ctl("reload")
    running.task_is("b_1", "running")
    assert "changed, not reloaded" not in running.ctl("status").stdout
    part(running, "a", "a_1", command="sleep 1001")
    assert "changed: a_1" in running.ctl("reload").stdout
    running.task_is("a_1", "running", also=lambda task: task["pid"] != before["a_1"])
    second = running.tasks()["b_1"]["pid"]
    (running.file.with_suffix(".d") / "b.xml").unlink()
    assert "removed: b_1" in running.ctl("reload").stdout
    wait_for_end(second)
    assert pids(running)["ts_1"] == before["ts_1"]


def test_a_reload_with_a_bad_file_of_the_directory_changes_nothing(running: Context) -> None:
    before = pids(running)
    bad = part(running, "b", "a_1")
    answer = running.ctl("reload", check=2)
    first = running.file.with_suffix(".d") / "a.xml"
    assert f"{bad}:2: the id 'a_1' is taken by a task before it" in answer.stderr
    assert f"(see {first}:2)" in answer.stderr
    assert pids(running) == before


@pytest.mark.parametrize("how", ["killed", "reexec"])
def test_a_supervisor_that_takes_over_keeps_the_tasks_of_the_directory_as_they_were(
    running: Context, how: str
) -> None:
    """A crash is not a reload: the files that the predecessor has read are in effect."""
    before = pids(running)
    (running.file.with_suffix(".d") / "a.xml").unlink()
    part(running, "b", "b_1")
    if how == "killed":
        running.kill_supervisor()
    else:
        running.ctl("reexec")
    running.task_is("a_1", "running")
    assert pids(running) == before
    running.ctl("restart", "--transaction", TX, "--task", "a_1")
    running.task_is("a_1", "running", also=lambda task: task["pid"] != before["a_1"])
    running.ctl("reload")
    running.task_is("b_1", "running")
    wait_for_end(before["a_1"])


def test_the_state_file_of_a_context_that_has_ended_knows_the_tasks_of_the_directory(
    running: Context,
) -> None:
    running.ctl("exit")
    assert running.wait() == 0
    shown = json.loads(running.ctl("--json", "status", "a_1", check=3).stdout)
    (task,) = shown["contexts"][0]["transactions"][0]["tasks"]
    assert (task["id"], task["instance"]) == ("a_1", "Program")
    assert not any(os.path.exists(f"/proc/{pid}") for pid in [task["pid"]] if pid)
