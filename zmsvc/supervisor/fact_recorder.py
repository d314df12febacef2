"""Record the turns of the supervisor for `zmsvcctl replay`. A fault of the disk, or of the directory of the
record, has no effect on tasks: facts that are not recorded are counted, and a new segment is tried later.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from zmsvc import __version__
from zmsvc.core.effects import Effect
from zmsvc.core.errors import PlaceError, reason
from zmsvc.core.facts import Fact
from zmsvc.core.world import World
from zmsvc.host.kernel import processes
from zmsvc.host.paths import Places
from zmsvc.host.record_ring import RecordRing, SegmentFile
from zmsvc.protocol import recording
from zmsvc.protocol.recording import SegmentHead

RETRY = 60.0
"""Seconds until the next attempt after a failure. They double with each failure in a row."""
MAX_RETRY = 3600.0

_FAULTS = (OSError, PlaceError, TypeError, ValueError, RecursionError)
"""The faults of the disk, and of a value that cannot be written as JSON. None of them may reach the loop."""

log = logging.getLogger(__name__)


class FactRecorder:
    """The writer of a record. `soon` calls a function after the events that wait now."""

    def __init__(
        self,
        ring: RecordRing,
        context: str,
        boot: Callable[[], str],
        soon: Callable[[Callable[[], None]], Any],
    ) -> None:
        self._ring = ring
        self._context, self._boot, self._soon = context, boot, soon
        self._run = os.urandom(8).hex()
        self._number = 1
        self._segment: SegmentFile | None = None
        self._snapshot: Iterator[bytes] | None = None
        """The lines of the snapshot that are not written yet."""
        self._retry_at = 0.0
        self._delay = RETRY
        self._began = 0.0
        """The time at which the segment began."""
        self._failing = False
        self._replayable = False
        """True if the segment has its snapshot, or continues one that has it."""
        self._at_stake = 0
        """The number of facts of the segment, which are lost if its snapshot cannot be written."""
        self.unrecorded = 0
        """The number of facts that could not be recorded."""

    def turn(
        self, before: World, facts: Sequence[Fact], effects: Sequence[Sequence[Effect]], now: float, at: float
    ) -> None:
        """Record one turn, which began with the world `before`."""
        if self._segment is None and now < self._retry_at:
            self.unrecorded += len(facts)
            return
        try:
            line = recording.turn_line(self._number, now, at, facts, effects)
            if self._segment is None or not self._segment.has_room(len(line)):
                self._begin(before, now, at)
            assert self._segment is not None
            self._segment.write(line)
            self._number += 1
            if not self._replayable:
                self._at_stake += len(facts)
        except _FAULTS as error:
            self._fail(error, now, len(facts))

    def _begin(self, world: World, now: float, at: float) -> None:
        """Begin a segment with this world."""
        self._replayable = self._replayable and self._segment is not None
        self.close()
        self._began = now
        self._segment = self._ring.begin()
        head = SegmentHead(
            format=recording.FORMAT,
            version=__version__,
            context=self._context,
            boot=self._boot(),
            run=self._run,
            first=self._number,
            unrecorded=self.unrecorded,
        )
        self._segment.write(recording.head_line(head))
        self._snapshot = recording.snapshot_lines(world, now, at)
        self._soon(self._go_on)

    def _go_on(self) -> None:
        """Write the next line of the snapshot."""
        if self._snapshot is None or self._segment is None:
            return
        try:
            line = next(self._snapshot, None)
            if line is not None:
                self._segment.write(line)
        except _FAULTS as error:
            self._fail(error, self._began, 0)
            return
        if line is not None:
            self._soon(self._go_on)
            return
        self._snapshot = None
        self._replayable, self._at_stake = True, 0
        self._recovered()

    def _fail(self, error: Exception, now: float, facts: int) -> None:
        """Record nothing for some time. The segment ends here."""
        self.close()
        self.unrecorded += facts + self._at_stake
        self._replayable, self._at_stake = False, 0
        # The next segment does not continue this one.
        self._number += 1
        self._retry_at = now + self._delay
        self._delay = min(2 * self._delay, MAX_RETRY)
        if not self._failing:
            why = reason(error) if isinstance(error, OSError) else str(error)
            log.error(
                "The record cannot be written: %s (status counts the facts that are not recorded; the next "
                "attempt is in %g s)",
                why,
                RETRY,
            )
        self._failing = True

    def _recovered(self) -> None:
        self._delay = RETRY
        if self._failing:
            log.warning("The record goes on; %d facts were not recorded", self.unrecorded)
        self._failing = False

    def close(self) -> None:
        """End the segment. The next turn begins another one."""
        if self._segment is not None:
            self._segment.close()
        self._segment = self._snapshot = None


def recorder(places: Places, soon: Callable[[Callable[[], None]], Any]) -> FactRecorder:
    """Return the recorder of a context."""
    return FactRecorder(RecordRing(places.record), places.name, processes.boot_id, soon)
