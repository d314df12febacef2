"""The topics that a task hears, as its class or its `<subscribe>` elements name them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from zmsvc.core import messages
from zmsvc.core.values import quote

EXPECTED = "expected the name of a topic, without @@@"


def as_list(value: Any) -> list[Any]:
    """Return what may be topics: a value of its own, or those of a list or tuple."""
    return list(value) if isinstance(value, list | tuple) else [value]


def faults(value: Any) -> list[tuple[int, str]]:
    """Return the index of each value that cannot be a topic, and what is wrong with it."""
    return [*_faults(as_list(value))]


def _faults(values: list[Any]) -> Iterator[tuple[int, str]]:
    for index, each in enumerate(values):
        if not isinstance(each, str):
            yield index, f"{quote(str(each))} is not a text"
            continue
        if fault := messages.too_long(each):
            yield index, f"{quote(each)} cannot be a topic: {fault}"
            continue
        try:
            messages.check_topic(each)
        except ValueError:
            yield index, f"{quote(each)} cannot be a topic" if each else "a topic is empty"


def subscribed(configuration: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the topics of the `<subscribe>` elements; none if one of them cannot be a topic."""
    given = configuration.get("subscribe")
    named = as_list(given) if given else []
    return () if faults(named) else unique(named)


def unique(values: list[str]) -> tuple[str, ...]:
    """Return each topic once, in the order in which the topics first occur."""
    return tuple(dict.fromkeys(values))
