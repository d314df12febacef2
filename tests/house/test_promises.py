"""docs/promises.md has each row of `make promises`, and the tests that the page names exist."""

from __future__ import annotations

import re
from pathlib import Path

from promises import PROMISES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "promises.md").read_text()


def test_every_measured_promise_stands_on_the_page_with_its_time() -> None:
    rows = {
        tuple(cell.strip() for cell in line.strip("|").split(" | ")[:3]): line
        for line in PAGE.splitlines()
        if line.startswith("| ")
    }
    for promise in PROMISES:
        line = rows[promise.fault, promise.happens, promise.until]
        assert len(re.findall(r"\b[\d.]+ m?s(?= \|)", line)) == 2, line


def test_the_tests_that_the_page_names_exist() -> None:
    named = re.findall(r"`((?:tests/)?[\w/]+\.py)`", PAGE)
    assert named
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_readme_leads_there() -> None:
    assert "(docs/promises.md)" in (ROOT / "README.md").read_text()
