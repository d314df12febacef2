"""scripts/conf_command.py: builds a message from the flags of zmicroservices 1.0, and sends it. core has the
format of messages.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from zmsvc.core import messages
from zmsvc.core.access import BUS
from zmsvc.core.errors import ConfigError, ProtocolError, UsageError, ZmsvcError, reason
from zmsvc.core.messages import Body
from zmsvc.core.model import TRANSACTION_ID, Context
from zmsvc.ctl import client_keys, terminal
from zmsvc.host import ids
from zmsvc.host.bus import sockets
from zmsvc.host.bus.curve_keys import Curve
from zmsvc.host.config import reader

ACTIONS = {"context": BUS["context"], "all": BUS["context"], "process": BUS["process"], "state": BUS["state"]}
"""The actions for each --service_name."""
OPTIONS = ("open_connections", "opened_files", "memory_maps")
REPORTS = ("started", "updated", "stopped", "failed", "exited")
"""The reports of a service on the topic control. With --topic=control the command sends one in the name of a
service, to test the subscribers.
"""
ALL = "all"
"""A --task_id that means every task of the file."""
PATIENCE = 5.0
"""Seconds to wait for a context that receives the message, and for a reply."""
_AGAIN_MS = 500
"""Milliseconds after which a question is repeated: its reply is lost if the device does not know the
subscription yet.
"""

_DESCRIPTION = """\
Sends a message to a context. It returns when the device of the context has the message; the outcome of an
order is published on the bus (see display.py). `zmsvcctl` does the same and prints the outcome."""

_EPILOG = """\
--service_name says what is sent, and to which topic:
  context   an order to the context. `start` contains the whole --context_file, or only its tasks of
            --task_id; the other orders contain no tasks, which means all, or those of --task_id
  all       the same under another name
  process   an order to the tasks of --task_id, or else to the one of --service_id
  NAME      any other name: the same, to a service of this name; with --topic=control a report in its name,
            with --action (updated), --result and --device_action
  state     a question: `request` for the state of a transaction, `top` for CPU and memory of its tasks.
            With --context_file, or with --wait and --sub_endpoint, the command waits for the reply and
            prints it; otherwise use display.py

If a context is just being started, or its supervisor is being replaced, the command waits for --timeout.

