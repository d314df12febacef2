"""Each link of the documents to a heading leads to one that exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    file for place in (".", "docs", "bench", "packaging") for file in (ROOT / place).glob("*.md")
)


def lines(document: Path) -> Iterator[str]:
    """Yield the lines of a document that are not in a code block."""
    code = False
    for line in document.read_text().splitlines():
        if line.lstrip().startswith("```"):
            code = not code
        elif not code:
            yield line


def anchors(document: Path) -> set[str]:
    """Return the names that GitHub gives to the headings of a document: in lower case, with hyphens for spaces,
    and a number after the name of a heading that is repeated.
    """
    found: list[str] = []
    for line in lines(document):
        if heading := re.fullmatch(r"#{1,6} (.+?)\s*", line):
            found.append(re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-"))
    repeated = {f"{name}-{found[:at].count(name)}" for at, name in enumerate(found) if name in found[:at]}
    return {*found, *repeated}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_each_link_to_a_heading_has_that_heading(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s:]*)#([^)\s]+)\)", "\n".join(lines(document)))
    for target, anchor in links:
        assert anchor in anchors(document.parent / target if target else document), f"{target}#{anchor}"
