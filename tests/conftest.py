"""For all tests: a deadline for each test, `wait_for` of `waiting` as a fixture, and the settings of Hypothesis.

The examples of Hypothesis are the same in each run: see `chance`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import waiting
from chance import EXPLORE
from hypothesis import HealthCheck, settings

BOOT = Path(__file__).parent / "boot"

DEADLINE = 240
"""Seconds for one test; `@pytest.mark.deadline(SECONDS)` sets another limit. A test that hangs fails with a
traceback.
"""

settings.register_profile(
    "zmsvc",
    max_examples=50,
    # A busy machine takes a second for an example of milliseconds.
    deadline=None,
    derandomize=not EXPLORE,
    # The simulated machine is made inside the examples, and an example that is filtered out costs nothing.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
settings.load_profile("zmsvc")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"deadline(seconds): the test fails when it takes longer; {DEADLINE} without this mark"
    )
    # This marker belongs to pytest-xdist. The tests also run without it.
    config.addinivalue_line(
        "markers", "xdist_group(name): the tests of one group run in one process, one after the other"
    )
    # Background jobs of a shell that is not interactive ignore SIGINT. Every process that a test starts would
    # do so, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--variants",
        choices=("all", "first", "last"),
        default="all",
        help="of a test with several sets of parameters, run all of them, the first or the last one",
    )
    parser.addoption(
        "--deadlines", type=float, default=1.0, metavar="FACTOR", help="multiply the deadlines of the tests"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run all boot tests in one process, because they share a machine. Select the variants."""
    for item in items:
        if BOOT in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("boot"))
    wanted = config.getoption("--variants")
    if wanted == "all":
        return
    # A later item of the same test replaces an earlier one in the dictionary.
    in_order = items if wanted == "last" else items[::-1]
    chosen = {*{item.nodeid.partition("[")[0]: item.nodeid for item in in_order}.values()}
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in chosen])
    items[:] = [item for item in items if item.nodeid in chosen]


# pytest 7.2 does not know the newer `wrapper=True`.
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    mark = item.get_closest_marker("deadline")
    seconds = (float(mark.args[0]) if mark else DEADLINE) * item.config.getoption("--deadlines")

    def late(_signal: int, _frame: FrameType | None) -> None:
        pytest.fail(f"the test took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the logs of the daemons of a test to the report of its failure."""
    report = (yield).get_result()  # type: ignore[attr-defined]
    if report.failed and report.when != "teardown":
        logs = [getattr(made, "log", None) for made in getattr(item, "funcargs", {}).values()]
        for log in dict.fromkeys(Path(each) for each in logs if isinstance(each, str | Path)):
            if log.is_file():
                report.sections.append((str(log), log.read_text(errors="replace")[-20_000:]))


@pytest.fixture
def wait_for() -> Callable[..., Any]:
    """`waiting.wait_for(fact, deadline=15)`."""
    return waiting.wait_for
