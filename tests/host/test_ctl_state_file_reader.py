"""A context that does not run is shown from its state file, which is not changed; no task is shown as alive."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_supervisor as fake
import pytest
from fake_supervisor import House

from zmsvc.core.effects import Record
from zmsvc.core.lifecycle import SubState
from zmsvc.core.world import Exit, Reason, Task, Transaction, World
from zmsvc.ctl import state_file_reader
from zmsvc.ctl.__main__ import main
from zmsvc.host.config import reader
from zmsvc.host.kernel import processes
from zmsvc.host.state_file import StateFile

Capture = pytest.CaptureFixture[str]
RUNNING = Task(sub_state=SubState.RUNNING, launch=1, pid=os.getpid(), restarts=2, action="started")
FAILED = Task(
    sub_state=SubState.FAILED,
    launch=2,
    action="failed",
    status="no disk",
    exit=Exit(code=3, reason=Reason.EXIT_CODE),
)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with fake.house(tmp_path) as made:
        yield made


def _service(task: str) -> str:
    return (
        f'<TaskService id="{task}" topic="process" instance="Echo" '
        f'serviceType="Process"><Task><description>d</description>'
        "<message><header><action>start</action><service_name>echo</service_name></header><content><configuration>"
        "<device_action>x</device_action></configuration></content></message><state "
        'type="on_start"/></Task></TaskService>'
    )


@contextlib.contextmanager
def saved(home: House, *, boot: str | None = None, log: str = "file") -> Iterator[StateFile]:
    """The state file of a context that ran with two tasks, one of which had failed; what is done with it
    while it is open.
    """
    ends = "".join(
        f"<{name}>ipc:///nowhere/{name}</{name}>" for name in ("FrontEndEndpoint", "BackendEndpoint")
    )
    tasks = "".join(map(_service, ("ts_1", "ts_2")))
    file = home.file(
        "Echo",
        f"<Context>{ends}<ContextID>context001</ContextID><TaskLogName>Echo</TaskLogName>{tasks}</Context>",
    )
    context = reader.load(file)
    store = StateFile(home.state / "Echo" / "state.db")
    world = store.load(context, boot or processes.boot_id())
    store.remember("log", log)
    now = time.monotonic()
    failed = replace(FAILED, since=now - 60, exit=replace(FAILED.exit, at=now - 60))
    world = replace(
        world,
        keeper_id="keeper",
        transactions={
            "TX": Transaction(id="TX", opened=now - 90),
            "OLD": Transaction(id="OLD", open=False, opened=now - 99),
        },
        tasks={
            ("TX", "ts_1"): replace(RUNNING, since=now - 80),
            ("TX", "ts_2"): failed,
            ("OLD", "ts_1"): Task(sub_state=SubState.STOPPED, launch=3, since=now - 95),
        },
        launches={1: ("TX", "ts_1")},
    )
    store.save(
        world,
        [Record(transaction="TX", task="ts_2", event="failed", detail={"reason": "exit-code"})],
        time.time() - 60,
    )
    try:
        yield store
    finally:
        store.close()


def answer(capsys: Capture, *words: str, code: int = 3) -> tuple[Any, str]:
    assert main(["-c", "Echo", "--json", *words]) == code
    told = capsys.readouterr()
    return json.loads(told.out or "null"), told.err


def test_is_active_and_is_failed_read_the_state_file_of_a_context_that_is_down(
    home: House, capsys: Capture
) -> None:
    with saved(home):
        pass
    assert main(["-c", "Echo", "is-active", "ts_1", "ts_2"]) == 3
    told = capsys.readouterr()
    assert told.out == "inactive\nfailed\n"
    assert told.err.startswith("zmsvcctl: Echo does not run; this is from its state file, 2")
    assert main(["-c", "Echo", "is-failed", "--quiet", "ts_2"]) == 0
    assert main(["-c", "Echo", "is-failed", "-q", "ts_1"]) == 1
    assert capsys.readouterr() == ("", "")
    assert main(["-c", "Echo", "is-active", "ts_9"]) == 4


def test_show_reads_the_state_file_of_a_context_that_is_down(home: House, capsys: Capture) -> None:
    with saved(home):
        pass
    words = ["-p", "ActiveState,MainPID,ExitCode,StatusText", "ts_2"]
    assert main(["-c", "Echo", "show", *words]) == 0
    told = capsys.readouterr()
    assert told.out == "ActiveState=failed\nMainPID=0\nExitCode=3\nStatusText=no disk\n"
    assert told.err.startswith("zmsvcctl: Echo does not run; this is from its state file, 2")
    assert main(["-c", "Echo", "show", "-p", "ActiveState", "--value"]) == 0
    assert capsys.readouterr().out == "inactive\n"


def test_wait_does_not_wait_for_a_context_that_is_down(home: House, capsys: Capture) -> None:
    with saved(home):
        pass
    assert main(["-c", "Echo", "wait", "--for", "failed", "ts_2"]) == 0
    assert main(["-c", "Echo", "wait", "--for", "inactive", "ts_1"]) == 0
    capsys.readouterr()
    assert main(["-c", "Echo", "wait", "--for", "active", "ts_1"]) == 5
    assert "cannot reach the supervisor of Echo" in capsys.readouterr().err


def test_the_status_of_a_context_that_is_down_has_the_last_known_states(home: House, capsys: Capture) -> None:
    with saved(home):
        pass
    told, complaint = answer(capsys, "status")
    assert complaint.startswith("zmsvcctl: Echo does not run; this is from its state file, 2")
    (context,) = told["contexts"]
    assert (context["state"], context["id"], context["pid"], context["restart_needed"]) == (
        "inactive",
        "context001",
        None,
        False,
    )
    old, transaction = context["transactions"]
    assert (old["id"], old["resumes"], transaction["id"], transaction["resumes"]) == (
        "OLD",
        False,
        "TX",
        True,
    )
    running, failed = transaction["tasks"]
    assert (running["state"], running["sub"], running["pid"], running["since"]) == (
        "inactive",
        "dead",
        None,
        None,
    )
    assert running["last"] == {"state": "active", "sub": "running", "pid": os.getpid()}
    assert (running["restarts"], running["instance"], running["name"]) == (2, "Echo", "echo")
    assert (failed["state"], failed["last"], failed["exit"]["code"], failed["status"]) == (
        "failed",
        None,
        3,
        "no disk",
    )
    assert failed["since"] == failed["exit"]["at"]


def test_a_task_on_another_host_may_outlive_its_context(home: House, capsys: Capture) -> None:
    with saved(home) as store:
        world = store.saved
        assert world is not None
        there = replace(world.tasks["TX", "ts_1"], host="h2")
        store.save(replace(world, tasks={**world.tasks, ("TX", "ts_1"): there}), [], time.time())
    assert main(["-c", "Echo", "status"]) == 3
    assert re.search(r"inactive \(dead\), was active \(running\) +may run on h2", capsys.readouterr().out)


def test_no_task_of_a_context_that_is_down_looks_alive(home: House, capsys: Capture) -> None:
    with saved(home):
        pass
    assert main(["-c", "Echo", "status"]) == 3
    told = capsys.readouterr()
    assert "Active: inactive (not running; " in told.out
    assert "Tasks: 1 failed, 1 inactive in 1 transaction\n" in told.out
    assert "○ TX inactive, to be resumed by the next start\n" in told.out
    assert "inactive (dead), was active (running)" in told.out
    assert re.search(r"failed \(failed\) +1min ago", told.out)
    assert 'Status: "no disk"' in told.out
    assert "PID" not in told.out
    assert "○ OLD inactive (1 task)\n" in told.out


def test_after_a_reboot_times_come_from_the_history(home: House, capsys: Capture) -> None:
    with saved(home, boot="another"):
        pass
    told, _ = answer(capsys, "status", "ts_2")
    ((failed,),) = [each["tasks"] for each in told["contexts"][0]["transactions"]]
    (row,) = state_file_reader.events(home.state / "Echo" / "state.db", transaction=None, tasks=[], limit=9)
    assert failed["since"] == row["at"]


@pytest.mark.parametrize(
    "words", [["--transaction", "NONE"], ["ts_9"], ["--task", "ts_2", "--transaction", "OLD"]]
)
def test_a_name_that_the_state_file_lacks_is_status_4(words: list[str], home: House, capsys: Capture) -> None:
    with saved(home):
        pass
    assert main(["-c", "Echo", "status", *words]) == 4
    assert "cannot show " in capsys.readouterr().err


def test_the_last_writes_of_a_killed_daemon_are_read_without_changing_the_file(
    home: House, capsys: Capture
) -> None:
    with saved(home):
        before = {path.name: path.read_bytes() for path in (home.state / "Echo").iterdir()}
        assert before["state.db-wal"], "all of it is in the write-ahead log"
        assert answer(capsys, "status")[0]["contexts"][0]["transactions"]
        assert answer(capsys, "events", code=0)[0]["event"] == "failed"
        assert {path.name: path.read_bytes() for path in (home.state / "Echo").iterdir()} == before


def test_no_link_leads_to_another_file(home: House, capsys: Capture) -> None:
    with saved(home):
        pass
    file = home.state / "Echo" / "state.db"
    file.rename(home.root / "other.db")
    file.symlink_to(home.root / "other.db")
    told, complaint = answer(capsys, "status")
    assert told["contexts"][0]["transactions"] == []
    assert "is a symbolic link" in complaint
    assert "is a symbolic link" in answer(capsys, "events", code=5)[1]


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE events", "PRAGMA user_version=9", "UPDATE tasks SET row = '[1]'",
        "UPDATE tasks SET sub = 'x', row = '{\"sub\": \"x\"}'",
        "UPDATE meta SET value = 'x' WHERE name = 'boot_id'; UPDATE events SET at = 'x'",
        "DROP TABLE events; CREATE VIEW events AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM "
        "n) SELECT i FROM n",
        "DROP TABLE events; CREATE VIRTUAL TABLE events USING fts4(seq, at, transaction_id, task, event, "
        "detail)",
        "DROP TABLE events; CREATE TABLE events (seq, at, transaction_id, task, event, detail AS "
        "(hex(zeroblob(seq))))",
    ],
)  # fmt: skip
def test_a_state_file_that_cannot_be_read_is_one_line(damage: str, home: House, capsys: Capture) -> None:
    with saved(home):
        pass
    with contextlib.closing(sqlite3.connect(home.state / "Echo" / "state.db")) as db:
        db.executescript(damage)
    told, complaint = answer(capsys, "status")
    assert told["contexts"][0]["state"] == "inactive"
    assert complaint.startswith(f"zmsvcctl: Echo does not run; cannot read {home.state}/Echo/state.db: ")
    assert complaint.count("\n") == 1


def test_reading_a_state_file_has_a_time_limit() -> None:
    numbers = "WITH RECURSIVE n(i) AS (SELECT 9 UNION ALL SELECT i + 1 FROM n LIMIT 30000)"
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        state_file_reader.bound(db, patience_s=0.0)
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            db.execute(f"{numbers} SELECT sum(i) FROM n").fetchone()


def test_a_file_that_is_no_database_is_one_line(home: House, capsys: Capture) -> None:
    (home.state / "Echo").mkdir()
    (home.state / "Echo" / "state.db").write_bytes(b"nothing of ours\n" * 999)
    assert "cannot read" in answer(capsys, "status")[1]
    assert "cannot read" in answer(capsys, "events", code=5)[1]


def test_the_log_of_a_context_that_is_down_is_where_it_logged_last(
    home: House, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with saved(home, log="journal"):
        pass
    (home.state / "Echo" / "zmsvcd.log").write_text(
        "2026-11-23T12:00:00.123+0000 Echo[9] TX/ts_1 INFO: of an earlier run\n"
    )
    monkeypatch.setenv("PATH", str(home.program("journalctl", 'echo "$*"')), prepend=":")
    query, complaint = answer(capsys, "logs", "--show-query", "ts_1", code=0)
    assert query["query"].startswith("journalctl ")
    assert "Echo does not run; this is from its state file, 2" in complaint
    assert complaint.endswith(", and from the journal\n")


def test_the_log_file_of_a_context_that_is_down_is_shown(home: House, capsys: Capture) -> None:
    with saved(home):
        pass
    log = home.state / "Echo" / "zmsvcd.log"
    log.write_text(
        "2026-11-23T12:00:00.123+0000 Echo[9] TX/ts_1 INFO: hello\n2026-11-23T12:00:00.123+0000 Echo[9] "
        "TX/ts_2 INFO: no\n"
    )
    told, complaint = answer(capsys, "logs", "ts_1", code=0)
    assert (told["MESSAGE"], told["ZMSVC_TASK"]) == ("hello", "ts_1")
    assert "Echo does not run; this is from its state file, 2" in complaint
    assert complaint.endswith(f", and from {log}\n")


def test_the_log_of_a_context_that_is_down_without_a_state_file_says_so(home: House, capsys: Capture) -> None:
    (home.state / "Echo").mkdir()
    (log := home.state / "Echo" / "zmsvcd.log").write_text(
        "2026-11-23T12:00:00.123+0000 Echo[9] INFO: hello\n"
    )
    assert answer(capsys, "logs", code=0)[1] == f"zmsvcctl: Echo does not run; this is from {log}\n"


def test_a_world_without_transactions_is_shown_too(home: House, capsys: Capture) -> None:
    store = StateFile(home.state / "Echo" / "state.db")
    with saved(home):
        pass
    world = store.load(reader.load(home.config / "Context-Echo.xml"), processes.boot_id())
    store.save(World(context=world.context, keeper_id="x"), [], 0.0)
    store.close()
    assert main(["-c", "Echo", "status"]) == 3
    assert "Tasks: none in 0 transactions" in capsys.readouterr().out
