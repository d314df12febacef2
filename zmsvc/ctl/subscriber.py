"""A subscriber that waits for messages and notices when the device refuses its connection: libzmq would
reconnect silently for ever.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

import zmq

from zmsvc.ctl import terminal
from zmsvc.ctl.client import CtlError
from zmsvc.host.bus import socket_monitor, socket_options
from zmsvc.host.bus.curve_keys import Curve
from zmsvc.host.bus.socket_options import Context, Socket

_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | socket_monitor.FAILED
RENEW_S = 5.0
"""Seconds without a connection after which the socket is renewed. libzmq tries again each second by
itself, but never after an error of the protocol: for example, another program has answered at this address
for a moment.
"""


class BusListener:
    """A SUB socket that connects to the bus. Without keys the caller has to find out whether the device
    refuses the connection.
    """

    def __init__(
        self,
        ctx: Context,
        endpoint: str,
        prefixes: Iterable[bytes],
        curve: Curve | None,
        *,
        renew_s: float = RENEW_S,
    ) -> None:
        self._endpoint, self._renew_s = endpoint, renew_s
        self._renew_at: float | None = None
        """The time at which the socket is renewed; None while it is connected, or connects for the
        first time.
        """
        self._is_known = False
        """True when the first connection has succeeded or failed."""
        self.socket = socket_options.unconnected_subscriber(
            ctx, prefixes, socket_options.secured(endpoint, curve)
        )
        self.socket.set(zmq.RCVHWM, socket_options.CLIENT_HWM)
        self._poller = zmq.Poller()
        self._poller.register(self.socket, zmq.POLLIN)
        self._events: Socket | None = None
        try:
            # Watch before the connection begins, so that its first event is seen.
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
            times = [at for at in (until, self._renew_at) if at is not None]
            left = max(0, math.ceil((min(times) - time.monotonic()) * 1000)) if times else None
            readable = dict(self._poller.poll(left))
            if self._events in readable:
                self._check_events()
            if self.socket in readable:
                return self.socket.recv()
            self._renew_in_time(time.monotonic())
            if until is not None and time.monotonic() >= until:
                return None

    def close(self) -> None:
        """Close the socket."""
        self._close_monitor()
        self.socket.close(0)

    def _renew_in_time(self, now: float) -> None:
        if self._renew_at is not None and now >= self._renew_at:
            self._renew_at = now + self._renew_s
            self.socket.disconnect(self._endpoint)
            socket_options.connect(self.socket, self._endpoint)

    def _close_monitor(self) -> None:
        if self._events is not None:
            if not self.socket.closed:
                self.socket.disable_monitor()
            self._events.close(0)
            self._events = None

    def _check_events(self) -> None:
        """Note if there is a connection. The first failure is told; then, and after a refusal, it is made
        again.
        """
        assert self._events is not None
        for event, _ in socket_monitor.pending_events(self._events):
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._renew_at = None
            elif self._renew_at is None:
                self._renew_at = time.monotonic() + self._renew_s
            if not self._is_known:
                self._is_known = True
                self._check_first(event)

    def _check_first(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            raise CtlError(
                5,
                f"cannot listen at {self._endpoint}: the device does not let us in (its machine has to "
                f"allow our key: zmsvcctl keys)",
            )
        if event != zmq.EVENT_HANDSHAKE_SUCCEEDED:
            # The device may be starting: then it ends this connection, and accepts the next one a moment
            # later.
            terminal.complain(
                f"the peer at {self._endpoint} ends the connection: is it the frontend of a context, and "
                f"is ours the key of its device?"
            )
