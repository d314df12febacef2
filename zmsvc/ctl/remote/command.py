"""`zmsvcctl -H`: which command runs on the hosts, and how the answers become one."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from zmsvc import __version__
from zmsvc.core import remote_hosts
from zmsvc.core.errors import UsageError
from zmsvc.core.remote_hosts import RemoteHost
from zmsvc.ctl import terminal
from zmsvc.ctl.client import CtlError
from zmsvc.ctl.remote import answers, lifeline, ssh_processes
from zmsvc.ctl.remote.comparison import Comparison
from zmsvc.ctl.remote.ssh_processes import Part, SshEnded, SshProcesses, Told, Why
from zmsvc.ctl.verb_table import GLOBAL, ORDERS, Argument, VerbEntry

PATIENCE = 30.0
"""Seconds in which a host has to answer, at most ten of them to connect."""
PATIENCE_OF_ORDERS = 600.0
"""The same for a verb that waits for tasks, if --timeout does not say how long."""
PATIENCE_OF_MANY = 3600.0
"""The same for `restart --one-by-one`, which waits for one task after the other."""
NOT_SENT = {"host", "host_timeout", "no_pager"}
"""Options of zmsvcctl itself, by the names of their values."""


def run(verb: VerbEntry, args: argparse.Namespace) -> int:
    """Carry out the verb on the hosts of -H, and return the gravest exit status. Raises UsageError if -H
    makes no sense with it.
    """
    hosts = remote_hosts.parse(args.host)
    _refuse(verb, args, len(hosts))
    if _draws(verb, args):
        return _hand_over(verb, args, hosts[0])
    outcome = _Outcome(verb, args, hosts)
    words = [*_environment(), "zmsvcctl", *command_words(verb, outcome.asked)]
    with SshProcesses(seconds=outcome.seconds, longest=outcome.longest) as processes:
        for host in hosts:
            try:
                processes.start(host, words, os.environ)
            except CtlError as error:
                outcome.take(host, error.code, str(error))
        for event in processes.events():
            match event:
                case Part():
                    if why := outcome.answers.take(event.host, event.data):
                        processes.end(event.host, why)
                case Told():
                    outcome.tell(event)
                case SshEnded():
                    outcome.end(event)
        outcome.answers.close()
        number = processes.signal
    return outcome.close(number)


def _draws(verb: VerbEntry, args: argparse.Namespace) -> bool:
    """Return True if the verb draws on the whole terminal and takes keys."""
    return verb.name == "top" and not (args.once or args.json) and terminal.on_terminal()


def _hand_over(verb: VerbEntry, args: argparse.Namespace, host: RemoteHost) -> int:
    """Give the terminal to the verb on the host, and return the exit status."""
    words = [*_looks(), "zmsvcctl", *command_words(verb, args)]
    status = ssh_processes.hand_over(host, words, os.environ)
    if status is None:
        return 130
    if status == remote_hosts.SSH_FAILED or status < 0:
        # The connection is lost, perhaps while `top` showed its table on the second screen.
        terminal.leave_second_screen()
    if status == remote_hosts.SSH_FAILED:
        # ssh has written the cause to the terminal, but the second screen may have hidden it.
        terminal.complain(f"the connection to {host.name} is lost, or ssh could not make it")
    elif why := remote_hosts.reason_of(host, status, ()):
        terminal.complain(why)
    return remote_hosts.code_of(status)


def _refuse(verb: VerbEntry, args: argparse.Namespace, hosts: int) -> None:
    """Raise UsageError if the verb or its arguments are about this machine, or about one machine."""
    why = verb.local
    if verb.name == "metrics" and (args.listen is not None or args.output is not None):
        why = "--listen and --output are about the machine where they run"
    elif verb.name == "send" and args.message in (None, "-"):
        why = "each host needs the message: give it as an argument"
    elif hosts > 1 and _draws(verb, args):
        raise UsageError(
            "cannot use -H with top: it draws the tasks of one machine (name one host; --once prints those "
            "of all)"
        )
    for name in (args.context, getattr(args, "what", None)):
        if isinstance(name, str) and ("/" in name or name.endswith(".xml")):
            why = f"{name} is a file of this machine (name the context)"
    if why:
        raise UsageError(
            f"cannot use -H with {verb.name}: {why}; ssh HOST zmsvcctl {verb.name} runs it there"
        )


def command_words(verb: VerbEntry, args: argparse.Namespace) -> list[str]:
    """Return the words after `zmsvcctl` for the command on the hosts. Options with their defaults are left
    out: an earlier release need not know them.
    """
    words, rest = [verb.name], []
    for option in (*GLOBAL, *verb.options):
        value = getattr(args, _name(option), None)
        unset = value is None or value is False or value == option.settings.get("default")
        if unset or _name(option) in NOT_SENT:
            continue
        values = [str(each) for each in value] if isinstance(value, list) else [str(value)]
        if option.positional:
            rest += values
        elif not option.takes_value:
            words.append(option.flags[-1])
        elif option.flags[-1].startswith("--"):
            # Pass option and value as one word, since the value may begin with a hyphen.
            words += [f"{option.flags[-1]}={each}" for each in values]
        else:
            words += [word for each in values for word in (option.flags[-1], each)]
    if any(each.startswith("-") and each != "-" for each in rest):
        words.append("--")
    return words + rest


def _name(option: Argument) -> str:
    """Return the name of an option's value, as argparse makes it."""
    name = option.settings.get("dest") or next(
        (flag for flag in option.flags if flag.startswith("--")), option.flags[0]
    )
    return str(name).lstrip("-").replace("-", "_")


