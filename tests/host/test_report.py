"""ctl/verbs/report: the parts of a report are bounded, so that `replay` can read it."""

from __future__ import annotations

import pytest

from zmsvc.ctl import bundle
from zmsvc.ctl.verbs import report
from zmsvc.host import record_ring


@pytest.mark.parametrize(
    ("most", "kept"),
    [
        (100, ([b"aa", b"bbb", b"c"], 0)),
        (6, ([b"aa", b"bbb", b"c"], 0)),
        (5, ([b"bbb", b"c"], 1)),
        (0, ([], 3)),
    ],
)
def test_the_newest_parts_are_kept(most: int, kept: tuple[list[bytes], int]) -> None:
    assert report.newest([b"aa", b"bbb", b"c"], most) == kept


def test_the_largest_parts_leave_room_for_the_context_and_its_status() -> None:
    assert report.MAX_HISTORY + report.MAX_LOG + record_ring.RING <= bundle.MAX_BYTES - (48 << 20)
