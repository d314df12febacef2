"""Subscribe to the topics of Commands that are watched, and report to the keeper the first message of each
`<ready topic="...">` and each silence of an `<expect>`. core.watched_topics decides what there is to report.

Only what changes is reported, so any number of messages costs the other processes nothing. While there is no
connection to the device, no topic becomes silent: the device may be starting again.
"""

from __future__ import annotations

import collections
import contextlib
import math
import socket
import time
from typing import assert_never

import zmq

from zmsvc.core import messages
from zmsvc.core.errors import ProtocolError
from zmsvc.core.expected_topics import from_json
from zmsvc.core.message_origin import origin_of
from zmsvc.core.watched_topics import Heard, LaunchWatch, Silent, WatchedTopics
from zmsvc.host import seqpacket
from zmsvc.host.bus import curve_keys, socket_monitor
from zmsvc.host.bus.socket_options import (
    SUPERVISOR_HWM,
    Socket,
    connect,
    context,
    secured,
    unconnected_subscriber,
)
from zmsvc.host.complain import complain
from zmsvc.protocol import watching
from zmsvc.protocol.output import Ping, Pong

_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
_BATCH = 1000
"""The number of messages that are read between two looks at the clock."""
_LONGEST = 3600.0
"""The longest wait in seconds: poll(2) takes milliseconds as an int."""


class Watcher:
    """The process: the channel to the keeper, and one subscriber for all topics."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._curve: tuple[str, ...] | None = None
        self._topics = WatchedTopics()
        self._subscribed: frozenset[str] = frozenset()
        self._subscriber: Socket | None = None
        self._events: Socket | None = None
        self._unsent: collections.deque[watching.Report] = collections.deque()
        """Reports that wait for room in the channel: at most one for each topic and each order."""
        self._poller = zmq.Poller()
        self._poller.register(channel.fileno(), zmq.POLLIN)

    def run(self) -> None:
        """Run until the keeper closes the channel."""
        while True:
            pause = min(self._topics.pause(time.monotonic()), _LONGEST)
            self._poller.poll(math.ceil(pause * 1000))
            began = time.monotonic()
            frames = self._read()
            # The orders come after the messages have been read: the keeper has sent the watch of a launch
            # before the launch could publish anything.
            if not self._handle_orders():
                return
            self._note_connection()
            now = time.monotonic()
            for frame in frames:
                self._note(frame, now)
            # A message that came while these were handled is not noted yet.
            self._unsent.extend(map(_report, self._topics.reports(began)))
            self._send()

    # --- the channel

    def _handle_orders(self) -> bool:
        """Handle all waiting orders; return False if the keeper has closed the channel."""
        while True:
            try:
                order = seqpacket.receive_message(self._channel, watching.ORDERS)
            except BlockingIOError:
                return True
            except ProtocolError as error:
                complain(f"zmsvcd: the watcher process: {error}")
                continue
            match order:
                case None:
                    return False
                case watching.Keys():
                    self._curve = order.curve
                case Ping():
                    self._unsent.append(Pong())
                case watching.WatchTopics():
                    self._watch(order)
                case _:
                    assert_never(order)

    def _send(self) -> None:
        """Send the reports, as far as there is room. This process does not wait for the keeper, which may be
        stopped.
        """
        events = zmq.POLLIN
        try:
            while self._unsent:
                seqpacket.send(self._channel, watching.REPORTS.encode(self._unsent[0]))
                self._unsent.popleft()
        except BlockingIOError:
            events |= zmq.POLLOUT
        except OSError:
            pass  # The keeper is gone; the next receive on the channel notices.
        self._poller.register(self._channel.fileno(), events)

    # --- the bus

    def _watch(self, order: watching.WatchTopics) -> None:
        if order.ready or order.expect:
            watch = LaunchWatch(
                launch=order.launch,
                transaction=order.transaction,
                task=order.task,
                ready=order.ready,
                has_process=order.has_process,
                expect=tuple(map(from_json, order.expect)),
            )
            self._topics.watch(watch, time.monotonic())
        else:
            self._topics.end(order.launch)
        topics, before = self._topics.topics, self._subscribed
        self._subscribed = topics
        if self._subscriber is None:
            if topics:
                self._connect(order.endpoint)
            return
        for topic in topics - before:
            self._subscriber.subscribe(messages.prefix(topic))
        for topic in before - topics:
            self._subscriber.unsubscribe(messages.prefix(topic))

    def _connect(self, endpoint: str) -> None:
        curve = secured(endpoint, curve_keys.of_words(self._curve))
        sock = unconnected_subscriber(context(), map(messages.prefix, self._subscribed), curve)
        # More messages wait in the device, which bounds them in bytes.
        sock.set(zmq.RCVHWM, SUPERVISOR_HWM)
        self._events = socket_monitor.open_monitor(sock, _EVENTS)
        self._subscriber = connect(sock, endpoint)
        self._poller.register(self._subscriber, zmq.POLLIN)
        self._poller.register(self._events, zmq.POLLIN)

    def _note_connection(self) -> None:
        if self._events is None:
            return
        for event, _ in socket_monitor.pending_events(self._events):
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._topics.connected(time.monotonic())
            else:
                self._topics.disconnected()

    def _read(self) -> list[bytes]:
        frames: list[bytes] = []
        with contextlib.suppress(zmq.Again):
            while self._subscriber is not None and len(frames) < _BATCH:
                frames.append(self._subscriber.recv(zmq.DONTWAIT))
        return frames

    def _note(self, frame: bytes, now: float) -> None:
        topic, _, text = frame.partition(messages.SEPARATOR)
        if (origin := origin_of(text)) is not None:
            self._topics.heard(topic.decode(errors="replace"), origin, now)


def _report(found: Heard | Silent) -> watching.Report:
    if isinstance(found, Heard):
        return watching.TopicHeard(launch=found.launch, topic=found.topic)
    return watching.TopicSilent(launch=found.launch, topic=found.topic)
