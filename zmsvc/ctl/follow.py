"""The verbs of what happens: events from the history, watch on the bus, and send, which adds to it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from zmsvc.core import history, messages
from zmsvc.core.errors import ConfigError, ProtocolError, RefusedError, UsageError, ZmsvcError
from zmsvc.ctl import terminal
from zmsvc.ctl.client import MAX_DROPS, Client, CtlError, DroppedError, NotRunningError
from zmsvc.ctl.select_context import choose
from zmsvc.ctl.status_reply import ContextStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from zmsvc.ctl.client import Json
    from zmsvc.ctl.subscriber import Listener
    from zmsvc.host.bus.curve_keys import Curve
    from zmsvc.host.paths import Places

PATIENCE = 25.0
"""Seconds that a supervisor has to say where the device is."""
FOLLOW = 1000
"""Rows of history that are shown of a context that does not run, as a supervisor gives them."""
_FIRST_MS = 100
"""Milliseconds of silence after which `watch` asks whether it is heard out at all."""
SEND_PATIENCE = 5.0
"""Seconds that a device has to take a message."""


# --- events


def events(args: argparse.Namespace) -> int:
    """events: the lifecycle history; with -f also what comes, from whichever supervisor is there."""
    places = choose(args.context, args.transaction)
    client = Client(places, args.timeout)
    request = {"transaction": args.transaction, "tasks": [*args.tasks, *args.task], "follow": args.follow}
    last, drops = 0, 0
    if args.follow and args.lines == 0:
        # Only what comes: what is there now is taken for shown.
        last = max(
            (row["seq"] for row in client.stream("events", limit=1) if isinstance(row.get("seq"), int)),
            default=0,
        )
    if not args.json:
        terminal.out(_row("TIME", "TRANSACTION", "TASK", "EVENT", "DETAIL") + "\n", flush=args.follow)
    while True:
        try:
            # After a drop the history is read again; what was shown already is known by its number.
            for row in client.stream("events", **request, limit=args.lines if not last else None):
                seq = row.get("seq")
                if not isinstance(seq, int) or seq <= last:
                    continue
                last, drops = seq, 0
                terminal.out((json.dumps(row) if args.json else event(row)) + "\n", flush=args.follow)
            if not last:
                _complain_of_nothing(args, places)
            return 0
        except NotRunningError:
            if last or args.follow or not _of_the_past(args, places):
                raise
            return 0
        except DroppedError:
            drops += 1
            if not args.follow or drops > MAX_DROPS:
                raise
        except KeyboardInterrupt:
            return 0  # That is how one ends it.


def _of_the_past(args: argparse.Namespace, places: Places) -> bool:
    """Show the history of a context that does not run: after a start that failed nothing else tells it.
    False where there is none.
    """
    # Imported here for start-up time: most of the time a supervisor answers.
    from zmsvc.ctl import state_file

    if not state_file.exists(places.state_file):
        return False
    tasks = [*args.tasks, *args.task]
    limit = FOLLOW if args.lines is None else args.lines
    rows = state_file.events(places.state_file, transaction=args.transaction, tasks=tasks, limit=limit)
    terminal.complain(state_file.note(places))
    if not rows:
        _complain_of_nothing(args, places)
    for row in rows:
        terminal.out((json.dumps(row) if args.json else event(row)) + "\n")
    return True


def _complain_of_nothing(args: argparse.Namespace, places: Places) -> None:
    """Say that the history has nothing of what was named: most often the name is wrong."""
    if named := " ".join([*([args.transaction] if args.transaction else []), *args.tasks, *args.task]):
        terminal.complain(
            f"the history of {places.name} has no event of {named} (zmsvcctl -c {places.name} status)"
        )


def event(row: Json) -> str:
    """One line of history."""
    at = str(row.get("at", ""))[:23].replace("T", " ")
    return _row(
        at,
        str(row.get("transaction") or "-"),
        str(row.get("task") or "-"),
        str(row.get("event", "")),
        _detail(row.get("detail")),
    )


def _row(*cells: str) -> str:
    """The widths are guesses that are nearly always right: the rows to come are not known yet."""
    return "  ".join(
        terminal.clean(cell).ljust(width) for cell, width in zip(cells, (23, 20, 12, 10, 0), strict=True)
    ).rstrip()


def _detail(detail: Any) -> str:
    """`reason=exited pid=12`; a cause in its few words."""
    if not isinstance(detail, dict):
        return ""
    shown = history.words(detail)
    cause = detail.get("cause")
    if isinstance(cause, dict):
        shown |= {name: str(cause[name]) for name in ("by", "uid") if cause.get(name) is not None}
        sources = cause.get("sources")
        named = [each for each in sources if isinstance(each, dict)] if isinstance(sources, list) else []
        shown |= (
            {"after": ",".join(f"{each.get('task')}:{each.get('trigger')}" for each in named)}
            if named
            else {}
        )
    return history.line(shown)


# --- the bus


def watch(args: argparse.Namespace) -> int:
    """watch: a line for every message, as it comes. Ctrl-C ends it."""
    # Imported here for start-up time: events is in this module too, and needs no ZMQ.
    import zmq

    # For the same reason.
    from zmsvc.ctl import subscriber

    # For the same reason.
    from zmsvc.host.bus import refusal, sockets

    until = time.monotonic() + args.timeout if args.timeout else None
    frontend, curve = _bus(args, lambda it: it.frontend)
    prefixes = [messages.prefix(topic) for topic in args.topic] or [b""]
    try:
        with sockets.context() as ctx, sockets.subscriber(ctx, frontend, prefixes, curve) as heard:
            if curve is None and not heard.poll(_FIRST_MS) and refusal.refused(frontend, b"SUB"):
                raise CtlError(5, str(refusal.refusal(frontend)))
            with closing(subscriber.Listener(heard, frontend, keys=curve is not None)) as ear:
                _print(ear, args, until)
    except KeyboardInterrupt:
        return 0  # That is how one ends it.
    except zmq.ZMQError as error:
        raise CtlError(5, f"cannot listen at {frontend}: {str(error).lower()}") from None
    return 0


def _print(ear: Listener, args: argparse.Namespace, until: float | None) -> None:
    """Print the messages that are wanted, as many as are asked for. Raises CtlError, 124 when there are
    fewer by that monotonic time.
    """
    count = 0
    while args.count is None or count < args.count:
        frame = ear.next(until)
        if frame is None:
            raise CtlError(124, f"timed out: {count} messages within {args.timeout:g} s")
        line = message(frame, args)
        if line is not None:
            terminal.out(line + "\n", flush=True)
            count += 1


def message(frame: bytes, args: argparse.Namespace) -> str | None:
    """A frame of the bus as a line; None when it is of another transaction than the one asked for. What is
    no message is shown raw.
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
    """send: publish one message; done when the device has it."""
    frame = messages.encode(_topic(args.topic), _body(args.message))
    backend, curve = _bus(args, lambda it: it.backend)
    # Imported here for start-up time: what cannot be sent is refused without ZMQ.
    from zmsvc.host.bus import sockets

    try:
        # A supervisor that is being replaced in this moment would miss an order, and will be there in the
        # next.
        presence = messages.UNHEARD if args.topic in messages.TOPICS else b""
        wanted = sockets.send_once(backend, frame, args.timeout or SEND_PATIENCE, curve, presence=presence)
    except UsageError:
        raise  # It is too large, which is nobody's fault on the other side.
    except RefusedError as error:
        raise CtlError(5, str(error)) from None
    except ZmsvcError as error:
        raise CtlError(124 if args.timeout else 5, str(error)) from None
    if args.json:
        terminal.out(json.dumps({"topic": args.topic, "bytes": len(frame), "wanted": wanted}) + "\n")
    if not wanted:
        terminal.complain(f"nobody is subscribed to {args.topic}: the device has nobody to pass it on to")
    return 0


