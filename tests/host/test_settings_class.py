"""Typed settings: the classes of a service read a configuration when a task starts, and `check` reads the
source of the classes without running it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from counting import lines_in

from zmsvc.core import settings
from zmsvc.core.errors import LaunchError
from zmsvc.host.config import settings_source
from zmsvc.task import loader
from zmsvc.task.settings import settings_of

BASE = """
import dataclasses
import enum
from datetime import timedelta

class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"

@dataclasses.dataclass
class Base:
    every: timedelta = timedelta(seconds=1)
"""
TASK = """
import pathlib
import typing
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Optional
from zmsvc.task import LoopedTask
from . import shapes
from .shapes import Base as Basis
import common.units

open({canary!r}, "w").close()
Unit = Literal["C", "K"]

@dataclass(frozen=True)
class Sensor:
    id: int
    name: "str | None" = None

@dataclass(kw_only=True)
class Settings(Basis):
    n: int
    rate: Annotated[float, "per second"] = 1.0
    on: bool = False
    where: pathlib.Path = pathlib.Path("/")
    color: shapes.Color = shapes.Color.RED
    unit: Unit = "C"
    sensor: list[Sensor] = field(default_factory=list)
    pair: tuple[int, ...] = ()
    limits: dict[str, float] = field(default_factory=dict)
    maybe: Optional[int] = None
    class_: str = ""
    raw: typing.Any = None
    scale: common.units.Scale = "mm"
    made: int = field(default=0, init=False)
    known: ClassVar[int] = 3

class Middle(LoopedTask):
    settings_class = Settings

class Work(Middle):
    def step(self): pass
"""
SERVICE = """
from zmsvc.task import TaskService
from .work import Work
class ServiceWork(TaskService):
    task_class = Work
