"""The code of a service comes from the cache of Python if the cache belongs to this source, and otherwise
from the source.
"""

import importlib.util
import marshal
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from zmsvc.core.errors import LaunchError
from zmsvc.task import loader

_SERVICE = """from zmsvc.task import LoopedTask, TaskService
class ServiceWork(TaskService):
    said, task_class = {said!r}, LoopedTask
    def where(self): ...
"""
_WHERE = (
    "import sys; from zmsvc.task import loader; print(loader.load('Work', "
    "sys.argv[1:]).where.__code__.co_filename)"
)
_LOAD = "import sys; from zmsvc.task import loader; print(loader.load('Work', sys.argv[1:]).said)"


class Place:
    """A directory with the service Work."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.source = directory / "Work" / "ServiceWork.py"
        self.source.parent.mkdir()
        self.cache = Path(importlib.util.cache_from_source(str(self.source)))

    def write(self, said: str) -> None:
        self.source.write_text(_SERVICE.format(said=said))

    def said(self, *options: str, code: str = _LOAD) -> str:
        """Return the text of the class that a new process loads."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        command = [sys.executable, *options, "-c", code, str(self._directory)]
        return subprocess.run(
            command, env=environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def _other_code(place: Place) -> bytes:
    return marshal.dumps(compile(_SERVICE.format(said="cache"), str(place.source), "exec"))


def test_code_that_is_cached_is_not_compiled_again(place: Place) -> None:
    place.write("source")
    assert place.said() == "source"
    place.cache.write_bytes(place.cache.read_bytes()[:16] + _other_code(place))
    assert place.said() == "cache"


def test_a_source_that_has_changed_is_compiled(place: Place) -> None:
    place.write("source")
    place.said()
    place.write("longer source")
    assert place.said() == "longer source"
    place.write("another one..")  # of the same size
    os.utime(place.source, (1e9, 1e9))
    assert place.said() == "another one.."


@pytest.mark.parametrize(
    "damage",
    [
        lambda cached: b"",
        lambda cached: cached[:10],
        lambda cached: cached[:16],
        lambda cached: cached[:-5],
        lambda cached: cached[:16] + marshal.dumps("no code"),
        lambda cached: b"\0\0\r\n" + cached[4:],
    ],
)
def test_a_cache_that_is_damaged_costs_no_start(place: Place, damage: Callable[[bytes], bytes]) -> None:
    place.write("source")
    place.said()
    place.cache.write_bytes(damage(place.cache.read_bytes()))
    assert place.said() == "source"


def test_code_says_where_its_source_is_now(place: Place) -> None:
    place.write("source")
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", "Work"], cwd=place.source.parents[1], check=True
    )
    assert b"source" in place.cache.read_bytes()
    assert place.said(code=_WHERE) == str(place.source)


def test_a_cache_by_hash_is_left_to_python(place: Place) -> None:
    place.write("source")
    place.said()
    cached = place.cache.read_bytes()
    # Its hash is not that of the source, and its flags make Python check.
    place.cache.write_bytes(cached[:4] + (3).to_bytes(4, "little") + bytes(8) + _other_code(place))
    assert place.said() == "source"


def test_a_cache_in_another_place_is_left_to_python(place: Place, tmp_path: Path) -> None:
    place.write("source")
    place.said()
    place.cache.write_bytes(place.cache.read_bytes()[:16] + _other_code(place))
    assert place.said("-X", f"pycache_prefix={tmp_path}/elsewhere") == "source"
    assert place.said("-O") == "source", "optimized code is another file"


def test_a_misspelled_service_is_followed_by_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "EchoAction").mkdir()
    (tmp_path / "EchoAction/ServiceEchoAction.py").touch()
    with pytest.raises(
        LaunchError, match=r"EchoActoin/ServiceEchoActoin\.py in .* \(did you mean EchoAction\?\)"
    ):
        loader.load("EchoActoin", ["/nonexistent", str(tmp_path)])
