"""The verb quarantine: lists and shows the messages that tasks could not handle, publishes them again, or
drops them.

A supervisor answers. Of a context that does not run, the state file has them.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from zmsvc.core import messages, poison
from zmsvc.core.errors import ProtocolError
from zmsvc.ctl import terminal
from zmsvc.ctl.client import Client, CtlError, NotRunningError
from zmsvc.ctl.select_context import choose

if TYPE_CHECKING:
    from zmsvc.ctl.client import Json


def run(args: argparse.Namespace) -> int:
    """quarantine: list, show, send or drop."""
    if args.all and (args.action != "drop" or args.what):
        raise CtlError(2, "cannot understand the command: --all is for quarantine drop without numbers")
    if args.action == "list":
        return _list(args)
    numbers = [_number(text) for text in args.what]
    if not numbers and not args.all:
        raise CtlError(
            2, f"cannot understand the command: quarantine {args.action} needs the ID of a message"
        )
    if args.action == "drop":
        return _drop(args, numbers)
    found = [_message(args, number) for number in numbers]
    if args.action == "send":
        return _send(args, found)
    if args.json:
        terminal.out(json.dumps({"messages": found}) + "\n")
    else:
        terminal.out("\n".join(map(_shown, found)))
    return 0


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 19):
        raise CtlError(2, f"cannot understand the command: {text!r} is not the ID of a message (a number)")
    return int(text)


def _list(args: argparse.Namespace) -> int:
    found = _asked(args, transaction=args.transaction, tasks=args.what)
    if args.json:
        terminal.out(json.dumps(found) + "\n")
        return 0
    rows = found.get("messages")
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    if not rows:
        terminal.out("No message is in the quarantine.\n")
    else:
        terminal.out(_row("ID", "TIME", "TRANSACTION", "TASK", "TOPIC", "SENDER", "NUMBER", "ERROR"))
        for row in rows:
            sequence = row.get("sequence")
            terminal.out(
                _row(
                    *(str(row.get(name) or "-") for name in ("id", "at", "transaction", "task", "topic")),
                    str(row.get("sender") or "-"),
                    "-" if sequence is None else str(sequence),
                    str(row.get("error") or "-"),
                )
            )
    lost = found.get("lost")
    for task, count in lost.items() if isinstance(lost, dict) else ():
        terminal.out(terminal.clean(f"{count} more of {task} are lost: there were too many") + "\n")
    return 0


def _row(number: str, at: str, *cells: str) -> str:
    """Lay out one row. The widths are guesses that are nearly always right."""
    shown = (number, at[:19].replace("T", " "), *cells)
    widths = (5, 19, 20, 12, 14, 12, 8, 0)
    laid = (terminal.clean(cell).ljust(width) for cell, width in zip(shown, widths, strict=True))
    return "  ".join(laid).rstrip() + "\n"


def _asked(args: argparse.Namespace, **request: Any) -> Json:
    """Return the answer of the supervisor, or of the state file if none runs."""
    places = choose(args.context, None)
    try:
        return Client(places, args.timeout).ask("quarantine", **request)
    except NotRunningError:
        # Imported here for start-up time: usually a supervisor answers.
        from zmsvc.ctl import state_file_reader

        if not state_file_reader.exists(places.state_file):
            raise
        found = state_file_reader.quarantined(places.state_file, **request)
        terminal.complain(state_file_reader.note(places))
        return found


def _message(args: argparse.Namespace, number: int) -> Json:
    return _asked(args, number=number)


def _shown(message: Json) -> str:
    lines = [
        f"{name}: {message.get(key)}"
        for name, key in (
            ("Message", "id"),
            ("Time", "at"),
            ("Task", "task"),
            ("Transaction", "transaction"),
            ("Topic", "topic"),
            ("Sender", "sender"),
            ("Number", "sequence"),
            ("Bytes", "bytes"),
        )
        if message.get(key) not in (None, "")
    ]
    lines += ["", *str(message.get("traceback") or message.get("error") or "").splitlines(), ""]
    frame = message.get("frame")
    lines += [f"{frame}" if isinstance(frame, str) else "The message itself was too large to be kept."]
    return "".join(f"{terminal.clean(line)}\n" for line in lines)


def _send(args: argparse.Namespace, found: list[Json]) -> int:
    """Publish messages again, each for the task that could not handle it."""
    # Imported here for start-up time: the other actions need no bus.
    from zmsvc.ctl.verbs import bus

    frames = []
    for message in found:
        frame, task = message.get("frame"), message.get("task")
        if not isinstance(frame, str) or not isinstance(task, str):
            raise CtlError(1, f"cannot send message {message.get('id')}: it was too large to be kept")
        try:
            frames.append(poison.republished(frame, task, args.transaction))
        except (ProtocolError, UnicodeError) as error:
            raise CtlError(1, f"cannot send message {message.get('id')}: {error}") from None
    status, curve = bus.context(args)
    quiet = argparse.Namespace(**{**vars(args), "json": False})
    for frame in frames:
        topic = frame.partition(messages.SEPARATOR)[0].decode()
        bus.send_frame(quiet, topic, frame, status.publish_endpoint, curve)
    if args.json:
        terminal.out(json.dumps({"sent": [message.get("id") for message in found]}) + "\n")
    return 0


def _drop(args: argparse.Namespace, numbers: list[int]) -> int:
    places = choose(args.context, None)
    numbered = {} if args.all else {"numbers": numbers}
    found = Client(places, args.timeout).ask("quarantine-drop", **numbered)
    if args.json:
        terminal.out(json.dumps(found) + "\n")
    return 0
