"""The verbs for scripts against a fake supervisor: is-active, is-failed, show, wait, signal,
reload --dry-run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import fake_supervisor as fake
import pytest
from fake_supervisor import HangUp, House, Silence, no, status, task, transaction, yes

from zmsvc.ctl.__main__ import main
from zmsvc.ctl.verbs import show

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


@pytest.mark.parametrize(("verb", "code"), [("is-active", 3), ("is-failed", 1)])
def test_an_unknown_task_is_inactive_and_the_end_is_4_if_all_are_unknown(
    verb: str, code: int, home: House, capsys: Capture
) -> None:
    def answer(request: fake.Json) -> fake.Json:
        unknown = [name for name in request["tasks"] if name != "ts_1"]
        known = status(transaction("TX", "active", [task("ts_1", "inactive", "stopped")]))
        return no(4, f"cannot show {unknown[0]}: no such task in Echo") if unknown else known

    home.supervisor(status=answer)
    said = "zmsvcctl: cannot show {}: no such task in Echo\n"
    assert main([verb, "ts_9"]) == 4
    assert capsys.readouterr() == ("inactive\n", said.format("ts_9"))
    assert main([verb, "-q", "ts_8", "ts_9"]) == 4
    assert capsys.readouterr() == ("", "")
    assert main([verb, "ts_8", "ts_1", "ts_9"]) == code
    assert capsys.readouterr() == ("inactive\n" * 3, said.format("ts_8") + said.format("ts_9"))


def test_without_a_context_that_runs_nothing_is_active_and_nothing_failed(
    home: House, capsys: Capture
) -> None:
    assert main(["is-active", "ts_1"]) == 3
    assert capsys.readouterr().out == "inactive\n"
    assert main(["is-failed", "-q", "ts_1"]) == 1
    assert capsys.readouterr() == ("", "")


# --- show


def test_show_prints_the_properties_of_a_task_with_the_names_of_systemd(home: House, capsys: Capture) -> None:
    end = {"code": None, "signal": "SIGKILL", "reason": "signal", "at": "2026-11-23T12:00:00.000+00:00"}
    answering(home, task("ts_2", "failed", "failed", exit=end, restarts=3, status="no\tdisk"))
    assert main(["show", "ts_2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line in (
        "Id=ts_2",
        "Transaction=TX",
        "ActiveState=failed",
        "SubState=failed",
        "MainPID=0",
        "NRestarts=3",
        "ExitReason=signal",
        "ExitCode=",
        "ExitSignal=SIGKILL",
        "Entry=yes",
        "Held=no",
        "ControlGroup=",
    ):
        assert line in lines
    assert sum(line.startswith("StatusText=") for line in lines) == 1


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["-p", "MainPID", "ts_1"], "MainPID=4194305\n"),
        (["-p", "MainPID", "--value", "ts_1"], "4194305\n"),
        (["-p", "SubState,ActiveState", "ts_1"], "SubState=running\nActiveState=active\n"),
        (["-p", "SubState", "--property=Id", "-p", "SubState", "ts_1"], "SubState=running\nId=ts_1\n"),
        (["--property", "ActiveState"], "ActiveState=active\n"),
        (["-p", "Id,MainPID,Transactions"], "Id=Echo\nMainPID=4194300\nTransactions=TX\n"),
    ],
)
def test_show_prints_the_selected_properties(
    words: list[str], printed: str, home: House, capsys: Capture
) -> None:
    answering(home, ACTIVE)
    assert main(["show", *words]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("end", "printed"),
    [
        (None, "success 0 0"),
        ({"code": 0, "signal": None, "reason": "exited"}, "success 1 0"),
        ({"code": None, "signal": "SIGTERM", "reason": "requested"}, "success 2 15"),
        ({"code": 7, "signal": None, "reason": "exit-code"}, "exit-code 1 7"),
        ({"code": None, "signal": "SIGSEGV", "reason": "signal"}, "signal 2 11"),
        ({"code": None, "signal": "SIG37", "reason": "signal"}, "signal 2 37"),
        ({"code": None, "signal": "SIGKILL", "reason": "oom-kill"}, "oom-kill 2 9"),
        ({"code": None, "signal": "SIGABRT", "reason": "watchdog"}, "watchdog 2 6"),
        ({"code": 0, "signal": None, "reason": "not-ready"}, "protocol 1 0"),
        ({"code": None, "signal": "SIGTERM", "reason": "not-ready"}, "timeout 2 15"),
        ({"code": 203, "signal": None, "reason": "cannot-launch"}, "resources 1 203"),
        ({"code": None, "signal": None, "reason": "start-limit"}, "start-limit-hit 0 0"),
    ],
)
def test_show_has_result_and_status_as_systemd_has_them(
    end: fake.Json | None, printed: str, home: House, capsys: Capture
) -> None:
    answering(home, task("ts_1", "failed", "failed", exit=end))
    assert main(["show", "--value", "-p", "Result,ExecMainCode,ExecMainStatus", "ts_1"]) == 0
    assert capsys.readouterr().out.split() == printed.split()
    answering(home, task("ts_1", exit=end))
    assert main(["show", "--value", "-p", "Result,ExecMainCode,ExecMainStatus", "ts_1"]) == 0
    assert capsys.readouterr().out.split() == ["success", "0", "0"], "a process runs"


def test_show_prints_times_in_the_form_of_systemctl(
    home: House, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    answering(home, ACTIVE)
    assert main(["show", "-p", "StateChangeTimestamp", "ts_1"]) == 0
    assert capsys.readouterr().out == "StateChangeTimestamp=Mon 2026-11-23 12:00:00 UTC\n"
    assert main(["--json", "show", "-p", "StateChangeTimestamp", "ts_1"]) == 0
    assert "2026-11-23T12:00:00.000+00:00" in capsys.readouterr().out
    monkeypatch.undo()
    time.tzset()


def test_show_separates_tasks_by_an_empty_line(home: House, capsys: Capture) -> None:
    answering(home, ACTIVE, FAILED)
    assert main(["show", "-p", "Id", "ts_1", "ts_2"]) == 0
    assert capsys.readouterr().out == "Id=ts_1\n\nId=ts_2\n"


def test_show_as_json_keeps_the_types(home: House, capsys: Capture) -> None:
    answering(home, FAILED)
    assert main(["--json", "show", "-p", "MainPID,Held,ExitReason", "ts_2"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "properties": [{"MainPID": 0, "Held": False, "ExitReason": None}]
    }


def test_show_names_a_similar_property_for_an_unknown_one(home: House, capsys: Capture) -> None:
    answering(home, ACTIVE)
    assert main(["show", "-p", "mainpid", "ts_1"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "zmsvcctl: cannot show mainpid: a task has no such property (did you mean MainPID?)\n"


def test_show_has_each_field_of_a_task_that_has_one_value() -> None:
    """`show` must have each field that is added to `status`."""
    composed = {"exit", "cause", "ended"}
    composed |= {"disabled"}  # UnitFileState has this one.
    assert {*task(), "user"} - composed <= set(show.OF_TASK.values())
    assert {*status()["data"]} - {"transactions", "dropped", "since"} <= set(show.OF_CONTEXT.values())


# --- wait


def test_wait_asks_once_and_ends_when_the_supervisor_answers(home: House, capsys: Capture) -> None:
    there = home.supervisor(wait=yes(transaction=None, task="ts_1", state="active"))
    assert main(["wait", "--for", "active", "ts_1"]) == 0
    assert capsys.readouterr() == ("", "")
    assert there.requests == [
        {"verb": "wait", "transaction": None, "tasks": ["ts_1"], "for": "active", "timeout": None}
    ]
    assert main(["--json", "wait", "--for", "active", "ts_1"]) == 0
    assert json.loads(capsys.readouterr().out) == {"transaction": None, "task": "ts_1", "state": "active"}


def test_wait_goes_on_with_the_next_supervisor(home: House) -> None:
    there = home.supervisor(wait=(HangUp, HangUp, yes(state="failed")))
    assert main(["wait", "--for", "failed", "ts_1"]) == 0
    assert len(there.asked("wait")) == 3


def test_wait_ends_with_124_after_its_time(home: House, capsys: Capture) -> None:
    home.supervisor(wait=no(124, "timed out: ts_1 is inactive after 1 s, not active"))
    assert main(["wait", "--for", "active", "--timeout", "1", "ts_1"]) == 124
    home.supervisor("Echo", wait=Silence)
    assert main(["wait", "--for", "active", "--timeout", "0.1", "ts_1"]) == 124


@pytest.mark.parametrize("words", [["ts_1"], ["--for", "running", "ts_1"], ["--for", "active"]])
def test_wait_needs_a_task_and_a_state_that_lasts(words: list[str], home: House, capsys: Capture) -> None:
    assert main(["wait", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# --- signal


def test_signal_sends_one_order_and_prints_where_the_signal_went(home: House, capsys: Capture) -> None:
    sent = yes(signal="SIGHUP", all=False, tasks=[{"id": "ts_1", "transaction": "TX", "pid": 12}])
    there = home.supervisor(signal=sent)
    assert main(["signal", "HUP", "ts_1"]) == 0
    assert capsys.readouterr().out == "TX/ts_1: SIGHUP was sent to PID 12\n"
    assert there.requests == [
        {"verb": "signal", "transaction": None, "tasks": ["ts_1"], "signal": "HUP", "all": False}
    ]
    assert main(["--json", "signal", "--all", "1", "ts_1", "ts_2"]) == 0
    assert json.loads(capsys.readouterr().out) == sent["data"]
    assert (there.requests[1]["signal"], there.requests[1]["all"]) == ("1", True)


def test_signal_is_not_repeated_to_the_next_supervisor(home: House, capsys: Capture) -> None:
    """The task might get it twice."""
    there = home.supervisor(signal=HangUp)
    assert main(["signal", "HUP", "ts_1"]) == 5
    assert len(there.asked("signal")) == 1


@pytest.mark.parametrize("words", [[], ["HUP"]])
def test_signal_needs_a_task(words: list[str], home: House, capsys: Capture) -> None:
    assert main(["signal", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# --- reload --dry-run


def test_reload_dry_run_prints_the_steps_in_order_and_sends_no_reload(home: House, capsys: Capture) -> None:
    steps = [
        {"action": "stop", "transaction": "TX", "task": "a"},
        {"action": "restart", "transaction": "TX", "task": "b"},
    ]
    plan = yes(added=[], removed=["a"], changed=["b"], in_place=["c"], steps=steps, still_failed=[])
    there = home.supervisor(reload_dry_run=(plan, plan, yes(added=[], removed=[], steps=[])))
    assert main(["reload", "--dry-run"]) == 0
    assert capsys.readouterr().out == (
        "would stop: TX/a\nwould restart: TX/b\nremoved: a\nchanged: b\nchanged without a restart: c\n"
    )
    assert main(["--json", "reload", "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out) == plan["data"]
    assert main(["reload", "--dry-run"]) == 0
    assert capsys.readouterr().out == "nothing differs\n"
    assert {each["verb"] for each in there.requests} == {"reload-dry-run"}


def test_reload_dry_run_of_a_bad_file_is_status_2(home: House, capsys: Capture) -> None:
    home.supervisor(reload_dry_run=no(2, "cannot reload: X.xml:1: bad"))
    assert main(["reload", "--dry-run"]) == 2
    assert capsys.readouterr().err == "zmsvcctl: cannot reload: X.xml:1: bad\n"
