"""The stop of a fleet: the time from the order until the process of the last task has ended, and until the
contender reports it, if it can report it.
"""

from __future__ import annotations

import time

from bench.fleet import Session
from bench.receiver import ends_of


def measure(session: Session) -> dict[str, float]:
    """Return `stop` in seconds."""
    with ends_of([session.receiver.pids[name] for name in session.fleet.entry]) as ends:
        begin = time.monotonic()
        session.order_stop()
        gone = ends.wait()
        session.stopped()
        return {"stop": (time.monotonic() if session.tells else gone) - begin}
