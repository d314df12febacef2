"""Run the linters as tests, so that `make test` checks everything. A linter that is not installed is skipped."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from needs import need_tool

ROOT = Path(__file__).parents[2]


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
    # One run with one cache: setup.cfg lists the package, the benchmark and the tests.
    run("mypy", "--strict")
