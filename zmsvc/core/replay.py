"""Run recorded facts through `step` again, and find where it decides differently from the engine that
recorded them. Pure; protocol/recording.py reads and writes the record.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from zmsvc.core.effects import Effect
from zmsvc.core.engine import step
from zmsvc.core.facts import Fact
from zmsvc.core.frozen import frozen
from zmsvc.core.world import World

Essence = tuple[Mapping[str, Any], ...]
"""Effects in the form in which they are compared."""


@frozen
class WorldSnapshot:
    """The world at a moment."""

    now: float
    """The monotonic time."""
    at: float
    """The time in seconds of the epoch."""
    world: World


@frozen
class Turn:
    """One turn of a supervisor: the facts that it took, and the effects of each. If the engine failed at a
    fact, there are fewer groups of effects than facts.
    """

    number: int
    now: float
    at: float
    facts: tuple[Fact, ...]
    effects: tuple[Essence, ...]


class RecordPart(Protocol):
    """A part of a record, as one supervisor has written it."""

    @property
    def run(self) -> str:
        """The ID of the supervisor. Parts of one run continue each other."""

    @property
    def first(self) -> int:
        """The number of the first turn."""

    @property
    def snapshot(self) -> WorldSnapshot | None:
        """The world before the first turn, if it is known."""

    def turns(self) -> Iterator[Turn]:
        """Yield the turns in order."""


@frozen
class Begin:
    """The replay continues with the world of a snapshot. `differs` is True if the replay itself had reached
    another world by then.
    """

    snapshot: WorldSnapshot
    run: str
    differs: bool


@frozen
class Step:
    """One fact that was replayed."""

    turn: Turn
    fact: Fact
    world: World
    """The world after it."""
    recorded: Essence | None
    """The recorded effects; None if the engine failed at this fact."""
    today: Essence | None
    """The effects that today's engine decides on; None if it fails."""
    error: str = ""
    """The reason why today's engine fails."""

    @property
    def differs(self) -> bool:
        """True if the decisions differ. True also if today's engine fails at this fact, whether or not the
        recorded one did.
        """
        return self.today is None or self.recorded != self.today


def replay(
    parts: Iterable[RecordPart], essence: Callable[[Iterable[Effect]], Essence], until: float = math.inf
) -> Iterator[Begin | Step]:
    """Yield each fact up to a time in seconds of the epoch, and a `Begin` at each snapshot with which the
    replay continues. A part is left out if it has no snapshot and does not continue the part before it.
    """
    world: World | None = None
    follows: tuple[str, int] | None = None
    for part in parts:
        continued = follows == (part.run, part.first)
        snapshot = part.snapshot
        if snapshot is not None:
            if snapshot.at > until:
                return
            yield Begin(
                snapshot=snapshot,
                run=part.run,
                differs=continued and world is not None and world != snapshot.world,
            )
            world = snapshot.world
        elif not continued:
            world = None
        number = part.first
        for turn in part.turns() if world is not None else ():
            if turn.at > until:
                return
            for index, fact in enumerate(turn.facts):
                assert world is not None
                taken = _step(world, turn, index, fact, essence)
                world = taken.world
                yield taken
            number = turn.number + 1
        follows = part.run, number


def _step(
    world: World, turn: Turn, index: int, fact: Fact, essence: Callable[[Iterable[Effect]], Essence]
) -> Step:
    today: Essence | None = None
    error = ""
    try:
        world, effects = step(world, fact, turn.now)
        today = essence(effects)
    except Exception as failure:  # A record is input: its world may be one that the engine never makes.
        error = f"{type(failure).__name__}: {failure}"
    recorded = turn.effects[index] if index < len(turn.effects) else None
    return Step(turn=turn, fact=fact, world=world, recorded=recorded, today=today, error=error)
