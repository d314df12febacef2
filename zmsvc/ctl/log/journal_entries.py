"""Show journal entries with the names of their tasks. Without the names, the lines of two tasks of one
instance look the same in journalctl.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from zmsvc.core import logline
from zmsvc.ctl import terminal
from zmsvc.ctl.client import CtlError

_CGROUP = re.compile(r"/tasks/([^/:]+):([^/]+)")
"""The cgroup of a task: `.../tasks/TRANSACTION:TASK`. A shared process has `+NUMBER` in the place of the
task.
"""


def show(command: list[str], *, pager: bool) -> int:
    """Run journalctl and print its entries, each when it arrives, or all together in a pager. Returns the
    exit status.
    """
    try:
        reader = subprocess.Popen(command, stdout=subprocess.PIPE)
    except OSError as error:
        raise CtlError(
            1, f"cannot run journalctl: {(error.strerror or str(error)).lower()} (is systemd installed?)"
        ) from None
    with reader:
        assert reader.stdout is not None
        try:
            if pager and terminal.on_terminal():
                terminal.page("".join(_lines(reader.stdout)))
            else:
                for line in _lines(reader.stdout):
                    terminal.out(line, flush=not pager)
        except KeyboardInterrupt:
            return 0  # Ctrl-C is a normal end.
        finally:
            if reader.poll() is None:
                reader.terminate()
        return reader.wait()


def _lines(entries: Any) -> Iterator[str]:
    streams: dict[str, str] = {}
    style = terminal.style()
    for text in entries:
        try:
            entry = json.loads(text)
        except ValueError:
            yield text.decode(errors="replace")
            continue
        yield _line(entry, _whose(entry, streams), style)


def _whose(entry: dict[str, Any], streams: dict[str, str]) -> str:
    """Return `TRANSACTION/TASK`: from the fields of zmsvc, from the control group, or from another entry of
    the same stream.
    """
    transaction, task = _text(entry.get("ZMSVC_TRANSACTION")), _text(entry.get("ZMSVC_TASK"))
    if not transaction and (found := _CGROUP.search(_text(entry.get("_SYSTEMD_CGROUP")))):
        transaction, task = found[1], "" if found[2].startswith("+") else found[2]
    whose = logline.about(transaction, task)
    stream = _text(entry.get("_STREAM_ID"))
    if stream and whose:
        streams[stream] = whose
    return whose or streams.get(stream, "")


def _line(entry: dict[str, Any], whose: str, style: terminal.Style) -> str:
    """Format an entry as `journalctl -o short` does, with the task before the colon."""
    at = int(_text(entry.get("__REALTIME_TIMESTAMP")) or 0) / 1e6
    stamp = time.strftime("%b %d %H:%M:%S", time.localtime(at))
    name = _text(entry.get("SYSLOG_IDENTIFIER")) or _text(entry.get("_COMM")) or "unknown"
    pid = _text(entry.get("_PID")) or _text(entry.get("SYSLOG_PID"))
    start = (
        f"{stamp} {_text(entry.get('_HOSTNAME'))} "
        f"{name}{f'[{pid}]' if pid else ''}{f' {whose}' if whose else ''}: "
    )
    priority = _text(entry.get("PRIORITY"))
    color = {"0": "red", "1": "red", "2": "red", "3": "red", "4": "yellow", "5": "bold", "7": "grey"}.get(
        priority
    )
    lines = _text(entry.get("MESSAGE")).split("\n")
    return (
        start
        + f"\n{' ' * len(start)}".join(style.paint(color, terminal.clean(line)) for line in lines)
        + "\n"
    )


def _text(value: Any) -> str:
    """Return the text of a field. A field that is not UTF-8 is a list of its bytes; a field with two values
    is a list of both.
    """
    if isinstance(value, list):
        if all(isinstance(each, int) for each in value):
            return bytes(value).decode(errors="replace")
        return _text(value[0]) if value else ""
    return "" if value is None else str(value)
