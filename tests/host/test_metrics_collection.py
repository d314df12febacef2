"""The metrics of several contexts: one that cannot be asked hides no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_supervisor import House, Silence, house

from zmsvc.core.exposition import Family
from zmsvc.ctl.metrics_collection import Collection


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as made:
        yield made


def up(families: list[Family]) -> dict[str, float]:
    (found,) = (each for each in families if each.name == "zmsvc_up")
    return {sample.labels["context"]: sample.value for sample in found.samples}


def test_supervisors_that_hang_leave_time_for_the_others(
    home: House, capsys: pytest.CaptureFixture[str]
) -> None:
    home.supervisor("A", status=Silence)
    home.supervisor("B", status=Silence)
    home.supervisor("C")
    assert up(Collection(None, None, 2.0).families()) == {"A": 0, "B": 0, "C": 1}
    assert capsys.readouterr().err.count("does not answer") == 2


def test_a_file_whose_name_no_context_can_have_is_left_out(home: House) -> None:
    home.supervisor("C")
    home.file("C (copy)")
    home.file("\udcff")
    assert up(Collection(None, None, None).families()) == {"C": 1}
