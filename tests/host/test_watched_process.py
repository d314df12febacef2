"""The keeper replaces a supervisor or device that hangs, and none that only stood still with the keeper."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from zmsvc.core.deadline import LATE
from zmsvc.keeper.restarted_process import DeviceProcess, SupervisorProcess, WatchedProcess

TIME = 3.0


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def after(self, seconds: float) -> float:
        self.time += seconds
        return self.time


def watched(kind: str, clock: Clock) -> WatchedProcess:
    """Return a process that has just given a sign of life, and has TIME until the next one."""
    machine, nothing = cast("Any", clock), cast("Any", SimpleNamespace())
    made: WatchedProcess
    if kind == "supervisor":
        made = SupervisorProcess(machine, [], nothing, nothing, TIME, None)
    else:
        made = DeviceProcess(machine, nothing, nothing, None, None)
        made.on_notification({"WATCHDOG_USEC": str(int(TIME * 1e6))})
    made.pid = 1
    made.note_sign_of_life()
    return made


@pytest.mark.parametrize("kind", ["supervisor", "device"])
def test_a_keeper_that_looks_too_late_looks_once_more(kind: str) -> None:
    clock = Clock()
    process = watched(kind, clock)
    assert not process.is_hung(clock.after(TIME - 0.1))
    assert process.is_hung(clock.after(0.1 + LATE / 2)), "the keeper looks in time"
    process.note_sign_of_life()
    assert not process.is_hung(clock.after(TIME + 2 * LATE)), "the machine may have stood still"
    assert not process.is_hung(clock.after(TIME - 0.1))
    assert process.is_hung(clock.after(0.1 + 2 * LATE)), "that counts once until the next sign of life"
    process.note_sign_of_life()
    assert not process.is_hung(clock.after(TIME + 2 * LATE))
