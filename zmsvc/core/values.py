"""Read values from texts: time spans, amounts, endpoints, IDs. Pure. The text of a ValueError has the fault
and the expected form.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from zmsvc.core.frozen import frozen

Value = TypeVar("Value")

TASK_ID = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}")
"""The form of a task's ID (use `fullmatch`). `.` and `..` are excluded, because an ID is also the name of a
directory.
"""
RUNNING_ID = re.compile(rf"{TASK_ID.pattern}(@[1-9][0-9]{{0,3}})?")
"""The form of a task's ID in a context: that of a replica ends with its number."""

WHITE = " \t\r\n"
"""The white space of XML. Python's `str.strip()` strips other characters as well, which the schema
refuses.
"""

SUN_PATH = 107
"""Bytes that fit into `sockaddr_un.sun_path` without its final NUL (unix(7))."""

_TIME_UNITS = {
    **dict.fromkeys(("usec", "us", "µs", "μs"), 1e-6),
    **dict.fromkeys(("msec", "ms"), 1e-3),
    **dict.fromkeys(("seconds", "second", "sec", "s", ""), 1.0),
    **dict.fromkeys(("minutes", "minute", "min", "m"), 60.0),
    **dict.fromkeys(("hours", "hour", "hr", "h"), 3600.0),
    **dict.fromkeys(("days", "day", "d"), 86400.0),
    **dict.fromkeys(("weeks", "week", "w"), 604800.0),
    **dict.fromkeys(("months", "month", "M"), 2629800.0),
    **dict.fromkeys(("years", "year", "y"), 31557600.0),
}
_TIME_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)[ \t\r\n]*([A-Za-zµμ]*)[ \t\r\n]*")
_TIME_MAX = 2.0**64 / 1e6
"""The longest time span of systemd in seconds: it counts microseconds in 64 bits."""

_AMOUNT = re.compile(r"([0-9]{1,20})([KMGT]?)")
_AMOUNT_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

_BYTES = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,9}))?([KMGTPE]?)B?")
_BYTES_UNITS = {unit: 1 << 10 * power for power, unit in enumerate(("", *"KMGTPE"))}
_PERCENT = re.compile(r"([0-9]{1,7})(?:\.([0-9]{1,2}))?[ \t\r\n]*%")

_TCP = re.compile(r"tcp://(\*|\[[0-9A-Fa-f:.%A-Za-z]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5}|\*)")


def quote(text: str, most: int = 60) -> str:
    """Return a text as messages show it: on one line, printable, and shortened."""
    shown = text if len(text) <= most else text[: most - 3] + "..."
    return repr(shown)


class FaultsError(ValueError):
    """Several faults of one value."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def each_of(words: Iterable[str], read: Callable[[str], Value]) -> tuple[Value, ...]:
    """Return the values of a list of words. Raises a ValueError that has the faults of all words."""
    values: list[Value] = []
    faults: list[str] = []
    for word in words:
        try:
            values.append(read(word))
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise FaultsError(faults)
    return tuple(values)


def timespan(text: str) -> float:
    """Return the seconds of a time span in the form of systemd.time(7): `90`, `500ms`, `1min 30s`. `infinity`
    is 0.0, which means no limit.
    """
    stripped = text.strip(WHITE)
    if stripped == "infinity":
        return 0.0
    total, end = 0.0, 0
    unknown: list[str] = []
    while match := _TIME_PART.match(stripped, end):
        if match[2] not in _TIME_UNITS:
            unknown.append(match[2])
        total, end = total + float(match[1]) * _TIME_UNITS.get(match[2], 0.0), match.end()
    if end != len(stripped) or not stripped:
        raise ValueError(
            f"{quote(text)} is not a time span, expected one like 90, 500ms, 1min 30s or infinity"
        )
    if unknown:
        units = "expected one of us, ms, s, min, h, d, w, M, y"
        raise FaultsError([f"{quote(unit)} is not a unit of time, {units}" for unit in unknown])
    if not math.isfinite(total) or total >= _TIME_MAX:
        raise ValueError(f"{quote(text)} is too long, expected fewer than 584,542 years, or infinity")
    return total


def seconds(given: object) -> float:
    """Return the seconds of a time in a task's configuration: a number of seconds, or a finite time span.
    Raises ValueError.
    """
    text = given if isinstance(given, str) else str(given) if isinstance(given, int | float) else ""
    try:
        value = float(text)
    except ValueError:
        value = -1.0 if text.strip(WHITE) == "infinity" else timespan(text)
    if not 0 <= value < math.inf:
        raise ValueError(
            f"{quote(text)} is not a time, expected a number of seconds or a time span such as 500ms"
        )
    return value


TRUE, FALSE = ("yes", "1", "true", "on"), ("no", "0", "false", "off")


def boolean(text: str) -> bool:
    """Return the value of a boolean as systemd reads it. Raises ValueError."""
    word = text.strip().lower()
    if word not in (*TRUE, *FALSE):
        raise ValueError(f"{quote(text)} is not a boolean, expected yes or no")
    return word in TRUE


def optional_path(text: str) -> tuple[str, bool]:
    """Return a path without the `-` before it, and True if there was one. It means that the path may be
    missing.
    """
    return text.removeprefix("-"), text.startswith("-")


PRIORITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
"""The priorities of syslog(3) by journald's names, in the order of their numbers."""


