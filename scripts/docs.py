#!/usr/bin/env python3
"""`make docs`: the documents and the manual pages as HTML, and a check of their links.

The pages have the same relative places as their sources, so a link works in both. A file of the tree to which
a page links is copied beside them. Links and their headings are checked in the finished pages; of a link to
another site only the form is checked, because a build needs no network.
"""

from __future__ import annotations

import html
import itertools
import os
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from string import Template
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
OUTPUT = "build/docs"
THEME = "docs/theme"
MANUAL = "zmsvc/data/man"
INDEX = "README.md"
SECTIONS: Mapping[str, Sequence[str]] = {
    "Begin": (INDEX, "docs/tutorial.md", "docs/installation.md", "docs/from-supervisor.md",
              "docs/from-zmicroservices.md"),
    "Use": ("docs/services.md", "docs/bus.md", "docs/cockpit.md", "docs/metrics.md", "docs/cluster.md",
            "docs/scale.md", "docs/access.md", "docs/promises.md", "docs/contract.md", "SECURITY.md"),
    "Manual": (),
    "Inside": ("CONTRIBUTING.md", "docs/architecture.md", "docs/protocols.md", "docs/decisions.md",
               "docs/performance.md", "docs/debugging.md", "docs/glossary.md"),
    "More": (),
}  # fmt: skip
"""The pages in the order of the navigation. A page that is not here is under More."""


class DocsError(Exception):
    """The pages cannot be made; the text says why, and the way out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page: the path of its source in the tree, its path in the output, its title and its HTML."""

    source: str
    target: str
    title: str
    content: str


# --- Markdown


def slug(heading: str) -> str:
    """Return the name that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def target_of(source: str) -> str:
    """Return the path of a page in the output."""
    return "index.html" if source == INDEX else str(Path(source).with_suffix(".html"))


def _name_headings(tokens: Sequence[Token]) -> str:
    """Give each heading its id. Returns the text of the first one."""
    names: list[str] = []
    title = ""
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "heading_open":
            text = "".join(each.content for each in inline.children or ())
            title = title or text
            name = slug(text)
            opening.attrSet("id", f"{name}-{names.count(name)}" if name in names else name)
            names.append(name)
    return title


def _turn_links(tokens: Sequence[Token], source: str, pages: frozenset[str]) -> Iterator[str]:
    """Make links to pages lead to their HTML. Yield the other files of the tree to which the page links."""
    place = posixpath.dirname(source)
    for token in (child for each in tokens for child in each.children or ()):
        name = {"link_open": "href", "image": "src"}.get(token.type)
        if name is None:
            continue
        path, mark, anchor = str(token.attrGet(name)).partition("#")
        if not path or urlsplit(path).scheme:
            continue
        file = posixpath.normpath(posixpath.join(place, unquote(path)))
        if file in pages:
            token.attrSet(name, _relative(target_of(file), source) + mark + anchor)
        elif not file.startswith("../"):
            yield file


def _relative(target: str, source: str) -> str:
    return posixpath.relpath(target, posixpath.dirname(target_of(source)) or ".")


def _markdown(root: Path, source: str, pages: frozenset[str]) -> tuple[Page, set[str]]:
    """Return the page of a Markdown file, and the other files to which it links."""
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    tokens = parser.parse((root / source).read_text())
    title = _name_headings(tokens) or source
    files = set(_turn_links(tokens, source, pages))
    content = parser.renderer.render(tokens, parser.options, {})
    return Page(source=source, target=target_of(source), title=title, content=content), files


# --- manual pages


def _manual(root: Path, target: Path) -> Iterator[Page]:
    """Yield the manual pages. mandoc links a page that is in its working directory, and others on the web."""
    if shutil.which("mandoc") is None:
        raise DocsError(
            "there is no program mandoc, which makes HTML of manual pages (apt-get install mandoc)"
        )
    sources = sorted((root / MANUAL).iterdir())
    place = target / MANUAL
    place.mkdir(parents=True)
    for source in sources:
        (place / f"{source.name}.html").touch()
    links = "man=%N.%S.html;https://manpages.debian.org/%N.%S"
    for source in sources:
        done = subprocess.run(
            ["mandoc", "-Thtml", "-O", f"fragment,toc,{links}", source],
            cwd=place,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise DocsError(f"mandoc cannot read {source}: {done.stderr.strip() or done.stdout[-200:]}")
        name, _, section = source.name.rpartition(".")
        yield Page(
            source=f"{MANUAL}/{source.name}",
            target=f"{MANUAL}/{source.name}.html",
            title=f"{name}({section})",
            content=f'<div class="manual">{done.stdout}</div>',
        )


def _link_manual(page: Page, manual: Mapping[str, str]) -> str:
    """Return the content with links where it names a manual page of zmsvc, as in zmsvcctl(1)."""
    names = "|".join(re.escape(name.partition("(")[0]) for name in sorted(manual, key=len, reverse=True))
    naming = re.compile(rf"(?:<b>)?\b({names})(?:</b>)?(\(\d\))")

    def linked(found: re.Match[str]) -> str:
        name = found[1] + found[2]
        if name not in manual or manual[name] == page.target:
            return found[0]
        return f'<a href="{_relative(manual[name], page.source)}">{found[0]}</a>'

    # Text in links, in code and in tags stays as it is.
    parts = re.split(
        r"(<a\b.*?</a>|<pre\b.*?</pre>|<code\b.*?</code>|<(?!/?b>)[^>]*>)", page.content, flags=re.S
    )
    return "".join(part if at % 2 else naming.sub(linked, part) for at, part in enumerate(parts))


# --- pages


def _navigation(page: Page, pages: Mapping[str, Page]) -> str:
    listed = {source for sources in SECTIONS.values() for source in sources}
    manual = [source for source in pages if source.startswith(MANUAL)]
    rest = {
        "Manual": manual,
        "More": [source for source in pages if source not in listed and source not in manual],
    }
    lines = []
    for section, sources in SECTIONS.items():
        lines.append(f"<h2>{section}</h2>\n<ul>")
        for source in (*sources, *rest.get(section, ())):
            if source in pages:
                current = ' aria-current="page"' if source == page.source else ""
                link = _relative(pages[source].target, page.source)
                lines.append(f'<li><a href="{link}"{current}>{html.escape(pages[source].title)}</a></li>')
        lines.append("</ul>")
    return "\n".join(lines)


def build(root: Path, target: Path) -> Mapping[str, Page]:
    """Write all pages below `target`, after removing it. Returns them by the paths of their sources."""
    shutil.rmtree(target, ignore_errors=True)
    sources = [
        str(file.relative_to(root))
        for place in (".", "docs", "bench")
        for file in sorted((root / place).glob("*.md"))
    ]
    made = [_markdown(root, source, frozenset(sources)) for source in sources]
    files = {f"{THEME}/style.css"}.union(*(linked for _, linked in made))
    pages = {page.source: page for page in (*(page for page, _ in made), *_manual(root, target))}
    manual = {page.title: page.target for page in pages.values() if page.source.startswith(MANUAL)}
    frame = Template((root / THEME / "page.html").read_text())
    for page in pages.values():
        file = target / page.target
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            frame.substitute(
                title=html.escape(page.title),
                top=_relative("x", page.source)[:-1],
                navigation=_navigation(page, pages),
                content=_link_manual(page, manual),
            )
        )
    for name in files:
        # Leave a missing file or a directory to the check of the links, which reports it.
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, target / name)
    return pages


# --- the check of the links


class Links(HTMLParser):
    """The links of a page, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("href", "src") and value is not None:
                self.links.append(value)
            elif name == "id" and value:
                self.names.add(value)


