"""The targets of the Makefile for developers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from needs import need

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("given", "directories"),
    [("", True), ("-x", True), ("tests/core/test_why.py", False), ("-x tests/house -k spell", False)],
)
def test_a_file_in_pytest_args_selects_what_make_quick_runs(given: str, directories: bool) -> None:
    need(shutil.which("make"), "make is not installed")
    words = ["make", "--dry-run", "quick", "VENV=/nowhere", f"PYTEST_ARGS={given}"]
    told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (command,) = [line for line in told.splitlines() if " pytest -q" in line]
    assert ("tests/core tests/house" in command) == directories
    assert command.rstrip().endswith(given)
