"""The lines of the daemon's log file: `STAMP IDENTIFIER[PID] TRANSACTION/TASK LEVEL: text`. Only this module
writes and reads them. Pure.

Each entry has its own head, so that readers can search for times and priorities. The further lines of an
entry are indented, so that no text can pass for another entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

NAMES = ("EMERG", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "DEBUG")
"""The names of the priorities of syslog(3) in the file, in the order of their numbers. They are Python's
names where Python has such a priority.
"""
INFO = 6
INDENT = "    "
LINE_LIMIT = 48 << 10
"""Bytes after which the rest of a line becomes an entry of its own, as with journald's LineMax=."""

_NUMBERS = {name: number for number, name in enumerate(NAMES)}
_HEAD = re.compile(rf"(\d{{4}}-\d\d-\d\dT\S+) (.*?)\[(\d+)\] (?:(\S+?)(?:/(\S+))? )?({'|'.join(NAMES)}): ?")


class EntryHead:
    """The head of an entry; `size` is its length in characters. It is not a dataclass: importing
    `dataclasses` takes as long as a whole `zmsvcctl logs`.
    """

    __slots__ = ("identifier", "pid", "priority", "size", "stamp", "task", "transaction")

    def __init__(self, found: re.Match[str]) -> None:
        self.stamp, self.identifier, pid, transaction, task, level = found.groups()
        self.pid = int(pid)
        self.transaction: str = transaction or ""
        self.task: str = task or ""
        self.priority = _NUMBERS[level]
        self.size = found.end()


def head(line: str) -> EntryHead | None:
    """Return the head of a line, or None if the line belongs to the entry before it."""
    found = _HEAD.match(line)
    return EntryHead(found) if found else None


def about(transaction: str, task: str) -> str:
    """Return what an entry is about, as its head shows it: `TRANSACTION/TASK`, one of the two, or nothing."""
    return "/".join(each for each in (transaction, task) if each)


def start(identifier: str, pid: int, whose: str) -> str:
    """Return the part of a head between its stamp and its level."""
    return f"{identifier}[{pid}] {whose + ' ' if whose else ''}"


def body(text: str) -> str:
    """Return the text that follows the head of an entry, with the final line break."""
    return text.rstrip("\n").replace("\n", "\n" + INDENT) + "\n"


def prefixed(line: bytes) -> tuple[int | None, bytes]:
    """Return the priority that `<N>` at the start of a line sets (sd-daemon(3)), and the rest of the line."""
    if (
        line[:1] == b"<"
        and line[2:3] == b">"
        and line[1:2] in (b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7")
    ):
        return line[1] - 48, line[3:]
    return None, line


# --- records that Python tasks write into a pipe

_RECORD = b"\x1e"
_END_OF_HEAD = b"\x1f"


def encode_record(priority: int, identifier: str, task: str, text: str) -> bytes:
    """Return a log record as one line: a control character, priority, names, and the text. The process that
    reads the pipe of a task decodes it.

    A program of the task can write such a line too. It then counts as a record of this task, because the
    reader knows whose pipe it is.
    """
    said = text.rstrip("\n").replace("\x1e", "\\x1e").replace("\n", "\x1e")
    return b"%b%d %b %b%b%b\n" % (
        _RECORD,
        priority,
        _plain(task),
        _plain(identifier),
        _END_OF_HEAD,
        said.encode("utf-8", "surrogateescape"),
    )


def _plain(name: str) -> bytes:
    return re.sub(r"[\s\x1e\x1f]", "_", name).encode("utf-8", "surrogateescape") or b"/"


def is_record(line: bytes) -> bool:
    """Return True if `encode_record` made this line."""
    return line.startswith(_RECORD) and _END_OF_HEAD in line


def record_head(line: bytes) -> bytes:
    """Return the start of a record, with which each further line of its text begins, too."""
    return line[: line.index(_END_OF_HEAD) + 1]


def decode_record(line: bytes) -> tuple[int, str, str, str]:
    """Return priority, identifier, task and text of a record. Raises ValueError for any other line."""
    first, _, text = line[1:].partition(_END_OF_HEAD)
    number, task, identifier = first.decode("utf-8", "replace").split(" ")
    priority = int(number)
    if not 0 <= priority <= 7:
        raise ValueError(f"{priority} is not a priority")
    named = "" if task == "/" else task
    return priority, identifier, named, text.replace(_RECORD, b"\n").decode("utf-8", "surrogateescape")


def pieces(line: bytes) -> Iterator[bytes]:
    """Split a line that is too long. If the line is a record, each piece begins as the record does."""
    if len(line) <= LINE_LIMIT:
        yield line
        return
    first = record_head(line) if is_record(line) else b""
    rest = line[len(first) :]
    for at in range(0, len(rest), LINE_LIMIT):
        yield first + rest[at : at + LINE_LIMIT]
