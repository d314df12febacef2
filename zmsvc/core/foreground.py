"""Which programs put themselves into the background, and how each is told to stay in the foreground, as a Command has to. Pure.

Only what a command line shows is known, and the configuration file that it names.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

_NEVER = r"(?!)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One that can put itself into the background. The patterns are searched in its arguments, with a blank before each."""

    name: str
    advice: str
    always: bool = False
    """It does so, unless it is told not to."""
    on: str = _NEVER
    off: str = _NEVER
    file: str = _NEVER
    """Finds the path of its configuration file, as the first group."""
    file_on: str = _NEVER
    file_off: str = _NEVER


PROGRAMS = (
    Program(
        name="nginx",
        always=True,
        off=r"\bdaemon\s+off\s*;| -[tTvVqsh?]",
        file=r" -c ?(\S+)",
        file_off=r"(?m)^\s*daemon\s+off\s*;",
        advice="-g 'daemon off;'",
    ),
    Program(
        name=r"redis-server|redis-sentinel|valkey-server",
        on=r" --daemonize yes\b",
        off=r" --daemonize no\b",
        file=r"^ ([^-\s]\S*)",
        file_on=r"(?mi)^\s*daemonize\s+[\"']?yes",
        advice="--daemonize no",
    ),
    Program(name=r"gunicorn[\d.]*", on=r" (-D|--daemon)\b", advice="no --daemon"),
    Program(
        name=r"php-fpm[\d.]*",
        always=True,
        off=r" (-F|--nodaemonize|-t|--test|-v|--version|-i|-m|-h)\b",
        file=r" (?:-y ?|--fpm-config[ =])(\S+)",
        file_off=r"(?mi)^\s*daemonize\s*=\s*(no|off|0|false)",
        advice="--nodaemonize",
    ),
    Program(name=r"apache2|httpd", always=True, off=r" -D ?(FOREGROUND|NO_DETACH)| -[XtvVlLS]\b", advice="-D FOREGROUND"),
    Program(name=r"apache2ctl|apachectl", always=True, off=r" -D ?FOREGROUND| (configtest|status|fullstatus)\b", advice="-D FOREGROUND"),
    Program(name="lighttpd", always=True, off=r" -(D|t|tt|1|p|v|V|h)\b", advice="-D"),
    Program(name="memcached", on=r" (-d|--daemon)\b", advice="no -d"),
    Program(name="haproxy", on=r" -D\b", advice="no -D"),
    Program(name="uwsgi", on=r" (-d|--daemonize2?)\b", advice="no --daemonize"),
    Program(name="celery", on=r" (--detach\b|-D\b|multi )", advice="no --detach"),
    Program(name="mongod", on=r" --fork\b", advice="no --fork"),
    Program(name="sshd", always=True, off=r" -[a-zA-Z0-9]*[DdtTi]", advice="-D"),
    Program(name="dnsmasq", always=True, off=r" (-k|-d|--keep-in-foreground|--no-daemon|--test)\b", advice="--keep-in-foreground"),
    Program(name="cron|crond", always=True, off=r" -[fn]\b", advice="-f"),
    Program(name="supervisord", always=True, off=r" (-n|--nodaemon)\b", advice="--nodaemon"),
    Program(name="zmsvcd", on=r" --detach\b", advice="no --detach"),
    Program(name="start-stop-daemon", on=r" (-b|--background)\b", advice="no --background"),
    Program(name="pg_ctl", on=r" start\b", advice="postgres in place of pg_ctl"),
    Program(name="daemon|daemonize", always=True, off=r" (-f|--foreground)\b", advice="the program itself as the command"),
)


def known(name: str) -> Program | None:
    """Return the program of this name."""
    return next((program for program in PROGRAMS if re.fullmatch(program.name, name)), None)


def warnings(command: Sequence[str], read: Callable[[str], str]) -> list[str]:
    """Tell which programs of a command put themselves into the background. `read` gives the text of a file, empty where it cannot."""
    found = []
    for words in _commands(command):
        name = words[0].rpartition("/")[2]
        program = known(name)
        if program is not None and _goes(program, words[1:], read):
            found.append(f"{name} puts itself into the background, and is ended when the Command's own process has ended: {told(program)}")
    return found


def told(program: Program) -> str:
    """Return the advice in words."""
    return f"give it {program.advice}" if program.advice.startswith("-") else f"give {program.advice}"


def _goes(program: Program, words: Sequence[str], read: Callable[[str], str]) -> bool:
    line = "".join(f" {word}" for word in words)
    if re.search(program.off, line):
        return False
    if re.search(program.on, line):
        return True
    named = re.search(program.file, line)
    text = read(named[1]) if named else ""
    return (program.always and not re.search(program.file_off, text)) or bool(re.search(program.file_on, text))


_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "ash"})
_PASSED_OVER = frozenset({"exec", "env", "nice", "setsid", "sudo", "command", "then", "do", "else", "(", "{", "!"})


def _commands(command: Sequence[str]) -> Iterator[list[str]]:
    """Give each simple command: those of a script where a shell is told one."""
    words = _without_prefix(command)
    if not words:
        return
    if words[0].rpartition("/")[2] not in _SHELLS:
        yield words
        return
    script = next((words[at + 1] for at, word in enumerate(words[:-1]) if re.fullmatch(r"-[a-z]*c", word)), "")
    lexer = shlex.shlex(script.replace("\n", " ; "), posix=True, punctuation_chars=";&|()")
    lexer.whitespace_split = True
    try:
        parts = list(lexer)
    except ValueError:
        return
    begun: list[str] = []
    for part in [*parts, ";"]:
        if part and not part.strip(";&|()"):
            if begun := _without_prefix(begun):
                yield begun
            begun = []
        else:
            begun.append(part)


def _without_prefix(command: Sequence[str]) -> list[str]:
    words = list(command)
    while words and (words[0] in _PASSED_OVER or re.match(r"[A-Za-z_]\w*=", words[0])):
        words.pop(0)
    return words
