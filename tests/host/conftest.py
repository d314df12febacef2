"""Fixtures of the tests of host: a directory with services, whose tasks end with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import Nest
from forwarder import Forwarder


@pytest.fixture
def nest(tmp_path: Path) -> Iterator[Nest]:
    made = Nest(tmp_path)
    yield made
    made.close()


@pytest.fixture
def bus(nest: Nest) -> Iterator[Forwarder]:
    folder = nest.home / "bus"
    folder.mkdir()
    with Forwarder(folder).start() as made:
        nest.endpoints = {"frontend": made.subscribe_endpoint, "backend": made.publish_endpoint}
        yield made
