"""Counts that are logged sparsely."""

from __future__ import annotations

import logging

import pytest

from zmsvc.host.sparse_log import SparseLog


def test_a_flood_is_counted_in_full_and_logged_at_the_powers_of_two(caplog: pytest.LogCaptureFixture) -> None:
    tally = SparseLog(logging.getLogger("tally").warning)
    for number in range(100):
        tally.add("Number %d is refused", number)
    assert tally.count == 100
    said = [record.getMessage() for record in caplog.records]
    assert said[:3] == [
        "Number 0 is refused (1 so far)",
        "Number 1 is refused (2 so far)",
        "Number 3 is refused (4 so far)",
    ]
    assert len(said) == 7
