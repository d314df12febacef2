"""Watch the topics on which a Command publishes, for `<expect>` and `<ready topic="...">`, in a process
beside the task. It subscribes to these topics alone.

The process reports only what changes, so any number of messages costs the supervisor nothing. While it has no
connection to the device, no topic becomes silent: the device may be starting again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

import zmq

from zmsvc.core import messages
from zmsvc.core.errors import ProtocolError
from zmsvc.core.expected_topics import Silences, from_json
from zmsvc.host.bus import socket_monitor, sockets
from zmsvc.host.bus.curve_keys import of_words
from zmsvc.host.bus.socket_options import Socket, connect, secured, unconnected_subscriber
from zmsvc.host.systemd import notify
from zmsvc.host.systemd.notify import Notifier
from zmsvc.protocol.launch import LaunchSpec

_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
_BATCH = 1000
"""The number of messages that are read between two looks at the clock."""
_LONGEST = 3600.0
"""Seconds of one wait; the timeout of poll(2) is an int of milliseconds."""


def await_first(spec: LaunchSpec, topic: str) -> None:
    """Return when the task has published on this topic."""
    heard: list[str] = []
    with sockets.context() as ctx, _subscriber(ctx, spec, {topic}) as sock:
        connect(sock, spec.frontend)
        while not heard:
            sock.poll()
            _read(sock, spec, heard.append)


def watch(spec: LaunchSpec, notifier: Notifier) -> None:
    """Report each expected topic on which the task is silent for too long."""
    silences = Silences(map(from_json, spec.expect))
    with sockets.context() as ctx, _subscriber(ctx, spec, silences.topics) as sock:
        events = socket_monitor.open_monitor(sock, _EVENTS)
        connect(sock, spec.frontend)
        poller = zmq.Poller()
        poller.register(sock, zmq.POLLIN)
        poller.register(events, zmq.POLLIN)
        while True:
            poller.poll(math.ceil(min(silences.pause(time.monotonic()), _LONGEST) * 1000))
            for event, _ in socket_monitor.pending_events(events):
                if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    silences.begin(time.monotonic())
                else:
                    silences.suspend()
            now = time.monotonic()
            _read(sock, spec, lambda topic, now=now: silences.heard(topic, now))  # type: ignore[misc]
            while (topic := silences.silent(now)) is not None:
                notifier.notify(f"{notify.SILENT}={topic}")


def _subscriber(ctx: sockets.Context, spec: LaunchSpec, topics: Iterable[str]) -> Socket:
    """Return a socket with these subscriptions, not yet connected."""
    curve = secured(spec.frontend, of_words(spec.curve))
    return unconnected_subscriber(ctx, map(messages.prefix, topics), curve)


def _read(sock: Socket, spec: LaunchSpec, heard: Callable[[str], object]) -> None:
    """Pass on the topics of the messages of this task that wait."""
    for _ in range(_BATCH):
        if not sock.poll(0):
            return
        topic = topic_of(sock.recv(), spec.transaction, spec.task)
        if topic is not None:
            heard(topic)


def topic_of(frame: bytes, transaction: str, task: str) -> str | None:
    """Return the topic of a message if its header names this task, or no task; None for the message of
    another one, and for a frame that cannot be read.
    """
    try:
        topic, body = messages.decode(frame)
    except ProtocolError:
        return None
    header = body.get("header", {})
    if header.get("service_transaction", "") not in ("", transaction):
        return None
    return topic if header.get("service_id", "") in ("", task) else None
