"""The hosts of `zmsvcctl -H`: their names, the command that ssh runs on one, what its end means, and one exit
status for all of them. Pure.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence

from zmsvc.core import printable
from zmsvc.core.errors import UsageError
from zmsvc.core.frozen import frozen

MAX_HOSTS = 128
"""Each host takes four descriptors, and most programs may have 1,024."""
MAX_ANSWER = 16 << 20
"""Bytes of one host's answer. The status of 1,000 tasks has 0.9 MiB. A supervisor on this machine may answer
64 MiB, but here the answers of all hosts are in memory at the same time.
"""
MAX_ANSWERS = 128 << 20
"""Bytes of the answers of all hosts, which are in memory at the same time."""
CONNECT_TIME = 10
"""Seconds in which ssh has to connect."""
ALIVE_INTERVAL, ALIVE_COUNT = 5, 3
"""The seconds after which ssh asks a silent host for a sign of life, and the number of unanswered questions
after which it gives up.
"""

UNREACHABLE, TIMED_OUT, USAGE = 5, 124, 2
SSH_FAILED = 255
"""The exit status of ssh if ssh itself has failed, or if a signal has ended the command."""
NOT_FOUND = 127
_GRAVEST = (UNREACHABLE, TIMED_OUT, USAGE, 4, 1)
"""The exit statuses that hide others, the gravest first: a host was not asked, an order may still be in
progress, one was refused, one has failed.
"""

COMPLAINT = "zmsvcctl: "
"""The beginning of each line on stderr by zmsvcctl. ssh and shells begin their lines otherwise."""
NOT_UNDERSTOOD = f"{COMPLAINT}cannot understand the command: "
"""The beginning of the complaint of a zmsvcctl that does not know a verb or an option."""

# ssh itself refuses the signs of shells in names since OpenSSH 9.6, because ProxyCommand may use them.
_HOST = re.compile(r"[^\W_][\w.-]*")
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]+(?:%[\w.-]+)?")
_USER = re.compile(r"\w[\w.+@-]*\$?")


@frozen
class RemoteHost:
    """A host as the user has named it, and what ssh needs to know of it."""

    name: str
    """`[USER@]HOST[:PORT]`: the name in all output."""
    host: str
    user: str | None = None
    port: int | None = None

    @property
    def login(self) -> str:
        """The command with which a person logs in there."""
        port = "" if self.port is None else f"-p {self.port} "
        return f"ssh {port}{'' if self.user is None else f'{self.user}@'}{self.host}"


def parse(lists: Iterable[str]) -> tuple[RemoteHost, ...]:
    """Return the hosts of the values of -H, each a list with commas. Raises UsageError."""
    names = [name.strip(" ") for each in lists for name in each.split(",")]
    hosts = tuple(map(_host, names))
    if len(hosts) > MAX_HOSTS:
        raise UsageError(
            f"cannot ask {len(hosts)} hosts at once: {MAX_HOSTS} is the most (name some of them)"
        )
    for at, host in enumerate(hosts):
        if any((host.host, host.user, host.port) == (each.host, each.user, each.port) for each in hosts[:at]):
            # An order would be carried out twice on this host.
            raise UsageError(f"cannot use -H: {host.name} is named twice")
    return hosts


def _host(name: str) -> RemoteHost:
    user, at, place = name.rpartition("@")
    host, port = _with_port(place)
    valid = _ADDRESS.fullmatch(host) if ":" in host else _HOST.fullmatch(host)
    if not valid or (at and not _USER.fullmatch(user)):
        raise UsageError(f"cannot use -H: {name!r} is not [USER@]HOST[:PORT]")
    if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise UsageError(f"cannot use -H: the port of {name!r} is not a number from 1 to 65535")
    return RemoteHost(name=name, host=host, user=user or None, port=None if port is None else int(port))


def _with_port(place: str) -> tuple[str, str | None]:
    """Split `HOST:PORT`, `[ADDRESS]:PORT`, or an IPv6 address without a port."""
    if place.startswith("["):
        host, _, rest = place[1:].partition("]")
        return (host, rest[1:] or "") if rest.startswith(":") else (host if not rest else "", None)
    host, colon, port = place.partition(":")
    return (host, port) if colon and ":" not in port else (place, None)


def ssh_words(
    host: RemoteHost, words: Sequence[str], seconds: float | None = None, *, terminal: bool = False
) -> list[str]:
    """Return the arguments of ssh that run a command with these words on the host.

    ssh joins the words of a command with blanks, and the shell of the user there splits the result. So each
    word is quoted for that shell. `seconds` is the time limit of the host; None if there is none. With
    `terminal` the command has the terminal of the user, whom ssh may ask for a password.
    """
    connect = CONNECT_TIME if not seconds else max(1, min(CONNECT_TIME, round(seconds)))
    settings = (
        f"BatchMode={'no' if terminal else 'yes'}",
        f"ConnectTimeout={connect}",
        f"ServerAliveInterval={ALIVE_INTERVAL}",
        f"ServerAliveCountMax={ALIVE_COUNT}",
        # No connection back to this host is needed, and a forwarded port that is in use must not stop the
        # command.
        "ClearAllForwardings=yes",
        "ForwardAgent=no",
        "ForwardX11=no",
        # ssh does not print the banner of the host, which is not part of the answer.
        "LogLevel=ERROR",
    )
    return [
        "-t" if terminal else "-T",
        *(word for setting in settings for word in ("-o", setting)),
        *(("-l", host.user) if host.user is not None else ()),
        *(("-p", str(host.port)) if host.port is not None else ()),
        "--",
        host.host,
        *map(shlex.quote, words),
    ]


def answer_limit(hosts: int) -> int:
    """Return the most bytes that one of so many hosts may answer."""
    return min(MAX_ANSWER, MAX_ANSWERS // hosts)


def code_of(status: int) -> int:
    """Return the exit status of a host whose ssh has ended with `status`; negative for a signal."""
    return UNREACHABLE if status < 0 or status in (SSH_FAILED, NOT_FOUND) else status


def reason_of(host: RemoteHost, status: int, told: Sequence[str]) -> str | None:
    """Return in one line why a host could not be asked; None if its zmsvcctl has answered. `told` has the
    lines on stderr that are not of zmsvcctl.
    """
    if status == NOT_FOUND:
        return f"cannot find zmsvcctl on {host.name}: the PATH of ssh there lacks it (install zmsvc there)"
    if status < 0:
        return f"cannot reach {host.name}: signal {-status} has ended ssh"
    if status != SSH_FAILED:
        return None
    last = next((line for each in reversed(told) if (line := printable.line(each).strip())), "")
    why = last.removeprefix("ssh: ") or (
        "ssh gives no reason (the connection broke, the host stopped to answer, or zmsvcctl was killed there)"
    )
    return f"cannot reach {host.name}: {why.rstrip('.')} ({host.login} tries the same)"


def gravest(codes: Iterable[int]) -> int:
    """Return the exit status for all hosts: 0 only if all are 0, otherwise the gravest."""
    found = set(codes)
    for code in _GRAVEST:
        if code in found:
            return code
    return max(found, default=0)
