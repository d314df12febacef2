"""The probes of `<health>` and `<ready>`: how they are written, and what their results mean. Pure.

A process beside the task runs the probe and judges its results; it reports only a change (task/probes.py).
core.health decides what follows for the task.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Any

from zmsvc.core.expected_topics import ReadyTopic
from zmsvc.core.frozen import frozen
from zmsvc.core.ready_line import ReadyLine
from zmsvc.core.values import WHITE, quote, timespan

LEAST = 0.01
"""The shortest interval and timeout, in seconds."""
_PORT = r"[0-9]{1,5}"
_HOST = r"localhost|[0-9.]+|\[[0-9A-Fa-f:.]+\]"
TCP_PATTERN = rf"(({_HOST}):)?{_PORT}"
HTTP_PATTERN = rf"http://({_HOST})(:{_PORT})?([/?][!-~]*)?"
_TCP = re.compile(rf"(?:({_HOST}):)?({_PORT})")
_HTTP = re.compile(rf"http://({_HOST})(?::({_PORT}))?([/?][!-~]*)?")
_EXPECTED_HOST = "expected localhost, an IPv4 address or an IPv6 address in brackets"


@frozen
class Address:
    """The address that a tcp or http probe connects to."""

    host: str
    """`localhost`, or an IP address without brackets. Names are not looked up: that may take longer than the
    timeout.
    """
    port: int
    target: str = ""
    """The request target of an http probe; empty for a tcp probe."""
    authority: str = ""
    """The Host header of an http probe."""


@frozen
class Probe:
    """One probe, and when to run it. Times are in seconds."""

    command: tuple[str, ...] = ()
    """The program of an exec probe and its arguments; empty for other probes."""
    address: Address | None = None
    interval: float
    """The time from the end of one probe to the start of the next one."""
    timeout: float
    retries: int = 1
    """The number of failures in a row after which the task has failed."""
    start_period: float = 0.0
    """The time after the start in which failures do not count, until the first success."""

    def as_json(self) -> dict[str, Any]:
        """Return what the process that runs the probe needs. `probe_from_json` reads it."""
        return asdict(self)


def probe_from_json(values: Mapping[str, Any]) -> Probe:
    """Return the probe of `as_json`. Raises TypeError."""
    found = {**values, "command": tuple(values["command"])}
    if found["address"] is not None:
        found["address"] = Address(**found["address"])
    return Probe(**found)


# --- reading


def command(text: str) -> tuple[str, ...]:
    """Return the words of a command, which are quoted as in sh. Raises ValueError."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        why = str(error).lower()
        raise ValueError(f"{quote(text)} cannot be split ({why}), expected words quoted as in sh") from error
    if not words or not words[0]:
        raise ValueError(f"{quote(text)} is empty, expected a program and its arguments")
    return tuple(words)


def tcp(text: str) -> Address:
    """Return the address of a tcp probe. Raises ValueError."""
    match = _TCP.fullmatch(text.strip(WHITE))
    if match is None:
        raise ValueError(
            f"{quote(text)} is not an address, expected a port or ADDRESS:PORT; {_EXPECTED_HOST}"
        )
    return Address(host=_host(match[1] or "localhost", text), port=_port(match[2], text))


def http(text: str) -> Address:
    """Return the address of an http probe. Raises ValueError."""
    match = _HTTP.fullmatch(text.strip(WHITE))
    if match is None:
        raise ValueError(
            f"{quote(text)} is not an address, expected http://ADDRESS:PORT/PATH; {_EXPECTED_HOST}"
        )
    target = match[3] or "/"
    return Address(
        host=_host(match[1], text),
        port=_port(match[2] or "80", text),
        target=target if target.startswith("/") else f"/{target}",
        authority=match[1] + (f":{match[2]}" if match[2] else ""),
    )


def _host(word: str, text: str) -> str:
    if word == "localhost":
        return word
    try:
        return str(ipaddress.ip_address(word.strip("[]")))
    except ValueError:
        raise ValueError(f"{quote(text)} has no valid address, {_EXPECTED_HOST}") from None


