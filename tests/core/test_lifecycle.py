"""The lifecycle table: complete, and the picture in the documents is drawn from it."""

from __future__ import annotations

from pathlib import Path

from zmsvc.core.lifecycle import LIVE, RESTING, STATE_OF, TABLE, Act, Cause, Sub, diagram

PICTURE = Path(__file__).parents[2] / "docs" / "lifecycle.mmd"


def test_every_state_has_a_row_and_a_word_of_systemd() -> None:
    assert set(TABLE) == set(STATE_OF) == set(Sub)


def test_every_act_and_cause_is_used() -> None:
    moves = [move for row in TABLE.values() for move in row.values()]
    assert {move.act for move in moves} == set(Act)
    assert {cause for row in TABLE.values() for cause in row} == set(Cause)


def test_every_live_state_leads_to_rest() -> None:
    for sub in LIVE:
        seen, todo = set(), [sub]
        while todo:
            here = todo.pop()
            seen.add(here)
            todo += [move.to for move in TABLE[here].values() if move.to not in seen]
        assert seen & RESTING, sub


def test_the_picture_is_that_of_the_table() -> None:
    assert PICTURE.read_text() == diagram(), "write what lifecycle.diagram() gives to docs/lifecycle.mmd"
