"""`watch` on another machine connects again, also after an error of the protocol."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
import zmq
from cable import Cable
from needs import need
from ports import free_ports
from waiting import PATIENCE, wait_for

from zmsvc.ctl.subscriber import BusListener
from zmsvc.host.bus import socket_options
from zmsvc.host.bus.curve_keys import Curve


@pytest.fixture
def publisher() -> Iterator[tuple[zmq.Socket[bytes], int, Curve]]:
    """Yield a PUB with keys, its port, and the keys of a client."""
    need(zmq.has("curve"), "this libzmq has no CURVE")
    (server, server_secret), (public, secret) = zmq.curve_keypair(), zmq.curve_keypair()
    (port,) = free_ports(1)
    with zmq.Context() as context, context.socket(zmq.XPUB) as made:
        made.setsockopt(zmq.LINGER, 0)
        made.setsockopt(zmq.CURVE_SERVER, 1)
        made.setsockopt(zmq.CURVE_PUBLICKEY, server)
        made.setsockopt(zmq.CURVE_SECRETKEY, server_secret)
        made.bind(f"tcp://127.0.0.1:{port}")
        yield made, port, Curve(public=public, secret=secret, server_public=server)


def test_a_listener_connects_again_after_bytes_that_are_not_of_the_protocol(
    publisher: tuple[zmq.Socket[bytes], int, Curve], capsys: pytest.CaptureFixture[str]
) -> None:
    """libzmq does not do it: for it such an error is final."""
    made, port, curve = publisher
    here = ("127.0.0.9", port)

    def is_connected() -> bool:
        """Let the listener look at its connection. Return True if the publisher has a new subscription."""
        assert listener.next(0) is None
        return bool(made.poll(20)) and made.recv() == b"\x01a"

    def hears() -> bool:
        made.send(b"a1")
        return listener.next(time.monotonic() + PATIENCE) == b"a1"

    with socket_options.context() as context:
        with socket.create_server(here) as stranger:
            listener = BusListener(context, f"tcp://127.0.0.9:{port}", [b"a"], curve, renew_s=0.1)
            with closing(stranger.accept()[0]) as connection, suppress(ConnectionError):
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                while connection.recv(1000):
                    pass
        with closing(listener), closing(Cable(here, ("127.0.0.1", port))) as cable:
            wait_for(is_connected)
            assert hears()
            cable.garble()
            wait_for(is_connected)
            assert hears()
    assert capsys.readouterr().err.count("ends the connection") == 1
