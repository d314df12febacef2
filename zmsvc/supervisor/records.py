"""Write the records of the core to the journal, in a shortened form. The history in the state file has them
in full.
"""

from __future__ import annotations

import logging

from zmsvc.core import history
from zmsvc.core.effects import Record
from zmsvc.host.systemd import journal

MAX_VALUE = 200
"""The number of characters of one detail in the journal."""
_WARNINGS = (
    "failed",
    "killing",
    "survivor",
    "lost",
    "dropped",
    "dependency",
    "unplaced",
    "host-silent",
    "host-lost",
    "host-given-up",
    "reload-failed",
    "unhealthy",
    "probe-ended",
    "quarantined",
)

log = logging.getLogger(__name__)


def write(record: Record) -> None:
    details = {name: shortened(value, MAX_VALUE) for name, value in history.fields(record.detail).items()}
    fields = {"MESSAGE_ID": journal.MESSAGE_ID.get(record.event, journal.MESSAGE_ID["context"])}
    if record.transaction:
        fields["ZMSVC_TRANSACTION"] = record.transaction
    if record.task:
        fields |= {"ZMSVC_TASK": record.task, "ZMSVC_EVENT": record.event}
    if record.instance:
        fields |= {"ZMSVC_INSTANCE": record.instance, "SYSLOG_IDENTIFIER": record.instance}
    # Each start and each end writes several records, so this saves the time to find the line of the caller.
    text = f"{record.event} {history.as_text(details)}"
    if log.isEnabledFor(level := _level(record)):
        log.handle(log.makeRecord(log.name, level, __file__, 0, text, (), None, "write", {"journal": fields}))


def _level(record: Record) -> int:
    if record.event == "failure-action" or record.detail.get("for_good"):
        return logging.ERROR
    return logging.WARNING if record.event in _WARNINGS else logging.INFO


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "..."
