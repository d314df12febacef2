"""The verbs of the bus: `watch` prints its messages, `send` publishes one, `publish` one of a task."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zmsvc.core import access, messages
from zmsvc.core.errors import ConfigError, ProtocolError, RefusedError, UsageError, ZmsvcError
from zmsvc.ctl import status_source, terminal
from zmsvc.ctl.client import Client, CtlError
from zmsvc.ctl.select_context import choose
from zmsvc.ctl.status_reply import ContextStatus
from zmsvc.host.bus import curve_keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from zmsvc.ctl.subscriber import BusListener
    from zmsvc.host.bus.curve_keys import Curve

SEND_PATIENCE = 5.0
"""Seconds in which the device has to take a message."""
FIRST_MS = 100
"""Milliseconds without a message after which `watch` checks that the device lets it subscribe."""


def watch(args: argparse.Namespace) -> int:
    """Print a line for each message when it comes. Ctrl-C ends it."""
    # Imported here for start-up time: `send` refuses what cannot be sent without ZMQ.
    import zmq

    # For the same reason.
    from zmsvc.ctl import subscriber

    # For the same reason.
    from zmsvc.host.bus import refusal, sockets

    prefixes = [messages.prefix(_of_length(topic, "watch")) for topic in args.topic] or [b""]
    until = time.monotonic() + args.timeout if args.timeout else None
    subscribe_endpoint, curve = _bus(args, lambda status: status.subscribe_endpoint)
    try:
        with (
            sockets.context() as ctx,
            closing(subscriber.BusListener(ctx, subscribe_endpoint, prefixes, curve)) as listener,
        ):
            waits = curve is None and not listener.socket.poll(FIRST_MS)
            if waits and refusal.refused(subscribe_endpoint, b"SUB"):
                raise CtlError(5, str(refusal.refusal(subscribe_endpoint)))
            _print(listener, args, until)
    except KeyboardInterrupt:
        return 0  # Ctrl-C is the way to end it.
    except zmq.ZMQError as error:
        raise CtlError(5, f"cannot listen at {subscribe_endpoint}: {str(error).lower()}") from None
    return 0


def _print(listener: BusListener, args: argparse.Namespace, until: float | None) -> None:
    """Print the selected messages, at most --count. Raises CtlError 124 if fewer have come at the monotonic
    time `until`.
    """
    count = 0
    while args.count is None or count < args.count:
        frame = listener.next(until)
        if frame is None:
            raise CtlError(124, f"timed out: {count} messages within {args.timeout:g} s")
        line = message(frame, args)
        if line is not None:
            terminal.out(line + "\n", flush=True)
            count += 1


def message(frame: bytes, args: argparse.Namespace) -> str | None:
    """Return a frame of the bus as a line; None if it belongs to another transaction than --transaction. A
    frame that is not a message is shown raw.
    """
    try:
        topic, body = messages.decode(frame)
    except ProtocolError:
        topic, body = "?", {"frame": frame.decode(errors="backslashreplace")}
    head = body.get("header", {})
    if args.transaction and args.transaction not in (
        head.get("service_transaction"),
        head.get("transaction"),
    ):
        return None
    if args.json:
        return json.dumps({"topic": topic, "body": body})
    now = time.time()
    return terminal.clean(
        f"{time.strftime('%H:%M:%S', time.localtime(now))}.{int(now * 1000) % 1000:03} {topic} "
        f"{messages.dumps(body)}"
    )


def send(args: argparse.Namespace) -> int:
    """Publish one message, and wait until the device has it."""
    frame = messages.encode(_topic(args.topic), _body(args.message))
    # A supervisor that is just being replaced would miss an order: wait until one has subscribed.
    presence = messages.UNHEARD_ORDERS if args.topic in access.TOPICS else b""
    return send_frame(args, args.topic, frame, *_bus(args, lambda status: status.publish_endpoint), presence)


def publish(args: argparse.Namespace) -> int:
    """Publish a message of the task to which this process belongs, and wait until the device has it."""
    publish_endpoint, keys = os.environ.get("ZMSVC_BACKEND"), os.environ.get("ZMSVC_KEYS")
    if not publish_endpoint:
        raise CtlError(
            2,
            "cannot publish: this process belongs to no task (ZMSVC_BACKEND is not set); zmsvcctl send "
            "publishes from elsewhere",
        )
    head = messages.header(
        transaction=os.environ.get("ZMSVC_TRANSACTION", ""),
        service_id=os.environ.get("ZMSVC_TASK", ""),
        action=messages.PUBLISHED,
        service_name=os.environ.get("ZMSVC_INSTANCE", ""),
    )
    frame = messages.encode(_topic(args.topic), {"header": head, "content": _json(args.message)})
    try:
        curve = curve_keys.load_client(Path(keys)) if keys else None
    except ConfigError as error:
        raise CtlError(5, str(error)) from None
    return send_frame(args, args.topic, frame, publish_endpoint, curve)


def send_frame(
    args: argparse.Namespace,
    topic: str,
    frame: bytes,
    publish_endpoint: str,
    curve: Curve | None,
    presence: bytes = b"",
) -> int:
    """Send one frame, and wait until the device has it."""
    # Imported here for start-up time: a message that cannot be sent is refused without ZMQ.
    from zmsvc.host.bus import sockets

    try:
        wanted = sockets.send_once(
            publish_endpoint, frame, args.timeout or SEND_PATIENCE, curve, presence=presence
        )
    except UsageError:
        raise  # The message is too large, which is a fault of the command line, not of the context.
    except RefusedError as error:
        raise CtlError(5, str(error)) from None
    except ZmsvcError as error:
        raise CtlError(124 if args.timeout else 5, str(error)) from None
    if args.json:
        terminal.out(json.dumps({"topic": topic, "bytes": len(frame), "wanted": wanted}) + "\n")
    if not wanted:
        terminal.complain(f"no subscriber to {topic}: the device has dropped the message")
    return 0


def _bus(args: argparse.Namespace, endpoint: Callable[[ContextStatus], str]) -> tuple[str, Curve | None]:
    """Return the endpoint to connect to, and its keys: those of a context of this machine, or those of
    --endpoint.
    """
    if args.endpoint is None:
        if args.keys is not None:
            raise CtlError(2, "cannot understand the command: --keys is for --endpoint")
        status, curve = context(args)
        return endpoint(status), curve
    # Imported here for start-up time: a context of this machine needs no parser of endpoints.
    from zmsvc.core import values

    # For the same reason.
    from zmsvc.ctl import client_keys

    try:
        place = values.endpoint(args.endpoint, bind=False)
        curve = client_keys.of_endpoint(args.endpoint, args.keys, args.context)
        if curve is None and not place.local:
            # Without keys no context can be reached from another machine, and libzmq would retry for ever.
            curve = client_keys.needed(args.context or "NAME")
    except ValueError as error:
        raise CtlError(2, f"cannot connect: {error}") from None
    except ConfigError as error:
        raise CtlError(5, str(error)) from None
    return args.endpoint, curve


def context(args: argparse.Namespace) -> tuple[ContextStatus, Curve | None]:
    """Return the status of the selected context and the keys to connect with."""
    places = choose(args.context, getattr(args, "transaction", None))
    status = ContextStatus(Client(places, args.timeout, patience=status_source.PATIENCE).ask("status"))
    if not status.subscribe_endpoint or not status.publish_endpoint:
        raise CtlError(
            5,
            f"cannot understand the supervisor of {places.name}: it does not say where the device is (is "
            f"it of another version?)",
        )
    return status, curve_of(status, places.name)


def curve_of(status: ContextStatus, name: str) -> Curve | None:
    """Return the keys to connect with to a context. Raises CtlError."""
    if not status.curve or not any(
        place.startswith("tcp://") for place in (status.subscribe_endpoint, status.publish_endpoint)
    ):
        return None
    # Imported here for start-up time: most contexts have no keys, and their file need not be read.
    from zmsvc.ctl import client_keys

    try:
        return client_keys.needed(name)
    except ConfigError as error:
        raise CtlError(5, str(error)) from None


def _topic(topic: str) -> str:
    if not topic.strip() or not topic.isprintable() or messages.SEPARATOR.decode().strip() in topic:
        raise CtlError(2, f"cannot send: {topic!r} is not a topic (printable, not empty, without @@@)")
    return _of_length(topic, "send")


def _of_length(topic: str, verb: str) -> str:
    if fault := messages.too_long(topic):
        raise CtlError(2, f"cannot {verb}: {topic[:50]!r}... is not a topic: {fault}")
    return topic


def _json(text: str | None) -> Any:
    if text in (None, "-"):
        text = sys.stdin.read() if sys.stdin is not None else ""
    try:
        return json.loads(text or "", parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise CtlError(2, f"cannot send: the message is not JSON: {error}") from None


def _body(text: str | None) -> dict[str, Any]:
    body = _json(text)
    if not isinstance(body, dict) or not isinstance(body.get("header", {}), dict):
        raise CtlError(
            2,
            'cannot send: the message is not a JSON object with an object as "header", as in {"header": '
            '{}, "content": {}}',
        )
    return body


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
