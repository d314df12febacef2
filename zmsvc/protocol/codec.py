"""The codec between messages and JSON objects. The field `op` of an object names the class; every other field
is a field of the class.

A compact codec leaves out the fields that have their default. The value of a field may then also be an
enumeration, a set, a mapping with keys of another type than str, or one of several dataclasses, which the
field `op` names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from zmsvc.core.errors import ProtocolError

Message = TypeVar("Message")
Read = Callable[[Any], Any]
"""A function that converts a JSON value into the value of a field. Raises TypeError."""
_LeftOut = Mapping[type[Any], Collection[str]]
"""Fields that a compact codec never writes, by class."""


class Codec(Generic[Message]):
    """The codec of one direction of a channel. `kinds` has the class for each `op`.

    It inspects a class when it is first needed: a process reads or writes few kinds of the many.
    """

    def __init__(self, kinds: Mapping[str, type[Message]]) -> None:
        self._kinds = dict(kinds)
        self._operations = {kind: op for op, kind in kinds.items()}
        self._readers: dict[str, _Reader] = {}
        self._writers: dict[type[Message], Callable[[Any], dict[str, Any]]] = {}

    @property
    def operations(self) -> tuple[str, ...]:
        """The `op` words of this direction."""
        return tuple(self._kinds)

    def encode(self, message: Message) -> dict[str, Any]:
        """Return the JSON object of a message. Its tuples are arrays in JSON."""
        kind = type(message)
        if kind not in self._writers:
            self._writers[kind] = self._writer(kind)
        return self._writers[kind](message)

    def _writer(self, kind: type[Message]) -> Callable[[Any], dict[str, Any]]:
        return _Writer(self._operations[kind], kind)

    def decode(self, body: Mapping[str, Any]) -> Message:
        """Return the message of a JSON object. Raises ProtocolError for an unknown `op`, a missing field or a
        wrong type.
        """
        op = body.get("op")
        kind = self._kinds.get(op) if isinstance(op, str) else None
        if not isinstance(op, str) or kind is None:
            raise ProtocolError(f"cannot read message: {op!r} is not an operation of this channel")
        if op not in self._readers:
            self._readers[op] = _Reader(kind)
        message: Message = self._readers[op](body)
        return message


class CompactCodec(Codec[Message]):
    """A codec whose objects lack the fields that have their default, and those of `left_out`, by class."""

    def __init__(self, kinds: Mapping[str, type[Message]], left_out: _LeftOut) -> None:
        super().__init__(kinds)
        self._left_out = left_out

    def _writer(self, kind: type[Message]) -> Callable[[Any], dict[str, Any]]:
        return _CompactWriter(kind, self._left_out, self._operations[kind])


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


class _CompactWriter:
    """The writer of one dataclass, without the fields that have their default."""

    def __init__(self, kind: type[Any], left_out: _LeftOut, op: str = "") -> None:
        hints = get_type_hints(kind)
        self._head = {"op": op} if op else {}
        self._fields = [
            (each.name, _default(each), _converter(hints[each.name], left_out))
            for each in fields(kind)
            if each.init and each.name not in left_out.get(kind, ())
        ]

    def __call__(self, message: Any) -> dict[str, Any]:
        body = dict(self._head)
        for name, default, convert in self._fields:
            value = getattr(message, name)
            if value is default or value == default:
                continue
            body[name] = value if convert is None or value is None else convert(value)
        return body


def _default(field: Any) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def _converter(hint: Any, left_out: _LeftOut) -> Callable[[Any], Any] | None:
    """Return the function that converts values of a field to JSON; None if they are JSON already."""
    if is_dataclass(hint):
        return _CompactWriter(hint, left_out)  # type: ignore[arg-type]
    origin, kinds = get_origin(hint), get_args(hint)
    if origin is UnionType:
        classes = [kind for kind in kinds if is_dataclass(kind)]
        if len(classes) > 1:
            writers = {kind: _CompactWriter(kind, left_out, kind.__name__) for kind in classes}  # type: ignore[union-attr,arg-type]
            return lambda value: writers[type(value)](value)
        return next((made for kind in kinds if (made := _converter(kind, left_out)) is not None), None)
    parts = [_converter(kind, left_out) for kind in kinds if kind is not Ellipsis]
    if origin is frozenset:
        each = parts[0] or _as_it_is
        return lambda value: sorted(map(each, value), key=json.dumps)
    if origin is Mapping and kinds[0] is not str:
        key, item = (part or _as_it_is for part in parts)
        return lambda value: [[key(name), item(found)] for name, found in value.items()]
    if not any(parts):
        return None
    if origin is Mapping:
        item = parts[1] or _as_it_is
        return lambda value: {name: item(found) for name, found in value.items()}
    if origin is tuple and kinds[-1] is Ellipsis:
        item = parts[0] or _as_it_is
        return lambda value: list(map(item, value))
    assert origin is tuple, hint
    places = [part or _as_it_is for part in parts]
    return lambda value: [part(found) for part, found in zip(places, value, strict=True)]


def _as_it_is(value: Any) -> Any:
    return value


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
            if each.init
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
    """Return the types of a field whose values need neither a conversion nor a further check."""
    kinds = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    return frozenset(kind for kind in kinds if kind in _PLAIN)


_PLAIN = (str, int, bool, float, NoneType)


def _required(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _read(hint: Any) -> Read:
    if is_dataclass(hint):
        return _Reader(hint)  # type: ignore[arg-type]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return lambda value: _member(hint, value)
    origin, kinds = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return _read_union(kinds)
    if origin is tuple and kinds[-1] is not Ellipsis:
        places = list(map(_read, kinds))
        return lambda value: tuple(read(each) for read, each in _paired(places, value))
    if origin in (tuple, frozenset):
        item = _read(kinds[0])
        return lambda value: origin(item(each) for each in _checked(value, list | tuple))
    if origin is Mapping and kinds[0] is not str:
        key, found = _read(kinds[0]), _read(kinds[1])
        return lambda value: {
            key(name): found(each) for name, each in map(_pair, _checked(value, list | tuple))
        }
    if origin is Mapping and (is_dataclass(kinds[1]) or get_origin(kinds[1]) is not None):
        inner = _read(kinds[1])
        return lambda value: {name: inner(each) for name, each in _checked(value, Mapping).items()}
    expected = {float: int | float, Mapping: Mapping}.get(origin or hint, hint)
    return lambda value: _checked(value, expected)


def _read_union(kinds: tuple[Any, ...]) -> Read:
    classes = [kind for kind in kinds if is_dataclass(kind)]
    if len(classes) > 1:
        readers = {kind.__name__: _Reader(kind) for kind in classes}  # type: ignore[union-attr,arg-type]
        return lambda value: None if value is None and NoneType in kinds else _tagged(readers, value)
    others = [kind for kind in kinds if kind is not NoneType]
    if NoneType not in kinds or len(others) > 1:
        return lambda value: _checked(value, kinds)
    read = _read(others[0])
    return lambda value: None if value is None else read(value)


def _tagged(readers: Mapping[str, _Reader], value: Any) -> Any:
    op = _checked(value, Mapping).get("op")
    if not isinstance(op, str) or op not in readers:
        raise TypeError(f"is {op!r}, expected one of {', '.join(readers)}")
    return readers[op](value)


def _member(kind: type[Enum], value: Any) -> Enum:
    try:
        return kind(_checked(value, str))
    except ValueError:
        raise TypeError(f"is {value!r}, expected one of {', '.join(map(str, kind))}") from None


def _pair(entry: Any) -> tuple[Any, Any]:
    first, second = (each for _, each in _paired((None, None), entry))
    return first, second


def _paired(places: Collection[Any], value: Any) -> list[tuple[Any, Any]]:
    if len(_checked(value, list | tuple)) != len(places):
        raise TypeError(f"has {len(value)} entries, expected {len(places)}")
    return list(zip(places, value, strict=True))


def _checked(value: Any, expected: Any) -> Any:
    number = expected is int or (isinstance(expected, tuple) and int in expected)
    if not isinstance(value, expected) or (number and isinstance(value, bool)):
        raise TypeError(f"is {type(value).__name__}, expected {getattr(expected, '__name__', expected)}")
    return value
