"""The decisions that go with a context from one host to another: which transactions are open, and which
tasks operators have stopped or disabled. The last host writes a file, and `zmsvcd --resume-from` reads it on
the next one. Pure.

It is a JSON object: `{"host": "h1", "open": ["TX"], "held": [["TX", "ts_1"]], "disabled": ["ts_2"],
"generation": 3}`. Names that are not listed here are ignored, so a later release may add some.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from zmsvc.core.frozen import frozen
from zmsvc.core.model import TRANSACTION_ID

MAX_SIZE = 1 << 20
"""Bytes of the JSON text: 40,000 transactions."""


@frozen
class Carried:
    """The decisions that go with a context to another host."""

    host: str
    """The host that wrote them down."""
    open: tuple[str, ...] = ()
    """The open transactions, in the order in which they were opened."""
    held: tuple[tuple[str, str], ...] = ()
    """The tasks that an operator has stopped, each with its transaction."""
    disabled: tuple[str, ...] = ()
    """The tasks that an operator has disabled."""
    generation: int = 0
    """The number of moves of the context so far, this one included. Each has launch IDs of its own."""


MAX_GENERATION = 1 << 20
"""A launch ID is then below 2**53, so that a number of JSON has it exactly."""


def parse(text: bytes) -> Carried:
    """Return the content of a file. Raises ValueError, whose text says what is wrong and what was
    expected.
    """
    if len(text) > MAX_SIZE:
        raise ValueError(f"it is longer than {MAX_SIZE >> 20} MiB")
    try:
        given = json.loads(text)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(given, Mapping):
        raise ValueError("it is not a JSON object")
    if not isinstance(given.get("host"), str):
        raise ValueError('"host" is missing, expected the name of the host that wrote it')
    if "open" not in given:
        raise ValueError('"open" is missing, expected a list of transaction IDs')
    opened = tuple(_transaction(each) for each in _list(given, "open"))
    if len(set(opened)) != len(opened):
        raise ValueError('"open" names a transaction twice')
    known = frozenset(opened)
    return Carried(
        host=given["host"],
        open=opened,
        held=tuple(_held(each, known) for each in _list(given, "held")),
        disabled=tuple(_task(each, "disabled") for each in _list(given, "disabled")),
        generation=_generation(given.get("generation", 0)),
    )


def _generation(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MAX_GENERATION:
        raise ValueError(
            f'"generation" is {_shown(value)}, expected a whole number from 0 to {MAX_GENERATION - 1}'
        )
    return value


def _list(given: Mapping[str, Any], name: str) -> list[Any]:
    found = given.get(name, [])
    if not isinstance(found, list):
        raise ValueError(f'"{name}" is {_shown(found)}, expected a list')
    return found


def _transaction(value: object) -> str:
    if not isinstance(value, str) or not TRANSACTION_ID.fullmatch(value):
        raise ValueError(
            f'"open" has {_shown(value)}, expected a transaction ID: 1 to 64 of A-Z a-z 0-9 _ . -'
        )
    return value


def _held(value: object, known: frozenset[str]) -> tuple[str, str]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f'"held" has {_shown(value)}, expected ["TRANSACTION", "TASK"]')
    if value[0] not in known:
        raise ValueError(f'"held" names transaction {_shown(value[0])}, which is not in "open"')
    return value[0], _task(value[1], "held")


def _task(value: object, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f'"{name}" has {_shown(value)}, expected the ID of a task')
    return value


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
