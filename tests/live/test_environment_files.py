"""`<environment_file>` and `<pass_environment>`: the variables reach the task and no other process."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from context import Context, Subscriber
from needs import need
from waiting import wait_for

USER = "daemon"
SECRET = "hidden-word"
PYTHON = """
import os, time
from zmsvc.task import SingleTask, TaskService

class Work(SingleTask):
    def run(self):
        with open(self.config["file"], "w") as file:
            file.write("".join(f"{name}={value}\\n" for name, value in os.environ.items()))
            file.write(f"zone {time.strftime('%Z')}\\nend\\n")
        self.wait()

class ServiceTell(TaskService):
    task_class = Work
"""


def teller(context: Context, task: str, kind: str, service: str) -> Path:
    """Add a task that writes its environment into a file. Return the file."""
    script = "(env; date +'zone %Z'; echo end) > {file}; exec sleep 3600"
    return context.writing_task(task, "Tell", kind, service, code=PYTHON, program=("sh", "-c", script))


def told(file: Path) -> list[str]:
    def lines() -> list[str]:
        found = file.read_text().splitlines()
        assert found[-1:] == ["end"]
        return found

    return wait_for(lines)


@pytest.mark.parametrize("kind", ["Process", "Thread", "Command", "fresh"])
def test_variables_of_files_reach_the_task_at_each_start_and_override_those_of_the_context_file(
    context: Context, home: Path, kind: str
) -> None:
    (home / "one.env").write_text("# first\nBOTH='of the first'\nZONE=x\nTZ=Asia/Tokyo\n")
    (home / "two.env").write_text('BOTH="of the second"\n')
    service = (
        f"<environment_file>{home}/one.env</environment_file><environment_file>{home}/two.env"
        f"</environment_file><environment_file>-{home}/none.env</environment_file>"
        "<environment><BOTH>of the context</BOTH><TZ>UTC</TZ><OWN>1</OWN></environment>"
    )
    file = teller(context, "ts_1", kind, service)
    context.start("--transaction", "T")
    assert {"BOTH=of the second", "ZONE=x", "OWN=1", "zone JST"} <= {*told(file)}
    file.write_text("")
    (home / "two.env").write_text("BOTH=changed\n")
    context.ctl("restart", "--transaction", "T", "--task", "ts_1")
    assert "BOTH=changed" in told(file)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "{file}: No such file or directory"),
        (f"A=1\n{SECRET}\n", "{file}:2: this is not a variable, expected NAME=value"),
        (f"A=1\n\nB='{SECRET}\n", "{file}:3: a quoted value is not closed, expected '"),
        (b"A=1\nB=\xff\n", "{file}:2: bytes that are not UTF-8"),
        ("dir", "{file}: Is a directory"),
        ("fifo", "{file}: not a regular file"),
        ("A=" + "x" * (1 << 20), "{file}: more than 1 MiB"),
    ],
    ids=["missing", "no variable", "open quote", "not UTF-8", "directory", "fifo", "too long"],
)
def test_a_file_that_cannot_be_read_fails_its_task_alone_and_shows_nothing_of_its_text(
    context: Context, home: Path, content: str | bytes | None, why: str
) -> None:
    file = home / "bad.env"
    if content == "dir":
        file.mkdir()
    elif content == "fifo":
        os.mkfifo(file)
    elif isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        file.write_text(content)
    teller(context, "bad", "Process", f"<environment_file>{file}</environment_file>")
    good = teller(context, "good", "Process", "")
    context.start("--transaction", "T")
    ended = context.task_is("bad", "failed", "T")
    assert ended["exit"]["reason"] == "cannot-launch"
    assert ended["status"] == f"cannot read the environment: {why.format(file=file)}"
    assert told(good)
    checked = context.ctl("check", str(context.file)).stdout
    assert f"bad: its <environment_file> cannot be read here: {why.format(file=file)}" in checked
    assert SECRET not in context.log.read_text() + checked


def test_the_values_of_a_file_are_on_no_bus_and_in_no_status_log_or_state_file(
    context: Context, home: Path, subscriber: Callable[..., Subscriber]
) -> None:
    (home / "ts.env").write_text(f"PASSWORD={SECRET}\n")
    option = f"<environment_file>{home}/ts.env</environment_file>"
    file = teller(context, "ts_1", "Process", option)
    context.task("ts_2", "Tell", entry=False, config=f"<file>{file}</file>", service=option)
    context.start("--transaction", "T")
    assert f"PASSWORD={SECRET}" in told(file)
    listener = subscriber()
    file.write_text("")
    context.ctl("restart", "--transaction", "T", "--task", "ts_1")
    assert f"PASSWORD={SECRET}" in told(file)
    listener.control("started", "ts_1")
    published = str(listener.heard)
    assert "ts_1" in published
    assert SECRET not in published
    assert "ts.env" not in published
    outputs = [
        context.ctl(*words, check=None).stdout for words in (["--json", "status"], ["events"], ["logs"])
    ]
    assert SECRET not in "".join(outputs) + context.log.read_text()
    for database in (home / "state").rglob("*.db"):
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as store:
            assert SECRET not in "\n".join(store.iterdump())


def test_check_warns_of_variables_of_a_file_that_have_no_effect(context: Context, home: Path) -> None:
    (home / "ts.env").write_text("NOTIFY_SOCKET=/x\nPYTHONHASHSEED=0\nPATH=/nowhere\n")
    option = f"<environment_file>{home}/ts.env</environment_file>"
    teller(context, "forked", "Process", option)
    teller(context, "program", "Command", option)
    context.write()
    checked = context.ctl("check", str(context.file)).stdout
    where = f"its <environment_file> {home}/ts.env sets"
    assert f"forked: {where} NOTIFY_SOCKET, which zmsvc sets itself" in checked
    assert f"forked: {where} PYTHONHASHSEED, which a program reads only at its start" in checked
    assert f"program: {where} PYTHONHASHSEED" not in checked
    assert "program: its program sh is not found" in checked


def test_a_task_of_another_user_inherits_the_variables_that_its_file_names(by_hand: Context) -> None:
    options = (
        f"<user>{USER}</user><pass_environment>WANTED OTHER</pass_environment>"
        "<pass_environment>ABSENT</pass_environment><environment><OTHER>of the file</OTHER></environment>"
    )
    file = teller(by_hand, "ts_1", "Command", options)
    plain = teller(by_hand, "ts_2", "Command", f"<user>{USER}</user>")
    by_hand.detach(WANTED="1", OTHER="2", UNWANTED="3")
    lines = told(file)
    assert {"WANTED=1", "OTHER=of the file"} <= {*lines}
    assert not any(line.startswith(("UNWANTED=", "ABSENT=")) for line in lines)
    assert not any(line.startswith(("UNWANTED=", "WANTED=")) for line in told(plain))


def test_the_daemon_reads_the_file_for_a_task_of_another_user(context: Context, home: Path) -> None:
    need(os.geteuid() == 0, "only root can run tasks of several users")
    home.chmod(0o755)
    (home / "ts.env").write_text("PASSWORD=x\n")
    (home / "ts.env").chmod(0o600)
    option = f"<user>{USER}</user><environment_file>{home}/ts.env</environment_file>"
    file = teller(context, "ts_1", "Command", option)
    context.start("--transaction", "T")
    assert "PASSWORD=x" in told(file)


def test_root_follows_no_link_of_the_user_of_a_task_to_a_secret(context: Context, home: Path) -> None:
    need(os.geteuid() == 0, "only root can run tasks of several users")
    home.chmod(0o755)
    secret = home / "root.env"
    secret.write_text(f"PASSWORD={SECRET}\n")
    secret.chmod(0o600)
    own = home / "own"
    own.mkdir()
    shutil.chown(own, USER)
    (own / "link.env").symlink_to(secret)
    (home / "link.env").symlink_to(secret)
    os.lchown(home / "link.env", pwd.getpwnam(USER).pw_uid, -1)
    (own / "good.env").write_text("GOOD=1\n")
    (own / "good.env").chmod(0o600)
    shutil.chown(own / "good.env", USER)
    for task, file in (("ts_1", own / "link.env"), ("ts_2", home / "link.env")):
        service = f"<user>{USER}</user><environment_file>{file}</environment_file>"
        context.task(task, "Sleep", kind="Command", config="<command>sleep 3600</command>", service=service)
    good = teller(
        context, "ts_3", "Command", f"<user>{USER}</user><environment_file>{own}/good.env</environment_file>"
    )
    context.start("--transaction", "T")
    assert "GOOD=1" in told(good)
    for task, file in (("ts_1", own / "link.env"), ("ts_2", home / "link.env")):
        ended = context.task_is(task, "failed", "T")
        assert ended["exit"]["reason"] == "cannot-launch"
        assert ended["status"].startswith(
            f"cannot read the environment: {file}: Permission denied (read as the user of the task: "
        )
    assert SECRET not in context.log.read_text()
