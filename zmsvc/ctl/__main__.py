"""`zmsvcctl`: the table of verbs and their arguments, and the exit status. A verb's function is imported
when it is used.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys

from zmsvc import __version__
from zmsvc.core.errors import ConfigError, UsageError, ZmsvcError, reason
from zmsvc.ctl import terminal
from zmsvc.host.python import libraries

TYPE_CHECKING = False  # As in client: typing is not worth its import.
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

PROGRAM = "zmsvcctl"


class Option:
    """One argument of a verb: what argparse is told. The completion is made of these, and the manual is
    tested against them.

    `completes` says what a shell offers for its value: `contexts`, `directories`, `files *.xml`, or the words
    themselves. Without it that is `choices`.
    """

    def __init__(self, *flags: str, completes: str = "", **settings: Any) -> None:
        self.flags = flags
        self.settings = settings
        self.completes = completes or " ".join(settings.get("choices", ()))

    def add_to(self, parser: argparse.ArgumentParser, **more: Any) -> None:
        parser.add_argument(*self.flags, **{**self.settings, **more})


class Verb:
    """One verb: the function that does it, as MODULE.FUNCTION in this room, a line about it, and its
    arguments.
    """

    def __init__(self, name: str, function: str, about: str, *options: Option, adds: bool = False) -> None:
        self.name = name
        self.function = function
        self.about = about
        self.options = options
        self.adds = adds
        """Whether its module adds arguments of its own: `add_arguments(parser)`."""


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return int(text)


def _positive(text: str) -> int:
    if not (number := _number(text)):
        raise argparse.ArgumentTypeError("0 is too few")
    return number


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


GLOBAL = (
    Option(
        "-c",
        "--context",
        metavar="NAME",
        completes="contexts",
        help="the context that is meant; without it the only one that runs",
    ),
    Option("--json", action="store_true", help="answer as JSON"),
    Option("--no-block", action="store_true", help="do not wait until an order is carried out"),
    Option("--no-pager", action="store_true", help="do not use a pager"),
    Option(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="wait no longer, and end with 124; 0 is as long as it takes",
    ),
)
"""Options of every verb; they may stand before it too."""

TRANSACTION = Option("--transaction", metavar="ID", help="the transaction that is meant")
TASK = Option(
    "--task", action="append", default=[], metavar="TASK_ID", help="a task that is meant; may be given again"
)
TASKS = Option("tasks", nargs="*", default=[], metavar="TASK_ID", help="a task that is meant")
NO_TRIGGERS = Option("--no-triggers", action="store_true", help="fire no rules")
FOLLOW = Option("-f", "--follow", action="store_true", help="go on with what comes")
LINES = Option("-n", "--lines", type=_number, metavar="N", help="show the last N only")
LEVELS = "emerg alert crit err warning notice info debug"
MEANT = (TRANSACTION, TASK, TASKS)
ENDPOINT = Option(
    "--endpoint",
    metavar="URL",
    help="the endpoint of a context on another machine; -c says whose keys are used",
)
KEYS = Option(
    "--keys",
    metavar="DIR",
    completes="directories",
    help="with --endpoint: the CURVE keys to connect with, where they are not the context's",
)

VERBS = (
    Verb(
        "start",
        "verbs.orders.order",
        "start tasks; without an ID in a new transaction, whose ID is printed",
        *MEANT,
    ),
    Verb(
        "stop",
        "verbs.orders.order",
        "stop tasks with all that they started, or whole transactions",
        *MEANT,
        NO_TRIGGERS,
    ),
    Verb("restart", "verbs.orders.order", "stop tasks and start them again", *MEANT, NO_TRIGGERS),
    Verb("status", "verbs.status.status", "show the context, its transactions and tasks", *MEANT, LINES),
    Verb(
        "top",
        "verbs.top.top",
        "show what tasks use of the machine, again and again",
        *MEANT,
        Option(
            "--sort", choices=("cpu", "rss", "pid", "id", "restarts"), default="cpu", help="what to sort by"
        ),
        Option(
            "--interval", type=_seconds, default=2.0, metavar="SECONDS", help="the time between two pictures"
        ),
        Option("--once", action="store_true", help="print one picture, as where no terminal is"),
    ),
    Verb("list", "verbs.status.contexts", "show contexts, known and running"),
    Verb(
        "logs",
        "verbs.logs.logs",
        "show the log of a context, a transaction or tasks",
        *MEANT,
        FOLLOW,
        LINES,
        Option(
            "-o",
            "--output",
            metavar="FORMAT",
            completes="$(journalctl --output=help 2>/dev/null)",
            help="the format, as journalctl has them",
        ),
        Option(
            "--since",
            metavar="TIME",
            completes="today yesterday",
            help="show what is not older, such as '-2h', 'yesterday' or '2026-11-29 10:00'",
        ),
        Option("--until", metavar="TIME", completes="today yesterday", help="show what is not newer"),
        Option(
            "-p",
            "--priority",
            metavar="LEVEL",
            completes=LEVELS,
            help="show what is as bad as this (err, 3) or lies between two (err..info)",
        ),
        Option("-g", "--grep", metavar="PATTERN", help="show what has this regular expression in its text"),
        Option("-r", "--reverse", action="store_true", help="show the newest first"),
        Option("--show-query", action="store_true", help="print the command that finds the same, and end"),
    ),
    Verb(
        "events", "verbs.events.events", "show the history of what happened to tasks", *MEANT, FOLLOW, LINES
    ),
    Verb(
        "watch",
        "verbs.bus.watch",
        "print every message on the bus",
        TRANSACTION,
        Option(
            "--topic",
            action="append",
            default=[],
            metavar="TOPIC",
            completes="context control monitor process state",
            help="only messages of this topic; may be given again",
        ),
        Option("--count", type=_positive, metavar="N", help="end after N messages"),
        ENDPOINT,
        KEYS,
    ),
    Verb(
        "send",
        "verbs.bus.send",
        "publish a message, done when the device has it",
        Option("topic", metavar="TOPIC", help="the message's topic"),
        Option("message", nargs="?", metavar="JSON|-", help="the message; - or nothing: from standard input"),
        ENDPOINT,
        KEYS,
    ),
    Verb(
        "check",
        "verbs.check.check",
        "find all faults of context files, and warn",
        Option("files", nargs="+", metavar="FILE", completes="files *.xml", help="a context file"),
    ),
    Verb(
        "graph",
        "verbs.check.graph",
        "draw tasks and rules, with their states if the context runs",
        TRANSACTION,
        Option(
            "what",
            metavar="FILE|NAME",
            completes="files *.xml",
            help="a context file, or the name of a context",
        ),
        Option(
            "--format",
            choices=("dot", "mermaid", "svg"),
            default="dot",
            help="the language of the drawing; svg needs graphviz",
        ),
    ),
    Verb(
        "keys",
        "verbs.keys.run",
        "show CURVE keys, make them, and say who may connect",
        Option(
            "action",
            nargs="?",
            choices=("list", "make", "join", "allow", "revoke"),
            default="list",
            metavar="list|make|join|allow|revoke",
            help="what to do; without it, list",
        ),
        Option(
            "what",
            nargs="?",
            metavar="DIR|FILE|CLIENT",
            completes="files *.key",
            help="make: a new directory, for a client elsewhere; join: the server's public key file, on a "
            "machine that only connects; "
            "allow: a public key file; revoke: the name of a client",
        ),
        Option("--now", action="store_true", help="revoke: end the connections that are open, too"),
    ),
    Verb(
        "units",
        "verbs.units.run",
        "print the systemd units with the paths of this installation, or install them",
        Option("--user", action="store_true", help="the unit of a user's own service manager"),
        Option("--install", action="store_true", help="put them where systemd looks for them"),
    ),
    Verb("create", "create.command.run", "make services and their context file", adds=True),
    Verb("exit", "verbs.orders.leave", "stop all tasks and end the context's daemon"),
    Verb("reload", "verbs.orders.reload", "read the context file again, and change what differs"),
    Verb(
        "reset-failed",
        "verbs.orders.order",
        "forget failures, and the start limits that they reached",
        *MEANT,
    ),
    Verb(
        "forget",
        "verbs.orders.order",
        "forget stopped transactions, which can then no longer be started again",
        TRANSACTION,
    ),
    Verb("reexec", "verbs.orders.reexec", "replace the supervisor, as after an upgrade; tasks go on"),
)

EPILOG = """\
Exit status: 0 done (status: all active), 1 the order failed, 2 usage or bad file, 3 status: not active,
4 no such context, transaction or task, 5 cannot reach the supervisor, 124 timed out.
"""


class _Help(argparse.RawDescriptionHelpFormatter):
    """argparse makes one for every argument, and each would ask shutil for the width."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=max(40, terminal.columns() - 2))


