"""Programs that put themselves into the background, and the way to keep each of them in the foreground, where
a Command has to stay. Pure.

Only the command line and the configuration file that it names are examined.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from zmsvc.core.frozen import frozen

_NEVER = r"(?!)"


@frozen
class Program:
    """A program that can put itself into the background. zmsvc searches `on` and `off` in the text of its
    arguments, each of which has a blank before it.
    """

    name: str
    advice: str
    always: bool = False
    """True if the program goes into the background by default."""
    on: str = _NEVER
    off: str = _NEVER
    file: str = _NEVER
    """The first group of this pattern is the path of the configuration file."""
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
    Program(
        name=r"apache2|httpd",
        always=True,
        off=r" -D ?(FOREGROUND|NO_DETACH)| -[XtvVlLS]\b",
        advice="-D FOREGROUND",
    ),
    Program(
        name=r"apache2ctl|apachectl",
        always=True,
        off=r" -D ?FOREGROUND| (configtest|status|fullstatus)\b",
        advice="-D FOREGROUND",
    ),
    Program(name="lighttpd", always=True, off=r" -(D|t|tt|1|p|v|V|h)\b", advice="-D"),
    Program(name="setsid", on=r" (-f|--fork)\b", advice="no --fork"),
    Program(name="screen", on=r" -(dm|md|d -m)S?\b", advice="-D in place of -d"),
    Program(name="tmux", on=r" (new|new-session)\b.* -\w*d", advice="the program itself as the command"),
    Program(name="ssh|autossh", on=r" -f\b", advice="no -f"),
    Program(name="rsync", on=r" --daemon\b", off=r" --no-detach\b", advice="--no-detach"),
    Program(name="rsyslogd", always=True, off=r" -\w*n| -[vN]", advice="-n"),
    Program(name="chronyd", always=True, off=r" -\w*[dnqQvU]", advice="-n"),
    Program(name="ntpd", always=True, off=r" -\w*[nq]| --nofork\b| --version", advice="-n"),
    Program(name="named", always=True, off=r" -[fgvV]\b", advice="-f"),
    Program(name="unbound", always=True, off=r" -\w*[dhV]", advice="-d"),
    Program(name="squid", always=True, off=r" -\w*[Nzkv]| --foreground\b", advice="--foreground"),
    Program(name="varnishd", always=True, off=r" -[FCdVx]\b", advice="-F"),
    Program(
        name="smbd|nmbd|winbindd",
        always=True,
        off=r" (-F|--foreground|-i|--interactive|-V|-b)\b",
        advice="--foreground",
    ),
    Program(name="slapd", always=True, off=r" -d\b| -[TV]", advice="-d 0"),
    Program(name="keepalived", always=True, off=r" (-n|--dont-fork|-t|-v)\b", advice="--dont-fork"),
    Program(name="mosquitto", on=r" (-d|--daemon)\b", advice="no -d"),
    Program(name="pgbouncer", on=r" (-d|--daemon)\b", advice="no -d"),
    Program(name="mysqld|mariadbd", on=r" (-D|--daemonize)\b", advice="no --daemonize"),
    Program(
        name="twistd3?", always=True, off=r" (-n|--nodaemon|--help|--version)\b|^ -\w*n", advice="--nodaemon"
    ),
    Program(name="pm2", on=r" start\b", advice="pm2-runtime in place of pm2"),
    Program(name="docker|podman", on=r" run\b.* (-d|--detach)\b", advice="no --detach"),
    Program(name="memcached", on=r" (-d|--daemon)\b", advice="no -d"),
    Program(name="haproxy", on=r" -D\b", advice="no -D"),
    Program(name="uwsgi", on=r" (-d|--daemonize2?)\b", advice="no --daemonize"),
    Program(name="celery", on=r" (--detach\b|-D\b|multi )", advice="no --detach"),
    Program(name="mongod", on=r" --fork\b", advice="no --fork"),
    Program(name="sshd", always=True, off=r" -[a-zA-Z0-9]*[DdtTi]", advice="-D"),
    Program(
        name="dnsmasq",
        always=True,
        off=r" (-k|-d|--keep-in-foreground|--no-daemon|--test)\b",
        advice="--keep-in-foreground",
    ),
    Program(name="cron|crond", always=True, off=r" -[fn]\b", advice="-f"),
    Program(name="supervisord", always=True, off=r" (-n|--nodaemon)\b", advice="--nodaemon"),
    Program(name="zmsvcd", on=r" --detach\b", advice="no --detach"),
    Program(name="start-stop-daemon", on=r" (-b|--background)\b", advice="no --background"),
    Program(name="pg_ctl", on=r" start\b", advice="postgres in place of pg_ctl"),
    Program(
        name="daemon|daemonize",
        always=True,
        off=r" (-f|--foreground)\b",
        advice="the program itself as the command",
    ),
)


def known(name: str) -> Program | None:
    """Return the program with this name, or None."""
    return next((program for program in PROGRAMS if re.fullmatch(program.name, name)), None)


def warnings(command: Sequence[str], read: Callable[[str], str]) -> list[str]:
    """Return a warning for each program of a command that puts itself into the background. `read` returns the
    text of a file, or an empty text if it cannot be read.
    """
    found = []
    for words in _commands(command):
        for program_and_arguments in _wrapped(words):
            name = program_and_arguments[0].rpartition("/")[2]
            program = known(name)
            if program is not None and _forks_away(program, program_and_arguments[1:], read):
                found.append(
                    f"{name} puts itself into the background, and {_CONSEQUENCE}: {advice_for(program)}"
                )
    if re.search(r"(?<![&>|])&\s*$", _script(command)):
        found.append(
            f"its shell ends while the command before the last & continues in the background, and "
            f"{_CONSEQUENCE}: leave out the &"
        )
    return found


_CONSEQUENCE = "is ended when the Command's own process has ended"


def advice_for(program: Program) -> str:
    """Return the advice in words."""
    return f"give it {program.advice}" if program.advice.startswith("-") else f"give {program.advice}"


def _forks_away(program: Program, words: Sequence[str], read: Callable[[str], str]) -> bool:
    line = "".join(f" {word}" for word in words)
    if re.search(program.off, line):
        return False
    if re.search(program.on, line):
        return True
    named = re.search(program.file, line)
    text = read(named[1]) if named else ""
    return (program.always and not re.search(program.file_off, text)) or bool(
        re.search(program.file_on, text)
    )


_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "ash"})


@dataclass(frozen=True, slots=True)
class _Wrapper:
    """A program that runs the program in its arguments."""

    valued: str = _NEVER
    """The options whose value is the next word."""
    words: int = 0
    """Number of the wrapper's own words before the program."""


