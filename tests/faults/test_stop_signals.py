"""A stop gives every process of a task its stop signal and time to end, with control groups and without
them.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from context import Context
from waiting import wait_for

SAVES = """import os, pathlib, signal, sys
file = pathlib.Path({file!r})
def save(number, frame):
    file.with_suffix(".saved").write_text(signal.Signals(number).name)
    sys.exit(0)
for each in (signal.SIGTERM, signal.SIGQUIT):
    signal.signal(each, save)
file.write_text(str(os.getpid()))
while True:
    signal.pause()
"""
"""A program that saves its data when it is asked to end, as redis-server does."""

WRAPPERS = {
    "a shell that waits": "python3 {program}; :",
    "a shell that ignores the signal": 'trap "" TERM; python3 {program}; :',
    "a shell that dies first": "python3 {program} & wait",
    "a pipeline": "sleep 1000 | python3 {program}",
    "a double fork": "(python3 {program} &) ; sleep 1000",
    "a session of its own": "setsid python3 {program} & wait",
    "a double fork into a session of its own": "(setsid python3 {program} &) ; sleep 1000",
    "a shell of a shell": "sh -c 'python3 {program}; :'; :",
}


def shell(context: Context, script: str, service: str = "", **other: Any) -> Path:
    """Add a Command ts_1 that runs this script, in which {program} is a program that saves data. Return the
    file with the PID of that program.
    """
    (context.home / "Services").mkdir(exist_ok=True)
    program, file = context.home / "program.py", context.home / "pid"
    program.write_text(SAVES.format(file=str(file)))
    text = escape(script.format(program=program))
    context.task(
        "ts_1",
        "Shell",
        kind="Command",
        config=f"<command><arg>sh</arg><arg>-c</arg><arg>{text}</arg></command>",
        service=service,
        **other,
    )
    return file


def pid_in(file: Path) -> int:
    return int(wait_for(lambda: file.exists() and file.read_text()))


def saved(file: Path) -> str:
    found = file.with_suffix(".saved")
    return found.read_text() if found.exists() else ""


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_program_behind_a_wrapper_saves_its_data_when_the_task_is_stopped(
    either: Context, wrapper: str
) -> None:
    file = shell(either, WRAPPERS[wrapper])
    either.start("--transaction", "T")
    pid = pid_in(file)
    answer = either.ask(verb="stop", tasks=["ts_1"])
    assert answer["ok"], answer
    assert saved(file) == "SIGTERM"
    assert gone(pid), "the answer comes when nothing is left"
    program = {entry["pid"]: entry for entry in answer["data"]["ended"]}[pid]
    assert (program["asked"], program["killed"]) == ("SIGTERM", False)


def test_a_stop_names_the_signaled_and_the_killed_processes(either: Context) -> None:
    deaf = either.home / "deaf"
    ignores = f"sh -c 'trap \"\" TERM; echo $$ > {deaf}; exec sleep 1000'"
    file = shell(either, f"{ignores} & python3 {{program}}; :", "<stop_timeout>6s</stop_timeout>")
    either.start("--transaction", "T")
    pid, child = pid_in(file), pid_in(deaf)
    told = either.ctl("stop", "ts_1").stdout
    assert saved(file) == "SIGTERM"
    assert gone(child)
    assert f"SIGTERM was sent to python3 (PID {pid}), which has ended" in told
    assert (
        f"SIGTERM was sent to, then SIGKILL was sent to sleep (PID {child}), which has ended: SIGKILL" in told
    )
    history = either.ctl("events", "ts_1").stdout
    assert str(child) in history
    assert "SIGKILL" in history


def test_the_stop_signal_is_sent_to_all_processes_of_a_command(either: Context) -> None:
    file = shell(either, "trap : QUIT; python3 {program}; :", "<stop_signal>QUIT</stop_signal>")
    either.start("--transaction", "T")
    pid_in(file)
    assert either.ask(verb="stop", tasks=["ts_1"])["ok"]
    assert saved(file) == "SIGQUIT"


def test_kill_mode_mixed_signals_the_main_process_only_and_kills_the_rest(either: Context) -> None:
    file = shell(either, "python3 {program} & wait", "<kill_mode>mixed</kill_mode>")
    either.start("--transaction", "T")
    pid = pid_in(file)
    answer = either.ask(verb="stop", tasks=["ts_1"])
    assert answer["ok"], answer
    assert gone(pid)
    assert saved(file) == ""
    program = {entry["pid"]: entry for entry in answer["data"]["ended"]}[pid]
    assert (program["asked"], program["killed"], program["signal"]) == ("", True, "SIGKILL")


PARENT = """
def setup(self):
    import subprocess
    self.child = subprocess.Popen(["python3", "{program}"], start_new_session={session})

def close(self):
    import pathlib
    pathlib.Path("{order}").write_text(str(pathlib.Path("{saved}").exists()))
"""


@pytest.mark.parametrize("session", [False, True])
def test_a_python_task_is_signaled_first_and_its_leftovers_afterwards(either: Context, session: bool) -> None:
    program, file, order = either.home / "program.py", either.home / "pid", either.home / "order"
    program.write_text(SAVES.format(file=str(file)))
    either.looped(
        "Parent",
        PARENT.format(program=program, session=session, order=order, saved=file.with_suffix(".saved")),
    )
    either.task("ts_1", "Parent")
    either.start("--transaction", "T")
    pid = pid_in(file)
    assert either.ask(verb="stop", tasks=["ts_1"])["ok"]
    assert (order.read_text(), saved(file)) == ("False", "SIGTERM")
    assert gone(pid)


def test_a_wrapper_that_crashes_leaves_its_program_time_to_save_before_the_rule_starts_the_next(
    either: Context,
) -> None:
    file = shell(either, "python3 {program} & wait", rules={"on_fail": ("restart", "ts_1")})
    either.start("--transaction", "T")
    pid, wrapper = pid_in(file), either.tasks()["ts_1"]["pid"]
    file.unlink()
    os.kill(wrapper, signal.SIGKILL)
    either.task_is("ts_1", "running", also=lambda task: task["pid"] != wrapper)
    assert saved(file) == "SIGTERM"
    assert gone(pid)


def test_a_supervisor_that_dies_while_leftovers_are_stopped_changes_nothing(either: Context) -> None:
    # It saves when the test has seen the stop, however long that takes.
    waits = "    import time\n    while not file.with_suffix('.go').exists():\n        time.sleep(0.01)\n"
    slow = SAVES.replace("    file.with", f"{waits}    file.with")
    file = shell(either, "python3 {program} & wait")
    (either.home / "program.py").write_text(slow.format(file=str(file)))
    either.start("--transaction", "T")
    pid = pid_in(file)
    assert either.ask(verb="stop", tasks=["ts_1"], block=False)["ok"]
    either.task_is("ts_1", "final-sigterm")
    either.kill_supervisor()
    file.with_suffix(".go").touch()
    either.task_is("ts_1", "stopped")
    assert saved(file) == "SIGTERM"
    assert gone(pid)