def priority(text: str) -> int:
    """Return the number of a priority. The text is its name or number as in systemd's LogLevelMax=, or
    Python's name. Raises ValueError.
    """
    word = text.strip(WHITE).lower()
    word = {"error": "err", "critical": "crit", "warn": "warning"}.get(word, word)
    if word in PRIORITIES:
        return PRIORITIES.index(word)
    if len(word) == 1 and word in "01234567":
        return int(word)
    raise ValueError(
        f"{quote(text)} is not a log level, expected {', '.join(PRIORITIES[:-1])} or {PRIORITIES[-1]}"
    )


def whole(text: str, low: int, high: int) -> int:
    """Return a whole number from `low` to `high`. Raises ValueError."""
    stripped = text.strip(WHITE)
    expected = f"expected a whole number from {low} to {high}"
    if not re.fullmatch(r"[+-]?[0-9]+", stripped):
        raise ValueError(f"{quote(text)} is not a whole number, {expected}")
    if len(stripped) > 20 or not low <= int(stripped) <= high:
        raise ValueError(f"{quote(text)} is out of range, {expected}")
    return int(stripped)


def amount(text: str) -> int:
    """Return a resource limit: a number, with systemd's K, M, G or T (of 1024) for bytes. `infinity` is -1,
    as RLIM_INFINITY is.
    """
    stripped = text.strip(WHITE)
    if stripped == "infinity":
        return -1
    match = _AMOUNT.fullmatch(stripped)
    value = int(match[1]) * _AMOUNT_UNITS[match[2]] if match else -1
    if not 0 <= value < 1 << 63:
        raise ValueError(f"{quote(text)} is not a limit, expected a number such as 1024 or 2G, or infinity")
    return value


NO_LIMIT = -1
"""The value of an amount of memory that is `infinity`."""


def memory(text: str) -> int | str:
    """Return an amount of memory as systemd reads it: bytes, or a text such as `12.5%`. `infinity` is -1.
    Raises ValueError.
    """
    stripped = text.strip(WHITE)
    if stripped == "infinity":
        return NO_LIMIT
    if match := _BYTES.fullmatch(stripped):
        unit, fraction = _BYTES_UNITS[match[3]], match[2] or "0"
        found: int = int(match[1]) * unit + int(fraction) * unit // 10 ** len(fraction)
        if 0 < found < 1 << 63:
            return found
    elif (share := _hundredths(stripped)) and share <= 10_000:
        return percent_text(share)
    raise ValueError(
        f"{quote(text)} is not an amount of memory, expected bytes such as 512M or 1.5G, a percentage of the "
        f"memory of this machine such as 50%, or infinity"
    )


