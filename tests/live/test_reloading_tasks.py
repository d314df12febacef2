"""`zmsvcctl reload TASK` against the real daemon."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from context import Context
from waiting import PATIENCE, wait_for

TX = "5HGAHZ3WPZUI71PACRPP"
PROGRAM = """
import os, signal, socket, sys, time

def say(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])

def reload(number, frame):
    say(f"RELOADING=1\\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
    open(sys.argv[1] + "/asked", "a").write(signal.Signals(number).name + "\\n")
    while not os.path.exists(sys.argv[1] + "/go"):
        time.sleep(0.01)
    say("READY=1")

for name in ("SIGHUP", "SIGUSR1"):
    signal.signal(getattr(signal, name), reload)
say("READY=1")
while True:
    time.sleep(1000)
"""


def program(context: Context, task: str, *, notify: str, service: str = "") -> None:
    (context.home / "Services").mkdir(exist_ok=True)
    (context.home / "program.py").write_text(PROGRAM)
    words = "".join(
        f"<arg>{word}</arg>" for word in (sys.executable, context.home / "program.py", context.home)
    )
    config = f"<command>{words}</command><notify>{notify}</notify>"
    context.task(task, "Program", kind="Command", config=config, service=service)


def asked(home: Path) -> str:
    return (home / "asked").read_text() if (home / "asked").exists() else ""


def test_reload_of_a_task_waits_until_the_program_says_that_it_has_reloaded(context: Context) -> None:
    program(context, "ts_1", notify="reload")
    context.start("--transaction", TX)
    pid = context.tasks()["ts_1"]["pid"]
    command = [sys.executable, "-P", "-m", "zmsvc.ctl", "-c", context.name, "reload", "ts_1"]
    with subprocess.Popen(command, env=context.environment, stdout=subprocess.PIPE, text=True) as client:
        context.task_is("ts_1", "reload-notify")
        assert context.ctl("is-active", "ts_1").stdout == "active\n"
        # A new supervisor waits for the same report, and its client asks it again.
        context.kill_supervisor()
        context.task_is("ts_1", "reload-notify")
        assert client.poll() is None
        (context.home / "go").touch()
        told, _ = client.communicate(timeout=PATIENCE)
    assert (client.returncode, told) == (0, f"{TX}/ts_1: reloaded, PID {pid}\n")
    task = context.tasks()["ts_1"]
    assert (task["sub"], task["pid"], task["restarts"]) == ("running", pid, 0)
    assert set(asked(context.home).split()) == {"SIGHUP"}
    rows = [json.loads(line) for line in context.ctl("--json", "events", "ts_1").stdout.splitlines()]
    assert {"reloading", "reload-finished"} <= {row["event"] for row in rows}


def test_reload_of_a_task_sends_its_signal_and_leaves_the_context_file_alone(context: Context) -> None:
    program(context, "ts_1", notify="yes", service="<reload_signal>USR1</reload_signal>")
    context.looped("Echo")
    context.task("ts_2", "Echo")
    context.start("--transaction", TX)
    context.task("ts_3", "Echo")
    context.write()
    pid = context.tasks()["ts_1"]["pid"]
    told = context.ctl("reload", "ts_1")
    assert told.stdout == f"{TX}/ts_1: the reload signal was sent, PID {pid}\n"
    wait_for(lambda: asked(context.home) == "SIGUSR1\n")
    assert "ts_3" not in context.tasks()
    refused = context.ctl("reload", "ts_1", "ts_2", check=1).stderr
    assert refused == (
        "zmsvcctl: cannot reload ts_2: it has neither <reload_signal> nor <reload_command> (zmsvcctl -c Live restart ts_2)\n"
    )
    assert "no such task" in context.ctl("reload", "ts_9", check=4).stderr
    assert "(zmsvcctl -c Live reload does that" in context.ctl("reload", "Live", check=4).stderr
    context.ctl("reload", "--dry-run", "ts_1", check=2)
    context.ctl("reload", "--transaction", TX, check=2)
    assert asked(context.home) == "SIGUSR1\n"


def test_a_reload_command_runs_as_its_task_does_and_its_exit_status_is_told(context: Context) -> None:
    home = context.home
    (home / "Services").mkdir()
    script = f"echo $MAINPID $COLOR $PWD | tee -a {home}/asked; exit $(cat {home}/status)"
    command = f"<reload_command><arg>/bin/sh</arg><arg>-c</arg><arg>{script}</arg></reload_command>"
    service = (
        f"<environment><COLOR>red</COLOR></environment><working_directory>{home}</working_directory>{command}"
    )
    context.task("ts_1", "Sleeper", kind="Command", config="<command>sleep 1000</command>", service=service)
    (home / "status").write_text("0\n")
    context.start("--transaction", TX)
    pid = context.tasks()["ts_1"]["pid"]
    assert context.ctl("reload", "ts_1").stdout == f"{TX}/ts_1: reloaded, PID {pid}\n"
    assert asked(home) == f"{pid} red {home}\n"
    (home / "status").write_text("3\n")
    failed = context.ctl("reload", "ts_1", check=1).stderr
    assert failed.startswith("zmsvcctl: cannot reload ts_1: its reload_command has failed (status 3)")
    task = context.tasks()["ts_1"]
    assert (task["sub"], task["pid"], task["restarts"]) == ("running", pid, 0)


RELOADS = """
def setup(self):
    self.color, self.inside = None, False

def on_reload(self):
    import pathlib, threading, time
    home = pathlib.Path(self.config["home"])
    while not (home / "go").exists():
        time.sleep(0.01)
    self.color = (home / "color").read_text()
    own = threading.current_thread() is threading.main_thread()
    with (home / "asked").open("a") as file:
        file.write(f"{self.color} {own} {self.inside}\\n")

def step(self):
    self.inside = True
    if self.color:
        self.update(color=self.color)
        self.color = None
    self.inside = False
"""


@pytest.mark.parametrize(("signal", "interval"), [("", "0"), ("<reload_signal>USR2</reload_signal>", "3600")])
def test_reload_of_a_python_task_calls_its_on_reload_between_steps_and_waits_for_it(
    context: Context, signal: str, interval: str
) -> None:
    home = context.home
    context.looped("Paint", RELOADS)
    config = f"<notify>reload</notify><interval>{interval}</interval><home>{home}</home>"
    context.task("ts_1", "Paint", config=config, service=signal)
    context.start("--transaction", TX)
    pid = context.tasks()["ts_1"]["pid"]
    (home / "color").write_text("red")
    command = [sys.executable, "-P", "-m", "zmsvc.ctl", "-c", context.name, "reload", "ts_1"]
    with subprocess.Popen(command, env=context.environment, stdout=subprocess.PIPE, text=True) as client:
        context.task_is("ts_1", "reload-notify")
        assert client.poll() is None
        (home / "go").touch()
        told, _ = client.communicate(timeout=PATIENCE)
    assert (client.returncode, told) == (0, f"{TX}/ts_1: reloaded, PID {pid}\n")
    (home / "color").write_text("blue")
    context.ctl("reload", "ts_1")
    assert asked(home) == "red True False\nblue True False\n"
    assert context.task_is("ts_1", "running")["pid"] == pid
