"""From the order to the moment in which every task runs, by its own word, and the contender knows it,
where it can know.
"""

from __future__ import annotations

import time

from bench.fleet import Session


def measure(session: Session) -> dict[str, float]:
    """`start`: seconds."""
    begin = time.monotonic()
    session.order_start()
    heard = session.ear.hear(session.fleet.entry)
    session.started()
    known = time.monotonic()
    last = max(report.at for report in heard.values())
    # A contender that cannot tell that all are ready is measured by the last task alone: the time in which we noticed is
    # not theirs.
    return {"start": (known if session.tells else last) - begin}