_WRAPPERS = {
    **dict.fromkeys(("setsid", "nohup", "command", "time", "then", "do", "else", "(", "{", "!"), _Wrapper()),
    "exec": _Wrapper(r"-a"),
    "env": _Wrapper(r"-u|-C|--unset|--chdir"),
    "nice": _Wrapper(r"-n|--adjustment"),
    "ionice": _Wrapper(r"-[cn]|--class|--classdata"),
    "chrt": _Wrapper(r"-[TPD]", words=1),
    "taskset": _Wrapper(words=1),
    "timeout": _Wrapper(r"-[sk]|--signal|--kill-after", words=1),
    "stdbuf": _Wrapper(r"-[ioe]|--(input|output|error)"),
    "sudo": _Wrapper(r"-[ugUhpCTDR]|--(user|group|host|prompt|chdir|chroot)"),
    "doas": _Wrapper(r"-[uC]"),
    "runuser": _Wrapper(r"-[ugG]|--(user|group|supp-group)"),
    "setpriv": _Wrapper(),
    "chroot": _Wrapper(words=1),
    "gosu": _Wrapper(words=1),
    "su-exec": _Wrapper(words=1),
    "tini": _Wrapper(r"-[pe]"),
    "dumb-init": _Wrapper(r"-r|--rewrite"),
}


def _wrapped(command: Sequence[str]) -> Iterator[list[str]]:
    """Yield a command, then the commands that its wrappers run, from outside to inside. Variables before a
    command are dropped.
    """
    words = list(command)
    while words:
        if re.match(r"[A-Za-z_]\w*=", words[0]):
            words.pop(0)
            continue
        yield words
        wrapper = _WRAPPERS.get(words[0].rpartition("/")[2])
        if wrapper is None:
            return
        words = _inner(wrapper, words[1:])


def _inner(wrapper: _Wrapper, words: list[str]) -> list[str]:
    """Return the command in the arguments of a wrapper."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        if words[at] == "--":
            at += 1
            break
        at += 2 if re.fullmatch(wrapper.valued, words[at]) else 1
    return words[at + wrapper.words :]


def _innermost(command: Sequence[str]) -> list[str]:
    return next(reversed([*_wrapped(command)]), [])


def _script(command: Sequence[str]) -> str:
    """Return the script that a shell gets with -c; empty for another command."""
    words = _innermost(command)
    if not words or words[0].rpartition("/")[2] not in _SHELLS:
        return ""
    return next((words[at + 1] for at, word in enumerate(words[:-1]) if re.fullmatch(r"-[a-z]*c", word)), "")


def _commands(command: Sequence[str]) -> Iterator[list[str]]:
    """Yield each simple command of a command line. If a command is a shell with a script, yield the commands
    of the script, too, at any depth.
    """
    if not command:
        return
    yield list(command)
    script = _script(command)
    lexer = shlex.shlex(script.replace("\n", " ; "), posix=True, punctuation_chars=";&|()")
    lexer.whitespace_split = True
    try:
        parts = list(lexer)
    except ValueError:
        return
    current: list[str] = []
    for part in [*parts, ";"]:
        if part and not part.strip(";&|()"):
            yield from _commands(current)
            current = []
        else:
            current.append(part)
