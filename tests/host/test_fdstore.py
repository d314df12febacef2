"""The fdstore process: which descriptors it stores, gives and closes."""

from __future__ import annotations

import os
import resource
import select
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from lingering import LINGERING
from waiting import PATIENCE

from zmsvc.host import seqpacket
from zmsvc.keeper.dispatcher import Dispatcher
from zmsvc.keeper.fdstore_process import FdstoreProcess
from zmsvc.keeper.machine import Machine
from zmsvc.protocol import fdstore as protocol

TASK, OTHER = "T:a", "T:b"


class Store:
    """A real fdstore process, and this process in the place of keeper and supervisor."""

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(PATIENCE)
        arguments = ["--line", str(theirs.fileno()), "--keeper", str(os.getpid())]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "zmsvc.fdstore", *arguments], pass_fds=[theirs.fileno()]
        )
        theirs.close()

    def close(self) -> None:
        self.channel.close()
        assert self.process.wait(PATIENCE) == 0

    def order(self, order: protocol.Order, *fds: int) -> None:
        named = {"to" if isinstance(order, protocol.Serve) else str(at): fd for at, fd in enumerate(fds)}
        seqpacket.send(self.channel, protocol.ORDERS.encode(order), named)

    def hold(self, **limits: int) -> None:
        self.order(protocol.Hold(limits={f"T:{task}": limit for task, limit in limits.items()}))

    def put(self, *fds: int, task: str = TASK, name: str = "stored", poll: bool = True) -> None:
        self.order(
            protocol.Put(entries=(protocol.StoredDescriptor(task=task, name=name, poll=poll),) * len(fds)),
            *fds,
        )

    def counts(self, **wanted: Mapping[str, int]) -> protocol.Counts:
        """Return the first report that has these values."""
        while True:
            report = seqpacket.receive_message(self.channel, protocol.REPORTS)
            assert report is not None
            if all(getattr(report, name) == value for name, value in wanted.items()):
                return report

    def serve(self, task: str = TASK) -> list[tuple[str, int]]:
        """Return what the next process of a task gets. The caller closes it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            ours.settimeout(PATIENCE)
            self.order(protocol.Serve(task=task), theirs.fileno())
            theirs.close()
            ours.send(protocol.REQUEST)
            found: list[tuple[str, int]] = []
            while (received := seqpacket.receive(ours)) is not None:
                names = protocol.GIVEN.decode(received[0]).names
                found += zip(names, received[1].values(), strict=True)
            return found


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.close()


@pytest.fixture
def files() -> Iterator[list[int]]:
    made = [os.memfd_create(str(number)) for number in range(60)]
    yield made
    for fd in made:
        os.close(fd)


def names_of(given: list[tuple[str, int]]) -> list[str]:
    """Return the names of the memory files, and close them."""
    found = []
    for _, fd in given:
        found.append(os.readlink(f"/proc/self/fd/{fd}").split(":")[1].split()[0])
        os.close(fd)
    return found


def test_a_task_gets_its_own_descriptors_in_their_order_each_time(store: Store, files: list[int]) -> None:
    store.hold(a=60, b=60)
    store.put(*files[:40], name="one")
    store.put(*files[40:50], name="two")
    store.put(*files[50:], task=OTHER)
    given = store.serve()
    assert [name for name, _ in given] == ["one"] * 40 + ["two"] * 10
    assert names_of(given) == [str(number) for number in range(50)]
    assert names_of(store.serve()) == [str(number) for number in range(50)]
    assert names_of(store.serve(OTHER)) == [str(number) for number in range(50, 60)]
    assert store.serve("T:none") == []


def test_a_store_has_a_limit_and_a_descriptor_is_stored_once(store: Store, files: list[int]) -> None:
    store.hold(a=3)
    store.put(*files[:2])
    copy = os.dup(files[0])
    # A new supervisor may send them again. That does not count as a refusal.
    store.put(*files[:2], copy)
    os.close(copy)
    store.put(*files[2:6])
    store.put(files[7], task=OTHER)
    assert store.counts(refused={TASK: 3, OTHER: 1}).stored == {TASK: 3}
    assert names_of(store.serve()) == ["0", "1", "2"]


def test_a_name_is_removed_and_a_store_that_is_not_held_is_emptied(store: Store, files: list[int]) -> None:
    reader, writer = os.pipe()
    store.hold(a=9, b=9)
    store.put(*files[:2], name="x")
    store.put(files[2], name="y")
    store.put(writer, task=OTHER)
    os.close(writer)
    store.order(protocol.Remove(task=TASK, name="x"))
    assert names_of(store.serve()) == ["2"]
    store.hold(a=9)
    store.counts(stored={TASK: 1}, closing={})
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    assert poll.poll(PATIENCE * 1000) == [(reader, select.POLLHUP)], "its last copy is closed"
    os.close(reader)


def test_a_descriptor_without_its_other_end_is_removed_unless_polling_is_off(store: Store) -> None:
    store.hold(a=9)
    pairs = [socket.socketpair() for _ in range(2)]
    store.put(pairs[0][0].fileno(), name="polled")
    store.put(pairs[1][0].fileno(), name="kept", poll=False)
    store.counts(stored={TASK: 2})
    for pair in pairs:
        for sock in pair:
            sock.close()
    store.counts(stored={TASK: 1})
    ((name, fd),) = store.serve()
    os.close(fd)
    assert name == "kept"


def test_a_close_that_hangs_delays_neither_other_tasks_nor_the_store(store: Store, files: list[int]) -> None:
    attack: dict[str, Any] = {}
    exec(LINGERING, attack)
    store.hold(a=9, b=9)
    with attack["lingering"](600) as sock:
        store.put(sock.fileno())
        store.put(files[0])
        store.counts(stored={TASK: 2})
        # Only the store has it now.
        os.close(sock.detach())
    store.hold(b=9)
    store.counts(stored={}, closing={TASK: 2})
    store.put(files[1], task=OTHER)
    assert names_of(store.serve(OTHER)) == ["1"]
    store.hold(a=9, b=9)
    store.put(files[2])
    assert names_of(store.serve()) == ["2"]
    for peer in attack["peers"]:
        peer.close()
    store.counts(closing={})


def test_a_descriptor_that_cannot_be_polled_is_stored_as_well(store: Store, tmp_path: Path) -> None:
    store.hold(a=9)
    here = os.open(tmp_path, os.O_RDONLY)
    made = [here]
    try:
        # The name in /proc/self/fd of the last one is longer than the kernel can tell.
        for _ in range(20):
            os.mkdir("d" * 255, dir_fd=made[-1])
            made.append(os.open("d" * 255, os.O_RDONLY, dir_fd=made[-1]))
        with select.epoll() as epoll:
            store.put(made[-1], epoll.fileno())
            store.counts(stored={TASK: 2})
    finally:
        for fd in made:
            os.close(fd)
    for _, fd in store.serve():
        os.close(fd)


def test_a_process_that_ends_before_it_asks_is_forgotten(store: Store, files: list[int]) -> None:
    store.hold(a=9)
    store.put(files[0])
    for _ in range(50):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        store.order(protocol.Serve(task=TASK), theirs.fileno())
        ours.close()
        theirs.close()
    assert names_of(store.serve()) == ["0"]
    # The descriptors of the store, the channel, and the standard ones.
    assert len(os.listdir(f"/proc/{store.process.pid}/fd")) < 20


def test_a_keeper_without_a_free_descriptor_starts_the_process_later() -> None:
    machine = Machine()
    # The start of a process needs neither places nor listening sockets.
    nothing: Any = None
    client = FdstoreProcess(machine, nothing, nothing, None, Dispatcher(machine), lambda _running: None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        client.hold({TASK: 3})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert client.pid is None
    due = client.due()
    assert due is not None
    assert client.is_due(due)
    client.start()
    assert client.pid is not None
    client.kill()
    os.waitpid(client.pid, 0)
    client.ended()
