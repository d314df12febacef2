"""Failures: a task is killed with SIGKILL, and the time is taken until it runs again, or until another task
runs in its place.
"""

from __future__ import annotations

import itertools
import time

from context import Subscriber

from bench.contenders.zmsvc import ZmsvcSession
from bench.fleet import Session
from bench.receiver import PATIENCE

LONE = 0.15
"""Seconds between two failures, for all contenders: a failure comes alone, as most do. By then zmsvc has its
next spare task.
"""


def restart(session: Session, seconds: float, most: int) -> list[float]:
    """Kill each worker in turn, so that none fails twice within a short time: every contender delays the
    restarts of such a task.
    """
    if not session.fleet.workers:
        return []
    until = time.monotonic() + seconds
    found: list[float] = []
    for name in itertools.islice(itertools.cycle(session.fleet.workers), most):
        time.sleep(LONE)
        found.append(session.receiver.run_again(name))
        if time.monotonic() > until:
            break
    return found


def chain(session: Session, seconds: float, most: int) -> list[float]:
    """Kill the victim of each pair in turn. The time between two pairs is not measured."""
    until = time.monotonic() + seconds
    found: list[float] = []
    pairs = list(zip(session.fleet.victims, session.fleet.heirs, strict=True))
    for victim, heir in itertools.islice(itertools.cycle(pairs), most):
        time.sleep(LONE)
        found.append(session.receiver.runs_instead(victim, heir))
        session.revive(victim, heir)
        if time.monotonic() > until:
            break
    return found


def order(session: ZmsvcSession, seconds: float, most: int) -> list[float]:
    """Measure as `chain` does, but until the supervisor has published on the bus that it starts the heir:
    this is the decision, without the start itself.
    """
    subscriber = Subscriber(
        session.context.subscribe_endpoint, session.context.publish_endpoint, b"process @@@ "
    )
    until = time.monotonic() + seconds
    found: list[float] = []
    try:
        for victim, heir in itertools.islice(
            itertools.cycle(zip(session.fleet.victims, session.fleet.heirs, strict=True)), most
        ):
            killed = session.receiver.kill(victim)
            subscriber.until(lambda _topic, body, heir=heir: body["header"]["service_id"] == heir, PATIENCE)  # type: ignore[misc]
            found.append(time.monotonic() - killed)
            session.receiver.hear([heir])
            session.revive(victim, heir)
            if time.monotonic() > until:
                break
    finally:
        subscriber.close()
    return found
