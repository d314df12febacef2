"""The connections of the device: the events that announce them may come late, when libzmq has closed the
descriptor and the kernel has given its number to another one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from zmsvc.device.admission import Admission
from zmsvc.device.peers import Peers

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def sides() -> Iterator[tuple[Peers, Peers]]:
    """Both sides of a device, as they share their sockets."""
    admission, inodes = Admission(16, tcp=False), set[int]()
    made = Peers(admission, inodes), Peers(admission, inodes)
    yield made
    for each in made:
        each.close()


@pytest.fixture
def connections() -> Iterator[tuple[Pair, Pair]]:
    """Two connections, each with libzmq's end and that of the peer."""
    made = socket.socketpair(), socket.socketpair()
    yield made
    for each in (*made[0], *made[1]):
        each.close()


def test_a_peer_that_libzmq_disconnects_is_told_and_one_that_leaves_is_not(
    sides: tuple[Peers, Peers], connections: tuple[Pair, Pair]
) -> None:
    publishers, _ = sides
    (ours, _), (other, peer) = connections
    numbers = ours.fileno(), other.fileno()
    assert publishers.accepted(numbers[0])
    assert publishers.accepted(numbers[1])
    ours.close()
    broken = publishers.ended(numbers[0])
    assert broken is not None
    assert broken.name == f"pid {os.getpid()}"
    peer.close()
    other.close()
    assert publishers.ended(numbers[1]) is None
    assert len(publishers) == 0


def test_the_number_of_a_connection_that_has_ended_may_be_that_of_our_duplicate(
    sides: tuple[Peers, Peers], connections: tuple[Pair, Pair]
) -> None:
    publishers, subscribers = sides
    _, (long, _) = connections
    assert publishers.accepted(long.fileno())
    (tracked,) = publishers.all()
    # A connection had this number before. Only now comes the event that it was accepted, and then the one
    # that it has ended.
    number = tracked.socket.fileno()
    assert subscribers.accepted(number)
    assert subscribers.ended(number) is None
    assert len(publishers) == 1


def test_the_number_of_a_connection_that_has_ended_may_be_that_of_the_next_one(
    sides: tuple[Peers, Peers], connections: tuple[Pair, Pair]
) -> None:
    _, subscribers = sides
    _, (long, peer) = connections
    number = long.fileno()
    # The events of the connection that had the number before, and then that of this one.
    assert subscribers.accepted(number)
    assert subscribers.ended(number, reused=True) is None
    assert subscribers.accepted(number)
    assert len(subscribers) == 1
    long.close()
    assert subscribers.ended(number) is not None
    peer.close()


def test_a_broken_connection_is_told_also_if_its_number_is_used_again(
    sides: tuple[Peers, Peers], connections: tuple[Pair, Pair]
) -> None:
    _, subscribers = sides
    (broken, _), (next_one, _) = connections
    number = broken.fileno()
    assert subscribers.accepted(number)
    os.dup2(next_one.fileno(), number)
    assert subscribers.ended(number, reused=True) is not None
