"""scripts/conf_command.py: the zmicroservices 1.0 flags become one message, which is sent. What a message looks like is core's."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import string
import time
from collections.abc import Mapping, Sequence
from typing import Any

from zmsvc.core import messages
from zmsvc.core.access import BUS
from zmsvc.core.errors import ConfigError, ProtocolError, UsageError, ZmsvcError
from zmsvc.core.messages import Body
from zmsvc.core.model import TRANSACTION_ID, Context
from zmsvc.ctl import identity, terminal
from zmsvc.ctl.fields import CONTEXT_ID
from zmsvc.host import config, sockets
from zmsvc.host.keys import Curve

ACTIONS = {"context": BUS["context"], "all": BUS["context"], "process": BUS["process"], "state": BUS["state"]}
"""What can be asked, by --service_name."""
OPTIONS = ("open_connections", "opened_files", "memory_maps")
PATIENCE = 5.0
"""Seconds for a context to be there and hear us, and to get a reply."""
_AGAIN_MS = 500
"""A reply can be lost when the device does not know our subscription yet; then the question is asked again."""

_DESCRIPTION = """\
Sends a message to a context. It returns when the device of the context has the message; what became of an order is told on the
bus (see display.py). `zmsvcctl` does the same and says what came of it."""

_EPILOG = """\
--service_name says what is sent, and to which topic:
  context   an order to the context. `start` carries the whole --context_file, or of its tasks those of --task_id;
            the others carry no tasks, which means all, or those of --task_id
  all       the same under the other name
  process   an order to the tasks of --task_id, or else to the one of --service_id
  state     a question: `request` for the picture of a transaction, `top` for its tasks' use of the machine.
            The reply is awaited and printed when it is known where replies come out: from --context_file,
            or from --wait with --sub_endpoint; else it is seen with display.py

A context that is just being started, or whose supervisor is being replaced, is waited for until --timeout.

exit status: 0 sent (and replied), 1 no context hears it, 2 usage or bad file, 4 no such task in the file,
5 the endpoint cannot be reached, 124 no reply in time"""


class NoTaskError(UsageError):
    """A task that the context file does not have."""


def parser() -> argparse.ArgumentParser:
    """The flags of the manual."""
    p = argparse.ArgumentParser(
        prog="conf_command.py", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--endpoint", metavar="URL", help="where everyone publishes, tcp://127.0.0.1:5557 (default: that of --context_file)")
    p.add_argument("--context_file", metavar="FILE", help="the context file")
    p.add_argument("--service_name", choices=tuple(ACTIONS), required=True, help="who is meant, see below")
    p.add_argument("--service_id", metavar="ID", help=f"the ContextID, or the task's id (default: of the file, or {CONTEXT_ID})")
    p.add_argument("--transaction", metavar="ID", help="the transaction; `start` without one makes an ID and prints it")
    p.add_argument("--action", choices=sorted({each for some in ACTIONS.values() for each in some}), required=True, help="what is asked")
    p.add_argument("--use_file", action="store_true", help="send the tasks of --task_id as --context_file has them; both are needed")
    p.add_argument("--task_id", action="append", metavar="ID[,ID]", help="only these tasks; may be given again")
    for name in OPTIONS:
        p.add_argument(f"--{name}", action="store_true", help="with `top`: this too")
    p.add_argument("--wait", action="store_true", help="wait for the reply to a question")
    p.add_argument("--sub_endpoint", metavar="URL", help="where replies come out (default: that of --context_file)")
    p.add_argument("--keys", metavar="DIR", help="the CURVE keys to connect with (default: those of the context)")
    p.add_argument("--timeout", type=float, default=PATIENCE, metavar="SECONDS", help=f"wait no longer (default: {PATIENCE:g})")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Build the message, send it, and print the reply where one is awaited. Returns the exit status."""
    args = parser().parse_args(argv)
    try:
        context = config.load(args.context_file) if args.context_file else None
        check(args, context)
        if not args.transaction and args.action == "start":
            args.transaction = "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(20))
            terminal.say(f"+ Starting transaction [{args.transaction}]")
        endpoint = args.endpoint or (context.endpoints.backend if context else "")
        replies = args.sub_endpoint or (context.endpoints.frontend if context else "")
        place = next((each for each in (endpoint, replies) if each.startswith("tcp://")), "")
        curve = identity.of_endpoint(place, args.keys, context.name if context else None)
        for topic, body in bodies(args, context):
            frame = messages.encode(topic, body)
            terminal.say(f"+ Connecting endpoint [{endpoint}] in topic [{topic}]")
            # The e is the manual's.
            terminal.say(f"+ Sending message of [{len(frame)}e] bytes")
            if topic == "state" and replies:
                code = _ask(endpoint, replies, frame, args, curve)
            else:
                code = _send(endpoint, frame, topic, args.timeout, curve)
            if code:
                return code
    except BrokenPipeError:
        # Whoever read us has seen enough. Python must not complain at its own end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except ConfigError as error:
        terminal.say_error("\n".join(error.faults))
        return 2
    except UsageError as error:
        terminal.say_error(f"conf_command.py: {error}")
        return 4 if isinstance(error, NoTaskError) else 2
    except ZmsvcError as error:
        terminal.say_error(f"conf_command.py: {error}")
        return 5
    return 0


