"""Fixtures of tests with a real daemon: a context in a directory of its own, and a subscriber of another
process on its bus. The conftest of each directory names those that its tests use: there pytest finds them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from context import Context, Subscriber
from groups import delegated
from needs import need


@pytest.fixture
def home() -> Iterator[Path]:
    """Yield a directory with a short path: that of a Unix socket may have 107 bytes."""
    made = Path(tempfile.mkdtemp(prefix="zm"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def context(home: Path) -> Iterator[Context]:
    made = Context(home)
    yield made
    made.close()


@pytest.fixture
def grouped(context: Context) -> Iterator[Context]:
    """A context in a delegated control group, so that its tasks have control groups."""
    with delegated() as wrapper:
        context.wrapper = wrapper
        yield context
        context.close()


@pytest.fixture
def by_hand(context: Context) -> Iterator[Context]:
    """A context that the test starts as a person does, with tasks of several users."""
    need(os.geteuid() == 0, "only root can run tasks of several users")
    context.home.chmod(0o755)
    yield context
    context.ctl("exit", check=None)


@pytest.fixture
def subscriber(context: Context) -> Iterator[Callable[..., Subscriber]]:
    """Yield a function that makes subscribers on the bus of a running context. Call it before the messages
    are published.
    """
    made: list[Subscriber] = []

    def make(*prefixes: bytes) -> Subscriber:
        made.append(Subscriber(context.subscribe_endpoint, context.publish_endpoint, *prefixes))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(params=["sessions", "groups"])
def either(request: pytest.FixtureRequest, context: Context) -> Iterator[Context]:
    """The context, once without and once with a control group of its own."""
    if request.param == "sessions":
        yield context
        return
    with delegated() as wrapper:
        context.wrapper = wrapper
        yield context
        context.close()
