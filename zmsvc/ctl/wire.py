"""The verbs on the bus: watch prints every message, send publishes one."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime

from zmsvc.core import messages
from zmsvc.core.errors import ProtocolError
from zmsvc.ctl.client import Client, CtlError, choose


def watch(args: argparse.Namespace) -> int:
    """watch: a line for every message, as it comes."""
    # Imported here for start-up time: of all verbs only these two need ZMQ.
    from zmsvc.host import sockets

    data = Client(choose(args.context, args.transaction), args.timeout).ask("status")["data"]
    prefixes = [messages.prefix(topic) for topic in args.topic or ()] or [b""]
    heard = sockets.subscriber(sockets.context(), data["frontend"], prefixes)
    shown = 0
    while args.count is None or shown < args.count:
        frame = heard.recv()
        try:
            topic, body = messages.decode(frame)
        except ProtocolError:
            topic, body = "?", {"frame": frame.decode(errors="replace")}
        if args.transaction and body.get("header", {}).get("service_transaction") != args.transaction:
            continue
        if args.json:
            print(json.dumps({"topic": topic, "body": body}), flush=True)
        else:
            print(f"{datetime.now():%H:%M:%S.%f}"[:12], topic, messages.dumps(body), flush=True)
        shown += 1
    return 0


def send(args: argparse.Namespace) -> int:
    """send: publish one message; done when the device has it."""
    # Imported here for start-up time: of all verbs only these two need ZMQ.
    from zmsvc.host import courier

    text = sys.stdin.read() if args.message in (None, "-") else args.message
    try:
        body = json.loads(text)
    except ValueError as error:
        raise CtlError(2, f"cannot send: the message is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise CtlError(2, "cannot send: the message is not a JSON object")
    data = Client(choose(args.context, None), args.timeout).ask("status")["data"]
    frame = messages.encode(args.topic, body)
    if not courier.send_once(data["backend"], frame, args.timeout or 5.0):
        print(f"zmsvcctl: the device has it, but nobody is subscribed to {args.topic}", file=sys.stderr)
    return 0
