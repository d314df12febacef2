"""Options of `<service>` that say where and how the process of a task begins: its working directory, its
umask and its OOM score.
"""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path

import pytest
from context import Context
from needs import need
from releases import PROTOCOL_3, ROOT, Installed, extracted
from waiting import wait_for

USER = "daemon"
PYTHON = """
import json, os
from zmsvc.task import SingleTask, TaskService

class Work(SingleTask):
    def run(self):
        os.close(os.open("made", os.O_CREAT | os.O_WRONLY, 0o666)) if self.config.get("make") else None
        with open("/proc/self/oom_score_adj") as file:
            score = int(file.read())
        mask = os.umask(0)
        with open(self.config["file"], "w") as file:
            json.dump([os.getcwd(), mask, score], file)
        os.umask(mask)
        self.wait()

class ServicePlace(TaskService):
    task_class = Work
"""
SHELL = """import json, os, sys
place = [os.getcwd(), os.umask(0), int(open("/proc/self/oom_score_adj").read())]
with open(sys.argv[1], "w") as file:
    json.dump(place, file)
os.execvp("sleep", ["sleep", "3600"])
"""
KINDS = ["Process", "Thread", "Command", "fresh"]


def placed(context: Context, task: str, kind: str, service: str) -> Path:
    """Add a task that writes its place into a file. Return the file."""
    script = context.home / "place.py"
    script.write_text(SHELL)
    program = ("/usr/bin/python3", str(script), "{file}")
    return context.writing_task(task, "Place", kind, service, code=PYTHON, program=program)


def place_in(file: Path) -> list[object]:
    def read() -> list[object]:
        text = file.read_text()
        assert text
        place: list[object] = json.loads(text)
        return place

    return wait_for(read)


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_begins_in_its_working_directory_with_its_umask_and_its_oom_score(
    context: Context, home: Path, kind: str
) -> None:
    (home / "place").mkdir()
    service = (
        f"<working_directory>{home}/place</working_directory><umask>0137</umask>"
        "<oom_score_adjust>700</oom_score_adjust>"
    )
    file = placed(context, "ts_1", kind, service)
    context.start("--transaction", "T")
    assert place_in(file) == [f"{home}/place", 0o137, 700]
    assert "warning" not in context.ctl("check", str(context.file)).stdout
    pid_file = context.runtime / "Live" / "T:ts_1.pid"
    assert not pid_file.exists() or pid_file.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_without_these_options_begins_as_before(context: Context, kind: str) -> None:
    file = placed(context, "ts_1", kind, "")
    mask = os.umask(0o027)
    try:
        context.start("--transaction", "T")
    finally:
        os.umask(mask)
    assert place_in(file) == ["/", 0o027, int(Path("/proc/self/oom_score_adj").read_text())]


@pytest.mark.parametrize("kind", ["Process", "Thread", "Command"])
def test_a_missing_working_directory_fails_its_own_task_alone_unless_a_minus_is_before_it(
    context: Context, home: Path, kind: str
) -> None:
    gone = home / "gone"
    placed(context, "bad", kind, f"<working_directory>{gone}</working_directory>")
    other = "Command" if kind == "Thread" else kind
    file = placed(context, "good", other, f"<working_directory>-{gone}</working_directory>")
    context.start("--transaction", "T")
    ended = context.task_is("bad", "failed", "T")
    assert ended["exit"]["reason"] == "cannot-launch"
    why = "No such file or directory (make it, or change <working_directory>)"
    assert ended["status"] == f"cannot change to the directory {gone}: {why}"
    assert place_in(file)[0] == "/"
    checked = context.ctl("check", str(context.file)).stdout
    assert f"bad: its <working_directory> {gone} does not exist" in checked
    assert "good: its <working_directory>" not in checked


def test_a_tilde_is_the_home_directory_of_the_user_of_the_task(context: Context) -> None:
    need(os.geteuid() == 0, "only root can run tasks of several users")
    context.home.chmod(0o755)
    service = f"<user>{USER}</user><working_directory>~</working_directory>"
    own = placed(context, "own", "Command", "<working_directory>~</working_directory>")
    other = placed(context, "other", "Command", service)
    context.start("--transaction", "T")
    assert place_in(own)[0] == os.path.realpath(pwd.getpwuid(os.geteuid()).pw_dir)
    assert place_in(other)[0] == os.path.realpath(pwd.getpwnam(USER).pw_dir)


