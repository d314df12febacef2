"""A subscriber that waits for messages and notices when the device refuses its connection: libzmq would
reconnect silently for ever.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import zmq

from zmsvc.ctl import terminal
from zmsvc.ctl.client import CtlError
from zmsvc.host.bus import socket_monitor, socket_options
from zmsvc.host.bus.curve_keys import Curve
from zmsvc.host.bus.socket_options import Context, Socket

_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | socket_monitor.FAILED


class BusListener:
    """A SUB socket that connects to the bus. Without keys the caller has to find out whether the device
    refuses the connection.
    """

    def __init__(self, ctx: Context, endpoint: str, prefixes: Iterable[bytes], curve: Curve | None) -> None:
        self._endpoint = endpoint
        self.socket = socket_options.unconnected_subscriber(
            ctx, prefixes, socket_options.secured(endpoint, curve)
        )
        self.socket.set(zmq.RCVHWM, socket_options.CLIENT_HWM)
        self._poller = zmq.Poller()
        self._poller.register(self.socket, zmq.POLLIN)
        self._events: Socket | None = None
        try:
            # Watch before the connection begins: after a refusal libzmq does not connect again, so the event
            # comes once.
            if curve is not None:
                self._events = socket_monitor.open_monitor(self.socket, _EVENTS)
                self._poller.register(self._events, zmq.POLLIN)
            socket_options.connect(self.socket, endpoint)
        except BaseException:
            self.close()
            raise

    def next(self, until: float | None) -> bytes | None:
        """Return the next frame; None if there is none before the monotonic time `until`. Raises CtlError 5
        if the device refuses the connection.
        """
        while True:
            left = None if until is None else max(0, round((until - time.monotonic()) * 1000))
            readable = dict(self._poller.poll(left))
            if self._events in readable:
                self._check_events()
            if self.socket in readable:
                return self.socket.recv()
            if not readable:
                return None

    def close(self) -> None:
        """Close the socket."""
        self._close_monitor()
        self.socket.close(0)

    def _close_monitor(self) -> None:
        if self._events is not None:
            if not self.socket.closed:
                self.socket.disable_monitor()
            self._events.close(0)
            self._events = None

    def _check_events(self) -> None:
        """Check the first event of the connection, and close the monitor: libzmq restores the connection from
        then on.
        """
        assert self._events is not None
        events = [event for event, _ in socket_monitor.pending_events(self._events)]
        if not events:
            return
        self._poller.unregister(self._events)
        self._close_monitor()
        if events[0] == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            raise CtlError(
                5,
                f"cannot listen at {self._endpoint}: the device does not let us in (its machine has to "
                f"allow our key: zmsvcctl keys)",
            )
        if events[0] != zmq.EVENT_HANDSHAKE_SUCCEEDED:
            # The device may be starting: then it ends this connection, and accepts the next one a moment
            # later.
            terminal.complain(
                f"the peer at {self._endpoint} ends the connection: is it the frontend of a context, and "
                f"is ours the key of its device?"
            )