def tasks(text: str) -> int | str:
    """Return a number of processes and threads as systemd reads it: an integer, or a text such as `10%`.
    `infinity` is -1. Raises ValueError.
    """
    stripped = text.strip(WHITE)
    if stripped == "infinity":
        return -1
    if re.fullmatch("[0-9]{1,10}", stripped) and int(stripped):
        return int(stripped)
    if (share := _hundredths(stripped)) and share <= 10_000:
        return percent_text(share)
    raise ValueError(
        f"{quote(text)} is not a number of tasks, expected one such as 100, a percentage of those that this "
        f"machine may have such as 10%, or infinity"
    )


def cpu_quota(text: str) -> int:
    """Return a share of the time of one CPU in hundredths of a percent. It may be above 100%. Raises
    ValueError.
    """
    if share := _hundredths(text.strip(WHITE)):
        return share
    raise ValueError(f"{quote(text)} is not a CPU quota, expected a percentage such as 20% or 150%")


def cpu_weight(text: str) -> int:
    """Return a weight from 1 to 10,000; 0 stands for `idle`. Raises ValueError."""
    stripped = text.strip(WHITE)
    if stripped == "idle":
        return 0
    if re.fullmatch("[0-9]{1,10}", stripped) and 1 <= int(stripped) <= 10_000:
        return int(stripped)
    raise ValueError(f"{quote(text)} is not a CPU weight, expected a whole number from 1 to 10000, or idle")


def _hundredths(text: str) -> int:
    """Return a percentage in hundredths of a percent; 0 for any other text."""
    match = _PERCENT.fullmatch(text)
    return int(match[1]) * 100 + int((match[2] or "0").ljust(2, "0")) if match else 0


def percent_text(hundredths: int) -> str:
    """Return a percentage as text, such as `12.5%`."""
    return f"{hundredths / 100:.2f}".rstrip("0").rstrip(".") + "%"


