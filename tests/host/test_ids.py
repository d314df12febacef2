"""New transaction IDs."""

from __future__ import annotations

import pytest

from zmsvc.host import ids


def test_an_id_is_20_random_capitals_and_digits() -> None:
    made = {ids.transaction_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(each) == 20 and set(each) <= set(ids.LETTERS) for each in made)


def test_every_character_is_equally_likely() -> None:
    text = "".join(ids.transaction_id() for _ in range(2000))
    # Each of the 36 letters comes 1,111 times in 40,000, with a standard deviation of 33. A fair choice never
    # deviates by six of these; byte % 36 (14 % bias) always does.
    assert all(abs(text.count(letter) - len(text) / 36) < 200 for letter in ids.LETTERS)


def test_randomness_that_runs_short_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = iter([bytes([255] * 80), bytes(range(80))])
    monkeypatch.setattr(ids.os, "urandom", lambda _size: next(asked))
    assert len(ids.transaction_id()) == 20
