"""The state file by itself: what one supervisor writes is what the next one reads, and the history has a bound."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from zmsvc.core.events import Record
from zmsvc.core.model import Context, Endpoints
from zmsvc.core.world import World
from zmsvc.host import store
from zmsvc.host.store import Store

PLACES = ("tcp://127.0.0.1:5556", "tcp://127.0.0.1:5557")
ENDS = Endpoints(frontend=PLACES[0], backend=PLACES[1], front_bind=PLACES[1], backend_bind=PLACES[0])
CONTEXT = Context(
    name="C",
    id="context001",
    log_name="C",
    endpoints=ENDS,
    tasks={},
    text=b"<Context name='\xe9'/>",
)


def records(count: int, start: int = 0) -> list[Record]:
    return [Record(transaction="T", task="ts_1", event="updated", detail={"n": number}) for number in range(start, start + count)]


def test_the_history_of_a_context_that_runs_for_ever_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "HISTORY", 500)
    monkeypatch.setattr(store, "TRIM", 100)
    kept = Store(tmp_path / "state.db")
    world = kept.load(CONTEXT, "boot")
    for turn in range(60):
        kept.save(world, records(50, turn * 50), at=0.0)
    rows = kept.events(limit=10_000)
    kept.close()
    assert 500 <= len(rows) < 600
    assert [row["detail"]["n"] for row in rows] == list(range(3000 - len(rows), 3000))


def test_the_text_of_a_reload_is_saved_with_the_world_that_it_made(tmp_path: Path) -> None:
    """Else a crash in between would have the next supervisor run the old file over the new file's tasks."""
    kept = Store(tmp_path / "state.db")
    world = kept.load(CONTEXT, "boot")
    kept.save(replace(world, epoch="keeper"), (), at=0.0)
    assert kept.context_text("keeper") == CONTEXT.text
    new = replace(world, context=replace(CONTEXT, text=b"<Context/>"), next_launch=7, epoch="keeper")
    kept.save(new, (), at=0.0)
    kept.close()
    again = Store(tmp_path / "state.db", trusted=True)
    assert again.context_text("keeper") == b"<Context/>"
    assert again.context_text("another") is None, "whoever ran it is no predecessor"
    assert again.load(new.context, "boot").next_launch == 7
    again.close()


def test_a_save_that_fails_half_way_changes_nothing(tmp_path: Path) -> None:
    kept = Store(tmp_path / "state.db")
    world: World = replace(kept.load(CONTEXT, "boot"), epoch="keeper")
    kept.save(world, (), at=0.0)
    with sqlite3.connect(tmp_path / "state.db") as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'full'); END")
    other.close()
    with pytest.raises(OSError, match=f"cannot save state to {tmp_path}/state.db: full"):
        kept.save(replace(world, context=replace(CONTEXT, text=b"<New/>")), records(1), at=0.0)
    assert kept.context_text("keeper") == CONTEXT.text
    kept.close()
