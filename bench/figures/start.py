"""The start of a fleet: the time from the order until every task has reported that it runs, and until the
contender knows it, if it can know it.
"""

from __future__ import annotations

import time

from bench.fleet import Session


def measure(session: Session) -> dict[str, float]:
    """Return `start` in seconds."""
    begin = time.monotonic()
    session.order_start()
    heard = session.receiver.hear(session.fleet.entry)
    session.started()
    known = time.monotonic()
    last = max(report.at for report in heard.values())
    # For a contender that cannot report that all tasks are ready, the report of the last task counts, and not
    # the time at which this process has read it.
    return {"start": (known if session.tells else last) - begin}
