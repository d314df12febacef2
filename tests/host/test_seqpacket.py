"""Packets over a real socket whose peer goes away."""

from __future__ import annotations

import socket

import pytest

from zmsvc.host import seqpacket


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, its


def test_messages_sent_before_a_close_are_received_although_the_peer_left_some_unread(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """The kernel then reports the reset before it delivers the packets that wait."""
    ours, its = pair
    with ours:
        seqpacket.send(its, {"n": 1})
        seqpacket.send(its, {"n": 2})
        seqpacket.send(ours, {"unread": True})
        its.close()
        assert seqpacket.receive(ours) == ({"n": 1}, {})
        assert seqpacket.receive(ours) == ({"n": 2}, {})
        assert seqpacket.receive(ours) is None


def test_a_byte_stream_is_received_in_the_same_way(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, its = pair
    with ours:
        its.send(b"word")
        ours.send(b"unread")
        its.close()
        assert seqpacket.receive_data(ours, 100) == b"word"
        assert seqpacket.receive_data(ours, 100) == b""
