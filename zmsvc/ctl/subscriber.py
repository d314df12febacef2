"""A subscriber that waits for messages, and is told when the device does not let it in: libzmq would
connect again and again in silence.
"""

from __future__ import annotations

import time

import zmq

from zmsvc.ctl import terminal
from zmsvc.ctl.client import CtlError
from zmsvc.host.bus import socket_monitor
from zmsvc.host.bus.socket_options import Socket


class Listener:
    """A SUB socket that is connected to `endpoint`. Without `keys` another look tells whether it is let
    in.
    """

    def __init__(self, heard: Socket, endpoint: str, *, keys: bool) -> None:
        self._heard, self._endpoint = heard, endpoint
        self._poller = zmq.Poller()
        self._poller.register(heard, zmq.POLLIN)
        events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | socket_monitor.FAILED
        self._news = socket_monitor.open_monitor(heard, events) if keys else None
        if self._news is not None:
            self._poller.register(self._news, zmq.POLLIN)

    def next(self, until: float | None) -> bytes | None:
        """Return the next frame; None when there is none by that monotonic time. Raises CtlError 5 when it
        is not let in.
        """
        while True:
            left = None if until is None else max(0, round((until - time.monotonic()) * 1000))
            readable = dict(self._poller.poll(left))
            if self._news in readable:
                self._judge()
            if self._heard in readable:
                return self._heard.recv()
            if not readable:
                return None

    def close(self) -> None:
        """Let go of what tells about the connection."""
        if self._news is not None:
            self._heard.disable_monitor()
            self._news.close(0)
            self._news = None

    def _judge(self) -> None:
        """The first thing that becomes of the connection tells; after that it comes back by itself."""
        assert self._news is not None
        events = [event for event, _ in socket_monitor.pending_events(self._news)]
        if not events:
            return
        self._poller.unregister(self._news)
        self.close()
        if events[0] == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            raise CtlError(
                5,
                f"cannot listen at {self._endpoint}: the device does not let us in (its machine has to "
                f"allow our key: zmsvcctl keys)",
            )
        if events[0] != zmq.EVENT_HANDSHAKE_SUCCEEDED:
            # A device that has just begun may do so, too, and is there in the next moment.
            terminal.complain(
                f"the peer at {self._endpoint} ends the connection: is it the frontend of a context, and "
                f"is ours the key of its device?"
            )
