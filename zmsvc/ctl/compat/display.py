"""scripts/display.py: prints the messages on a bus, those of a Monitor as a table. It never publishes."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import zmq

from zmsvc.core import messages, printable
from zmsvc.core.errors import ConfigError, ProtocolError, RefusedError, UsageError, reason
from zmsvc.ctl import client_keys, terminal
from zmsvc.host.bus import socket_monitor, socket_options, sockets
from zmsvc.host.bus.refusal import barred, refusal

_LINE = "=" * 72
_COLUMNS = (
    ("TASK", "serviceId"),
    ("PID", "pid"),
    ("STATUS", "status"),
    ("RSS MiB", "rss"),
    ("VMS MiB", "vms"),
    ("MEM %", "percent"),
    ("CPU %", "cpu_percent"),
    ("CHILDREN", "children"),
    ("FILES", "opened_files"),
    ("CONNECTIONS", "connections"),
    ("ACTION", "action"),
    ("STATE", "state"),
)
"""Headings and keys of the table for a `monitor` message."""


def parser() -> argparse.ArgumentParser:
    """Return a parser with the flags of the old display, and flags that select messages."""
    p = argparse.ArgumentParser(prog="display.py", description="Shows the messages on a bus, until Ctrl-C.")
    p.add_argument("addresses", nargs="*", metavar="URL", help="as --endpoint")
    p.add_argument(
        "--endpoint",
        action="append",
        default=[],
        metavar="URL",
        help="where to subscribe (the sub_port); may be repeated",
    )
    p.add_argument("--topic", action="append", metavar="TOPIC", help="only this topic; may be repeated")
    p.add_argument("--transaction", metavar="ID", help="only messages of this transaction")
    p.add_argument("--service_name", metavar="NAME", help="only messages of or to this service")
    p.add_argument("--service_id", metavar="ID", help="only messages of or to this task or context")
    p.add_argument("--action", metavar="WORD", help="only messages with this action")
    p.add_argument(
        "--keys",
        metavar="DIR",
        help="the CURVE keys to connect with (default: those of the context that has the endpoint)",
    )
    p.add_argument("--count", type=int, metavar="N", help="end after N messages")
    p.add_argument("-v", "--verbose", action="store_true", help="show the long context_info messages in full")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Print messages until --count is reached, or the reader has gone. Returns the exit status."""
    args = parser().parse_args(argv)
    endpoints = [*args.endpoint, *(url for text in args.addresses for url in text.split(",") if url)]
    if not endpoints:
        parser().error("give --endpoint='tcp://127.0.0.1:5556', the sub_port of a context")
    try:
        for number, (topic, body) in enumerate(_wanted(endpoints, args), start=1):
            terminal.say(format_message(topic, body, datetime.now(), verbose=args.verbose))
            if number == args.count:
                break
    except BrokenPipeError:
        # The reader has gone. Python's flush at its end must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except KeyboardInterrupt:
        pass
    except (ConfigError, UsageError) as error:
        terminal.say_error(f"display.py: {error}")
        return 2
    except RefusedError as error:
        terminal.say_error(f"display.py: {error}")
        return 5
    except OSError as error:
        terminal.say_error(f"display.py: cannot go on: {reason(error)}")
        return 1
    return 0


def _wanted(endpoints: Sequence[str], args: argparse.Namespace) -> Iterator[tuple[str, messages.Body]]:
    prefixes = [messages.prefix(_topic(text)) for text in args.topic or ()] or [b""]
    context = sockets.context()
    subscriptions: list[TopicSubscription] = []
    poller = zmq.Poller()
    try:
        for endpoint in endpoints:
            terminal.say(f"Connecting to: {endpoint}")
            subscriptions.append(
                TopicSubscription(context, endpoint, prefixes, client_keys.of_endpoint(endpoint, args.keys))
            )
            for each in subscriptions[-1].sockets:
                poller.register(each, zmq.POLLIN)
            subscriptions[-1].connect()
        while True:
            readable = dict(poller.poll())
            for subscription in subscriptions:
                subscription.complain()
                if subscription.socket in readable:
                    topic, body = _read(subscription.socket.recv())
                    if matches(body, args):
                        yield topic, body
    finally:
        for subscription in subscriptions:
            subscription.close()
        context.term()


def _topic(text: str) -> str:
    """Return the text. Raises UsageError if it is too long for a topic."""
    if fault := messages.too_long(text):
        raise UsageError(f"{text[:50]!r}... is not a topic: {fault}")
    return text