def check(args: argparse.Namespace, context: Context | None) -> None:
    """Raise UsageError with everything that the flags lack or contradict, NoTaskError for unknown tasks."""
    wrong = []
    if args.action not in ACTIONS[args.service_name]:
        wrong.append(f"--action {args.action} is not for --service_name {args.service_name}, use {' or '.join(ACTIONS[args.service_name])}")
    if not args.endpoint and context is None:
        wrong.append("give --endpoint, or --context_file that has it")
    if args.transaction and not TRANSACTION_ID.fullmatch(args.transaction):
        wrong.append(f"--transaction {args.transaction!r} is no ID, use 1 to 64 of A-Z a-z 0-9 _ . -")
    if not args.transaction and (args.service_name == "process" or (args.service_name, args.action) in _NEED_TRANSACTION):
        wrong.append("give --transaction")
    if args.use_file and (context is None or not (args.task_id or args.service_name == "all")):
        wrong.append("--use_file needs --context_file and --task_id")
    if args.service_name == "process" and not (_tasks(args) or args.service_id):
        wrong.append("give --task_id, the tasks that are meant")
    if args.wait and args.service_name != "state":
        wrong.append("--wait is for questions, with --service_name state")
    if args.wait and not args.sub_endpoint and context is None:
        wrong.append("--wait needs --sub_endpoint, or --context_file that has it")
    if wrong:
        raise UsageError(f"cannot send: {'; '.join(wrong)}")
    unknown = [task for task in _meant(args) if context is not None and task not in context.tasks]
    if unknown:
        raise NoTaskError(f"cannot {args.action} {', '.join(unknown)}: no such task in {args.context_file}")


_NEED_TRANSACTION = {("context", "stop"), ("context", "restart"), ("state", "request"), ("state", "top")}


def bodies(args: argparse.Namespace, context: Context | None) -> list[tuple[str, Body]]:
    """Topic and body of each message that the flags ask for: one, or with `process` one for each task."""
    if args.service_name == "process":
        return [("process", _process(args, context, task)) for task in _meant(args)]
    own = "" if args.service_name == "state" else context.id if context else CONTEXT_ID
    head = messages.header(
        transaction=args.transaction or "", service_id=args.service_id or own, action=args.action, service_name=args.service_name
    )
    if args.service_name == "state":
        wanted = {name: 1 for name in OPTIONS if getattr(args, name)}
        return [("state", {"header": head, "content": {"configuration": wanted}})]
    return [("context", {"header": head, "content": {"configuration": _configuration(args, context)}})]