def part_of(amount: int | str, whole: int) -> int:
    """Return an amount that `memory` or `tasks` has read. A percentage is one of `whole`, and at least 1."""
    return amount if isinstance(amount, int) else max(1, whole * _hundredths(amount) // 10_000)


@frozen
class Endpoint:
    """An endpoint to bind or connect: `tcp` with host and port, or `ipc` with the path as `host` and port 0.
    Port 0 of `tcp` is any free one.
    """

    scheme: str
    host: str
    port: int = 0

    @property
    def wildcard(self) -> bool:
        """True if the endpoint stands for every address of the machine."""
        address = self.address
        return self.scheme == "tcp" and (self.host == "*" or (address is not None and address.is_unspecified))

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host as an IP address; None if it is a name, an interface or a path."""
        try:
            return ipaddress.ip_address(self.host.strip("[]"))
        except ValueError:
            return None

    @property
    def local(self) -> bool:
        """True if only this machine can reach the endpoint. The name of an interface is not resolved here,
        not even that of loopback.
        """
        address = self.address
        loopback = address is not None and address.is_loopback
        return self.scheme == "ipc" or loopback or self.host == "localhost"

    def __str__(self) -> str:
        return f"ipc://{self.host}" if self.scheme == "ipc" else f"tcp://{self.host}:{self.port or '*'}"


def endpoint(text: str, *, bind: bool) -> Endpoint:
    """Return the endpoint of `tcp://HOST:PORT` or `ipc://PATH`. Only an endpoint to bind may have `*` as
    host. Raises ValueError.
    """
    place = read_endpoint(text, bind=bind)
    if isinstance(place, str):
        raise ValueError(f"{quote(text)} {place}")
    return place


def read_endpoint(text: str, *, bind: bool, any_port: bool = False) -> Endpoint | str:
    """Return an endpoint, or the fault of the text as a message without its subject. With `any_port` the text
    may leave the choice of the port to the kernel (`*` or 0). The endpoints of a context must name their
    ports, since peers could not know one that the kernel has chosen.
    """
    if text.startswith("ipc://"):
        return _ipc(text.removeprefix("ipc://"))
    match = _TCP.fullmatch(text)
    if match is None:
        return "is not an endpoint, expected tcp://HOST:PORT or ipc:///PATH"
    port = 0 if match[2] == "*" else int(match[2])
    if not (1 <= port <= 65535 or (any_port and port == 0)):
        return f"has port {match[2]}, expected one from 1 to 65535"
    if match[1] == "*" and not bind:
        return "cannot be connected to, expected a host and not *"
    return Endpoint(scheme="tcp", host=match[1], port=port)


def _ipc(path: str) -> Endpoint | str:
    size = len(path.encode("utf-8", "surrogatepass"))
    if size > SUN_PATH:
        return f"has a path of {size} bytes, expected at most {SUN_PATH}"
    if path.startswith("@"):
        return "is abstract and has no file whose mode keeps other users out, expected ipc:///PATH"
    # Each process of a context has its own working directory, so a relative path would be a different socket
    # for each.
    if len(path) < 2 or path[0] != "/" or path.endswith("/"):
        return "has no absolute path, expected ipc:///PATH"
    return Endpoint(scheme="ipc", host=path)


def without_keys(place: Endpoint) -> Endpoint | None:
    """Return the endpoint to bind without CURVE keys: a wildcard address becomes loopback. None if other
    machines could reach the endpoint.
    """
    if place.wildcard:
        return replace(place, host="[::1]" if ":" in place.host else "127.0.0.1")
    return place if place.local else None


def collide(one: Endpoint, other: Endpoint) -> bool:
    """Return True if the two endpoints cannot be bound at the same time."""
    if (one.scheme, one.port) != (other.scheme, other.port):
        return False
    return one.wildcard or other.wildcard or _spelling(one) == _spelling(other)


class BoundEndpoints(Generic[Value]):
    """Endpoints in order, each with its owner. A search takes the same time for any number of them."""

    def __init__(self) -> None:
        self._owners: list[Value] = []
        self._by_spelling: dict[tuple[str, int, str], int] = {}
        self._wildcards: dict[tuple[str, int], int] = {}
        self._by_port: dict[tuple[str, int], int] = {}

    def add(self, place: Endpoint, owner: Value) -> None:
        number, port = len(self._owners), (place.scheme, place.port)
        self._owners.append(owner)
        self._by_port.setdefault(port, number)
        self._by_spelling.setdefault((*port, _spelling(place)), number)
        if place.wildcard:
            self._wildcards.setdefault(port, number)

    def first_collision(self, place: Endpoint) -> Value | None:
        """Return the owner of the first endpoint that collides with this one; None if none does."""
        port = (place.scheme, place.port)
        if place.wildcard:
            found = [self._by_port.get(port)]
        else:
            found = [self._wildcards.get(port), self._by_spelling.get((*port, _spelling(place)))]
        numbers = [number for number in found if number is not None]
        return self._owners[min(numbers)] if numbers else None


def reaches(connect: Endpoint, bind: Endpoint) -> bool:
    """Return True if a client that connects to `connect` may reach `bind`: scheme, port and path fit."""
    same = (connect.scheme, connect.port) == (bind.scheme, bind.port)
    return same and (connect.scheme == "tcp" or connect.host == bind.host)


def apart(connect: Endpoint, bind: Endpoint) -> bool:
    """Return True if both hosts are IP addresses and differ, so that only address translation could connect
    them.
    """
    if bind.wildcard or connect.wildcard:
        return False
    ours, theirs = _plain(connect).address, _plain(bind).address
    return ours is not None and theirs is not None and ours != theirs


def _plain(place: Endpoint) -> Endpoint:
    loopback = place.scheme == "tcp" and place.host == "localhost"
    return Endpoint(scheme="tcp", host="127.0.0.1", port=place.port) if loopback else place


def _spelling(place: Endpoint) -> str:
    plain = _plain(place)
    return str(plain.address or plain.host.lower()) if place.scheme == "tcp" else place.host
