"""A task is killed with SIGKILL: how long until it runs again, or until the task runs that is to run
instead.
"""

from __future__ import annotations

import itertools
import time

from context import Ear as Subscriber

from bench.contenders.zmsvc import ZmsvcSession
from bench.ear import PATIENCE
from bench.fleet import Session


def restart(session: Session, seconds: float, most: int) -> list[float]:
    """Each worker in turn, so that none is restarted twice within a moment: that is what every contender's
    brakes are for.
    """
    if not session.fleet.workers:
        return []
    until = time.monotonic() + seconds
    found: list[float] = []
    for name in itertools.islice(itertools.cycle(session.fleet.workers), most):
        found.append(session.ear.run_again(name))
        if time.monotonic() > until:
            break
    return found


def chain(session: Session, seconds: float, most: int) -> list[float]:
    """Each pair in turn; what comes between two of them is not measured."""
    until = time.monotonic() + seconds
    found: list[float] = []
    pairs = list(zip(session.fleet.victims, session.fleet.heirs, strict=True))
    for victim, heir in itertools.islice(itertools.cycle(pairs), most):
        found.append(session.ear.runs_instead(victim, heir))
        session.revive(victim, heir)
        if time.monotonic() > until:
            break
    return found


def order(session: ZmsvcSession, seconds: float, most: int) -> list[float]:
    """As `chain`, but until the supervisor has said on the bus that it starts the heir: the decision,
    without the start itself.
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
            killed = session.ear.kill(victim)
            subscriber.until(lambda _topic, body, heir=heir: body["header"]["service_id"] == heir, PATIENCE)  # type: ignore[misc]
            found.append(time.monotonic() - killed)
            session.ear.hear([heir])
            session.revive(victim, heir)
            if time.monotonic() > until:
                break
    finally:
        subscriber.close()
    return found
