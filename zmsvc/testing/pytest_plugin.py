"""The fixtures that pytest has wherever zmsvc is installed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import pytest

from zmsvc.testing.context import ContextUnderTest, MakeContext
from zmsvc.testing.simulation import Simulation


@pytest.fixture
def zmsvc_simulation() -> Iterator[Simulation]:
    """A simulation: services in one process, with a clock and a bus of the test."""
    with Simulation() as simulation:
        yield simulation


@pytest.fixture
def zmsvc_context(request: pytest.FixtureRequest) -> Iterator[MakeContext]:
    """A function that makes a context under test of a context file: call its `start`. The end of the test
    stops it. The report of a failed test has its log.
    """
    made: list[ContextUnderTest] = []

    def make(
        file: str | os.PathLike[str], *, environment: Mapping[str, str] | None = None
    ) -> ContextUnderTest:
        made.append(ContextUnderTest(file, environment=environment))
        return made[-1]

    yield make
    for each in made:
        request.node.add_report_section("call", f"zmsvc {each.name}", each.output())
        each.close()