def test_a_missing_home_directory_is_named_in_the_status_of_the_task(context: Context) -> None:
    need(os.geteuid() == 0, "only root can give a task another user")
    without = next((each for each in pwd.getpwall() if each.pw_uid and not os.path.exists(each.pw_dir)), None)
    need(without is not None, "each user has a home directory")
    assert without is not None
    service = f"<user>{without.pw_name}</user><working_directory>~</working_directory>"
    placed(context, "ts_1", "Command", service)
    context.start()
    status = context.task_is("ts_1", "failed")["status"]
    assert f"cannot change to the directory {without.pw_dir}: " in status


def test_a_task_enters_its_working_directory_as_its_own_user(context: Context, home: Path) -> None:
    need(os.geteuid() == 0, "only root can run tasks of several users")
    home.chmod(0o755)
    private = home / "private"
    private.mkdir(mode=0o700)
    service = f"<user>{USER}</user><working_directory>{private}</working_directory>"
    placed(context, "ts_1", "Command", service)
    context.start("--transaction", "T")
    ended = context.task_is("ts_1", "failed", "T")
    reach = f"the user of the task, uid {pwd.getpwnam(USER).pw_uid}, has to reach it"
    assert ended["status"] == f"cannot change to the directory {private}: Permission denied ({reach})"


def test_the_relative_path_of_a_program_leads_from_the_working_directory(
    context: Context, home: Path
) -> None:
    (home / "place").mkdir()
    program = home / "place" / "run"
    program.write_text(f"#!/bin/sh\npwd > {home}/told\nexec sleep 3600\n")
    program.chmod(0o755)
    (home / "Services").mkdir()
    command = "<command>./run</command>"
    for task, place in (("ts_1", home / "place"), ("ts_2", home)):
        service = f"<working_directory>{place}</working_directory>"
        context.task(task, "Run", kind="Command", config=command, service=service)
    context.start("--transaction", "T")
    (home / "told").touch()
    wait_for(lambda: (home / "told").read_text() == f"{home}/place\n")
    assert context.task_is("ts_2", "failed", "T")["exit"]["reason"] == "cannot-launch"
    checked = context.ctl("check", str(context.file)).stdout
    assert "ts_1: its program" not in checked
    assert f"a relative path leads from {home}, the working directory of this task" in checked


def test_an_oom_score_that_the_kernel_refuses_is_a_warning_and_the_task_runs(
    context: Context, home: Path
) -> None:
    need(os.geteuid() == 0, "only root can run the daemon without the right to lower the score")
    context.wrapper = ["setpriv", "--bounding-set=-sys_resource"]
    file = placed(context, "ts_1", "Process", "<oom_score_adjust>-999</oom_score_adjust>")
    context.start("--transaction", "T")
    assert place_in(file)[2] == int(Path("/proc/self/oom_score_adj").read_text())
    wait_for(lambda: "Cannot set oom_score_adjust to -999: Permission denied" in context.log.read_text())


LATER = {
    "umask": ("<umask>077</umask>", "late"),
    "listen": ("<listen>@zmsvc-{home}</listen>", "late"),
    "replicas": ("<replicas>1</replicas>", "late@1"),
    "health": ('<health exec="true"/>', "late"),
}
"""Options that a keeper of protocol 3 does not know, and the ID of a task with each of them."""


@pytest.mark.parametrize("option", LATER)
def test_a_keeper_that_would_drop_an_option_starts_no_task_without_it(
    context: Context, home: Path, option: str
) -> None:
    service, ident = LATER[option]
    installed = Installed(home, extracted(PROTOCOL_3, home))
    (home / "Services").mkdir()
    sleep = "<command>sleep 3600</command>"
    context.task("plain", "Sleep", kind="Command", config=sleep)
    context.start("--transaction", "T", PYTHONPATH=str(installed.path), PYTHONDONTWRITEBYTECODE="1")
    installed.replace(ROOT)
    context.kill_supervisor()
    context.task("late", "Sleep", kind="Command", config=sleep, service=service.format(home=home))
    context.write()
    context.ctl("reload", check=None)
    ended = context.task_is(ident, "failed", "T")
    assert ended["exit"]["reason"] == "cannot-launch"
    assert ended["status"] == f"the keeper of an earlier zmsvc does not know <{option}>: restart the context"
    context.task_is("plain", "running", "T")
