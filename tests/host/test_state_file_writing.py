"""The state file alone: a supervisor reads what its predecessor has written, and the history is limited."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from zmsvc.core import poison
from zmsvc.core.effects import Quarantine, Record
from zmsvc.core.errors import StateError
from zmsvc.core.hosts import Host, HostState
from zmsvc.core.lifecycle import SubState
from zmsvc.core.model import Context, ContextFiles, ContextPart, DeviceEndpoints
from zmsvc.core.world import Task, Transaction, World
from zmsvc.host import quarantine
from zmsvc.host.state_file import StateFile

FILE = Path("/etc/zmsvc/Context-C.xml")
PLACES = ("tcp://127.0.0.1:5556", "tcp://127.0.0.1:5557")
ENDS = DeviceEndpoints(
    subscribe_endpoint=PLACES[0], publish_endpoint=PLACES[1], publish_bind=PLACES[1], subscribe_bind=PLACES[0]
)
CONTEXT = Context(
    name="C", id="context001", log_name="C", endpoints=ENDS, tasks={}, text=b"<Context name='\xe9'/>"
)


def records(count: int, start: int = 0) -> list[Record]:
    return [
        Record(transaction="T", task="ts_1", event="updated", detail={"n": number})
        for number in range(start, start + count)
    ]


def test_the_history_is_bounded(tmp_path: Path) -> None:
    kept = StateFile(tmp_path / "state.db", history=500, trim=100)
    world = kept.load(CONTEXT, "boot")
    for turn in range(60):
        kept.save(world, records(50, turn * 50), at=0.0)
    rows = kept.events(limit=10_000)
    kept.close()
    assert 500 <= len(rows) < 600
    assert [row["detail"]["n"] for row in rows] == list(range(3000 - len(rows), 3000))


def test_the_history_of_any_number_of_tasks_can_be_asked_for(tmp_path: Path) -> None:
    """A request of 256 kB names more tasks than SQLite has parameters, unless its packager allows more."""
    kept = StateFile(tmp_path / "state.db")
    kept._db.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 32_766)
    kept.save(kept.load(CONTEXT, "boot"), records(2), at=0.0)
    rows = kept.events(tasks=("x",) * 50_000 + ("ts_1",))
    kept.close()
    assert [row["detail"]["n"] for row in rows] == [0, 1]


@pytest.mark.parametrize("limit", [0, 1, 3, 8, 10, 11])
def test_the_last_rows_of_the_history_can_be_read_in_parts(tmp_path: Path, limit: int) -> None:
    kept = StateFile(tmp_path / "state.db")
    kept.save(kept.load(CONTEXT, "boot"), records(10), at=0.0)
    other = Record(transaction="T", task="ts_2", event="updated", detail={"n": -1})
    kept.save(kept.load(CONTEXT, "boot"), [other], at=0.0)
    read, after = [], kept.before_last(limit, tasks=("ts_1",))
    while rows := kept.events(after=after, limit=3, tasks=("ts_1",), first=True):
        assert len(rows) <= 3
        after = rows[-1]["seq"]
        read += [row["detail"]["n"] for row in rows]
    kept.close()
    assert read == list(range(10))[max(0, 10 - limit) :]


def test_totals_rise_over_saves_and_supervisors_and_outlive_the_history(tmp_path: Path) -> None:
    launches, cpu = ("launches", "ts_1", "rule"), ("cpu", "ts_1", "")
    for _ in range(2):
        kept = StateFile(tmp_path / "state.db", history=10, trim=10)
        world = kept.load(CONTEXT, "boot")
        for _ in range(5):
            kept.save(world, records(20), 0.0, counts={launches: 1, cpu: 0.25})
        found = kept.totals()
        kept.close()
    assert found == {launches: 10, cpu: 2.5}


def test_a_save_that_fails_counts_nothing(tmp_path: Path) -> None:
    kept = StateFile(tmp_path / "state.db")
    world = kept.load(CONTEXT, "boot")
    kept.save(world, [], 0.0, counts={("write-errors", "", ""): 1})
    kept._db.execute("PRAGMA query_only=ON")
    with pytest.raises(OSError, match="cannot save state"):
        kept.save(world, records(1), 0.0, counts={("write-errors", "", ""): 1})
    assert kept.totals() == {("write-errors", "", ""): 1}
    kept.close()


def test_the_totals_of_tasks_that_are_gone_are_removed_when_there_are_very_many(tmp_path: Path) -> None:
    kept = StateFile(tmp_path / "state.db", trim=1, most_totals=100)
    world = kept.load(CONTEXT, "boot")
    of_context = ("supervisor-restarts", "", "")
    kept.save(world, [], 0.0, counts={of_context: 1, ("launches", "gone", "rule"): 1})
    kept.save(world, records(1), 0.0)
    assert len(kept.totals()) == 2, "a few may stay"
    kept.save(world, [], 0.0, counts={("launches", f"gone_{number}", "rule"): 1 for number in range(100)})
    kept.save(world, records(1), 0.0)
    assert kept.totals() == {of_context: 1}
    kept.close()


def test_the_disabled_tasks_are_saved(tmp_path: Path) -> None:
    for disabled in (frozenset({"ts_1", "ts_2"}), frozenset[str]()):
        kept = StateFile(tmp_path / "state.db")
        kept.save(replace(kept.load(CONTEXT, "boot"), disabled=disabled), [], at=0.0)
        kept.close()
        again = StateFile(tmp_path / "state.db")
        assert again.load(CONTEXT, "another boot").disabled == disabled
        again.close()


@pytest.mark.parametrize("value", ["", "7", "null", "[[]"])
def test_a_damaged_list_of_disabled_tasks_is_empty(tmp_path: Path, value: str) -> None:
    kept = StateFile(tmp_path / "state.db")
    kept.remember("disabled", value)
    kept.save(kept.load(CONTEXT, "boot"), [], at=0.0)
    assert kept.load(CONTEXT, "boot").disabled == frozenset()
    kept.close()


def saved_text(kept: StateFile, keeper: str = "keeper") -> bytes | None:
    files = kept.context_files(keeper, FILE)
    return files and files.text


def test_the_text_of_a_reload_is_saved_with_the_world_that_it_made(tmp_path: Path) -> None:
    """Otherwise, after a crash in between, the next supervisor would run the tasks of the new file with the
    old file.
    """
    kept = StateFile(tmp_path / "state.db")
    world = kept.load(CONTEXT, "boot")
    kept.save(replace(world, keeper_id="keeper"), (), at=0.0)
    assert saved_text(kept) == CONTEXT.text
    new = replace(world, context=replace(CONTEXT, text=b"<Context/>"), next_launch=7, keeper_id="keeper")
    kept.save(new, (), at=0.0)
    kept.close()
    again = StateFile(tmp_path / "state.db", trusted=True)
    assert saved_text(again) == b"<Context/>"
    assert saved_text(again, "another") is None, "the supervisor of another keeper is not a predecessor"
    assert again.load(new.context, "boot").next_launch == 7
    again.close()


def test_the_files_of_the_directory_are_saved_with_the_text_that_they_belong_to(tmp_path: Path) -> None:
    """An earlier release replaces the text of the context file and leaves the others, which then count no
    more: a task could be in both.
    """
    parts = tuple(
        ContextPart(
            path=f"/etc/zmsvc/Context-C.d/{name}.xml", text=f"<Context n='\xe9{name}'/>".encode("latin-1")
        )
        for name in ("a", "b")
    )
    kept = StateFile(tmp_path / "state.db")
    world = replace(kept.load(replace(CONTEXT, parts=parts), "boot"), keeper_id="keeper")
    kept.save(world, (), at=0.0)
    assert kept.context_files("keeper", FILE) == ContextFiles(text=CONTEXT.text, parts=parts)
    kept.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as earlier:
        earlier.execute("UPDATE meta SET value = ? WHERE name = 'context_file'", (b"<Context/>",))
    again = StateFile(tmp_path / "state.db")
    assert again.context_files("keeper", FILE) == ContextFiles(text=b"<Context/>")
    again.close()


def test_a_save_that_fails_half_way_changes_nothing(tmp_path: Path) -> None:
    kept = StateFile(tmp_path / "state.db")
    world: World = replace(kept.load(CONTEXT, "boot"), keeper_id="keeper")
    kept.save(world, (), at=0.0)
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises(OSError, match=f"cannot save state to {tmp_path}/state.db: full"):
        kept.save(replace(world, context=replace(CONTEXT, text=b"<New/>")), records(1), at=0.0)
    assert saved_text(kept) == CONTEXT.text
    kept.close()


@pytest.mark.parametrize("boot", ["boot", "the next boot"])
def test_the_order_of_stopped_transactions_survives_a_boot(boot: str, tmp_path: Path) -> None:
    kept = StateFile(tmp_path / "state.db")
    world = kept.load(CONTEXT, "boot")
    closed = {"B": 7.0, "A": 9.0, "C": 8.0}
    transactions = {
        name: Transaction(id=name, open=False, opened=1.0, closed=at) for name, at in closed.items()
    }
    kept.save(replace(world, transactions={**transactions, "D": Transaction(id="D", opened=2.0)}), (), at=0.0)
    kept.close()
    again = StateFile(tmp_path / "state.db")
    found = again.load(CONTEXT, boot).transactions
    again.close()
    assert sorted("ABC", key=lambda name: found[name].closed) == ["B", "C", "A"]
    assert all(found[name].closed <= (9.0 if boot == "boot" else 0.0) for name in "ABCD")


def test_an_earlier_release_can_write_the_state_file(tmp_path: Path) -> None:
    kept = StateFile(tmp_path / "state.db")
    kept.save(
        replace(kept.load(CONTEXT, "boot"), transactions={"A": Transaction(id="A", open=False, closed=7.0)}),
        (),
        at=0.0,
    )
    kept.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db")) as db:
        # zmsvc 1.0 writes a row in this form.
        db.execute("INSERT OR REPLACE INTO transactions VALUES (?, ?, ?)", ("B", 0, 1.0))
        db.commit()
    again = StateFile(tmp_path / "state.db")
    assert {name: each.closed for name, each in again.load(CONTEXT, "boot").transactions.items()} == {
        "A": 7.0,
        "B": 0.0,
    }
    again.close()


def quarantined(number: int, *, task: str = "ts_1", frame: str | None = 'x @@@ {"n":"\ud800"}') -> Quarantine:
    message = replace(poison.poison(b"x @@@ {}", "ValueError: odd", "Traceback"), frame=frame)
    return Quarantine(key=("T", task), launch=1, number=number, lost=0, message=message)


def test_the_quarantine_survives_and_a_file_without_one_has_no_table_of_it(tmp_path: Path) -> None:
    kept = StateFile(tmp_path / "state.db")
    world = kept.load(CONTEXT, "boot")
    kept.save(world, records(1), at=0.0)
    assert kept.quarantined() == {"messages": [], "lost": {}}
    assert (kept.quarantined_message(1), kept.drop_quarantined(None)) == (None, [])
    assert "quarantine" not in {row[0] for row in kept._db.execute("SELECT name FROM sqlite_master")}
    lost = replace(quarantined(3), lost=2, message=None)
    kept.save(world, records(1), 7.0, [quarantined(1), quarantined(2, task="ts_2@1", frame=None), lost])
    kept.close()

    again = StateFile(tmp_path / "state.db")
    listed = again.quarantined()
    assert [(row["id"], row["task"], row["at"], row["kept"]) for row in listed["messages"]] == [
        (1, "ts_1", 7.0, True),
        (2, "ts_2@1", 7.0, False),
    ]
    assert listed["lost"] == {"ts_1": 2}
    assert [row["id"] for row in again.quarantined(tasks=("ts_2",))["messages"]] == [2]
    assert again.quarantined(transaction="X")["messages"] == []
    shown = again.quarantined_message(1)
    assert shown is not None
    assert (shown["frame"], shown["traceback"], shown["error"]) == (
        'x @@@ {"n":"\ud800"}',
        "Traceback",
        "ValueError: odd",
    )
    assert again.drop_quarantined([1, 9]) == [1]
    assert [row["id"] for row in again.quarantined()["messages"]] == [2]
    assert again.drop_quarantined(None) == [2]
    assert again.quarantined() == {"messages": [], "lost": {}}
    again.close()
    assert (tmp_path / "state.db").stat().st_mode & 0o777 == 0o600


def test_the_quarantine_is_bounded_and_counts_what_it_loses(tmp_path: Path) -> None:
    kept = StateFile(tmp_path / "state.db")
    world = kept.load(CONTEXT, "boot")
    for turn in range(3):
        batch = [quarantined(turn * 50 + at) for at in range(1, 51)]
        kept.save(world, records(1), 0.0, batch)
    found = kept.quarantined()
    assert [row["id"] for row in found["messages"]] == [*range(51, 151)]
    assert found["lost"] == {"ts_1": 50}
    kept.close()


def test_messages_that_wait_for_a_full_disk_are_bounded_and_counted() -> None:
    waiting = [quarantined(number) for number in range(1, 151)]
    waiting.append(replace(quarantined(151, task="ts_2"), lost=4, message=None))
    found = quarantine.bounded(quarantine.bounded(waiting))
    assert [(each.key[1], each.lost) for each in found if each.message is None] == [("ts_1", 50), ("ts_2", 4)]
    assert [each.number for each in found if each.message is not None] == [*range(51, 151)]


def test_hosts_are_saved_and_a_context_without_any_has_no_row_for_them(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    kept = StateFile(path)
    world = kept.load(CONTEXT, "boot")
    kept.save(world, [], at=0.0)
    assert kept.meta("hosts") is None
    here = Host(epoch="e", greeting=3, state=HostState.HERE, strangers=frozenset({7}), past=("d",))
    task = Task(sub_state=SubState.RUNNING, launch=1 << 40, pid=5, host="h2")
    hosts = {"h2": here, "h3": Host(state=HostState.OFF, drained=True, since=2.5)}
    kept.save(replace(world, hosts=hosts, tasks={("T", "ts_1"): task}), [], at=0.0)
    kept.close()
    with contextlib.closing(StateFile(path)) as next_one:
        again = next_one.load(CONTEXT, "another boot")
    assert again.hosts == hosts
    assert again.tasks["T", "ts_1"] == task
    assert again.load == {"h2": 1}


def test_hosts_that_cannot_be_read_are_reported_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    kept = StateFile(path)
    kept.load(CONTEXT, "boot")
    kept.remember("hosts", '{"h2": {}}')
    kept.save(kept.saved or World(context=CONTEXT), [], at=0.0)
    kept.close()
    with contextlib.closing(StateFile(path)) as next_one, pytest.raises(StateError, match=str(path)):
        next_one.load(CONTEXT, "boot")
