"""What a test needs of the machine. Without it the test is skipped, but under CI that is a failure: there green means that all ran."""

from __future__ import annotations

import os

import pytest


def need(there: object, reason: str) -> None:
    """Goes on when `there` is true."""
    if there:
        return
    if os.environ.get("CI"):
        pytest.fail(f"cannot be skipped under CI: {reason}")
    pytest.skip(reason)
