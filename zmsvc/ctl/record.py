"""Replay a record: the world at a moment in the form of `status`, and the facts at which today's engine
decides differently. The verbs status, replay and report use it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from zmsvc.core import replay, status_view
from zmsvc.core.errors import PlaceError, ProtocolError, reason
from zmsvc.core.replay import Begin, Step
from zmsvc.core.status_view import Clock
from zmsvc.core.world import World
from zmsvc.ctl import status_source
from zmsvc.ctl.client import CtlError
from zmsvc.host import record_ring
from zmsvc.protocol.recording import Segment, essence, read_segment

if TYPE_CHECKING:
    from zmsvc.ctl.client import Json
    from zmsvc.host.paths import Places


class Replayed:
    """A replay that goes on with `steps`: its last moment, and what it has counted. `source` is the name of
    the record in messages.
    """

    def __init__(self, found: Iterable[bytes], source: str, until: float = math.inf) -> None:
        self._found = found
        self._source = source
        self._until = until
        self._lost: dict[str, int] = {}
        self.world: World | None = None
        self.begins = 0.0
        """The time at which the record begins, in seconds of the epoch."""
        self.at = 0.0
        """The time of the last turn."""
        self._now = 0.0
        self.facts = 0
        self.differing = 0
        self.unrecorded = 0
        self.runs: list[str] = []
        self.versions: list[str] = []
        """The releases of the supervisors."""

    def _noted(self) -> Iterator[Segment]:
        for data in self._found:
            if b"\n" not in data:
                continue  # The supervisor died before this segment had its world, or the disk was full.
            part = read_segment(data)
            if part.run not in self.runs:
                self.runs.append(part.run)
            if part.head.version not in self.versions:
                self.versions.append(part.head.version)
            self._lost[part.run] = part.head.unrecorded
            if part.snapshot is not None:
                self.begins = self.begins or part.snapshot.at
            yield part

    def steps(self) -> Iterator[Begin | Step]:
        """Replay up to the time, and yield each fact. Raises CtlError for a record that cannot be read."""
        try:
            yield from self._steps()
        except ProtocolError as error:
            raise CtlError(2, f"cannot replay {self._source}: {error}") from None
        if self.world is None:
            begin = f"it begins at {rfc3339(self.begins)}" if self.begins else "it has no complete snapshot"
            raise CtlError(1, f"cannot replay {self._source} up to this time: {begin}")

    def _steps(self) -> Iterator[Begin | Step]:
        for each in replay.replay(self._noted(), essence, self._until):
            if isinstance(each, Begin):
                self.world, self._now, self.at = (each.snapshot.world, each.snapshot.now, each.snapshot.at)
            else:
                self.facts += 1
                self.world, self._now, self.at = each.world, each.turn.now, each.turn.at
            self.differing += each.differs
            yield each
        self.unrecorded = sum(self._lost.values())

    def clock(self) -> Clock:
        """Return the clock at the end of the replay."""
        shift = self.at - self._now
        late = 0.0 if math.isinf(self._until) else max(0.0, self._until - self.at)
        return Clock(now=self._now + late, text=lambda monotonic: rfc3339(shift + monotonic))

    @property
    def shown_at(self) -> float:
        """The time at which the world is shown."""
        return self.at if math.isinf(self._until) else max(self.at, self._until)


def rfc3339(at: float) -> str:
    """Return a time in seconds of the epoch as RFC 3339 text. A record may have any number."""
    try:
        return datetime.fromtimestamp(at, UTC).astimezone().isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return str(at)


def status(replayed: Replayed, name: str, transaction: str | None = None, tasks: Iterable[str] = ()) -> Json:
    """Return the world at the end of a replay, as `status` shows it. PIDs are those of that time."""
    world = replayed.world
    assert world is not None
    names = tuple(tasks)
    context = world.context
    unknown = [each for each in names if not context.named(each)]
    unknown = [each for each in unknown if all(key[1] != each for key in world.tasks)]
    if transaction is not None and transaction not in world.transactions:
        unknown = [transaction]
    if unknown:
        raise CtlError(4, f"cannot show {unknown[0]}: it was not there at {rfc3339(replayed.shown_at)}")
    try:
        state = status_view.context_state(world).value
        shown = status_view.transactions(
            world, replayed.clock(), lambda _key, _task, _service: {}, only=transaction, tasks=names
        )
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # A record may come from anybody, and may have a world that the engine never makes.
        raise CtlError(2, f"cannot show the record: its world is damaged ({error!r})") from None
    return {
        **status_source.empty(name, context.path),
        "id": context.id,
        "state": state,
        "frontend": context.endpoints.subscribe_endpoint,
        "backend": context.endpoints.publish_endpoint,
        "at": rfc3339(replayed.shown_at),
        "transactions": shown,
    }


# --- the record of this machine


def local(places: Places) -> list[bytes]:
    """Return the segments of the record of a context. Raises CtlError if there is none, or if it cannot be
    read.
    """
    try:
        found = record_ring.read(places.record)
    except FileNotFoundError:
        found = []
    except (OSError, PlaceError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        way = " (root and the daemon's user may)" if isinstance(error, PermissionError) else ""
        raise CtlError(5, f"cannot read the record of {places.name}: {why}{way}") from None
    if not found:
        raise CtlError(
            1,
            f"{places.name} has no record (<record>yes</record> in {places.config_file}, and zmsvcctl -c "
            f"{places.name} reload)",
        )
    return found
