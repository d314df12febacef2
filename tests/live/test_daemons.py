"""A program that puts itself into the background is found, ended and named, even if it has left its session
and its environment.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from context import Context
from waiting import stop_process, wait_for, wait_for_end

DAEMON = """import os, pathlib, signal
reader, writer = os.pipe()
if os.fork():
    os.read(reader, 1)
    {parent}
os.setsid()
middle = os.getpid()
if os.fork():
    os._exit(0)
while os.getppid() == middle:
    os.sched_yield()
file = pathlib.Path({file!r})
file.with_suffix(".new").write_text(str(os.getpid()))
file.with_suffix(".new").rename(file)
os.write(writer, b"x")
while True:
    signal.pause()
"""
"""A classic daemon with its own session. `env -i` runs it, because many daemons overwrite their environment.
"""


def daemon(context: Context, parent: str, task: str = "ts_1", **other: Any) -> Path:
    """Add a Command whose program daemonizes; its parent then runs `parent`. Return the file with the PID of
    the daemon.
    """
    (context.home / "Services").mkdir(exist_ok=True)
    program, file = context.home / f"{task}.py", context.home / f"{task}.pid"
    program.write_text(DAEMON.format(parent=parent, file=str(file)))
    words = ["env", "-i", "/usr/bin/python3", str(program)]
    config = "<command>" + "".join(f"<arg>{word}</arg>" for word in words) + "</command>"
    context.task(task, "Daemon", kind="Command", config=config, **other)
    return file


def pid_in(file: Path) -> int:
    return int(wait_for(lambda: file.exists() and file.read_text()))


LEAVES = "os._exit(0)"
STAYS = "signal.pause()"


def test_a_daemon_whose_main_process_has_ended_is_ended_and_named_in_status(either: Context) -> None:
    file = daemon(either, LEAVES)
    either.start()
    task = either.task_is("ts_1", "exited")
    pid = pid_in(file)
    wait_for_end(pid)
    assert f"python3 (PID {pid})" in task["status"], task
    assert "background" in task["status"], task
    shown = either.ctl("status", check=None).stdout
    assert f"python3 (PID {pid})" in shown, shown


def test_a_daemon_beside_a_main_process_is_ended_by_stop_and_named_in_its_answer(either: Context) -> None:
    file = daemon(either, STAYS)
    either.start()
    either.task_is("ts_1", "running")
    pid = pid_in(file)
    answer = json.loads(either.ctl("--json", "stop", "--task", "ts_1").stdout)
    wait_for_end(pid, 0)
    assert [end["asked"] for end in answer["ended"] if end["pid"] == pid] == ["SIGTERM"], answer


def test_a_daemon_ends_with_the_context(either: Context) -> None:
    file = daemon(either, STAYS)
    either.start()
    either.task_is("ts_1", "running")
    pid = pid_in(file)
    assert either.stop() == 0
    wait_for_end(pid, 0)


def test_a_daemon_of_a_killed_keeper_is_ended_before_the_next_one_starts_anything(context: Context) -> None:
    file = daemon(context, STAYS)
    context.start()
    context.task_is("ts_1", "running")
    first = pid_in(file)
    # Kill the supervisor, too, which would otherwise handle this at once.
    supervisor = int(context.status()["pid"])
    assert context.daemon is not None
    stop_process(supervisor)
    context.daemon.kill()
    os.kill(supervisor, signal.SIGKILL)
    context.daemon.wait()
    file.unlink()
    context.start()
    wait_for_end(first, 0)
    context.task_is("ts_1", "running")
    assert pid_in(file) != first


def test_the_end_of_one_task_leaves_the_daemon_of_another_alone(context: Context) -> None:
    file = daemon(context, STAYS)
    for number in range(2, 6):
        context.task(f"ts_{number}", "True", kind="Command", config="<command>true</command>", entry=False)
    context.start()
    context.task_is("ts_1", "running")
    pid = pid_in(file)
    transaction = context.status()["transactions"][0]["id"]
    for number in range(2, 6):
        context.ctl("start", "--transaction", transaction, "--task", f"ts_{number}")
        context.task_is(f"ts_{number}", "exited")
    os.kill(pid, 0)
    assert context.tasks()["ts_1"]["sub"] == "running"
    context.ctl("stop", "--task", "ts_1")
    wait_for_end(pid, 0)
