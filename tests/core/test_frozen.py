"""core/frozen: its classes are like frozen dataclasses with slots and keyword arguments."""

from __future__ import annotations

import inspect
import pickle
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, replace
from typing import Any

import pytest

from zmsvc.core.frozen import frozen

MADE: list[str] = []


class Base:
    """Values of each kind that a field can have."""

    first: int
    second: str = "2"
    listed: list[int] = field(default_factory=list)
    hidden: str = field(default="h", repr=False, compare=False)
    derived: int = field(init=False, default=7)


class Noted:
    """A class whose constructor does something more."""

    first: int = 1

    def __post_init__(self) -> None:
        MADE.append(type(self).__name__)


class Described:
    """A class with a method of its own in the place of a generated one."""

    first: int = 1

    def __repr__(self) -> str:
        return f"own {self.first}"


class Empty:
    """A class without fields."""


STANDARD = dataclass(frozen=True, slots=True, kw_only=True)


@pytest.fixture(params=[Base, Noted, Described, Empty], ids=lambda each: each.__name__)
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """The same class made by `frozen` and by the standard library."""
    plain = request.param
    ours, theirs = (
        type(
            plain.__name__, (), {k: v for k, v in vars(plain).items() if k not in ("__dict__", "__weakref__")}
        )
        for _ in range(2)
    )
    return frozen(ours), STANDARD(theirs)


def values(kind: Any) -> list[dict[str, Any]]:
    if "second" in {each.name for each in fields(kind)}:
        return [
            {"first": 1},
            {"first": 1, "hidden": "x"},
            {"first": 2, "second": "b", "listed": [1]},
            {"first": (3,)},
        ]
    return [{}, {"first": 5}] if fields(kind) else [{}]


def test_objects_equal_those_of_a_standard_class_in_all_that_shows(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    assert [(each.name, each.repr, each.compare, each.init) for each in fields(ours)] == [
        (each.name, each.repr, each.compare, each.init) for each in fields(theirs)
    ]
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    for given in values(ours):
        one, other = ours(**given), theirs(**given)
        assert repr(one) == repr(other)
        assert asdict(one) == asdict(other)
        assert asdict(replace(one, **values(ours)[-1])) == asdict(replace(other, **values(ours)[-1]))
        assert not hasattr(one, "__dict__")
        assert one != other
        assert one != given
        for second in values(ours):
            assert (one == ours(**second)) == (other == theirs(**second))
    assert ours.__match_args__ == theirs.__match_args__ == ()
    assert MADE[:2] in ([], ["Noted", "Noted"])


def test_equal_objects_have_one_hash(pair: tuple[Any, Any]) -> None:
    ours, _ = pair
    given = {"listed": (1, 2), "first": 1} if "listed" in {each.name for each in fields(ours)} else {}
    assert len({ours(**given), ours(**given)}) == 1


def test_each_object_has_a_default_of_its_own() -> None:
    kind = frozen(
        type("Kind", (), {k: v for k, v in vars(Base).items() if k not in ("__dict__", "__weakref__")})
    )
    assert kind(first=1).listed is not kind(first=1).listed  # type: ignore[call-arg, attr-defined]


def test_an_object_does_not_change(pair: tuple[Any, Any]) -> None:
    ours, _ = pair
    made = ours(**values(ours)[0])
    for name in ("first", "other"):
        with pytest.raises(FrozenInstanceError):
            setattr(made, name, 3)
        with pytest.raises(FrozenInstanceError):
            delattr(made, name)


@pytest.mark.parametrize("given", [{}, {"first": 1, "other": 2}, {"first": 1, "derived": 2}])
def test_arguments_are_checked(given: dict[str, int]) -> None:
    kind: Any = frozen(
        type("Kind", (), {k: v for k, v in vars(Base).items() if k not in ("__dict__", "__weakref__")})
    )
    with pytest.raises(TypeError):
        kind(**given)
    with pytest.raises(TypeError):
        kind(1)


@frozen
class Pickled:
    """A field of each kind, in a class that pickle finds."""

    first: int
    listed: list[int] = field(default_factory=list)
    derived: int = field(init=False, default=7)

    def __post_init__(self) -> None:
        MADE.append(type(self).__name__)


def test_pickle_copies_all_fields_without_the_constructor() -> None:
    whole = Pickled(first=1, listed=[2])
    object.__setattr__(whole, "derived", 8)
    MADE.clear()
    copy = pickle.loads(pickle.dumps([whole, whole]))
    assert copy == [whole, whole]
    assert copy[0] is copy[1]
    assert copy[0].derived == 8
    assert MADE == []
    with pytest.raises(FrozenInstanceError):
        copy[0].first = 2


def test_a_class_extends_another() -> None:
    @frozen
    class Parent:
        """One field."""

        a: int = 1

    @frozen
    class Child(Parent):
        """Another field."""

        b: int = 2

    assert repr(Child(a=3)).endswith("Child(a=3, b=2)")
    assert Child(a=3) == Child(a=3, b=2) != Parent(a=3)
    assert [each.name for each in fields(Child)] == ["a", "b"]
