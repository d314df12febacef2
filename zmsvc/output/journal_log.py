"""Write the lines of tasks to the journal, each as an entry with the fields of its task, and count those that
the journal does not take.
"""

from __future__ import annotations

from collections.abc import Iterable

from zmsvc.core import logline
from zmsvc.host.systemd.journal_socket import JournalSocket, encode
from zmsvc.protocol.output import TakePipe

_WARNING = 4


class JournalLog:
    """The journal as the target of the lines of a context."""

    def __init__(self, journal: JournalSocket, name: str) -> None:
        self._journal = journal
        self._name = name
        self.lost_lines = 0
        self.lost_bytes = 0
        """The number of lines and bytes that were lost since the last warning about them."""
        self._problem = ""

    def write(self, about: TakePipe, lines: Iterable[bytes]) -> None:
        """Write these lines of a task. Empty ones are dropped, as journald does."""
        fields = {
            "SYSLOG_IDENTIFIER": about.identifier,
            "SYSLOG_PID": about.pid,
            "ZMSVC_CONTEXT": self._name,
            "ZMSVC_TRANSACTION": about.transaction,
            "ZMSVC_TASK": about.task,
            "ZMSVC_INSTANCE": about.identifier,
        }
        for line in lines:
            for piece in logline.pieces(line):
                priority, text = _entry(piece)
                if text:
                    self._send({"MESSAGE": text, "PRIORITY": priority, **fields}, len(text))

    def warn(self, text: str) -> None:
        """Write an entry of this process itself."""
        self._send(self._warning(text), len(text))

    def _warning(self, text: str) -> dict[str, object]:
        return {
            "MESSAGE": text,
            "PRIORITY": _WARNING,
            "SYSLOG_IDENTIFIER": f"zmsvc-{self._name}",
            "ZMSVC_CONTEXT": self._name,
        }

    def _send(self, entry: dict[str, object], size: int) -> None:
        if self.lost_lines:
            self._report_losses()
        problem = self._journal.send(encode(entry), wait=not self.lost_lines)
        if problem:
            self._problem = problem
            self.lost_lines += 1
            self.lost_bytes += size

    def _report_losses(self) -> None:
        text = f"{self.lost_lines} lines ({self.lost_bytes} bytes) of tasks are missing here: {self._problem}"
        # While the journal takes nothing, no line waits for it: tasks would wait as well.
        if not self._journal.send(encode(self._warning(text)), wait=False):
            self.lost_lines = self.lost_bytes = 0


def _entry(line: bytes) -> tuple[int, bytes]:
    """Return the priority and the text of a line."""
    if logline.is_record(line):
        try:
            priority, _, _, text = logline.decode_record(line)
        except ValueError:
            pass  # A program of the task has written the first character of a record, but not a record.
        else:
            return priority, text.encode("utf-8", "surrogateescape")
    number, rest = logline.prefixed(line.rstrip(b"\r"))
    return logline.INFO if number is None else number, rest
