"""The kinds of values that options of `<service>` have. A kind says how a text is read, and how the schema
and the manual describe it. The options themselves are in `service_options.py`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any

from zmsvc.core import expected_topics, listening, placement, probing, ready_line
from zmsvc.core.frozen import frozen
from zmsvc.core.messages import too_long
from zmsvc.core.owners import owner
from zmsvc.core.values import (
    PRIORITIES,
    TASK_ID,
    WHITE,
    amount,
    boolean,
    cpu_quota,
    cpu_weight,
    each_of,
    memory,
    percent_text,
    priority,
    quote,
    tasks,
    timespan,
    whole,
)


@frozen
class Value:
    """A kind of option whose element has a text with one value."""

    words: str
    """The texts that are allowed, as a phrase for the manual: `a time span`."""
    schema: str
    """The content of the element in RELAX NG."""
    read: Callable[[str], Any]
    """Return the value of a text. Raises ValueError, whose message continues a sentence that begins with the
    name of the element.
    """
    show: Callable[[Any], str] = str
    """Return the text of a value. The manual shows the default in this way."""


@frozen
class Fields:
    """A kind of option whose element has child elements with these names, in any order, each at most once.
    The value is a dict by name.
    """

    names: tuple[str, ...]
    value: Value

    @property
    def words(self) -> str:
        return f"elements {any_of(self.names)}, each {self.value.words}"


@frozen
class Variables:
    """A kind of option whose element has child elements with any names. The value is a dict of their texts by
    name; the texts are unchanged.
    """

    words: str = "an element <NAME>value</NAME> for each variable"


@frozen
class Several:
    """An element that may be repeated. The value is a tuple with the values of all elements."""

    value: Value | None
    """The kind of the text of the element. None if the element has no text: then its value is made of its
    attributes.
    """
    separated: bool = False
    """True if one element may have several values with white space between them."""
    attributes: Mapping[str, Value] = field(default_factory=dict)
    """The attributes that each element may have, by name."""
    make: Callable[..., Any] | None = None
    """Make the value of an element with attributes from the values of its text, if it has one, and of its
    attributes. Raises ValueError as `Value.read` does.
    """

    @property
    def words(self) -> str:
        listed = "; ".join(f"{name}, {kind.words}" for name, kind in self.attributes.items())
        if self.value is None:
            return f"an element without text and with the attributes {listed}; it may be repeated"
        if self.attributes:
            return f"{self.value.words}; the element may be repeated, and have the attributes {listed}"
        if self.separated:
            return f"{self.value.words}, or several with blanks between them; the element may be repeated"
        return f"{self.value.words}; the element may be repeated"


@frozen
class Words:
    """A kind of option whose element has the words of a command. The value is a tuple of them."""

    words: str = "a program and its arguments, written as <command> is"


@frozen
class Attributes:
    """An element without content, whose attributes have these values. Each may be left out."""

    values: Mapping[str, Value]
    make: Callable[..., Any]
    """Return the value of the option from those of the attributes that are there. Raises ValueError as
    `Value.read` does.
    """

    @property
    def words(self) -> str:
        listed = "; ".join(f"{name}, {kind.words}" for name, kind in self.values.items())
        return f"an element without text and with the attributes {listed}"


@frozen
class Elements:
    """An element with child elements of these names, in any order; each may be repeated, and has one or more
    values with white space between them.
    """

    values: Mapping[str, Value]
    make: Callable[..., Any]
    """Return the value of the option from those of the children that are there, a tuple by each name."""

    @property
    def words(self) -> str:
        listed = "; ".join(f"{name}, {kind.words}" for name, kind in self.values.items())
        return f"the elements {listed}; each may be repeated, or have several with blanks between them"


Kind = Value | Fields | Variables | Several | Words | Attributes | Elements


def any_of(names: Iterable[str]) -> str:
    """Return the names as `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _token(pattern: str) -> str:
    return f'<data type="token"><param name="pattern">{pattern}</param></data>'


def _finite(text: str) -> float:
    if text.strip(WHITE) == "infinity":
        raise ValueError("'infinity' is not allowed here, expected a time span such as 500ms or 1min 30s")
    return timespan(text)


def _show_span(seconds: float) -> str:
    if not seconds:
        return "infinity"
    return f"{seconds * 1000:g}ms" if seconds < 1 else f"{seconds:g}s"


_SPAN = r"[0-9.][0-9.A-Za-zµμ\s]*"

TIME_LIMIT = Value(
    words="a time span, or infinity or 0 for no limit",
    schema=_token(f"infinity|{_SPAN}"),
    read=timespan,
    show=_show_span,
)
"""Seconds. 0 means that there is no limit."""

TIME_SPAN = Value(words="a time span", schema=_token(_SPAN), read=_finite, show=_show_span)
"""Seconds."""

YES_NO = Value(
    words="yes or no",
    # A pattern of XML Schema has no flag for ignoring case.
    schema=_token(
        "|".join(
            "".join(f"[{each.upper()}{each}]" for each in word)
            for word in ("yes", "no", "true", "false", "on", "off")
        )
        + "|0|1"
    ),
    read=boolean,
    show=lambda value: "yes" if value else "no",
)

OWNER = Value(words="a name or a number", schema=_token(r"[^\s:/\-][^\s:/]*"), read=owner)
"""A user or a group."""

SIGNAL = Value(words="the name or the number of a signal", schema=_token(r"\S+"), read=str)
"""The name of a signal as `host.kernel.signals` writes it. That module reads it: the numbers depend on the
machine.
"""

EXIT_STATUS = Value(
    words="an exit status from 0 to 255 or the name of a signal", schema=_token(r"\S+"), read=str
)
"""An int, or the name of a signal as the keeper reports it. `host.config` reads it."""

LOG_LEVEL = Value(words=f"{any_of(PRIORITIES)}, or its number", schema=_token(r"\S+"), read=priority)
"""The number of a priority of syslog(3)."""

SIZE = Value(
    words="a number, with K, M, G or T for powers of 1024, or infinity",
    schema=_token("infinity|[0-9]+[KMGT]?"),
    read=amount,
    show=lambda value: "infinity" if value < 0 else str(value),
)
"""A number; infinity is -1, as RLIM_INFINITY is."""


_PERCENTAGE = r"[0-9]{1,7}(\.[0-9]{1,2})?\s*%"


def _show_amount(value: int | str) -> str:
    return "infinity" if value == -1 else str(value)


MEMORY = Value(
    words="bytes, with K, M, G, T, P or E for powers of 1024, a percentage of the memory of the machine or "
    "of the container, or infinity",
    schema=_token(rf"infinity|[0-9]+(\.[0-9]+)?[KMGTPE]?B?|{_PERCENTAGE}"),
    read=memory,
    show=_show_amount,
)
"""An int or a text such as `50%`; infinity is -1."""

TASKS = Value(
    words="a whole number, a percentage of the tasks that the machine may have, or infinity",
    schema=_token(f"infinity|[0-9]+|{_PERCENTAGE}"),
    read=tasks,
    show=_show_amount,
)
"""An int or a text such as `10%`; infinity is -1."""

CPU_QUOTA = Value(
    words="a percentage of the time of one CPU, which may be above 100%",
    schema=_token(_PERCENTAGE),
    read=cpu_quota,
    show=percent_text,
)
"""Hundredths of a percent."""

CPU_WEIGHT = Value(
    words="a whole number from 1 to 10000, or idle", schema=_token("idle|[0-9]+"), read=cpu_weight
)
"""An int; idle is 0."""


def _path(text: str) -> str:
    path = text.strip(WHITE)
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"{quote(text)} is not an absolute path, expected one that begins with /")
    return path


PATH = Value(words="an absolute path", schema=_token("/.*"), read=_path)


def _directory(text: str) -> str:
    word = text.strip(WHITE)
    place = word.removeprefix("-")
    if place != "~" and (not place.startswith("/") or "\0" in place):
        raise ValueError(f"{quote(text)} is not an absolute path, expected one, or ~, or - and either")
    return word


DIRECTORY = Value(
    words="an absolute path, or ~ for the home directory of the user of the task, either after a - or not",
    schema=_token("-?(/.*|~)"),
    read=_directory,
)
"""The text of the element, which `values.optional_path` splits."""


def _file(text: str) -> str:
    word = text.strip(WHITE)
    if not word.removeprefix("-").startswith("/") or "\0" in word:
        raise ValueError(f"{quote(text)} is not an absolute path, expected one, or - and one")
    if re.search(r"[*?[]", word):
        raise ValueError(f"{quote(text)} has a wildcard, expected the path of one file for each element")
    return word


OPTIONAL_FILE = Value(words="an absolute path, after a - or not", schema=_token(r"-?/[^*?\[]*"), read=_file)
"""The text of the element, as in `DIRECTORY`."""


VARIABLE_WORDS = "letters, digits and _, and no digit at the beginning"


def _variable(text: str) -> str:
    word = text.strip(WHITE)
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", word):
        raise ValueError(f"{quote(text)} cannot be a variable, expected {VARIABLE_WORDS}")
    return word


VARIABLE = Value(words="the name of a variable", schema=_token("[A-Za-z_][A-Za-z0-9_]*"), read=_variable)


def _task(text: str) -> str:
    word = text.strip(WHITE)
    if not TASK_ID.fullmatch(word):
        raise ValueError(f"{quote(text)} cannot be the id of a task, expected 1 to 64 of A-Z a-z 0-9 _ . -")
    return word


TASK = Value(words="the id of a task", schema=_token(r"[A-Za-z0-9_.\-]{1,64}"), read=_task)
"""A task of the same file. core.checks finds out whether there is one."""


_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def _host(text: str) -> str:
    word = text.strip(WHITE)
    if not _HOST.fullmatch(word):
        raise ValueError(
            f"{quote(text)} cannot be the name of a host, expected 1 to 64 of A-Z a-z 0-9 _ . -, the first a "
            f"letter or a digit"
        )
    return word


HOST = Value(
    words="the name of a host, as the cluster calls it",
    schema=_token(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}"),
    read=_host,
)
"""A host of the cluster. core.placement_checks finds out whether the context has it."""


def _mode(text: str) -> int:
    digits = text.strip(WHITE)
    if not re.fullmatch("0?[0-7]{1,3}", digits):
        raise ValueError(f"{quote(text)} is not a mode, expected an octal number from 0 to 777")
    return int(digits, 8)


MODE = Value(
    words="an octal number from 0 to 777",
    schema=_token("0?[0-7]{1,3}"),
    read=_mode,
    show=lambda mode: f"{mode:04o}",
)
"""Permissions, as in chmod(1)."""


ADDRESS = Value(
    words="a port, ADDRESS:PORT, tcp://ADDRESS:PORT or the path of a Unix socket, also after ipc://",
    schema=_token(
        r"((\*|[0-9.]+|\[[0-9A-Fa-f:.]+(%[A-Za-z0-9_.\-]+)?\]):)?[0-9]{1,5}"
        r"|tcp://(\*|[0-9.]+|\[[0-9A-Fa-f:.]+(%[A-Za-z0-9_.\-]+)?\]):[0-9]{1,5}|((ipc|unix)://)?[/@].+"
    ),
    read=listening.address,
)
"""An address to listen at."""

SOCKET_NAME = Value(words="a name without a colon", schema=_token(r"[^:\s]{1,255}"), read=listening.name)


def _topic(text: str) -> str:
    word = text.strip(WHITE)
    if not word or "@" in word:
        raise ValueError(f"{quote(text)} cannot be a topic, expected a text without @")
    if fault := too_long(word):
        raise ValueError(f"{quote(text)} cannot be a topic: {fault}")
    return word


TOPIC = Value(words="a topic without @", schema=_token("[^@]+"), read=_topic)
"""A topic of the bus."""


def whole_number(low: int, high: int) -> Value:
    """Return the kind of a whole number from `low` to `high`."""
    limits = f'<param name="minInclusive">{low}</param><param name="maxInclusive">{high}</param>'
    return Value(
        words=f"a whole number from {low} to {high}",
        schema=f'<data type="integer">{limits}</data>',
        read=lambda text: whole(text, low, high),
    )


def choice(words: type[StrEnum], fault: str) -> Value:
    """Return the kind of an option whose value is one of these words. The message about another word is the
    word in quotes and then `fault`.
    """
    listed = any_of(words)

    def read(text: str) -> StrEnum:
        word = text.strip(WHITE)
        if word not in [*words]:
            raise ValueError(f"{quote(text)} {fault}, expected {listed}")
        return words(word)

    values = "".join(f'<value type="token">{word}</value>' for word in words)
    return Value(words=listed, schema=f"<choice>{values}</choice>", read=read)


def list_of(value: Value, words: str) -> Value:
    """Return the kind of a list: one or more values, separated by white space. The value is a tuple."""

    def read(text: str) -> tuple[Any, ...]:
        found = text.split()
        if not found:
            raise ValueError(f"{quote(text)} is an empty list, expected {words}")
        return each_of(found, value.read)

    return Value(
        words=words,
        schema=f"<list><oneOrMore>{value.schema}</oneOrMore></list>",
        read=read,
        show=lambda values: " ".join(map(value.show, values)),
    )


WORDS = Words()


_PROBE = {
    "exec": Value(
        words="a program and its arguments, quoted as in sh", schema=_token(r".*\S.*"), read=probing.command
    ),
    "tcp": Value(words="a port or ADDRESS:PORT", schema=_token(probing.TCP_PATTERN), read=probing.tcp),
    "http": Value(words="http://ADDRESS:PORT/PATH", schema=_token(probing.HTTP_PATTERN), read=probing.http),
    "interval": Value(words="a time span", schema=_token(_SPAN), read=probing.span),
    "timeout": Value(words="a time span", schema=_token(_SPAN), read=probing.span),
}
READY = Attributes(
    values={
        **_PROBE,
        "topic": TOPIC,
        "line": Value(
            words="a regular expression",
            schema='<data type="string"><param name="minLength">1</param></data>',
            read=ready_line.pattern,
        ),
    },
    make=probing.ready,
)
"""A `probing.Ready`."""
HEALTH = Attributes(
    values={**_PROBE, "retries": whole_number(1, 1000), "start_period": TIME_SPAN}, make=probing.health
)
"""A `probing.Probe`."""
EXPECT = Several(
    value=None, attributes={"topic": TOPIC, "within": _PROBE["interval"]}, make=expected_topics.make
)
"""Several `expected_topics.ExpectedTopic`."""
PLACEMENT = Elements(values={"host": HOST, "apart": TASK, "with": TASK}, make=placement.placement)
"""A `placement.Placement`."""
