"""Requirements of a test. A test without them is skipped. Under CI that is a failure: there green means that
all tests ran.
"""

from __future__ import annotations

import os

import pytest


def need_tool(there: object, reason: str) -> None:
    """Like `need`, for a tool of developers: a run with the distribution's libraries alone
    (LIBRARIES=system) need not have it.
    """
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
