"""The keeper's client: in which order and in which portions what the keeper and tasks say becomes facts. The test is keeper and task."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from zmsvc.core import events as ev
from zmsvc.host import notify, packets
from zmsvc.host.notify import Notifier
from zmsvc.supervisor.children import Children

LAUNCH = 7
LARGE = '{"text":"' + "x" * 300_000 + '"}'
SMALL = '{"n":1}'


class Both:
    """What the supervisor has, and the two who speak to it: `keeper` is the keeper's end of the line, `task` the one task that runs."""

    def __init__(self, folder: Path) -> None:
        ours, self.keeper = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        running = {"launch": LAUNCH, "pid": os.getpid(), "tag": "", "start_time": 1, "executed": False}
        packets.send(self.keeper, {"op": "hello", "children": [running], "ends": [], "device": {}})
        ear = notify.bind(folder / "notify", 0o600)
        self.children = Children(ours, ear)
        self.children.greet()
        self.task = Notifier(str(folder / "notify"))
        self._opened = (ours, self.keeper, ear, self.task)

    def report(self, text: str, count: int) -> None:
        for number in range(1, count + 1):
            self.task.update(text, number)

    def turn(self, *, all_said: bool = False) -> list[int | str]:
        """The facts of one turn: the numbers of updates, and the names of others."""
        facts = self.children.facts(all_said=all_said)
        self.children.settled()
        return [fact.sequence if isinstance(fact, ev.TaskUpdated) else type(fact).__name__ for fact in facts]

    def close(self) -> None:
        for each in self._opened:
            each.close()


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    made = Both(tmp_path)
    yield made
    made.close()


def test_small_updates_come_together(both: Both) -> None:
    both.report(SMALL, 4)
    assert both.turn() == [1, 2, 3, 4]


def test_between_large_updates_others_have_their_turn(both: Both) -> None:
    both.report(LARGE, 3)
    assert [both.turn() for _ in range(4)] == [[1], [2], [3], []]


def test_an_end_comes_after_all_that_was_said_before_it(both: Both) -> None:
    both.report(LARGE, 3)
    assert both.turn() == [1]
    packets.send(both.keeper, {"op": "exited", "launch": LAUNCH, "code": 0, "signal": None, "left": False, "oom": False})
    assert both.turn() == [2, 3, "TaskExited"]


def test_a_supervisor_that_takes_over_hears_all_before_the_ends_that_the_keeper_holds(both: Both) -> None:
    both.report(LARGE, 3)
    assert both.turn(all_said=True) == [1, 2, 3]
