"""`create --command`: a program as a task, its restart, and the directories of an installation."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from zmsvc.core.model import Action, Rule, Trigger
from zmsvc.core.service_options import Restart, ServiceType
from zmsvc.ctl.__main__ import main as zmsvcctl
from zmsvc.host.config import reader

RESTARTED = Rule(trigger=Trigger.ON_FAIL, action=Action.RESTART, call="sleep")
Create = Callable[..., int]


@pytest.fixture
def create(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Create:
    """`zmsvcctl create` for the context Web, in an installation below tmp_path."""
    monkeypatch.setenv("ZMSVC_CONFIG_DIR", str(tmp_path / "etc"))
    monkeypatch.setenv("ZMSVC_SERVICE_PATH", f"{tmp_path}/services:/nowhere")

    def run(*words: str) -> int:
        return zmsvcctl(["create", "--context_name", "Web", *words])

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "etc/Context-Web.xml"


def test_a_program_becomes_a_command_that_is_named_after_it(create: Create, file: Path) -> None:
    assert create("--command", "/bin/sleep 1000 'a  b' \"<&>\"") == 0
    (task,) = reader.load(file).tasks.values()
    assert (task.id, task.instance, task.service_name) == ("sleep", "sleep", "sleep")
    assert task.service_type is ServiceType.COMMAND
    assert task.command == ("/bin/sleep", "1000", "a  b", "<&>")
    assert (task.entry, task.rules) == (True, (RESTARTED,))


@pytest.mark.parametrize(
    ("when", "restart", "triggers"),
    [
        ("no", None, []),
        ("on-failure", None, [Trigger.ON_FAIL]),
        ("always", Restart.ALWAYS, [Trigger.ON_FAIL, Trigger.ON_EXIT]),
    ],
)
@pytest.mark.parametrize("python", [False, True], ids=["program", "Python"])
def test_restart_says_after_which_ends_the_task_starts_again(
    create: Create, file: Path, when: str, restart: Restart | None, triggers: list[Trigger], python: bool
) -> None:
    words = ["--task_service=Work", "--task_desc=x", "--service_name=work", "--task_id=ts_1"]
    assert create(*(words if python else ["--command=sleep 9"]), "--restart", when) == 0
    (task,) = reader.load(file).tasks.values()
    assert (task.restart, [rule.trigger for rule in task.rules]) == (restart, triggers)
    assert {rule.call for rule in task.rules} <= {task.id}


def test_without_service_path_everything_goes_where_an_installed_daemon_looks(
    create: Create, file: Path, tmp_path: Path
) -> None:
    words = ["--task_service=Work", "--task_desc=x", "--service_name=work", "--task_id=ts_1"]
    assert create(*words) == 0
    (task,) = reader.load(file).tasks.values()
    assert task.location == f"{tmp_path}/services"
    assert (tmp_path / "services/Work/ServiceWork.py").is_file()
    assert task.rules == ()
    assert sorted(os.listdir(tmp_path)) == ["etc", "services"]


def test_the_option_c_names_the_context_as_for_every_verb(create: Create, file: Path) -> None:
    assert zmsvcctl(["-c", "Web", "create", "--command", "sleep 1000"]) == 0
    assert list(reader.load(file).tasks) == ["sleep"]


def test_a_second_run_changes_nothing_and_a_different_one_is_refused(
    create: Create, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--command", "sleep 'a b'", "--task_desc", "Sleeps", "--entry_action", "on_exit"]
    assert create(*words) == 0
    before = file.read_bytes()
    assert create(*words, "--restart=on-failure") == 0
    assert file.read_bytes() == before
    capsys.readouterr()
    assert create(*words[2:], "--command", "sleep 2000") == 2
    assert create(*words, "--restart=no") == 2
    assert create("--command", "sleep 3", "--task_id=other") == 0
    told = capsys.readouterr().err
    assert f"""{file}:7: sleep is there with command "sleep 'a b'", expected 'sleep 2000'""" in told
    assert f"{file}:7: sleep is there with restart 'on-failure', expected 'no'" in told
    assert list(reader.load(file).tasks) == ["sleep", "other"]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--command="], "the missing --command"),
        (["--command=sleep 'x"], '--command "sleep \'x" cannot be split (no closing quotation)'),
        (["--command=''"], "has no program: give one"),
        (["--command=@"], "the missing --task_id"),
        (["--command=sleep 1", "--task_type=Single"], "--task_type cannot be used with --command"),
        (["--command=sleep 1", "--restart=often"], "--restart 'often' is not known: use no, on-failure or"),
        (["--command=sleep 1", "--xml_file=x"], "cannot read x"),
    ],
)
def test_a_fault_is_named_before_any_file_is_made(
    create: Create, words: list[str], fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert create(*words) == 2
    assert fault in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_a_program_that_cannot_start_is_warned_about(
    create: Create, capsys: pytest.CaptureFixture[str]
) -> None:
    assert create("--command", "./run.sh > log") == 0
    told = capsys.readouterr().err
    assert "its program ./run.sh is not found" in told
    assert "only a shell" in told