class _Parser(argparse.ArgumentParser):
    """Complains in one line, and says where to read on."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=_Help, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: -"):
            # Imported here for start-up time: most options are there.
            from zmsvc.ctl import suggestions

            message += suggestions.option_hint(
                message.split()[2], [flag for action in self._actions for flag in action.option_strings]
            )
        terminal.complain(f"cannot understand the command: {message} (see {self.prog} --help)")
        raise SystemExit(2)


def _parser(verb: Verb | None) -> argparse.ArgumentParser:
    """The parser of what stands before the verb, or of what stands after it. All of them at once would
    take longer than the answer.
    """
    if verb is None:
        about = "\n".join(f"  {each.name:<13} {each.about}" for each in VERBS)
        parser = _Parser(
            prog=PROGRAM,
            usage=f"{PROGRAM} [OPTION]... VERB [ARGUMENT]...",
            description="Control the task services of zmsvc contexts.",
            epilog=f"verbs:\n{about}\n\n{EPILOG}",
        )
        parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
        for option in GLOBAL:
            option.add_to(parser)
        return parser
    parser = _Parser(prog=f"{PROGRAM} {verb.name}", description=f"{verb.about.capitalize()}.")
    for option in GLOBAL:
        # What stands before the verb is not undone by what does not stand after it.
        option.add_to(parser, default=argparse.SUPPRESS)
    for option in verb.options:
        option.add_to(parser)
    if verb.adds:
        _function(verb, "add_arguments")(parser)
    return parser


def _function(verb: Verb, name: str | None = None) -> Callable[..., Any]:
    # Imported by name for start-up time: each verb needs its own module only.
    module, _, function = verb.function.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(f"zmsvc.ctl.{module}"), name or function)
    return found


def parse(words: list[str]) -> tuple[Verb, argparse.Namespace]:
    """The verb and its arguments. Raises SystemExit, with 2 after a complaint or 0 after --help."""
    at = _place_of_verb(words)
    top = _parser(None)
    args = top.parse_args(words[:at])
    if at == len(words):
        top.error("there is no verb")
    verb = next((each for each in VERBS if each.name == words[at]), None)
    if verb is None:
        # Imported here for start-up time: most verbs are there.
        from zmsvc.ctl import suggestions

        instead = suggestions.hint(words[at], [each.name for each in VERBS])
        top.error(f"there is no verb {words[at]!r}{instead and f': {instead}'}")
    args.verb = verb.name
    args.no_triggers = False
    parser = _parser(verb)
    positional = sum(not flag.startswith("-") for option in verb.options for flag in option.flags)
    # argparse takes all words of a verb at once, unless it is told that options may stand between them.
    read = parser.parse_intermixed_args if positional > 1 else parser.parse_args
    return verb, read(_with_times(words[at + 1 :]), args)


def _with_times(words: list[str]) -> list[str]:
    """Join `--since -2h` to one word, as journalctl takes it: argparse would look for options in the
    second.
    """
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in ("--since", "--until") and re.match(r"-\d", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _place_of_verb(words: list[str]) -> int:
    """The index of the first word that is neither an option nor the value of one."""
    valued = {flag for option in GLOBAL if "metavar" in option.settings for flag in option.flags}
    index = 0
    while index < len(words) and words[index].startswith("-"):
        index += 2 if words[index] in valued else 1
    return min(index, len(words))


def main(argv: list[str] | None = None) -> int:
    """Do what the command line says; the exit status."""
    terminal.prepare()
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        terminal.silence()
        return 0
    except OSError as error:
        terminal.silence()
        terminal.complain(f"cannot go on: {reason(error)}")
        return 1
    return code


_A_LINE_EACH = ("logs", "events", "watch")
"""Verbs whose JSON is a line for each entry: one that is none would be taken for an entry."""


def _run(words: list[str]) -> int:
    args = None
    try:
        libraries.check()
        verb, args = parse(words)
        return int(_function(verb)(args))
    except SystemExit as end:
        # argparse's way to say that it has said all.
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        return 130
    except ConfigError as error:
        for fault in error.faults:
            terminal.err(terminal.clean(fault) + "\n")
        return _failed(args, 2, "; ".join(error.faults), {"faults": error.faults})
    except ZmsvcError as error:
        terminal.complain(str(error))
        code = int(getattr(error, "code", 2 if isinstance(error, UsageError) else 1))
        return _failed(args, code, str(error), getattr(error, "data", {}))


def _failed(args: argparse.Namespace | None, code: int, error: str, data: dict[str, Any]) -> int:
    """Return the exit status of a verb that has failed; with --json, answer with what it did do and why
    that was not all.
    """
    if args is not None and args.json and args.verb not in _A_LINE_EACH:
        # Imported here for start-up time: most verbs do not fail.
        import json

        terminal.out(json.dumps({**data, "error": error, "code": code}) + "\n")
    return code


if __name__ == "__main__":
    # A reader that has gone is told by the system call, not by a signal.
    sys.exit(main())
