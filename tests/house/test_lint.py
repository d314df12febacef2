"""The linters are tests, so that `make test` is all there is to run; on a machine without them they are
skipped.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from needs import need_tool

ROOT = Path(__file__).parents[2]

TYPED_TESTS = (
    "scripts/suite.py", "tests/conftest.py", "tests/needs.py", "tests/waiting.py",
    "tests/boot/machine.py", "tests/boot/installed.py", "tests/boot/users.py",
)  # fmt: skip
"""What other tests stand on is held to the rules of the package."""


def run(tool: str, *arguments: str) -> None:
    need_tool(importlib.util.find_spec(tool), f"{tool} is not installed")
    done = subprocess.run(
        [sys.executable, "-m", tool, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_ruff_finds_nothing() -> None:
    run("ruff", "check", "--quiet", "--output-format=concise", ".")


def test_the_code_is_formatted_by_ruff() -> None:
    run("ruff", "format", "--check", "--quiet", ".")


def test_mypy_finds_nothing() -> None:
    run("mypy", "--strict")


def test_mypy_finds_nothing_in_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYPYPATH", "tests:tests/live:tests/boot")
    run("mypy", "--strict", "--follow-imports=silent", "--package=bench")


def test_mypy_finds_nothing_in_what_tests_stand_on() -> None:
    run("mypy", "--strict", *TYPED_TESTS)