exit status: 0 sent (and replied), 1 no context receives it, 2 usage or bad file, 4 no such task in the
file, 5 the endpoint cannot be reached, 124 no reply in time"""


class NoTaskError(UsageError):
    """A task that the context file does not have."""


def _add_message_flags(p: argparse.ArgumentParser) -> None:
    actions = [*sorted({each for some in ACTIONS.values() for each in some}), *REPORTS]
    p.add_argument(
        "--service_name",
        metavar="NAME",
        required=True,
        help=f"the service: {', '.join(ACTIONS)} or another, see below",
    )
    p.add_argument(
        "--service_id",
        metavar="ID",
        help="the ContextID, or the task's id (default: that of the file, or none, which means any)",
    )
    p.add_argument(
        "--transaction", metavar="ID", help="the transaction; `start` without one makes an ID and prints it"
    )
    p.add_argument(
        "--action",
        choices=actions,
        required=True,
        help="the action to order, or with --topic=control to report",
    )
    topics = ("context", "process", "control", "state")
    p.add_argument("--topic", choices=topics, help="the topic (default: that of --service_name)")
    p.add_argument(
        "--use_file",
        action="store_true",
        help="send the tasks of --task_id as --context_file has them, else all of them",
    )
    p.add_argument(
        "--task_id",
        action="append",
        metavar="ID[,ID]",
        help=f"only these tasks; {ALL} or the ContextID: all of them",
    )
    p.add_argument(
        "--device_action",
        default="none",
        metavar="WORD",
        help="with --topic=control: the device action of the report",
    )
    p.add_argument(
        "--result",
        default="success",
        metavar="WORD",
        help="with --topic=control: its result (default: success)",
    )


def _add_monitoring(p: argparse.ArgumentParser) -> None:
    for name in OPTIONS:
        p.add_argument(f"--{name}", action="store_true", help="with `top`: include these figures")
        use = "with `top`: also send the three below; they start nothing (use a Monitor task)"
    p.add_argument("--use_service", action="store_true", help=use)
    p.add_argument("--service_type", default="pub", metavar="TYPE", help="pub or rep")
    p.add_argument(
        "--service_freq", type=float, default=1.0, metavar="SECONDS", help="seconds between two messages"
    )
    p.add_argument("--service_endpoint", default="", metavar="URL", help="where to publish")


def parser() -> argparse.ArgumentParser:
    """Return a parser with the flags of the manual of zmicroservices 1.0."""
    form = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(
        prog="conf_command.py", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=form
    )
    p.add_argument(
        "--endpoint",
        metavar="URL",
        help="where everyone publishes, tcp://127.0.0.1:5557 (default: that of --context_file)",
    )
    p.add_argument("--context_file", metavar="FILE", help="the context file")
    _add_message_flags(p)
    _add_monitoring(p)
    p.add_argument("--wait", action="store_true", help="wait for the reply to a question")
    p.add_argument(
        "--sub_endpoint", metavar="URL", help="where replies come out (default: that of --context_file)"
    )
    p.add_argument(
        "--keys", metavar="DIR", help="the CURVE keys to connect with (default: those of the context)"
    )
    p.add_argument(
        "--timeout",
        type=float,
        default=PATIENCE,
        metavar="SECONDS",
        help=f"wait no longer (default: {PATIENCE:g})",
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Build the message, send it, and print the reply where one is awaited. Returns the exit status."""
    args = parser().parse_args(argv)
    try:
        context = reader.load(args.context_file) if args.context_file else None
        check(args, context)
        for warning in warnings(args, context):
            terminal.say_error(f"conf_command.py: warning: {warning}")
        if not args.transaction and args.action == "start":
            args.transaction = ids.transaction_id()
            terminal.say(f"+ Starting transaction [{args.transaction}]")
        endpoint = args.endpoint or (context.endpoints.publish_endpoint if context else "")
        replies = args.sub_endpoint or (context.endpoints.subscribe_endpoint if context else "")
        place = next((each for each in (endpoint, replies) if each.startswith("tcp://")), "")
        curve = client_keys.of_endpoint(place, args.keys, context.name if context else None)
        for topic, body in bodies(args, context):
            frame = messages.encode(topic, body)
            terminal.say(f"+ Connecting endpoint [{endpoint}] in topic [{topic}]")
            # The "e" is in the manual's output.
            terminal.say(f"+ Sending message of [{len(frame)}e] bytes")
            if topic == "state" and replies:
                code = _ask(endpoint, replies, frame, args, curve)
            else:
                code = _send(endpoint, frame, topic, args.timeout, curve)
            if code:
                return code
    except BrokenPipeError:
        # The reader has gone. The flush of Python at its end must not fail, either.
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
    except OSError as error:
        terminal.say_error(f"conf_command.py: cannot go on: {reason(error)}")
        return 1
    return 0


def check(args: argparse.Namespace, context: Context | None) -> None:
    """Raise UsageError with all missing and contradictory flags, NoTaskError for unknown tasks."""
    wrong = []
    topic, possible = _topic(args), _possible(args)
    if args.action not in possible:
        wrong.append(
            f"--action {args.action} is not for --service_name {args.service_name}, use "
            f"{' or '.join(possible)}"
        )
    if args.service_name in ACTIONS and args.topic not in (None, topic, "control"):
        wrong.append(
            f"--topic {args.topic} is not for --service_name {args.service_name}, whose topic is {topic}"
        )
    if not args.endpoint and context is None:
        wrong.append("give --endpoint, or --context_file that has it")
    if args.transaction and not TRANSACTION_ID.fullmatch(args.transaction):
        wrong.append(f"--transaction {args.transaction!r} is not an ID, use 1 to 64 of A-Z a-z 0-9 _ . -")
    if not args.transaction and (
        topic in ("process", "control") or (args.service_name, args.action) in _NEED_TRANSACTION
    ):
        wrong.append("give --transaction")
    if args.use_file and context is None:
        wrong.append("--use_file needs --context_file")
    if topic == "process" and not (_tasks(args, context) or args.service_id or (_all(args) and context)):
        wrong.append("give --task_id, the tasks of the order")
    if topic == "control" and not args.service_id:
        wrong.append("give --service_id, the task that reports")
    if args.wait and args.service_name != "state":
        wrong.append("--wait is for questions, with --service_name state")
    if args.wait and not args.sub_endpoint and context is None:
        wrong.append("--wait needs --sub_endpoint, or --context_file that has it")
    if wrong:
        raise UsageError(f"cannot send: {'; '.join(wrong)}")
    unknown = [
        task for task in _selected_tasks(args, context) if context is not None and not context.named(task)
    ]
    if unknown:
        raise NoTaskError(f"cannot {args.action} {', '.join(unknown)}: no such task in {args.context_file}")


