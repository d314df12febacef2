"""Packets over a real socket, whose other end goes away."""

from __future__ import annotations

import socket

import pytest

from zmsvc.host import packets


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, its


def test_what_was_sent_before_the_end_is_received_though_the_other_end_had_not_read_everything(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """The kernel then tells of the reset before it gives what waits."""
    ours, its = pair
    with ours:
        packets.send(its, {"n": 1})
        packets.send(its, {"n": 2})
        packets.send(ours, {"unread": True})
        its.close()
        assert packets.receive(ours) == ({"n": 1}, {})
        assert packets.receive(ours) == ({"n": 2}, {})
        assert packets.receive(ours) is None


def test_bytes_are_received_in_the_same_way(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, its = pair
    with ours:
        its.send(b"word")
        ours.send(b"unread")
        its.close()
        assert packets.receive_data(ours, 100) == b"word"
        assert packets.receive_data(ours, 100) == b""
