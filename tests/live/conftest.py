"""Fixtures of the live tests: a context in a directory of its own, and a subscriber of another process on its
bus.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from context import Context, Ear
from groups import delegated
from needs import need


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path: a Unix socket's may have 107 bytes."""
    made = Path(tempfile.mkdtemp(prefix="zm"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def context(home: Path, request: pytest.FixtureRequest) -> Iterator[Context]:
    made = Context(home)
    yield made
    made.close()
    if made.log.exists():
        request.node.add_report_section("call", "daemon", made.log.read_text())


@pytest.fixture
def by_hand(context: Context) -> Iterator[Context]:
    """A context that the test starts as a person does, with tasks of several users."""
    need(os.geteuid() == 0, "only root can run tasks of several users")
    context.home.chmod(0o755)
    yield context
    context.ctl("exit", check=None)


@pytest.fixture
def ear(context: Context) -> Iterator[Callable[..., Ear]]:
    """Make subscribers at the frontend of the context, which runs; call it before what is to be
    heard.
    """
    made: list[Ear] = []

    def make(*prefixes: bytes) -> Ear:
        made.append(Ear(context.subscribe_endpoint, context.publish_endpoint, *prefixes))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(params=["sessions", "groups"])
def either(request: pytest.FixtureRequest, context: Context) -> Iterator[Context]:
    """The context without and with a control group of its own."""
    if request.param == "sessions":
        yield context
        return
    with delegated() as wrapper:
        context.wrapper = wrapper
        yield context
        context.close()