def _port(digits: str, text: str) -> int:
    port = int(digits)
    if not 1 <= port <= 65535:
        raise ValueError(f"{quote(text)} has the port {port}, expected one from 1 to 65535")
    return port


def span(text: str) -> float:
    """Return a time span that is long enough for a probe. Raises ValueError."""
    seconds = timespan(text)
    if seconds < LEAST:
        raise ValueError(f"{quote(text)} is not possible here, expected a time span from 10ms on")
    return seconds


KINDS = ("exec", "tcp", "http")


def make(defaults: Probe, values: Mapping[str, Any]) -> Probe:
    """Return the probe with these attributes. Raises ValueError if they are not those of one probe."""
    _check_one(values, KINDS, "has no probe")
    times = {name: value for name, value in values.items() if name not in KINDS}
    return Probe(
        command=values.get("exec", ()),
        address=values.get("tcp") or values.get("http"),
        interval=times.pop("interval", defaults.interval),
        timeout=times.pop("timeout", defaults.timeout),
        **{"retries": defaults.retries, **times},
    )


def _check_one(values: Mapping[str, Any], kinds: Sequence[str], without: str) -> None:
    """Raise ValueError unless exactly one of these attributes is there."""
    given = [kind for kind in kinds if kind in values]
    if len(given) != 1:
        has = f"has {' and '.join(given)}" if given else without
        raise ValueError(f"{has}, expected one of the attributes {', '.join(kinds[:-1])} and {kinds[-1]}")


HEALTH = Probe(interval=30.0, timeout=30.0, retries=3)
"""The defaults of `<health>`, which are those of Docker's HEALTHCHECK."""
READY = Probe(interval=1.0, timeout=10.0)
"""The defaults of `<ready>`."""


def health(**values: Any) -> Probe:
    """Return the probe of a `<health>` with these attributes. Raises ValueError."""
    return make(HEALTH, values)


Ready = Probe | ReadyLine | ReadyTopic
"""How a task with `<ready>` becomes ready."""
READY_KINDS = (*KINDS, "topic", "line")


def ready(**values: Any) -> Ready:
    """Return the value of a `<ready>` with these attributes. Raises ValueError."""
    for alone in ("topic", "line"):
        if alone in values and len(values) > 1:
            raise ValueError(f"has {alone} and other attributes, expected {alone} alone")
    _check_one(values, READY_KINDS, "has no probe")
    if "topic" in values:
        return ReadyTopic(topic=values["topic"])
    if "line" in values:
        return ReadyLine(pattern=values["line"])
    return make(READY, values)


def probe_of(found: Ready | None) -> Probe | None:
    """Return the probe of a `<ready>`, or None if it has none."""
    return found if isinstance(found, Probe) else None


def topic_of(found: Ready | None) -> str:
    """Return the topic of a `<ready>`, or nothing if it has none."""
    return found.topic if isinstance(found, ReadyTopic) else ""


# --- judging


class Health(StrEnum):
    """The health of a task, in Docker's words."""

    STARTING = "starting"
    """No probe has succeeded, and no failure has counted."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    """The last probe has failed."""
    FAILED = "failed"
    """`retries` probes in a row have failed."""


@frozen
class Judgment:
    """The health after the results so far."""

    health: Health = Health.STARTING
    failures: int = 0
    """The number of failures in a row."""


def judge(before: Judgment, probe: Probe, *, ok: bool, age: float) -> Judgment:
    """Return the judgment after one more result. `age` is the time from the start to that result."""
    if ok:
        return Judgment(health=Health.HEALTHY)
    if before.health is Health.STARTING and age < probe.start_period:
        return before
    failures = before.failures + 1
    failed = before.health is Health.FAILED or failures >= probe.retries
    return Judgment(health=Health.FAILED if failed else Health.UNHEALTHY, failures=failures)
