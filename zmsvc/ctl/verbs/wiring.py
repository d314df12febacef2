"""The verb wiring: show topics with their publishers and subscribers, rates and sizes."""

from __future__ import annotations

import argparse
import json
import time
from contextlib import closing
from typing import TYPE_CHECKING

import zmq

from zmsvc.core import wiring as flows
from zmsvc.core.graph import Shown
from zmsvc.core.model import Context
from zmsvc.core.wiring import Running, Topic, Traffic
from zmsvc.ctl import render, terminal
from zmsvc.ctl.client import Client, CtlError, NotRunningError
from zmsvc.ctl.select_context import choose
from zmsvc.ctl.status_reply import ContextStatus
from zmsvc.ctl.subscriber import BusListener
from zmsvc.ctl.verbs.bus import curve_of
from zmsvc.ctl.verbs.graph import draw
from zmsvc.host.bus import refusal, sockets
from zmsvc.host.config import reader
from zmsvc.host.config.subscribe_check import declared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmsvc.host.bus.curve_keys import Curve
    from zmsvc.host.paths import Places

PATIENCE = 5.0
"""Seconds to wait for a supervisor's answer, and for the device."""
SPAN = 2.0
"""Seconds of listening without --for."""

WATCHED = "zmsvc"
"""The subscriber to a topic of `<expect>` or `<ready>` that no task hears."""

_HEAD = ("TOPIC", "FROM", "TO", "MESSAGES/S", "BYTES")


def wiring(args: argparse.Namespace) -> int:
    """wiring: show the declared topics, and those of a running context that flow."""
    view = _view(args)
    if args.json:
        terminal.out(json.dumps(view.as_json()) + "\n")
    elif args.format == "text":
        for line in view.lines():
            terminal.out(terminal.clean(line) + "\n")
    else:
        shown = Shown(topics=view.topics, seconds=view.seconds, rules=False)
        terminal.out(draw(view.context, None, shown, args.format))
    return 0


class View:
    """The wiring of a context. `seconds` is 0 if it was not listened to."""

    def __init__(
        self, context: Context, topics: list[Topic], *, seconds: float = 0.0, lies: Sequence[str] = ()
    ) -> None:
        self.context, self.topics, self.seconds, self.lies = context, topics, seconds, lies

    def as_json(self) -> dict[str, object]:
        """Return the document of --json."""
        return {
            "context": self.context.name,
            "seconds": self.seconds or None,
            "topics": flows.as_json(self.topics, self.seconds),
            "unheard": [each.name for each in flows.unheard(self.topics)],
            "unfed": [each.name for each in flows.unfed(self.topics)],
            "lies": [*self.lies],
        }

    def lines(self) -> list[str]:
        """Return a table, and a line for each finding."""
        lines = render.table(_HEAD, [self._row(*each) for each in self._pairs()])
        if not self.topics:
            lines = ["no task names a topic" + (", and no message came" if self.seconds else "")]
        within = f" (no message came within {self.seconds:g} s)" if self.seconds else ""
        for topic in flows.unheard(self.topics):
            lines.append(f"{topic.name} has no subscriber")
        for topic in flows.unfed(self.topics):
            lines.append(f"{topic.name} has no publisher{within}")
        return [*lines, *self.lies]

    def _pairs(self) -> list[tuple[Topic, flows.Sender | None]]:
        return [(topic, sender) for topic in self.topics for sender in topic.senders or (None,)]

    def _row(self, topic: Topic, sender: flows.Sender | None) -> list[str]:
        # A Command has a process beside it that subscribes to the expected topics.
        others = WATCHED if topic.expected else "other clients" if topic.subscribed else "-"
        hearers = ", ".join(topic.hearers) or others
        source = "-" if sender is None else sender.task or "other clients"
        if sender is None or not sender.count or not self.seconds:
            return [topic.name, source, hearers, "-", "-"]
        return [topic.name, source, hearers, f"{sender.count / self.seconds:.1f}", str(sender.size)]


def _view(args: argparse.Namespace) -> View:
    what = args.what
    if what is not None and (what.endswith(".xml") or "/" in what):
        return _of_file(what)
    places = choose(what or args.context, args.transaction)
    try:
        status = _status(places, args)
    except NotRunningError:
        return _of_file(str(places.config_file))
    context = reader.load(status.file or places.config_file)
    known = declared(context)
    if not (span := SPAN if args.span is None else args.span):
        return View(context, flows.topics_of(known))
    curve = curve_of(status, places.name)
    subscriptions = _subscriptions(status.publish_endpoint, curve)
    traffic = Traffic(args.transaction or "")
    seconds = _listen(status.subscribe_endpoint, curve, traffic, span)
    lies = traffic.lies(_tasks(status), _tasks(_status(places, args)))
    return View(context, flows.topics_of(known, traffic, subscriptions), seconds=seconds, lies=lies)


def _of_file(file: str) -> View:
    context = reader.load(file)
    return View(context, flows.topics_of(declared(context)))


def _status(places: Places, args: argparse.Namespace) -> ContextStatus:
    return ContextStatus(Client(places, args.timeout, patience=PATIENCE).ask("status"))


def _tasks(status: ContextStatus) -> dict[tuple[str, str], Running]:
    return {
        (each.id, task.id): Running(launch=task.launch, process=task.pid is not None)
        for each in status.transactions
        for task in each.tasks
    }


def _subscriptions(endpoint: str, curve: Curve | None) -> tuple[bytes, ...]:
    """Return the prefixes that the device has subscriptions to. It sends them to each publisher."""
    with sockets.context() as ctx, sockets.publisher(ctx, endpoint, curve) as socket:
        publisher = sockets.Publisher(socket)
        publisher.expect_subscription(sockets.SENTINEL)
        until = time.monotonic() + PATIENCE
        while not publisher.has_expected_subscription(sockets.SENTINEL):
            left = until - time.monotonic()
            if left <= 0:
                if curve is None and refusal.refused(endpoint, b"PUB"):
                    raise CtlError(5, str(refusal.refusal(endpoint)))
                raise CtlError(5, f"cannot reach {endpoint}: {publisher.progress()}")
            sockets.is_readable(socket, max(1, round(left * 1000)))
        return publisher.known


def _listen(endpoint: str, curve: Curve | None, traffic: Traffic, span: float) -> float:
    """Count what comes within a time, or until Ctrl-C. Return the seconds."""
    with sockets.context() as ctx, closing(BusListener(ctx, endpoint, [b""], curve)) as listener:
        begun = time.monotonic()
        try:
            while (left := begun + span - time.monotonic()) > 0:
                frame = listener.next(begun + span)
                while frame is not None and left > 0:
                    traffic.add(frame)
                    left = begun + span - time.monotonic()
                    frame = _waiting(listener.socket)
        except KeyboardInterrupt:
            pass  # The messages until now are shown.
        return time.monotonic() - begun


def _waiting(socket: sockets.Socket) -> bytes | None:
    try:
        return socket.recv(zmq.DONTWAIT)
    except zmq.Again:
        return None
