"""MAINPID= makes another process of the same task the main one. Only a process that may notify for the task
can send it.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from context import Context
from waiting import wait_for, wait_for_end

UPGRADES = """import os, pathlib, signal, socket
home = pathlib.Path({home!r})
def say(*lines):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(os.environ["NOTIFY_SOCKET"])
        sock.send(chr(10).join(lines).encode())
def put(name, text):
    (home / (name + ".new")).write_text(text)
    (home / (name + ".new")).rename(home / name)
def upgrade(number, frame):
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(7))
        say("MAINPID=%d" % os.getpid(), "STATUS=new")
        put("new", str(os.getpid()))
def ends(number, frame):
    os._exit(0)
signal.signal(signal.SIGUSR2, upgrade)
signal.signal(signal.SIGTERM, ends)
put("old", str(os.getpid()))
while True:
    signal.pause()
"""
"""A program that replaces itself on SIGUSR2, as nginx and gunicorn do; its new process sends MAINPID."""


def program(context: Context, access: str) -> None:
    (context.home / "Services").mkdir()
    file = context.home / "upgrades.py"
    file.write_text(UPGRADES.format(home=str(context.home)))
    config = f"<command><arg>python3</arg><arg>{file}</arg></command>"
    service = f"<notify_access>{access}</notify_access>" if access else ""
    context.task("ts", "Upgrades", kind="Command", config=config, service=service)


def number(file: Path) -> int:
    return int(wait_for(lambda: file.exists() and file.read_text()))


def upgraded(context: Context) -> tuple[int, int]:
    """Return the old and the new main process, when the task has changed it."""
    program(context, "all")
    context.start("--transaction", "TX")
    old = number(context.home / "old")
    os.kill(old, signal.SIGUSR2)
    new = number(context.home / "new")
    context.task_is("ts", "running", also=lambda task: task["pid"] == new)
    return old, new


def test_a_task_outlives_its_first_process_when_it_has_named_another(context: Context) -> None:
    old, new = upgraded(context)
    os.kill(old, signal.SIGTERM)
    wait_for_end(old)
    assert context.tasks()["ts"]["pid"] == new
    wait_for(lambda: (context.runtime / context.name / "TX:ts.pid").read_text() == f"{new}\n")
    os.kill(new, signal.SIGTERM)
    task = context.task_is("ts", "failed")
    assert task["exit"]["code"] == 7, "the true status of the new main process"


def test_the_next_supervisor_knows_the_main_process(context: Context) -> None:
    _, new = upgraded(context)
    context.kill_supervisor()
    assert context.tasks()["ts"]["pid"] == new


def test_a_stop_ends_the_old_and_the_new_main_process(context: Context) -> None:
    old, new = upgraded(context)
    context.ctl("stop", "--task", "ts")
    wait_for_end(old, 0)
    wait_for_end(new, 0)


def test_an_upgrade_that_fails_leaves_the_first_process_the_main_one(context: Context) -> None:
    old, new = upgraded(context)
    os.kill(new, signal.SIGKILL)
    context.task_is("ts", "running", also=lambda task: task["pid"] == old)


@pytest.mark.parametrize("access", ["", "main", "exec"])
def test_only_the_main_process_may_notify_by_default(context: Context, access: str) -> None:
    program(context, access)
    context.start("--transaction", "TX")
    old = number(context.home / "old")
    os.kill(old, signal.SIGUSR2)
    new = number(context.home / "new")
    wait_for(lambda: f"Process {new} is not a task's main process" in context.log.read_text())
    assert context.tasks()["ts"]["pid"] == old


def test_a_process_of_another_task_does_not_become_the_main_one(context: Context) -> None:
    (context.home / "Services").mkdir()
    context.task("other", "Sleep", kind="Command", config="<command>sleep 1000</command>")
    script = (
        f'while [ ! -e {context.home}/go ]; do sleep 0.05; done; systemd-notify "MAINPID=$(cat '
        f'{context.home}/go)"; exec sleep 1000'
    )
    config = f"<command><arg>sh</arg><arg>-c</arg><arg>{script}</arg></command>"
    context.task("ts", "Liar", kind="Command", config=config, service="<notify_access>all</notify_access>")
    context.start("--transaction", "TX")
    tasks = context.tasks()
    (context.home / "go.new").write_text(str(tasks["other"]["pid"]))
    (context.home / "go.new").rename(context.home / "go")
    wait_for(
        lambda: (
            f"names {tasks['other']['pid']} as the main process, which is not one of its task"
            in context.log.read_text()
        )
    )
    assert context.tasks()["ts"]["pid"] == tasks["ts"]["pid"]