def _configuration(args: argparse.Namespace, context: Context | None) -> Body:
    """The context as JSON, with the tasks that are meant.

    Only `start` sends all of them unasked, as zmicroservices did: to name each task is not the same as to mean the whole
    transaction, because a task that is stopped by name fires its rules.
    """
    source = dict(context.source) if context else {}
    named = _tasks(args)
    services = source.pop("TaskService", [])
    if named:
        have = {service["id"]: service for service in (services if isinstance(services, list) else [services])}
        source["TaskService"] = [have.get(task, {"id": task}) for task in named]
    elif args.action == "start" and services:
        source["TaskService"] = services
    return source


def _process(args: argparse.Namespace, context: Context | None, task: str) -> Body:
    known = context.tasks.get(task) if context else None
    source: Mapping[str, Any] = known.source if known else {"id": task}
    body = messages.process(
        source,
        transaction=args.transaction,
        action=args.action,
        service_id=task,
        service_name=known.service_name if known else "",
        origin="",
    )
    # The origin is a supervisor's mark on its own reports; this is an order.
    del body["header"]["origin"]
    return body


def _tasks(args: argparse.Namespace) -> list[str]:
    """The ids of --task_id, which may be repeated and may hold several with commas."""
    ids = [task.strip() for text in args.task_id or () for task in text.split(",")]
    return list(dict.fromkeys(task for task in ids if task))


def _meant(args: argparse.Namespace) -> list[str]:
    """The tasks that the flags name."""
    return _tasks(args) or ([args.service_id] if args.service_name == "process" else [])


def _send(endpoint: str, frame: bytes, topic: str, timeout_s: float, curve: Curve | None) -> int:
    """Send when the context hears: one that is just being started has a device before it has a supervisor, which would miss this."""
    if sockets.send_once(endpoint, frame, timeout_s, curve, presence=messages.UNHEARD):
        return 0
    terminal.say_error(f"conf_command.py: cannot deliver: no context at {endpoint} hears [{topic}] within {timeout_s:g} s")
    return 1


def _ask(endpoint: str, replies: str, frame: bytes, args: argparse.Namespace, curve: Curve | None) -> int:
    """Send a question and print the reply."""
    until = time.monotonic() + args.timeout
    zmq_context = sockets.context()
    heard = sockets.subscriber(zmq_context, replies, [messages.prefix("state")], curve)
    try:
        while True:
            if code := _send(endpoint, frame, "state", max(1.0, until - time.monotonic()), curve):
                return code
            asked_ms = round(time.monotonic() * 1000)
            while (left := min(asked_ms + _AGAIN_MS, round(until * 1000)) - round(time.monotonic() * 1000)) > 0:
                if heard.poll(left) and (reply := _reply(heard.recv(), args)) is not None:
                    terminal.say(json.dumps(reply, indent=2))
                    return 0
            if time.monotonic() >= until:
                terminal.say_error(f"conf_command.py: no reply within {args.timeout:g} s: is there a transaction {args.transaction}?")
                return 124
    finally:
        heard.close(0)
        zmq_context.term()


def _reply(frame: bytes, args: argparse.Namespace) -> Body | None:
    """The reply to our question, or None when it is another message."""
    try:
        _, body = messages.decode(frame)
    except ProtocolError:
        return None
    wanted = "reply_top" if args.action == "top" else "reply_context"
    head = body.get("header", {})
    ours = not args.transaction or head.get("service_transaction") == args.transaction
    return body if ours and head.get("action") == wanted else None


def announcement(file: str) -> list[str]:
    """What scripts/service_context.py says first: what the context waits for. Raises ConfigError."""
    context = config.load(file)
    return [
        f"{context.log_name}| Context [{context.name}] of file: {context.path}",
        f"{context.log_name}| It starts nothing by itself, but resumes what was open when it ended. To start a transaction:",
        f"{context.log_name}|   conf_command.py --endpoint='{context.endpoints.backend}' --context_file='{file}' --service_name='context'"
        f" --service_id='{context.id}' --transaction='ID' --action='start'",
        f"{context.log_name}|   or: zmsvcctl -c {context.name} start",
    ]