def _environment() -> list[str]:
    """Return the words that set variables there, for each shell: the output looks as it would here, and ends
    with this zmsvcctl.
    """
    return [*_looks(), f"{lifeline.VARIABLE}=stdin"]


def _looks() -> list[str]:
    style = terminal.style()
    return ["env", f"SYSTEMD_COLORS={int(style.colors)}", f"SYSTEMD_UTF8={int(style.utf8)}"]


def is_stream(verb: VerbEntry, args: argparse.Namespace) -> bool:
    """Return True if the verb goes on until Ctrl-C, and False if its answer has an end."""
    return verb.name == "watch" or bool(getattr(args, "follow", False))


def seconds_of(verb: VerbEntry, args: argparse.Namespace) -> float | None:
    """Return the time limit of each host; None if there is none."""
    if args.host_timeout is not None:
        return float(args.host_timeout) or None
    if args.timeout and not getattr(args, "one_by_one", False):
        return float(args.timeout) + PATIENCE
    if is_stream(verb, args):
        return None
    if getattr(args, "one_by_one", False):
        return PATIENCE_OF_MANY
    if verb.name == "wait" or (verb.waits and not args.no_block):
        return PATIENCE_OF_ORDERS
    # `wiring` listens for so long.
    return PATIENCE + (getattr(args, "span", None) or 0.0)


class _Outcome:
    """The answers of all hosts, and what they come to."""

    def __init__(self, verb: VerbEntry, args: argparse.Namespace, hosts: Sequence[RemoteHost]) -> None:
        self.hosts, self.verb, self.args = hosts, verb, args
        self.seconds = seconds_of(verb, args)
        stream = is_stream(verb, args)
        self.longest = None if stream else remote_hosts.answer_limit(len(hosts))
        self.order = verb.group == ORDERS
        self.codes: dict[RemoteHost, int] = {}
        self.puzzled: list[RemoteHost] = []
        """The hosts whose zmsvcctl does not understand the command."""
        self.asked = args
        """The arguments for the hosts."""
        self.answers: answers.Answers
        self._comparison: Comparison | None = None
        if verb.name == "cluster" and args.action == "check":
            self.answers = self._comparison = Comparison(hosts, as_json=args.json)
            self.asked = argparse.Namespace(**{**vars(args), "json": True})
        elif args.json:
            self.answers = answers.JsonLines(hosts) if verb.json_lines else answers.Documents(hosts)
        elif stream:
            self.answers = answers.Lines(hosts)
        else:
            pages = verb.pages and not args.no_pager
            self.answers = answers.Headings(hosts, order=self.order, pages=pages)

    def tell(self, told: Told) -> None:
        if told.line.startswith(remote_hosts.NOT_UNDERSTOOD) and told.host not in self.puzzled:
            self.puzzled.append(told.host)
        answers.complain(told.host, told.line)

    def end(self, ended: SshEnded) -> None:
        code, error = ssh_processes.code_and_reason(
            ended, seconds=self.seconds, longest=self.longest, order=self.order
        )
        # A user who has pressed Ctrl-C knows why nothing more comes.
        quiet = ended.why is Why.INTERRUPTED and not self.order
        if not self.take(ended.host, code, error, quiet=quiet):
            for line in ended.told:
                answers.complain(ended.host, line)

    def take(self, host: RemoteHost, code: int, error: str | None, *, quiet: bool = False) -> bool:
        """Take the exit status of a host. Return True if its answer did not come from its zmsvcctl."""
        self.codes[host], error = self.answers.end(host, code, error)
        if error is not None and not quiet:
            terminal.complain(error)
        return error is not None

    def close(self, number: int | None) -> int:
        """Report what was done, and return the exit status. `number` is the signal that ended zmsvcctl."""
        self._compare_versions()
        if self.order and len(self.hosts) > 1 and any(self.codes.values()):
            done = ", ".join(host.name for host in self.hosts if not self.codes[host])
            others = ", ".join(f"{host.name} ({self.codes[host]})" for host in self.hosts if self.codes[host])
            terminal.complain(f"{self.verb.name}: done on {done or 'no host'}; not done on {others}")
        if number is None:
            differ = self._comparison is not None and self._comparison.differ
            return remote_hosts.gravest([*self.codes.values(), int(differ)])
        interrupted = number == 2
        return 0 if interrupted and is_stream(self.verb, self.args) else 128 + number

    def _compare_versions(self) -> None:
        """Ask the hosts that do not understand the command for their release: it may be an earlier one."""
        if not self.puzzled:
            return
        said: dict[RemoteHost, bytes] = dict.fromkeys(self.puzzled, b"")
        with SshProcesses(seconds=PATIENCE, longest=1000) as processes:
            for host in self.puzzled:
                processes.start(host, ["zmsvcctl", "--version"], os.environ)
            for event in processes.events():
                if isinstance(event, Part):
                    said[event.host] += event.data
        for host, data in said.items():
            name, _, version = data.decode(errors="replace").strip().partition(" ")
            if name == "zmsvcctl" and version != __version__:
                terminal.complain(
                    f"{host.name} has zmsvc {version}, and this is {__version__}: one of them lacks what the "
                    f"other knows"
                )