class TopicSubscription:
    """A subscriber that reports once if the peer refuses the connection; otherwise the user would wait
    without a message.
    """

    def __init__(
        self, context: sockets.Context, endpoint: str, prefixes: Sequence[bytes], curve: sockets.Curve | None
    ) -> None:
        self._endpoint = endpoint
        self.socket = socket_options.unconnected_subscriber(
            context, prefixes, socket_options.secured(endpoint, curve)
        )
        events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        # With keys, a refusal does not end this command, because the user can allow the key meanwhile.
        # `complain` then reports that the connection has ended.
        self._monitor = socket_monitor.open_monitor(
            self.socket, events if curve else events | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        )
        self.sockets = (self.socket, self._monitor)
        self._settled = False

    def connect(self) -> None:
        if barred(self._endpoint):
            raise refusal(self._endpoint)
        socket_options.connect(self.socket, self._endpoint)

    def complain(self) -> None:
        """Check the events of the connection. libzmq restores a connection that was established once. Raises
        RefusedError.
        """
        for event, _ in socket_monitor.pending_events(self._monitor):
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                raise refusal(self._endpoint)
            if event == zmq.EVENT_DISCONNECTED and not self._settled:
                terminal.say_error(
                    f"display.py: the peer at {self._endpoint} ends the connection: is it the sub_port "
                    f"(the frontend) of a context, "
                    "and are there keys for it, if it requires any (--keys)?"
                )
            self._settled = True

    def close(self) -> None:
        if not self.socket.closed:
            self.socket.disable_monitor()
            self.socket.close(0)
        self._monitor.close(0)


def _read(frame: bytes) -> tuple[str, messages.Body]:
    try:
        return messages.decode(frame)
    except ProtocolError as error:
        return "?", {"error": str(error), "frame": frame.decode(errors="replace")}


def matches(body: Mapping[str, Any], args: argparse.Namespace) -> bool:
    """Return True if a message passes the flags. A message without a header (`monitor`) is selected only by
    its transactions.
    """
    head = _header(body)
    if head is None:
        return not args.transaction or args.transaction in body
    asked = {"service_name": args.service_name, "service_id": args.service_id, "action": args.action}
    transaction = head.get("service_transaction", head.get("transaction"))
    return args.transaction in (None, transaction) and all(
        want in (None, head.get(key)) for key, want in asked.items()
    )


def _header(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the header of a message. Old `process` messages are a task's own configuration, which has the
    header one level deeper.
    """
    task = body.get("Task")
    message = task.get("message") if isinstance(task, Mapping) else None
    deep = message.get("header") if isinstance(message, Mapping) else None
    head = body.get("header", deep)
    return head if isinstance(head, Mapping) else None


def format_message(topic: str, body: Mapping[str, Any], now: datetime, *, verbose: bool) -> str:
    """Format a message with its time, topic and body."""
    return (
        f"{_LINE}\n{now} [{printable.line(topic)}]:\n{printable.lines(_body(topic, body, verbose=verbose))}"
    )


def _body(topic: str, body: Mapping[str, Any], *, verbose: bool) -> str:
    content = body.get("content")
    status = content.get("status") if isinstance(content, Mapping) else None
    if not verbose and isinstance(status, Mapping) and status.get("device_action") == "context_info":
        return "Message with [context_info]"
    if topic == "monitor" and _header(body) is None:
        return "\n".join(_tables(body))
    return json.dumps(body, indent=2, ensure_ascii=False)


def _tables(body: Mapping[str, Any]) -> Iterator[str]:
    for transaction, tasks in body.items():
        if not isinstance(tasks, list):
            yield f"{transaction}: {json.dumps(tasks, ensure_ascii=False)}"
            continue
        rows = [[_cell(task.get(key)) for _, key in _COLUMNS] for task in tasks if isinstance(task, Mapping)]
        table = [[heading for heading, _ in _COLUMNS], *rows]
        widths = [max(len(row[column]) for row in table) for column in range(len(_COLUMNS))]
        yield f"transaction {transaction}"
        yield from (
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        )


def _cell(value: Any) -> str:
    """Format a value for a table: a list as its length, a number with two decimals."""
    match value:
        case None:
            return "-"
        case list() | dict():
            return str(len(value))
        case float():
            return f"{value:.2f}"
    return str(value)
