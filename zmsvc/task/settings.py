"""The typed settings of a task: make an instance of its `settings_class` from its `<configuration>`.

Imported only for a task that has such a class. `zmsvcctl check` reads the same classes from their source,
without running it: host/config/settings_source.py.
"""

from __future__ import annotations

import builtins
import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zmsvc.core import settings
from zmsvc.core.errors import LaunchError
from zmsvc.core.settings import Choice, Leaf, Leaves, Many, Maybe, Member, Raw, Shape, Structure, Table

if TYPE_CHECKING:
    from zmsvc.host.config.settings_lines import SettingLines

_RAW = (Any, object, dict)
_MADE: Mapping[str, tuple[type, Callable[[Any], object]]] = {
    "pathlib.Path": (Path, Path),
    "datetime.timedelta": (timedelta, lambda seconds: timedelta(seconds=seconds)),
}
"""The types of a single value that are not built in, each with the function that makes it of what
`settings.Leaves` gives.
"""


def leaf_types(leaves: Leaves) -> Mapping[object, Leaf]:
    """Return the types of a single value, each with its conversion."""
    found: dict[object, Leaf] = {}
    for name, leaf in leaves.by_type().items():
        if name in _MADE:
            kind, make = _MADE[name]
            found[kind] = Leaf(functools.partial(_made, leaf, make))
        else:
            found[getattr(builtins, name)] = leaf
    return found


def _made(leaf: Leaf, make: Callable[[Any], object], text: str) -> object:
    return make(leaf.read(text))


def settings_of(cls: type, configuration: Mapping[str, Any], *, file: str, task: str) -> Any:
    """Return the settings of a configuration. The message about a fault has the line of the element in the
    context file. Raises LaunchError.
    """
    value, faults = settings.convert(_settings_record(cls), configuration)
    if not faults:
        return value
    lines = _lines(file, task, configuration) if file else None
    places = [lines.prefix(task, each.place) if lines else "" for each in faults]
    texts = [f"{place}{each.text}" for place, each in zip(places, faults, strict=True)]
    raise LaunchError(f"cannot use the configuration: {'; '.join(texts)}")


def _lines(file: str, task: str, configuration: Mapping[str, Any]) -> SettingLines | None:
    # Imported here for start-up time: lxml is needed only for the message about a fault.
    from zmsvc.host.config import settings_lines

    return settings_lines.find(file, task, configuration)


def _settings_record(cls: type) -> Structure:
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise LaunchError(f"cannot use the settings_class {cls!r}: it is not a dataclass")
    return _record(cls, leaf_types(settings.LEAVES))


def _record(cls: type, leaves: Mapping[object, Leaf]) -> Structure:
    try:
        hints = typing.get_type_hints(cls)
    except Exception as error:  # an annotation is code of the user
        raise LaunchError(f"cannot use the dataclass {cls.__name__}: {error}") from error
    fields = {settings.element_name(each.name): each for each in dataclasses.fields(cls) if each.init}
    members = {
        element: Member(
            shape_of(hints[each.name], f"{cls.__name__}.{each.name}", leaves),
            each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING,
        )
        for element, each in fields.items()
    }
    names = {element: each.name for element, each in fields.items()}
    return Structure(
        name=cls.__name__,
        members=members,
        make=lambda found: cls(**{names[element]: value for element, value in found.items()}),
    )


def shape_of(hint: Any, name: str, leaves: Mapping[object, Leaf]) -> Shape:
    """Return the shape of the values of a type. `leaves` has the types of single values. Raises LaunchError
    for a type that has none; `name` is for its text.
    """
    if hint in leaves:
        return leaves[hint]
    if hint in _RAW:
        return Raw()
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _record(hint, leaves)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return Choice({str(each.value): each for each in hint})
    if hint in (list, tuple):
        return Many(Raw(), hint)
    return _generic(typing.get_origin(hint), typing.get_args(hint), name, hint, leaves)


def _generic(
    origin: Any, arguments: Sequence[Any], name: str, hint: Any, leaves: Mapping[object, Leaf]
) -> Shape:
    if origin is typing.Annotated:
        return shape_of(arguments[0], name, leaves)
    if origin is typing.Literal:
        return Choice({str(each): each for each in arguments})
    if origin in (typing.Union, types.UnionType):
        others = [each for each in arguments if each is not types.NoneType]
        if len(others) == 1:
            return Maybe(shape_of(others[0], name, leaves))
    if origin is list or (origin is tuple and arguments[1:] == (Ellipsis,)):
        return Many(shape_of(arguments[0], name, leaves), origin)
    if origin is dict and arguments[0] is str:
        return Table(shape_of(arguments[1], name, leaves))
    singles = ", ".join(each.rpartition(".")[2] for each in settings.LEAVES.by_type())
    raise LaunchError(
        f"cannot use the type {getattr(hint, '__name__', hint)} of {name}, expected {singles}, "
        f"an Enum, a Literal, a dataclass, or list, tuple, dict or `| None` of these"
    )
