"""The table of other managers in the README: each cell about zmsvc leads to a test, each other one to a page of
that manager.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PLACES = {
    "Supervisor": ("supervisord.org/", "github.com/Supervisor/supervisor/"),
    "Circus": ("circus.readthedocs.io/", "github.com/circus-tent/circus/"),
    "systemd": ("www.freedesktop.org/software/systemd/man/latest/", "systemd.io/"),
    "pm2": ("pm2.keymetrics.io/docs/", "github.com/Unitech/pm2"),
    "process-compose": ("f1bonacc1.github.io/process-compose/", "github.com/F1bonacc1/process-compose/"),
}
CELL = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")


def table() -> list[list[str]]:
    section = README[README.index("\n## Beside others\n") : README.index("\n[Figures](#figures)")]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows]


HEAD, _, *ROWS = table()


def test_the_table_has_the_other_managers_in_a_readable_number_of_rows() -> None:
    assert ["", "zmsvc", *PLACES] == HEAD
    assert 5 <= len(ROWS) <= 12
    assert all(len(row) == len(HEAD) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_cell_leads_to_what_shows_that_it_is_true(row: list[str]) -> None:
    _, own, *others = row
    cell = CELL.fullmatch(own)
    assert cell is not None, own
    assert cell[2].startswith("tests/")
    assert "\ndef test_" in (ROOT / cell[2]).read_text(), cell[2]
    for name, text in zip(PLACES, others, strict=True):
        cell = CELL.fullmatch(text)
        assert cell is not None, text
        url = urlsplit(cell[2])
        assert url.scheme == "https", text
        assert f"{url.netloc}{url.path}".startswith(PLACES[name]), text