"""


@pytest.fixture
def location(tmp_path: Path) -> Path:
    for name, text in {
        "Work/__init__.py": "", "Work/shapes.py": BASE, "Work/ServiceWork.py": SERVICE,
        "Work/work.py": TASK.format(canary=str(tmp_path / "canary")),
        "common/units.py": "from typing import Literal\nScale = Literal['mm', 'cm']\n",
    }.items():  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture
def loaded(location: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [*sys.path, str(location)])
    before = set(sys.modules)
    yield loader.load("Work", [str(location)]).task_class.settings_class
    for name in set(sys.modules) - before:
        del sys.modules[name]


GOOD = {
    "every": "500ms", "n": "1", "rate": "2", "on": "yes", "where": "/srv", "color": "blue", "unit": "K", "maybe": "4",
    "sensor": [{"id": "1"}, {"id": "2", "name": "x"}], "pair": "3", "limits": {"a": "1"}, "class": "c", "raw": {"x": "y"},
    "scale": "cm", "location": "/x",
}  # fmt: skip


def test_a_configuration_becomes_an_instance_of_the_class(loaded: Any) -> None:
    made = settings_of(loaded, GOOD, file="", task="ts_1")
    assert type(made) is loaded
    assert repr(made).replace("shapes.", "") == (
        "Settings(every=datetime.timedelta(microseconds=500000), n=1, rate=2.0, on=True, where=PosixPath('/srv'), "
        "color=<Color.BLUE: 'blue'>, unit='K', sensor=[Sensor(id=1, name=None), Sensor(id=2, name='x')], pair=(3,), "
        "limits={'a': 1.0}, maybe=4, class_='c', raw={'x': 'y'}, scale='cm', made=0)"
    )


BAD: list[dict[str, Any]] = [
    {name: "?"} for name in ("every", "n", "rate", "on", "color", "unit", "maybe", "pair", "sensor", "limits", "made", "known", "scale")
]  # fmt: skip
BAD += [
    {"n": ["1", "2"]},
    {"sensor": {"id": "x"}},
    {"limits": {"a": "x"}},
    {"where": ""},
    {"class_": ""},
    {"n": None},
]


@pytest.mark.parametrize("change", BAD, ids=json.dumps)
def test_check_and_start_find_the_same_faults(location: Path, loaded: Any, change: dict[str, Any]) -> None:
    given = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(LaunchError) as found:
        settings_of(loaded, given, file="", task="ts_1")
    shape = settings_source.settings_of(location, "Work")
    assert shape is not None
    _, faults = settings.convert(shape, given)
    assert str(found.value) == f"cannot use the configuration: {'; '.join(each.text for each in faults)}"


def test_the_source_is_read_and_not_run(location: Path) -> None:
    shape = settings_source.settings_of(location, "Work")
    assert shape is not None
    assert settings.convert(shape, GOOD)[1] == []
    assert not (location / "canary").exists()


def service(location: Path, text: str) -> Path:
    (location / "Work").mkdir()
    (location / "Work" / "ServiceWork.py").write_text(
        f"{text}\nclass Work(LoopedTask):\n    settings_class = Settings\n"
        "class ServiceWork(TaskService):\n    task_class = Work\n"
    )
    return location


HOSTILE = {
    "many bases": "class A0(LoopedTask): pass\n"
    + "\n".join(f"class A{n}(A{n - 1}, A{n - 1}): pass" for n in range(1, 30))
    + "\nclass Work(A29): pass\nclass ServiceWork(TaskService):\n    task_class = Work\n",
    "a long union": "from dataclasses import dataclass\n@dataclass\nclass Settings:\n    n: int"
    + " | int" * 2000,
    "a long name": "Settings = a" + ".a" * 2000,
    "many fields": "from dataclasses import dataclass\n@dataclass\nclass Settings:\n"
    + "\n".join(f"    n{n}: Settings" for n in range(20_000)),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_code_is_unknown_and_costs_little(tmp_path: Path, text: str) -> None:
    """Measured: 470,000 lines of Python at most. Without a limit, many bases are 2 to the power of 30 classes."""
    service(tmp_path, text)
    if "ServiceWork" in text:
        (tmp_path / "Work" / "ServiceWork.py").write_text(text)
    found: list[object] = []
    assert lines_in(lambda: found.append(settings_source.settings_of(tmp_path, "Work"))) < 1_000_000
    assert found == [None]


UNKNOWN = {
    "of another library": "from other import Settings",
    "made by a function": "Settings = make_dataclass('Settings', ['n'])",
    "not always the same": "try:\n    from a import Settings\nexcept ImportError:\n    from b import Settings",
    "a circle": "Settings = Other\nOther = Settings",
    "no dataclass": "class Settings:\n    n: int",
    "not there": "",
    "no Python": "def (",
}


@pytest.mark.parametrize("text", UNKNOWN.values(), ids=UNKNOWN)
def test_a_settings_class_that_cannot_be_read_takes_any_value(tmp_path: Path, text: str) -> None:
    shape = settings_source.settings_of(service(tmp_path, text), "Work")
    assert shape is None


DATACLASS = "from dataclasses import dataclass\n@dataclass\nclass Settings"
PARTLY = {
    "its own base": f"{DATACLASS}(Settings):\n    n: str",
    "a base that is not there": f"{DATACLASS}(Other):\n    n: str",
    "contains itself": f"{DATACLASS}:\n"
    + "\n".join(f"    {name}: 'Settings | None' = None" for name in "abcdefgmn"),
    "an unknown type": f"{DATACLASS}:\n    n: Number\n    m: str = ''",
    "a type that is not always the same": f"if x:\n    int = float\n{DATACLASS}:\n    n: int\n    m: int = 0",
}


@pytest.mark.parametrize("text", PARTLY.values(), ids=PARTLY)
def test_an_unknown_part_of_a_settings_class_takes_any_value(tmp_path: Path, text: str) -> None:
    shape = settings_source.settings_of(service(tmp_path, text), "Work")
    assert shape is not None
    assert settings.convert(shape, {"n": "text", "m": "x"})[1] == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("class Settings: pass", "it is not a dataclass"),
        ("@dataclass\nclass Settings:\n    n: set[int]", "cannot use the type set of Settings.n, expected str, int"),
        ("@dataclass\nclass Settings:\n    n: 'Nothing'", "name 'Nothing' is not defined"),
    ],
)  # fmt: skip
def test_a_class_that_cannot_be_used_is_an_error_of_the_service(body: str, said: str) -> None:
    names: dict[str, Any] = {"__name__": __name__}
    exec(f"from dataclasses import dataclass\n{body}", names)
    with pytest.raises(LaunchError, match=said.replace("[", r"\[")):
        settings_of(names["Settings"], {}, file="", task="ts_1")
