"""The pictures of the README show what zmsvcctl shows today, apart from times, PIDs and sizes."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs/pictures"
TEXT = "{http://www.w3.org/2000/svg}text"

MASKS = (
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?([+-]\d{4})?", "TIME"),
    (r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) TIME \S+;", "TIME;"),
    (r"((\d+(h|min|ms|s) ?)+ ago|\bnow\b)", "AGE"),
    (r"\b\d+(\.\d+)?[BKMG]\b", "SIZE"),
    (r"\d+\.\d+\.\d+(\.dev\d+)?", "VERSION"),
    (r"(PID |pid=|keeper |Supervisor: |Device: |Sensor\[)\d+", r"\1N"),
    (r"uid=\d+|\([a-z]\w+\)(?=>?$)", "USER"),
)


def masked(line: str) -> str:
    for pattern, name in MASKS:
        line = re.sub(pattern, name, line)
    return re.sub(r" +", " ", line).strip()


def lines(picture: Path) -> list[str]:
    """Return the lines of the picture of a terminal."""
    rows: dict[str, list[tuple[float, str]]] = {}
    for each in ElementTree.parse(picture).iter(TEXT):
        rows.setdefault(each.attrib["y"], []).append((float(each.attrib["x"]), each.text or ""))
    return [
        " ".join(text for _, text in sorted(row))
        for _, row in sorted(rows.items(), key=lambda y: float(y[0]))
    ]


@pytest.fixture(scope="module")
def pictures() -> dict:
    return runpy.run_path(str(ROOT / "scripts/pictures.py"), run_name="script")


@pytest.fixture(scope="module")
def shown(pictures: dict) -> object:
    return pictures["run"](draw=False)


def test_the_terminal_of_the_readme_is_what_zmsvcctl_prints(
    pictures: dict, shown: object, tmp_path: Path
) -> None:
    today = tmp_path / "today.svg"
    today.write_text(pictures["drawn"](shown.terminal))
    # The pager may cut a line at another character if its PID or age has another length.
    now, then = ([masked(line) for line in lines(file)] for file in (today, PICTURES / "terminal.svg"))
    assert len(now) == len(then) > 20, "make pictures"
    for a, b in zip(now, then, strict=True):
        end = min(len(a), len(b)) - 8 if a.endswith(">") or b.endswith(">") else None
        assert a[:end] == b[:end], "make pictures"


def test_the_graph_of_the_readme_is_what_zmsvcctl_draws(shown: object) -> None:
    words = {each.text.strip() for each in ElementTree.parse(PICTURES / "graph.svg").iter(TEXT)}
    labels = re.findall(r'label="(.*?)"', shown.dot)
    assert words == {line for label in labels for line in label.split(r"\n")}, "make pictures"
    colors = set(re.findall(r'fillcolor="(#\w+)"', shown.dot))
    drawn = set(re.findall(r'fill="(#\w+)"', (PICTURES / "graph.svg").read_text()))
    assert colors <= drawn, "make pictures"


def test_the_pictures_name_no_directory_of_the_machine_that_made_them(pictures: dict) -> None:
    for picture in PICTURES.glob("*.svg"):
        assert not re.search(r"/(tmp|home|root|var/tmp)/", picture.read_text()), picture


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a", [(0, "a", "")]),
        ("a \x1b[0;1;31mb\x1b[0m c", [(0, "a ", ""), (2, "b", "0;1;31"), (3, " c", "0")]),
        ("x" * 120, [(0, "x" * 120, "")]),
        ("x" * 121, [(0, "x" * 119 + ">", "")]),
    ],
)
def test_the_picture_of_a_terminal_keeps_colors_and_width(pictures: dict, line: str, expected: list) -> None:
    assert list(pictures["parts"](line)) == expected
