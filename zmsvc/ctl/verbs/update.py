"""The verb `update`: report a result of the task to which this process belongs."""

from __future__ import annotations

import argparse
import json
import os
import select
import time
from typing import Any

from zmsvc.core import updates
from zmsvc.ctl import terminal
from zmsvc.ctl.client import CtlError
from zmsvc.host.systemd.notify import Notifier

PATIENCE = 5.0
"""Seconds in which a supervisor has to save the result."""


def update(args: argparse.Namespace) -> int:
    """Report a result, and wait until the supervisor has saved what follows from it."""
    task, address = os.environ.get("ZMSVC_TASK"), os.environ.get("NOTIFY_SOCKET")
    if not task or not address:
        missing = "NOTIFY_SOCKET" if task else "ZMSVC_TASK"
        raise CtlError(
            2,
            f"cannot update: this process belongs to no task ({missing} is not set); zmsvcctl reload reads "
            "the context file again",
        )
    if not args.items:
        raise CtlError(
            2, "cannot update: no KEY=VALUE is given; zmsvcctl reload reads the context file again"
        )
    items = parsed(args.items)
    try:
        text = updates.as_json(items)
        report(Notifier(address), text, args.timeout)
    except (TypeError, ValueError) as error:
        raise CtlError(2, str(error)) from None
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise CtlError(5, f"cannot update: {address} cannot be reached: {why}") from None
    if args.json:
        terminal.out(json.dumps({"task": task, "items": items}) + "\n")
    return 0


def parsed(words: list[str]) -> dict[str, Any]:
    """Return the items of KEY=VALUE. Raises CtlError."""
    items: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise CtlError(2, f"cannot update: {word!r} is not an item, expected KEY=VALUE")
        if key in items:
            raise CtlError(2, f"cannot update: {key} is given twice, expected one value for each key")
        items[key] = _value(value)
    return items


def _value(text: str) -> Any:
    """Return the value of a JSON text, and any other text as it is."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value


def report(notifier: Notifier, text: str, timeout: float | None, patience: float = PATIENCE) -> None:
    """Report a result, and wait until it is saved: for `timeout` seconds, or for `patience` seconds without a
    timeout. Raises CtlError.
    """
    limit = timeout or patience
    until = time.monotonic() + limit
    # The supervisor closes the other end when it has saved the result.
    end, barrier = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            while not notifier.update(text, barrier=barrier):
                _await(notifier.fileno(), select.POLLOUT, until, limit, 124 if timeout else 5)
        finally:
            os.close(barrier)
        _await(end, select.POLLIN, until, limit, 124 if timeout else 5)
    finally:
        os.close(end)
        notifier.close()


def _await(fd: int, event: int, until: float, limit: float, code: int) -> None:
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
        raise CtlError(code, f"cannot update: the supervisor has not saved the result within {limit:g} s")
