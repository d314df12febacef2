"""What a test needs of the machine. Without it the test is skipped, but under CI that is a failure: there green means that all ran."""

from __future__ import annotations

import os

import pytest


def need_linter(there: object, reason: str) -> None:
    """Like `need`, but a run with the distribution's libraries alone (LIBRARIES=system) has no linters and is not expected to."""
    if not there and os.environ.get("LIBRARIES") == "system":
        pytest.skip(reason)
    need(there, reason)


def need(there: object, reason: str) -> None:
    """Goes on when `there` is true."""
    if there:
        return
    if os.environ.get("CI"):
        pytest.fail(f"cannot be skipped under CI: {reason}")
    pytest.skip(reason)