_NEED_TRANSACTION = {("context", "stop"), ("context", "restart"), ("state", "request"), ("state", "top")}


def bodies(args: argparse.Namespace, context: Context | None) -> list[tuple[str, Body]]:
    """Return topic and body of each message. There is one message, except with `process`: then there is one
    for each task.
    """
    topic = _topic(args)
    if topic == "process":
        return [("process", _process(args, context, task)) for task in _selected_tasks(args, context)]
    own = "" if topic == "state" else context.id if context else messages.LOADED[1]
    # As in zmicroservices 1.0, if tasks of the file are sent, its ContextID is the service_id.
    named = own if args.use_file and topic == "context" else args.service_id or own
    head = messages.header(
        transaction=args.transaction or "",
        service_id=named,
        action=args.action,
        service_name=args.service_name,
    )
    if topic == "control":
        return [
            (
                "control",
                {
                    "header": head,
                    "content": {"status": {"result": args.result, "device_action": args.device_action}},
                },
            )
        ]
    if topic == "state":
        wanted: Body = {name: 1 for name in OPTIONS if getattr(args, name)}
        if args.use_service:
            wanted["service"] = {
                "type": args.service_type,
                "frequency_s": args.service_freq,
                "endpoint": args.service_endpoint,
            }
        return [("state", {"header": head, "content": {"configuration": wanted}})]
    return [("context", {"header": head, "content": {"configuration": _configuration(args, context)}})]


def _topic(args: argparse.Namespace) -> str:
    """Return the topic that the flags select."""
    if args.topic == "control":
        return "control"
    return {"context": "context", ALL: "context", "state": "state"}.get(
        args.service_name, args.topic or "process"
    )


def _possible(args: argparse.Namespace) -> Sequence[str]:
    """Return the actions that go with --service_name and --topic."""
    topic = _topic(args)
    return REPORTS if topic == "control" else ACTIONS.get(args.service_name, ACTIONS.get(topic, ()))


def warnings(args: argparse.Namespace, context: Context | None) -> list[str]:
    """Return a line for each flag whose effect the user may not expect."""
    found = []
    given = args.service_id
    if (
        _topic(args) == "context"
        and context is not None
        and not args.use_file
        and given
        and given not in (context.id, *messages.LOADED)
    ):
        found.append(
            f"the ContextID of {args.context_file} is {context.id}: its context refuses an order for {given}"
        )
    if args.use_service:
        found.append(
            "--use_service starts no service: add a Monitor task to the context file, which publishes at an "
            "endpoint"
        )
    return found


def _configuration(args: argparse.Namespace, context: Context | None) -> Body:
    """Return the context as JSON, with the selected tasks.

    Only `start` sends all tasks by default, as zmicroservices did. A message that names every task differs
    from an order to the whole transaction: a task that is stopped by name fires its rules.
    """
    source = dict(context.source) if context else {}
    named = _tasks(args, context)
    sends_all = args.action == "start" or (args.use_file and args.action != "exit")
    services = source.pop("TaskService", [])
    if named:
        have = {
            service["id"]: service for service in (services if isinstance(services, list) else [services])
        }
        source["TaskService"] = [have.get(task, {"id": task}) for task in named]
    elif sends_all and services:
        source["TaskService"] = services
    return source


def _process(args: argparse.Namespace, context: Context | None, task: str) -> Body:
    known = context.tasks.get(task) or context.as_written.get(task) if context else None
    source: Mapping[str, Any] = known.source if known else {"id": task}
    body = messages.process(
        source,
        transaction=args.transaction,
        action=args.action,
        service_id=task,
        service_name=known.service_name
        if known
        else ""
        if args.service_name == "process"
        else args.service_name,
        origin="",
    )
    # An order has no `origin`. Only a supervisor writes one into its reports, by which it recognizes them.
    del body["header"]["origin"]
    return body


