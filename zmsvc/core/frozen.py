"""A decorator for frozen dataclasses that are cheap to define and cheap to make.

`dataclass(frozen=True)` compiles seven functions for each class. The supervisor has 160 such classes, whose
definition took 40 % of the CPU time of its imports (Python 3.11 to 3.14). `frozen` compiles one function for
each class, the constructor; the others are the same for all classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")

_UNSET = object()


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """Make the class what `dataclass(frozen=True, slots=True, kw_only=True)` makes it.

    `dataclasses.fields`, `replace`, `asdict` and pickle work as with a dataclass. A method that the class
    itself has stays. The class has to have a docstring: for one without, `dataclass` renders a signature.
    """
    own = set(vars(cls))
    made = dataclass(init=False, repr=False, eq=False, slots=True, kw_only=True)(cls)
    members: Sequence[Field[Any]] = fields(made)  # type: ignore[arg-type]
    names = [each.name for each in members if each.compare]
    methods: dict[str, object] = {
        "__init__": _constructor(made, members),
        "__repr__": _repr,
        "__eq__": _eq,
        "__hash__": _hash,
        "__setattr__": _refuse_assignment,
        "__delattr__": _refuse_deletion,
        "__getstate__": _state,
        "__setstate__": _set_state,
    }
    for name, method in methods.items():
        if name not in own:
            setattr(made, name, method)
    made.__compared__ = attrgetter(*names) if names else _nothing  # type: ignore[attr-defined]
    made.__slot_setters__ = tuple(getattr(made, each.name).__set__ for each in members)  # type: ignore[attr-defined]
    return made


def _constructor(cls: type[Any], members: Sequence[Field[Any]]) -> Callable[..., None]:
    """Compile the constructor. It sets a slot by its descriptor; object.__setattr__ would search for it."""
    scope: dict[str, Any] = {"_UNSET": _UNSET}
    parameters, body = [], []
    for each in members:
        name = each.name
        scope[f"_set_{name}"] = getattr(cls, name).__set__
        value = name
        if each.default is not MISSING:
            scope[f"_default_{name}"] = each.default
            parameters.append(f"{name}=_default_{name}")
            value = name if each.init else f"_default_{name}"
        elif each.default_factory is not MISSING:
            scope[f"_make_{name}"] = each.default_factory
            parameters.append(f"{name}=_UNSET")
            value = f"_make_{name}() if {name} is _UNSET else {name}" if each.init else f"_make_{name}()"
        else:
            parameters.append(name)
        if not each.init:
            parameters.pop()
        if each.init or value != name:
            body.append(f"_set_{name}(self, {value})")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    star = "*, " if parameters else ""
    exec(f"def __init__(self, {star}{', '.join(parameters)}):\n " + "\n ".join(body or ["pass"]), scope)
    made: Callable[..., None] = scope["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


def _nothing(_made: object) -> tuple[()]:
    return ()


def _repr(self: Any) -> str:
    shown = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
    return f"{type(self).__qualname__}({shown})"


def _eq(self: Any, other: Any) -> Any:
    kind = type(self)
    if type(other) is not kind:
        return NotImplemented
    return kind.__compared__(self) == kind.__compared__(other)


def _hash(self: Any) -> int:
    return hash(type(self).__compared__(self))


def _state(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    """Set the slots of an object that was made without its constructor."""
    for set_field, value in zip(type(self).__slot_setters__, state, strict=True):
        set_field(self, value)


def _refuse_assignment(_self: object, name: str, _value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_deletion(_self: object, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")
