"""core/logline: each line can be read again, and no text can pass for another entry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmsvc.core import logline

STAMP = "2026-11-29T10:00:00.123+0100"
NAMES = st.text("abcXYZ019_.-", min_size=1, max_size=12)


@given(
    identifier=NAMES,
    pid=st.integers(1, 1 << 22),
    transaction=NAMES,
    task=NAMES | st.just(""),
    priority=st.integers(0, 7),
)
def test_a_record_head_round_trips(
    identifier: str, pid: int, transaction: str, task: str, priority: int
) -> None:
    line = (
        f"{STAMP} "
        f"{logline.start(identifier, pid, logline.about(transaction, task))}{logline.NAMES[priority]}: text"
    )
    found = logline.head(line)
    assert found is not None
    assert (found.stamp, found.identifier, found.pid, found.priority) == (STAMP, identifier, pid, priority)
    assert (found.transaction, found.task, line[found.size :]) == (transaction, task, "text")


def test_a_record_of_the_context_has_neither_transaction_nor_task() -> None:
    found = logline.head(f"{STAMP} zmsvc-Echo[8] INFO: of the context")
    assert found is not None
    assert (found.transaction, found.task) == ("", "")


@given(st.text())
def test_no_text_can_forge_a_second_entry(text: str) -> None:
    first, *others = (
        f"{STAMP} Echo[1] INFO: " + logline.body(f"{text}\n{STAMP} Echo[1] ERROR: forged")
    ).split("\n")
    assert logline.head(first) is not None
    assert [line for line in others if logline.head(line)] == []


TEXTS = st.text(st.characters(blacklist_categories=["Cs"]).filter(lambda each: each != "\x1e"))


@given(priority=st.integers(0, 7), identifier=NAMES, task=NAMES, text=TEXTS)
def test_a_record_is_one_line_and_round_trips(priority: int, identifier: str, task: str, text: str) -> None:
    line = logline.encode_record(priority, identifier, task, text)
    assert line.count(b"\n") == 1
    assert logline.is_record(line[:-1])
    assert logline.decode_record(line[:-1]) == (priority, identifier, task, text.rstrip("\n"))


@given(st.binary())
def test_a_malformed_record_raises_value_error_and_nothing_else(garbage: bytes) -> None:
    line = b"\x1e" + garbage.replace(b"\n", b"")
    if logline.is_record(line):
        try:
            logline.decode_record(line)
        except ValueError:
            pass


def test_a_long_record_is_cut_into_records() -> None:
    line = logline.encode_record(3, "Echo", "ts", "x" * 100_000)[:-1]
    parts = [logline.decode_record(piece) for piece in logline.pieces(line)]
    assert {part[:3] for part in parts} == {(3, "Echo", "ts")}
    assert "".join(part[3] for part in parts) == "x" * 100_000
    assert max(len(part[3]) for part in parts) <= logline.LINE_LIMIT


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"<3>bad", (3, b"bad")),
        (b"<8>x", (None, b"<8>x")),
        (b"plain", (None, b"plain")),
        (b"<", (None, b"<")),
        (b"", (None, b"")),
    ],
)
def test_a_prefix_sets_the_priority(line: bytes, found: tuple[int | None, bytes]) -> None:
    assert logline.prefixed(line) == found
