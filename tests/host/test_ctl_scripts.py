"""The verbs for scripts against a fake supervisor: is-active, is-failed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fake_supervisor as fake
import pytest
from fake_supervisor import House, no, status, task, transaction

from zmsvc.ctl.__main__ import main

Capture = pytest.CaptureFixture[str]
ACTIVE, FAILED = task("ts_1"), task("ts_2", "failed", "failed")
STARTING, STOPPED = task("ts_3", "activating", "start"), task("ts_4", "inactive", "stopped")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with fake.house(tmp_path) as made:
        yield made


def answering(home: House, *tasks: fake.Json, state: str = "active") -> fake.Supervisor:
    return home.supervisor(status=status(transaction("TX", state, list(tasks)), state=state))


# --- is-active, is-failed


@pytest.mark.parametrize(
    ("verb", "tasks", "printed", "code"),
    [
        ("is-active", [ACTIVE], "active\n", 0),
        ("is-active", [FAILED], "failed\n", 3),
        ("is-active", [STARTING], "activating\n", 3),
        ("is-active", [STOPPED], "inactive\n", 3),
        ("is-active", [FAILED, ACTIVE], "failed\nactive\n", 0),
        ("is-failed", [ACTIVE], "active\n", 1),
        ("is-failed", [FAILED], "failed\n", 0),
        ("is-failed", [STOPPED, FAILED], "inactive\nfailed\n", 0),
    ],
)
def test_is_active_and_is_failed_print_states_and_end_as_those_of_systemctl(
    verb: str, tasks: list[fake.Json], printed: str, code: int, home: House, capsys: Capture
) -> None:
    answering(home, *tasks)
    names = [each["id"] for each in tasks]
    assert main([verb, *names]) == code
    assert capsys.readouterr() == (printed, "")
    assert main([verb, "--quiet", *names]) == code
    assert capsys.readouterr() == ("", "")


def test_is_active_answers_for_a_transaction_and_for_the_context(home: House, capsys: Capture) -> None:
    there = answering(home, FAILED, state="failed")
    assert main(["is-active", "--transaction", "TX"]) == 3
    assert main(["is-failed", "--transaction", "TX"]) == 0
    assert main(["is-failed"]) == 0
    assert capsys.readouterr().out == "failed\n" * 3
    assert [each["transaction"] for each in there.asked("status")] == ["TX", "TX", None]


def test_is_active_leaves_out_stopped_transactions_while_another_one_is_open(
    home: House, capsys: Capture
) -> None:
    old = transaction("OLD", "inactive", [task("ts_1", "failed", "failed")])
    home.supervisor(status=status(old, transaction("TX", "active", [ACTIVE])))
    assert main(["is-failed", "ts_1"]) == 1
    assert capsys.readouterr().out == "active\n"


def test_is_active_as_json_names_each_task_and_transaction(home: House, capsys: Capture) -> None:
    answering(home, ACTIVE)
    assert main(["--json", "is-active", "ts_1"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "states": [{"transaction": "TX", "task": "ts_1", "state": "active"}]
    }


def test_a_task_that_no_transaction_has_is_inactive(home: House, capsys: Capture) -> None:
    home.supervisor(status=status())
    assert main(["is-active", "ts_1"]) == 3
    assert capsys.readouterr().out == "inactive\n"


def test_is_active_ends_with_4_for_an_unknown_task(home: House, capsys: Capture) -> None:
    home.supervisor(status=no(4, "cannot show ts_9: no such task in Echo"))
    assert main(["is-active", "ts_9"]) == 4
    assert capsys.readouterr() == ("", "zmsvcctl: cannot show ts_9: no such task in Echo\n")


def test_without_a_context_that_runs_nothing_is_active_and_nothing_failed(
    home: House, capsys: Capture
) -> None:
    assert main(["is-active", "ts_1"]) == 3
    assert capsys.readouterr().out == "inactive\n"
    assert main(["is-failed", "-q", "ts_1"]) == 1
    assert capsys.readouterr() == ("", "")
