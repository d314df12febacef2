"""The keeper's client: the order and the portions in which messages of keeper and tasks become facts. The
test plays keeper and task.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forked import launch_spec
from waiting import PATIENCE

from zmsvc.core import facts as ft
from zmsvc.core.probing import Health
from zmsvc.host import seqpacket
from zmsvc.host.systemd import datagrams
from zmsvc.host.systemd.notify import Notifier
from zmsvc.keeper_client.children import Children
from zmsvc.keeper_client.machine import LocalMachine
from zmsvc.protocol import supervision as sv
from zmsvc.protocol.launch import LaunchSpec

LAUNCH = 7
LARGE = '{"text":"' + "x" * 300_000 + '"}'
SMALL = '{"n":1}'


def hello(**changes: Any) -> sv.Hello:
    """Return the first message of a keeper of protocol 0."""
    told: dict[str, Any] = {
        "epoch": "e",
        "restarts": 0,
        "stopping": False,
        "children": (),
        "ends": (),
        "device": sv.DeviceState(),
        "cgroup": None,
        "curve": None,
    }
    return sv.Hello(**{**told, **changes})


def large(launch: int) -> LaunchSpec:
    return launch_spec(launch=launch, description="x" * 1000)


class Both:
    """The supervisor's client and its two peers: `keeper` is the keeper's end of the socket, `task` the one
    task that runs.
    """

    def __init__(self, folder: Path) -> None:
        ours, self.keeper = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        running = sv.Launched(launch=LAUNCH, pid=os.getpid(), start_time=1)
        self.report_to_supervisor(hello(children=(running,)))
        receiver = datagrams.bind(folder / "notify", 0o600)
        self.children = Children(ours, receiver)
        self.children.greet()
        self.task = Notifier(str(folder / "notify"))
        self._opened = (ours, self.keeper, receiver, self.task)

    def report_to_supervisor(self, report: sv.Report) -> None:
        seqpacket.send(self.keeper, sv.REPORTS.encode(report))

    def order(self) -> sv.Order | None:
        """Return the next order that the keeper gets."""
        return seqpacket.receive_message(self.keeper, sv.ORDERS)

    def report(self, text: str, count: int) -> None:
        for number in range(1, count + 1):
            self.task.update(text, number)

    def turn(self, *, all_said: bool = False) -> list[int | str]:
        """Return the facts of one turn: the numbers of updates, and the names of other facts."""
        facts = self.children.facts(all_said=all_said)
        self.children.discard_peeked()
        return [fact.sequence if isinstance(fact, ft.TaskUpdated) else type(fact).__name__ for fact in facts]

    def close(self) -> None:
        for each in self._opened:
            each.close()


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    made = Both(tmp_path)
    yield made
    made.close()


def test_small_updates_are_batched(both: Both) -> None:
    both.report(SMALL, 4)
    assert both.turn() == [1, 2, 3, 4]


def test_a_status_that_a_program_sends_itself_is_cut(both: Both) -> None:
    """`systemd-notify --status` sends any length; `status` has the text of each task, and the history repeats
    it.
    """
    both.task.notify("STATUS=" + "é" * 30_000)
    both.task.notify("X_ZMSVC_HEALTH=unhealthy", "STATUS=" + "i" * 60_000)
    facts = both.children.facts()
    assert facts == [
        ft.TaskSaid(launch=LAUNCH, status="é" * 4096),
        ft.TaskSaid(launch=LAUNCH, status="i" * 4096),
        ft.HealthReported(launch=LAUNCH, health=Health.UNHEALTHY, text="i" * 4096),
    ]


def test_other_messages_get_a_turn_between_large_updates(both: Both) -> None:
    both.report(LARGE, 3)
    assert [both.turn() for _ in range(4)] == [[1], [2], [3], []]


def test_an_exit_comes_after_the_earlier_messages_of_its_task(both: Both) -> None:
    both.report(LARGE, 3)
    assert both.turn() == [1]
    both.report_to_supervisor(sv.Exited(launch=LAUNCH, pid=os.getpid(), code=0, signal=None, left=False))
    assert both.turn() == [2, 3, "TaskExited"]


def test_a_new_supervisor_reads_all_messages_before_the_keepers_exits(both: Both) -> None:
    both.report(LARGE, 3)
    assert both.turn(all_said=True) == [1, 2, 3]


class WithoutDescriptors(LocalMachine):
    """A machine that examines no process, because no descriptor is free."""

    def start_time(self, pid: int) -> int | None:  # type: ignore[override]
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_a_main_process_that_cannot_be_examined_is_ignored_and_no_other_message_is_lost(both: Both) -> None:
    both.children.outside = WithoutDescriptors()
    both.report(SMALL, 1)
    both.task.notify("MAINPID=1", "READY=1")
    both.task.update(SMALL, 2)
    assert both.turn() == [1, "TaskReady", 2]


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        (("SIGQUIT", "SIGQUIT"), ("SIGQUIT", "SIGQUIT")),
        (("SIGRTMIN+3", ""), ("SIGTERM", "")),
        (("", "SIGRTMIN+3"), ("", "SIGTERM")),
    ],
)
def test_a_stop_signal_that_an_earlier_keeper_does_not_know_is_sent_as_sigterm(
    both: Both, asked: tuple[str, str], sent: tuple[str, str]
) -> None:
    both.children.ask_to_end(LAUNCH, *asked)
    assert both.order() == sv.SignalTask(launch=LAUNCH, signal=sent[0], rest=sent[1])


@dataclass
class Listener:
    seen: list[bool]

    def backlog(self, waiting: bool) -> None:
        self.seen.append(waiting)

    def wake(self) -> None:
        raise AssertionError("no thread reads")


def test_orders_beyond_the_keepers_buffer_are_queued_without_blocking(both: Both) -> None:
    backlog: list[bool] = []
    both.children.listener = Listener(backlog)
    for launch in range(2000):
        both.children.tell(large(launch))
    assert backlog == [True]
    both.report(SMALL, 1)
    assert both.turn() == [1], "who speaks meanwhile is heard"
    seen: list[int] = []
    while len(seen) < 2000:
        order = both.order()
        assert isinstance(order, LaunchSpec)
        seen.append(order.launch)
        both.children.send_orders()  # as when there is room
    assert seen == list(range(2000))
    assert backlog == [True, False]
    both.children.tell(sv.Leave(status=0))
    assert both.order() == sv.Leave(status=0)


def test_signals_go_before_launches_that_wait(both: Both) -> None:
    for launch in range(500):
        both.children.tell(large(launch))
    both.children.tell(sv.SignalTask(launch=LAUNCH, signal="SIGTERM"))
    both.children.tell(sv.KillTask(launch=LAUNCH))
    seen: list[type[sv.Order]] = []
    while len(seen) < 502:
        order = both.order()
        assert order is not None
        seen.append(type(order))
        both.children.send_orders()
    assert seen.index(sv.SignalTask) == seen.index(sv.KillTask) - 1 < 300, (
        "only what was in the socket already is before them"
    )


def test_at_shutdown_all_queued_orders_are_sent(both: Both) -> None:
    for launch in range(500):
        both.children.tell(large(launch))
    with ThreadPoolExecutor(1) as keeper:
        read = keeper.submit(lambda: [getattr(both.order(), "launch", None) for _ in range(500)])
        both.children.finish()
        assert read.result(PATIENCE) == list(range(500))


def test_shutdown_does_not_wait_for_a_keeper_that_is_gone(both: Both) -> None:
    backlog: list[bool] = []
    both.children.listener = Listener(backlog)
    for launch in range(500):
        both.children.tell(large(launch))
    both.keeper.close()
    both.children.send_orders()
    both.children.finish()
    assert (both.children.lost, backlog) == (True, [True, False])


def test_all_orders_are_sent_at_the_end_and_a_later_read_does_not_block(both: Both) -> None:
    """The keeper sends nothing more: it waits for the end of the supervisor."""
    count = 0
    while not both.children.waiting:
        count += 1
        both.children.tell(large(count))
    both.children.tell(sv.Leave(status=0))
    with ThreadPoolExecutor(1) as pool:
        finished = pool.submit(both.children.finish)
        read = [both.order() for _ in range(count + 1)]
        finished.result(PATIENCE)
    assert [each.launch for each in read if isinstance(each, LaunchSpec)] == list(range(1, count + 1))
    assert sv.Leave(status=0) in read
    assert both.turn() == []
