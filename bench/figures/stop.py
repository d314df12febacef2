"""From the order to stop everything until the last task's process is gone, and the contender says so,
where it does.
"""

from __future__ import annotations

import time

from bench.ear import ends_of
from bench.fleet import Session


def measure(session: Session) -> dict[str, float]:
    """`stop`: seconds."""
    with ends_of([session.ear.pids[name] for name in session.fleet.entry]) as ends:
        begin = time.monotonic()
        session.order_stop()
        gone = ends.wait()
        session.stopped()
        return {"stop": (time.monotonic() if session.tells else gone) - begin}
