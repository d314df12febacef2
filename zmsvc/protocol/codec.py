"""The codec between messages and JSON objects. The field `op` of an object names the class; every other field
is a field of the class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from zmsvc.core.errors import ProtocolError

Message = TypeVar("Message")
Read = Callable[[Any], Any]
"""A function that converts a JSON value into the value of a field. Raises TypeError."""


class Codec(Generic[Message]):
    """The codec of one direction of a channel. `kinds` has the class for each `op`."""

    def __init__(self, kinds: Mapping[str, type[Message]]) -> None:
        self._readers = {op: _Reader(kind) for op, kind in kinds.items()}
        self._writers = {kind: _Writer(op, kind) for op, kind in kinds.items()}

    @property
    def operations(self) -> tuple[str, ...]:
        """The `op` words of this direction."""
        return tuple(self._readers)

    def encode(self, message: Message) -> dict[str, Any]:
        """Return the JSON object of a message. Its tuples are arrays in JSON."""
        return self._writers[type(message)](message)

    def decode(self, body: Mapping[str, Any]) -> Message:
        """Return the message of a JSON object. Raises ProtocolError for an unknown `op`, a missing field or a
        wrong type.
        """
        op = body.get("op")
        reader = self._readers.get(op) if isinstance(op, str) else None
        if reader is None:
            raise ProtocolError(f"cannot read message: {op!r} is not an operation of this channel")
        message: Message = reader(body)
        return message


class _Writer:
    """The writer of one dataclass. It inspects the class only once: a launch has 60 fields, and most of them
    are plain values.
    """

    def __init__(self, op: str, kind: type[Any]) -> None:
        hints = get_type_hints(kind)
        self._op = op
        self._names = tuple(each.name for each in fields(kind))
        self._nested = tuple(name for name in self._names if _has_dataclass(hints[name]))

    def __call__(self, message: Any) -> dict[str, Any]:
        body = {"op": self._op}
        for name in self._names:
            body[name] = getattr(message, name)
        for name in self._nested:
            body[name] = _plain(body[name])
        return body


def _has_dataclass(hint: Any) -> bool:
    return is_dataclass(hint) or any(map(_has_dataclass, get_args(hint)))


def _plain(value: Any) -> Any:
    """Return a field's value as JSON. A mapping contains JSON already."""
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    return value


class _Reader:
    """The reader of one dataclass from JSON objects. It inspects the class only once."""

    def __init__(self, kind: type[Any]) -> None:
        self._kind = kind
        hints = get_type_hints(kind)
        self._fields = [
            (each.name, _plain_types(hints[each.name]), _read(hints[each.name]), _required(each))
            for each in fields(kind)
        ]

    def __call__(self, body: Any) -> Any:
        if not isinstance(body, Mapping):
            raise ProtocolError(f"cannot read {self._kind.__name__}: it is not an object")
        found = {}
        for name, plain, read, required in self._fields:
            if name in body:
                value = body[name]
                if type(value) in plain:
                    found[name] = value
                    continue
                try:
                    found[name] = read(value)
                except TypeError as error:
                    raise ProtocolError(f"cannot read {self._kind.__name__}: {name} {error}") from None
            elif required:
                raise ProtocolError(f"cannot read {self._kind.__name__}: {name} is missing")
        return self._kind(**found)


def _plain_types(hint: Any) -> frozenset[type]:
    """Return the types whose values need no conversion for a field, and no closer look."""
    kinds = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    return frozenset(kind for kind in kinds if kind in _PLAIN)


_PLAIN = (str, int, bool, float, NoneType)


def _required(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _read(hint: Any) -> Read:
    if get_origin(hint) is UnionType:
        kinds = get_args(hint)
        if NoneType not in kinds:
            return lambda value: _checked(value, kinds)
        (inner,) = (each for each in kinds if each is not NoneType)
        read = _read(inner)
        return lambda value: None if value is None else read(value)
    if get_origin(hint) is tuple:
        item = _read(get_args(hint)[0])
        return lambda value: tuple(item(each) for each in _checked(value, list | tuple))
    if is_dataclass(hint):
        return _Reader(hint)  # type: ignore[arg-type]
    expected = {float: int | float, Mapping: Mapping}.get(get_origin(hint) or hint, hint)
    return lambda value: _checked(value, expected)


def _checked(value: Any, expected: Any) -> Any:
    number = expected is int or (isinstance(expected, tuple) and int in expected)
    if not isinstance(value, expected) or (number and isinstance(value, bool)):
        raise TypeError(f"is {type(value).__name__}, expected {getattr(expected, '__name__', expected)}")
    return value