def _bus(args: argparse.Namespace, endpoint: Callable[[ContextStatus], str]) -> tuple[str, Curve | None]:
    """Return where to connect, and the keys for it: at a context of this machine, or at the endpoint that
    was given.
    """
    if args.endpoint is None:
        if args.keys is not None:
            raise CtlError(2, "cannot understand the command: --keys is for --endpoint")
        it, curve = _context(args)
        return endpoint(it), curve
    # Imported here for start-up time: a context of this machine tells its endpoints.
    from zmsvc.core import values

    # For the same reason.
    from zmsvc.ctl import client_keys

    try:
        place = values.endpoint(args.endpoint, bind=False)
        curve = client_keys.of_endpoint(args.endpoint, args.keys, args.context)
        if curve is None and not place.local:
            # Without keys no context can be reached from another machine, and libzmq would try for ever.
            curve = client_keys.needed(args.context or "NAME")
    except ValueError as error:
        raise CtlError(2, f"cannot connect: {error}") from None
    except ConfigError as error:
        raise CtlError(5, str(error)) from None
    return args.endpoint, curve


def _context(args: argparse.Namespace) -> tuple[ContextStatus, Curve | None]:
    """The context that is meant, and the keys to connect with."""
    places = choose(args.context, getattr(args, "transaction", None))
    it = ContextStatus(Client(places, args.timeout, patience=PATIENCE).ask("status"))
    if not it.frontend or not it.backend:
        raise CtlError(
            5, f"cannot understand the supervisor of {places.name}: it does not say where the device is"
        )
    if not it.curve or not any(place.startswith("tcp://") for place in (it.frontend, it.backend)):
        return it, None
    # Imported here for start-up time: most contexts have no keys, and need no XML to find them.
    from zmsvc.ctl import client_keys

    try:
        return it, client_keys.needed(places.name)
    except ConfigError as error:
        raise CtlError(5, str(error)) from None


def _topic(topic: str) -> str:
    if not topic.strip() or not topic.isprintable() or messages.SEPARATOR.decode().strip() in topic:
        raise CtlError(2, f"cannot send: {topic!r} is no topic (printable, not empty, without @@@)")
    return topic


def _body(text: str | None) -> dict[str, Any]:
    if text in (None, "-"):
        text = sys.stdin.read() if sys.stdin is not None else ""
    try:
        body = json.loads(text or "", parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise CtlError(2, f"cannot send: the message is not JSON: {error}") from None
    if not isinstance(body, dict) or not isinstance(body.get("header", {}), dict):
        raise CtlError(
            2,
            'cannot send: the message is not a JSON object with an object as "header", as in {"header": '
            '{}, "content": {}}',
        )
    return body


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
