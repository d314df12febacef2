"""`make docs` makes every page, and its check of links finds each kind of dead one."""

from __future__ import annotations

import importlib.util
import runpy
import shutil
from pathlib import Path

import pytest
from needs import need, need_tool

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def docs() -> dict[str, object]:
    need_tool(importlib.util.find_spec("markdown_it"), "markdown-it-py is not installed (make .venv/.docs)")
    return runpy.run_path(str(ROOT / "scripts/docs.py"), run_name="script")


def test_all_links_of_all_pages_lead_somewhere(docs: dict, tmp_path: Path) -> None:
    need(shutil.which("mandoc"), "mandoc is not installed")
    pages = docs["build"](ROOT, tmp_path)
    assert docs["faults"](tmp_path) == []
    sources = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    manual = {f"zmsvc/data/man/{page.name}" for page in (ROOT / "zmsvc/data/man").iterdir()}
    assert {"README.md", *sources, *manual} <= pages.keys()
    assert all((tmp_path / page.target).is_file() for page in pages.values())
    index = (tmp_path / "index.html").read_text()
    for source in (*sources, *manual):
        assert f'<li><a href="{pages[source].target}">' in index, source
    # A name of a manual page in a text is a link to that page.
    assert ">zmsvcctl(1)</a>" in (tmp_path / "docs/metrics.html").read_text()


def test_headings_have_the_names_that_github_gives_them(docs: dict, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("# A `b-c`, d!\n\n## Same\n\n## Same\n")
    page, files = docs["_markdown"](tmp_path, "page.md", frozenset({"page.md"}))
    assert page.title == "A b-c, d!"
    assert [part.partition('"')[0] for part in page.content.split('id="')[1:]] == [
        "a-b-c-d",
        "same",
        "same-1",
    ]
    assert files == set()


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ("other.html#there", None),
        ("#here", None),
        ("https://example.org/page?a=b#c", None),
        ("missing.html", "there is no such file"),
        ("sub", "there is no such file, but a directory"),
        ("other.html#gone", "there is no such heading"),
        ("#there", "there is no such heading"),
        ("http://example.org/", "expected https, or a path of the tree"),
        ("https://example", "no URL"),
        ("https://[", "no URL: Invalid IPv6 URL"),
    ],
)
def test_a_dead_link_is_named_with_its_page(docs: dict, tmp_path: Path, link: str, fault: str | None) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "other.html").write_text('<h2 id="there">There</h2>')
    (tmp_path / "page.html").write_text(f'<h2 id="here">Here</h2><a href="{link}">a</a>')
    assert docs["faults"](tmp_path) == ([f"page.html: {link}: {fault}"] if fault else [])


def test_a_link_to_a_document_leads_to_its_page_and_other_files_are_copied(
    docs: dict, tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.md").write_text("[up](../README.md#x), ![picture](a.svg) and [code](../b.py)\n")
    page, files = docs["_markdown"](tmp_path, "docs/a.md", frozenset({"README.md", "docs/a.md"}))
    assert 'href="../index.html#x"' in page.content
    assert files == {"docs/a.svg", "b.py"}
