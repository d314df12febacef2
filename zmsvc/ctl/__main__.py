"""`zmsvcctl`: the parser of the command line, and the exit status. Verbs and arguments are in verb_table.py;
the module of a verb is imported only when the verb is used.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys

from zmsvc import __version__
from zmsvc.core.errors import ConfigError, UsageError, ZmsvcError, reason
from zmsvc.ctl import terminal
from zmsvc.ctl.verb_table import EPILOG, GLOBAL, HIDDEN, VERBS, VerbEntry
from zmsvc.host.python import libraries

TYPE_CHECKING = False  # As in client.py: an import of typing is too slow.
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

PROGRAM = "zmsvcctl"


class _Help(argparse.RawDescriptionHelpFormatter):
    """A formatter with a fixed width: argparse makes one for each argument, and each would ask shutil for the
    width.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=max(40, terminal.columns() - 2))


class _Parser(argparse.ArgumentParser):
    """A parser that complains in one line, which names --help."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=_Help, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: -"):
            # Imported here for start-up time: most options are right.
            from zmsvc.ctl import suggestions

            message += suggestions.option_hint(
                message.split()[2], [flag for action in self._actions for flag in action.option_strings]
            )
        terminal.complain(f"cannot understand the command: {message} (see {self.prog} --help)")
        raise SystemExit(2)


def _parser_before(verbs: Sequence[VerbEntry]) -> argparse.ArgumentParser:
    """Return the parser of the words before the verb."""
    about = "\n".join(f"  {each.name:<13} {each.about}" for each in verbs)
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


def _parser_after(verb: VerbEntry) -> argparse.ArgumentParser:
    """Return the parser of the words after the verb. Making the parsers of all verbs would take longer than
    the answer.
    """
    parser = _Parser(prog=f"{PROGRAM} {verb.name}", description=f"{verb.about[:1].upper()}{verb.about[1:]}.")
    for option in GLOBAL:
        # The default of an option after the verb must not replace its value before the verb.
        hidden = {} if verb.understands(option) else {"help": argparse.SUPPRESS}
        option.add_to(parser, default=argparse.SUPPRESS, **hidden)
    for option in verb.options:
        option.add_to(parser)
    if verb.own_arguments:
        _function(verb, "add_arguments")(parser)
    return parser


def _function(verb: VerbEntry, name: str | None = None) -> Callable[..., Any]:
    # Imported by name for start-up time: a verb needs only its own module.
    module, _, function = verb.function.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(f"zmsvc.ctl.{module}"), name or function)
    return found


def parse(words: list[str], verbs: Sequence[VerbEntry] = VERBS) -> tuple[VerbEntry, argparse.Namespace]:
    """Return the verb and its arguments. Raises SystemExit: 2 after a complaint, 0 after --help."""
    at = _place_of_verb(words)
    before = _parser_before(verbs)
    args = before.parse_args(words[:at])
    if at == len(words):
        before.error("there is no verb")
    verb = next((each for each in (*verbs, *HIDDEN) if each.name == words[at]), None)
    if verb is None:
        # Imported here for start-up time: most verbs are right.
        from zmsvc.ctl import suggestions

        instead = suggestions.hint(words[at], [each.name for each in verbs])
        before.error(f"there is no verb {words[at]!r}{instead and f': {instead}'}")
    args.verb = verb.name
    args.no_triggers = False
    parser = _parser_after(verb)
    positional = sum(option.positional for option in verb.options)
    # argparse expects all positional arguments in a row, unless it is asked to take options between them.
    read = parser.parse_intermixed_args if positional > 1 else parser.parse_args
    return verb, read(_with_times(words[at + 1 :]), args)


def _with_times(words: list[str]) -> list[str]:
    """Join `--since -2h` to one word, as journalctl takes it. argparse would take the second for an
    option.
    """
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in ("--since", "--until", "--at") and re.match(r"-\d", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _place_of_verb(words: list[str]) -> int:
    """Return the index of the first word that is neither an option nor the value of an option."""
    valued = {flag for option in GLOBAL if option.takes_value for flag in option.flags}
    index = 0
    while index < len(words) and words[index].startswith("-"):
        index += 2 if words[index] in valued else 1
    return min(index, len(words))


def main(argv: list[str] | None = None) -> int:
    """Carry out the command line, and return the exit status."""
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


def _run(words: list[str]) -> int:
    verb = args = None
    try:
        if os.environ.get("ZMSVC_LIFELINE") == "stdin":
            # Imported here for start-up time: only an order over ssh needs it.
            from zmsvc.ctl.remote import lifeline

            lifeline.hold()
        libraries.check()
        verb, args = parse(words)
        if args.host:
            # Imported here for start-up time: most orders are for this machine.
            from zmsvc.ctl.remote import command

            return command.run(verb, args)
        return int(_function(verb)(args))
    except SystemExit as end:
        # argparse has written its message and ends.
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        return 130
    except ConfigError as error:
        for fault in error.faults:
            terminal.err(terminal.clean(fault) + "\n")
        return _failed(verb, args, 2, "; ".join(error.faults), {"faults": error.faults})
    except ZmsvcError as error:
        terminal.complain(str(error))
        code = int(getattr(error, "code", 2 if isinstance(error, UsageError) else 1))
        return _failed(verb, args, code, str(error), getattr(error, "data", {}))


def _failed(
    verb: VerbEntry | None, args: argparse.Namespace | None, code: int, error: str, data: dict[str, Any]
) -> int:
    """Return the exit status of a verb that has failed. With --json, print the part that was done, and the
    error.
    """
    if verb is not None and args is not None and args.json and not verb.json_lines:
        # Imported here for start-up time: most verbs do not fail.
        import json

        terminal.out(json.dumps({**data, "error": error, "code": code}) + "\n")
    return code


if __name__ == "__main__":
    # If the reader has gone, EPIPE shows it, not a signal.
    sys.exit(main())
