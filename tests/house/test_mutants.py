"""scripts/mutants.py changes the core in a way that runs, and its seed repeats a sample."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/mutants.py"


def mutants(*arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout


def test_a_seed_repeats_a_sample_of_changes() -> None:
    listed = mutants("--list", "--sample", "30", "--seed", "1")
    assert listed.count("    - ") == listed.count("    + ") == 30
    assert mutants("--list", "--sample", "30", "--seed", "1") == listed
    assert mutants("--list", "--sample", "30", "--seed", "2") != listed


def test_a_changed_module_can_be_compiled() -> None:
    mutants("--compile", "--sample", "100")
