"""Requirements of a test. A test without them is skipped. Under CI a skip is a failure, so that green means
that all tests ran.
"""

from __future__ import annotations

import os

import pytest


def need_tool(there: object, reason: str) -> None:
    """The same as `need` for a tool of developers, which may be missing with LIBRARIES=system, where only the
    distribution's libraries are used.
    """
    if not there and os.environ.get("LIBRARIES") == "system":
        pytest.skip(reason)
    need(there, reason)


def need(there: object, reason: str) -> None:
    """Skip the test unless `there` is true."""
    if there:
        return
    if os.environ.get("CI"):
        pytest.fail(f"cannot be skipped under CI: {reason}")
    pytest.skip(reason)
