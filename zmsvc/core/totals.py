"""The totals of a context: numbers that only rise, also when a supervisor is replaced, a transaction is
forgotten or old history is deleted. `zmsvcctl metrics` shows them.

The core emits `effects.Count`. The supervisor adds the counts of a turn to the state file in the same
database transaction as the decisions, so each event is counted once.
"""

from __future__ import annotations

from enum import StrEnum

MAX_TOTALS = 20_000
"""If the state file has more totals than this, those of tasks that the context no longer has are removed."""


class Total(StrEnum):
    """The totals, each with the meaning of `Count.detail`."""

    LAUNCHES = "launches"
    """Launches of a task, by their cause: operator, context, bus or rule."""
    RESTARTS = "restarts"
    """Starts of a task by one of its own rules after it has failed."""
    FAILURES = "failures"
    """Failures of a task, by their reason."""
    FIRINGS = "firings"
    """Firings of a rule that were not refused, by the task that fired it and the rule as
    `on_fail:restart:ts_1`.
    """
    CPU = "cpu"
    """CPU seconds of the processes of a task that have ended, with the children that they have waited for."""
    SUPERVISOR_RESTARTS = "supervisor-restarts"
    WRITE_ERRORS = "write-errors"
    """Failed attempts to write the state file."""