def _tasks(args: argparse.Namespace, context: Context | None) -> list[str]:
    """Return the tasks of --task_id; an empty list means all tasks. The flag may be repeated, and one flag
    may name several tasks with commas between them.

    The ContextID among the tasks means all tasks. `exit` is always for all tasks; in zmicroservices 1.0 it
    has `--task_id=context001`.
    """
    ids = list(
        dict.fromkeys(task.strip() for text in args.task_id or () for task in text.split(",") if task.strip())
    )
    whole = ALL in ids or (context is not None and context.id in ids and not context.named(context.id))
    return [] if whole or args.action == "exit" else ids


def _all(args: argparse.Namespace) -> bool:
    """Return True if the flags select every task of the file."""
    return args.use_file or any(ALL in text.split(",") for text in args.task_id or ())


def _selected_tasks(args: argparse.Namespace, context: Context | None) -> list[str]:
    """Return the tasks that the flags select."""
    if named := _tasks(args, context):
        return named
    if _topic(args) != "process":
        return []
    return [*context.as_written] if context and _all(args) else [args.service_id]


def _send(endpoint: str, frame: bytes, topic: str, timeout_s: float, curve: Curve | None) -> int:
    """Send the message when the supervisor has subscribed. A context that is starting has a device before it
    has a supervisor, and without this wait the message would be lost.
    """
    if sockets.send_once(endpoint, frame, timeout_s, curve, presence=messages.UNHEARD_ORDERS):
        return 0
    if topic == "control":
        # As in zmicroservices 1.0, a report needs no subscriber.
        terminal.say_error(f"conf_command.py: nobody is subscribed to [{topic}] at {endpoint}")
        return 0
    terminal.say_error(
        f"conf_command.py: cannot deliver: no context at {endpoint} hears [{topic}] within {timeout_s:g} s"
    )
    return 1


def _ask(endpoint: str, replies: str, frame: bytes, args: argparse.Namespace, curve: Curve | None) -> int:
    """Send a question and print the reply."""
    until = time.monotonic() + args.timeout
    zmq_context = sockets.context()
    replies_socket = sockets.subscriber(zmq_context, replies, [messages.prefix("state")], curve)
    try:
        while True:
            if code := _send(endpoint, frame, "state", max(1.0, until - time.monotonic()), curve):
                return code
            asked_ms = round(time.monotonic() * 1000)
            while (
                left := min(asked_ms + _AGAIN_MS, round(until * 1000)) - round(time.monotonic() * 1000)
            ) > 0:
                if replies_socket.poll(left) and (reply := _reply(replies_socket.recv(), args)) is not None:
                    terminal.say(json.dumps(reply, indent=2))
                    return 0
            if time.monotonic() >= until:
                terminal.say_error(
                    f"conf_command.py: no reply within {args.timeout:g} s: is there a transaction "
                    f"{args.transaction}?"
                )
                return 124
    finally:
        replies_socket.close(0)
        zmq_context.term()


def _reply(frame: bytes, args: argparse.Namespace) -> Body | None:
    """Return the body if the message is the reply to this question, else None."""
    try:
        _, body = messages.decode(frame)
    except ProtocolError:
        return None
    wanted = "reply_top" if args.action == "top" else "reply_context"
    head = body.get("header", {})
    ours = not args.transaction or head.get("service_transaction") == args.transaction
    return body if ours and head.get("action") == wanted else None


def announcement(file: str) -> list[str]:
    """Return the first lines of scripts/service_context.py: the command that the context waits for. Raises
    ConfigError.
    """
    context = reader.load(file)
    return [
        f"{context.log_name}| Context [{context.name}] of file: {context.path}",
        f"{context.log_name}| It starts nothing by itself, but resumes transactions that were open when it "
        f"ended. To start a transaction:",
        f"{context.log_name}|   conf_command.py --endpoint='{context.endpoints.publish_endpoint}' "
        f"--context_file='{file}' --service_name='context'"
        f" --service_id='{context.id}' --transaction='ID' --action='start'",
        f"{context.log_name}|   or: zmsvcctl -c {context.name} start",
    ]
