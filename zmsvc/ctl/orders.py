"""The verbs that order something, and wait until it is done."""

from __future__ import annotations

import argparse
import json
import os
import socket
import string
from typing import Any

from zmsvc.ctl.client import Client, CtlError, choose, socket_of


def order(args: argparse.Namespace) -> int:
    """start, stop, restart, reset-failed: say what became of it."""
    name = choose(args.context, args.transaction)
    client = Client(name, args.timeout)
    request: dict[str, Any] = {
        "transaction": args.transaction,
        "tasks": list(args.task or []) + list(getattr(args, "tasks", None) or []),
        "block": not args.no_block,
        "triggers": not args.no_triggers,
        "timeout": args.timeout,
    }
    if args.verb == "start" and args.transaction is None:
        request |= {"transaction": _generated(), "new": True}
    answer = client.ask(args.verb, **request)
    return _tell(args, answer, show_transaction=args.verb == "start" and args.transaction is None)


def _generated() -> str:
    letters = string.ascii_uppercase + string.digits
    # 252 is the largest multiple of 36 in a byte: above it a letter would be likelier than another.
    return "".join(letters[byte % 36] for byte in os.urandom(80) if byte < 252)[:20]


def _tell(args: argparse.Namespace, answer: dict[str, Any], *, show_transaction: bool = False) -> int:
    if args.json:
        print(json.dumps(answer.get("data", {})))
    elif show_transaction and answer["data"].get("transaction"):
        print(answer["data"]["transaction"])
    if not answer["ok"]:
        raise CtlError(answer["code"], answer["error"])
    for entry in answer["data"].get("ended", ()) if not args.json else ():
        how = entry["signal"] or f"status {entry['code']}"
        print(f"{entry['task']}: also ended {entry['name']} ({entry['pid']}): {how}")
    return 0


def leave(args: argparse.Namespace) -> int:
    """exit: done when the daemon is gone, not when it has promised to go."""
    name = choose(args.context, None)
    client = Client(name, args.timeout)
    answers = list(client.stream("exit", block=not args.no_block))
    if answers and not answers[0]["ok"]:
        raise CtlError(answers[0]["code"], answers[0]["error"])
    if not args.no_block:
        _wait_for_end(name, args.timeout)
    return 0


def _wait_for_end(name: str, timeout: float | None) -> None:
    """Until the control socket is closed: a connection that nobody accepts any more is hung up then."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect(socket_of(name))
            while sock.recv(4096):
                pass
        except TimeoutError:
            raise CtlError(124, f"cannot say that {name} has ended: it takes longer") from None
        except OSError:
            return


def reload(args: argparse.Namespace) -> int:
    """reload: what the file's changes changed."""
    answer = Client(choose(args.context, None), args.timeout).ask("reload")
    if answer["ok"] and not args.json:
        told = answer["data"]
        print(", ".join(f"{what}: {' '.join(told[what]) or '-'}" for what in ("added", "removed", "changed")))
    for fault in answer.get("data", {}).get("faults", ()) if not args.json else ():
        print(fault)
    return _tell(args, answer)


def reexec(args: argparse.Namespace) -> int:
    """reexec: a new supervisor; done when it answers."""
    client = Client(choose(args.context, None), args.timeout)
    before = client.ask("status")["data"]["pid"]
    answer = client.ask("reexec")
    if not answer["ok"]:
        raise CtlError(answer["code"], answer["error"])
    after = client.ask("status")["data"]["pid"]
    while after == before:
        # It answers once more while it leaves; the connection after that waits for its successor.
        after = client.ask("status")["data"]["pid"]
    print(f"supervisor {before} was replaced by {after}")
    return 0