def faults(target: Path) -> list[str]:
    """Return a line for each link of the pages below `target` that leads nowhere."""
    pages = {file: Links(file.read_text()) for file in sorted(target.rglob("*.html"))}
    found = {
        f"{file.relative_to(target)}: {link}: {fault}"
        for file, page in pages.items()
        for link in page.links
        if (fault := _fault(link, file, pages))
    }
    return sorted(found)


def _fault(link: str, page: Path, pages: Mapping[Path, Links]) -> str | None:
    try:
        parts = urlsplit(link)
    except ValueError as error:
        return f"no URL: {error}"
    if parts.scheme or parts.netloc:
        return _fault_of_url(link, parts.scheme, parts.hostname or "")
    file = Path(os.path.normpath(page.parent / unquote(parts.path))) if parts.path else page
    if not file.is_file():
        return "there is no such file" + (", but a directory" if file.is_dir() else "")
    if parts.fragment and (file not in pages or unquote(parts.fragment) not in pages[file].names):
        return "there is no such heading"
    return None


def _fault_of_url(link: str, scheme: str, host: str) -> str | None:
    if scheme != "https":
        return "expected https, or a path of the tree"
    if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", host) or re.search(r"[\s<>\"]", link):
        return "no URL"
    return None


def main() -> int:
    target = ROOT / OUTPUT if len(sys.argv) == 1 else Path(sys.argv[1]).absolute()
    try:
        pages = build(ROOT, target)
    except DocsError as error:
        print(f"make docs: {error}", file=sys.stderr)
        return 1
    wrong = faults(target)
    for line in wrong:
        print(f"make docs: {line}", file=sys.stderr)
    if not wrong:
        print(f"{len(pages)} pages, begin with {target / 'index.html'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
