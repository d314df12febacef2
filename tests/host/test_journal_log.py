"""The journal as the target of the output process: the fields of each line, and what happens while journald
does not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from test_journal import Journald

from zmsvc.core import logline
from zmsvc.host.systemd.journal_socket import JournalSocket
from zmsvc.output.journal_log import JournalLog
from zmsvc.protocol.output import TakePipe

ABOUT = TakePipe(pipe=1, identifier="Echo", pid=7, transaction="TX", task="ts")


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    made = Journald(tmp_path)
    yield made
    made.close()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[JournalSocket]:
    made = JournalSocket(str(tmp_path / "socket"), patience=0.01)
    yield made
    made.close()


def test_each_line_is_an_entry_with_the_fields_of_its_task(journald: Journald, target: JournalSocket) -> None:
    record = logline.encode_record(4, "Echo", "ts", "cannot\ndo it").rstrip(b"\n")
    JournalLog(target, "Live").write(ABOUT, [b"one\r", b"", b"<3>two\xff=", record, b"\x1ebroken\x1f"])
    entries = [journald.entry() for _ in range(4)]
    assert [(each.pop("PRIORITY"), each.pop("MESSAGE")) for each in entries] == [
        (b"6", b"one"),
        (b"3", b"two\xff="),
        (b"4", b"cannot\ndo it"),
        (b"6", b"\x1ebroken\x1f"),
    ]
    fields = {
        "SYSLOG_IDENTIFIER": b"Echo",
        "SYSLOG_PID": b"7",
        "ZMSVC_CONTEXT": b"Live",
        "ZMSVC_TRANSACTION": b"TX",
        "ZMSVC_TASK": b"ts",
        "ZMSVC_INSTANCE": b"Echo",
    }
    assert entries == [fields] * 4


def test_lines_that_journald_does_not_take_are_counted_and_said_when_it_does(
    journald: Journald, target: JournalSocket
) -> None:
    log = JournalLog(target, "Live")
    sent = 0
    while not log.lost_lines:
        assert sent < 100_000
        log.write(ABOUT, [b"%d" % sent])
        sent += 1
    log.write(ABOUT, [b"lost"])
    assert log.lost_lines == 2
    for number in range(sent - 1):
        assert journald.entry()["MESSAGE"] == b"%d" % number
    log.write(ABOUT, [b"back"])
    said = journald.entry()
    size = len(str(sent - 1)) + len("lost")
    assert said["MESSAGE"] == (
        b"2 lines (%d bytes) of tasks are missing here: cannot write to the journal: "
        b"Resource temporarily unavailable" % size
    )
    assert (said["PRIORITY"], said["SYSLOG_IDENTIFIER"]) == (b"4", b"zmsvc-Live")
    assert journald.entry()["MESSAGE"] == b"back"
    assert log.lost_lines == 0


def test_a_journald_with_a_new_socket_gets_the_next_line(tmp_path: Path, target: JournalSocket) -> None:
    log, first = JournalLog(target, "Live"), Journald(tmp_path)
    log.write(ABOUT, [b"one"])
    assert first.entry()["MESSAGE"] == b"one"
    first.close()
    (tmp_path / "stdout").unlink()
    log.write(ABOUT, [b"lost"])
    (tmp_path / "socket").unlink()
    second = Journald(tmp_path)
    log.write(ABOUT, [b"two"])
    assert b"1 lines (4 bytes)" in second.entry()["MESSAGE"]
    assert second.entry()["MESSAGE"] == b"two"
    second.close()
