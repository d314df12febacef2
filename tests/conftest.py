"""Fixtures of every test: a deadline of its own, and the ways to wait of `waiting`, by import or as the
fixture `wait_for`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import waiting

BOOT = Path(__file__).parent / "boot"

DEADLINE = 60
"""Seconds for one test; `@pytest.mark.deadline(SECONDS)` gives another. A test that hangs is then a
failure with a traceback.
"""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"deadline(seconds): the test fails when it takes longer; {DEADLINE} without this mark"
    )
    # pytest-xdist's own marker; the tests run without xdist as well.
    config.addinivalue_line(
        "markers", "xdist_group(name): the tests of one group run in one process, one after the other"
    )
    # A shell that is not interactive has its background jobs ignore SIGINT, and so would every process that a
    # test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All boot tests share one machine."""
    for item in items:
        if BOOT in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("boot"))


# pytest 7.2 does not know the newer `wrapper=True`.
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    mark = item.get_closest_marker("deadline")
    seconds = float(mark.args[0]) if mark else DEADLINE

    def late(_signal: int, _frame: FrameType | None) -> None:
        pytest.fail(f"the test took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def wait_for() -> Callable[..., Any]:
    """`waiting.wait_for(fact, deadline=15)`."""
    return waiting.wait_for
