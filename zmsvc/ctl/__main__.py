"""`zmsvcctl`: the table of verbs, their arguments, and the exit status. Each verb's function is imported when it is used."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

from zmsvc import __version__
from zmsvc.core.errors import ConfigError, ZmsvcError


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One verb: where its function is, what it does in a line, and which arguments it has."""

    name: str
    function: str
    help: str
    arguments: tuple[str, ...] = ()


_MEANT = ("transaction", "task", "tasks")

VERBS = (
    Verb(
        name="start", function="orders.order", help="start tasks; without a transaction in a new one, whose ID is printed", arguments=_MEANT
    ),
    Verb(
        name="stop", function="orders.order", help="stop tasks and all they started, or a transaction", arguments=(*_MEANT, "no_triggers")
    ),
    Verb(name="restart", function="orders.order", help="stop and start again", arguments=(*_MEANT, "no_triggers")),
    Verb(name="reset-failed", function="orders.order", help="forget failures and start limits", arguments=_MEANT),
    Verb(name="status", function="show.status", help="show context, transactions and tasks", arguments=("transaction", "tasks")),
    Verb(name="list", function="show.contexts", help="show contexts, known and running"),
    Verb(name="logs", function="logs.logs", help="show the log", arguments=("transaction", "tasks", "follow", "lines")),
    Verb(name="events", function="show.events", help="show the lifecycle history", arguments=("transaction", "tasks", "follow", "lines")),
    Verb(name="watch", function="wire.watch", help="print every message on the bus", arguments=("transaction", "topic", "count")),
    Verb(name="send", function="wire.send", help="publish a message: JSON from the command line or standard input", arguments=("message",)),
    Verb(name="check", function="files.check", help="find every fault of context files, and warn", arguments=("files",)),
    Verb(name="graph", function="files.graph", help="draw tasks and rules", arguments=("what", "format", "transaction")),
    Verb(name="create", function="scaffold.run", help="make services and their context file", arguments=("create",)),
    Verb(name="reload", function="orders.reload", help="read the context file again and change what differs"),
    Verb(name="reexec", function="orders.reexec", help="replace the supervisor, as after an upgrade; tasks run on"),
    Verb(name="exit", function="orders.leave", help="stop all tasks and end the context's daemon"),
)


def _create(parser: argparse.ArgumentParser) -> None:
    # Imported here for start-up time: templates are for `create` only.
    from zmsvc.ctl import scaffold

    scaffold.add_arguments(parser)


ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], object]] = {
    "transaction": lambda p: p.add_argument("--transaction", metavar="ID", help="the transaction that is meant"),
    "task": lambda p: p.add_argument("--task", action="append", metavar="TASK_ID", help="a task that is meant; may be given again"),
    "tasks": lambda p: p.add_argument("tasks", nargs="*", metavar="TASK_ID", help="the tasks that are meant"),
    "no_triggers": lambda p: p.add_argument("--no-triggers", action="store_true", help="fire no rules"),
    "follow": lambda p: p.add_argument("-f", "--follow", action="store_true", help="go on with what comes"),
    "lines": lambda p: p.add_argument("-n", "--lines", type=_positive, metavar="N", help="the last N only"),
    "topic": lambda p: p.add_argument("--topic", action="append", help="only this topic; may be given again"),
    "count": lambda p: p.add_argument("--count", type=_positive, metavar="N", help="end after N messages"),
    "message": lambda p: (p.add_argument("topic"), p.add_argument("message", nargs="?", metavar="JSON|-", help="default: standard input")),
    "files": lambda p: p.add_argument("files", nargs="+", metavar="FILE"),
    "what": lambda p: p.add_argument("what", metavar="FILE|NAME"),
    "format": lambda p: p.add_argument("--format", choices=("dot", "mermaid", "svg"), default="dot"),
    "create": _create,
}


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def _common(parser: argparse.ArgumentParser, *, again: bool) -> None:
    """Options that may stand before or after the verb; after it they do not undo what stood before."""

    def default(value: object) -> object:
        return argparse.SUPPRESS if again else value

    parser.add_argument("-c", "--context", metavar="NAME", default=default(None), help="the context that is meant")
    parser.add_argument("--json", action="store_true", default=default(False), help="answer as JSON")
    parser.add_argument("--no-block", action="store_true", default=default(False), help="do not wait until it is done")
    parser.add_argument("--no-pager", action="store_true", default=default(False), help="do not use a pager")
    parser.add_argument("--timeout", type=_seconds, metavar="SECONDS", default=default(None), help="wait no longer; exit status 124")


def parser(verb: str | None = None) -> argparse.ArgumentParser:
    """The whole command line; with `verb` only its own arguments are made, since making all of them takes longer than the answer."""
    top = argparse.ArgumentParser(prog="zmsvcctl", description="Control the task services of zmsvc contexts.")
    top.add_argument("--version", action="version", version=f"zmsvcctl {__version__}")
    _common(top, again=False)
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for each in VERBS:
        sub = verbs.add_parser(each.name, help=each.help, description=each.help)
        if verb is None or each.name == verb:
            _common(sub, again=True)
            for name in each.arguments:
                ARGUMENTS[name](sub)
            sub.set_defaults(function=each.function, no_triggers=False, task=None)
    return top


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    named = {each.name for each in VERBS}
    args = parser(next((word for word in words if word in named), "")).parse_args(words)
    module, _, function = args.function.partition(".")
    try:
        code = int(getattr(importlib.import_module(f"zmsvc.ctl.{module}"), function)(args))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read us has seen enough. Python must not complain at its own end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except KeyboardInterrupt:
        return 130
    except ConfigError as error:
        print("\n".join(error.faults), file=sys.stderr)
        return 2
    except ZmsvcError as error:
        print(f"zmsvcctl: {error}", file=sys.stderr)
        return int(getattr(error, "code", 1))


if __name__ == "__main__":
    sys.exit(main())
