"""Find phrases that do not belong in plain technical English: see "Style" in CONTRIBUTING.md.

`python tests/house/prose.py` prints each of them, `python tests/house/prose.py --counts` how many each file
has, as in allowed_phrases.txt.
"""

from __future__ import annotations

import ast
import functools
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PLACES = (
    ".ci", "bench", "cockpit", "debian", "docs", "etc", "packaging", "scripts", "tests", "units", "zmsvc",
    "CONTRIBUTING.md", "Makefile", "NEWS", "README.md", "SECURITY.md", "setup.cfg",
)  # fmt: skip
KEPT = re.compile(
    r"tests/house/(prose|test_prose)\.py|tests/house/allowed_phrases\.txt|debian/(changelog|copyright)"
    r"|cockpit/(dist|node_modules|package-lock\.json)(/.*)?|packaging/locked/.*|bench/results\.json|.*\.svg"
)
"""Texts of others, no prose, or the phrases themselves."""

HEADLESS = re.compile(r"(What|Whatever|Whether|Who|Whoever|Whom|Whose)\b")
"""A docstring or a comment that begins so has no subject and no verb."""
PHRASES = re.compile(
    r"""(?ix)
    (?<!there\s) \b is \s no \b (?! \s longer)
    | \b anew \b | \b shall \b | \b for \s want \s of \b | \b somebody \b | (?<![\w"'`=:~<>/-]) (?-i: [Nn]obody ) \b (?! ["'`:<>/-])
    | \b whoever \b | \b lest \b | \b thereby \b | \b but \s for \b
    """
)
WORD = re.compile("[A-Za-z]{4,}")
BRITISH = re.compile(
    r"""(?x) (
    (un)?colour\w* | behaviour\w* | neighbour\w* | favour\w* | honour\w* | flavour\w* | harbour\w* | endeavour\w*
    | \w*(recogn|organ|initial|serial|synchron|optim|summar|normal|daemon|util|author|minim|maxim|priorit|final)is(e|es|ed|ing|ation|er|ers)
    | (re)?label(l)(ed|ing) | cancel(l)(ed|ing) | signal(l)(ed|ing) | travel(l)(ed|ing|er) | model(l)(ed|ing)
    | misspelt | grey | centre[sd]? | catalogue\w* | analys(e|ed|es|ing) | artefacts? | licen[c]e[sd]?
    | acknowledgement\w* | judgement\w* | fulfil | whilst | programme[sd]? | defence | spelt | learnt
    )"""
)


class Found(NamedTuple):
    """One phrase in one line."""

    file: str
    line: int
    phrase: str


def _comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _texts(source: str) -> Iterator[tuple[int, str, bool]]:
    """Yield each string of a Python file with its line, and True for a docstring."""
    docstrings = set()
    for node in ast.walk(ast.parse(source)):  # a statement comes before its parts
        if isinstance(node, ast.Expr):
            docstrings.add(id(node.value))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            # A word alone is data.
            yield node.lineno, node.value, id(node) in docstrings


def _matches(pattern: re.Pattern[str], file: str, first: int, text: str) -> Iterator[Found]:
    for match in pattern.finditer(text):
        phrase = " ".join(match.group().split())
        yield Found(file, first + text.count("\n", 0, match.start()), phrase)


def _british(file: str, text: str) -> Iterator[Found]:
    for line, words in enumerate(text.splitlines(), 1):
        for word in WORD.findall(words):
            if _is_british(word.lower()) and f".{word}()" not in words:  # asyncio's cancelled()
                yield Found(file, line, word)


@functools.cache
def _is_british(word: str) -> bool:
    return BRITISH.fullmatch(word) is not None


def _in_python(file: str, source: str) -> Iterator[Found]:
    before, last = "", 0
    for line, comment in _comments(source):
        words = comment.lstrip("#: ")
        goes_on = line == last + 1 and not before.rstrip().endswith((".", ":"))
        if HEADLESS.match(words) and not goes_on and not words.rstrip().endswith("?"):
            yield Found(file, line, words.split()[0])
        yield from _matches(PHRASES, file, line, comment)
        before, last = comment, line
    for line, text, docstring in _texts(source):
        if docstring and HEADLESS.match(text.lstrip()):
            yield Found(file, line, text.split()[0])
        yield from _matches(PHRASES, file, line, text)
    yield from _british(file, source)  # also names of Python


def _in_other_text(file: str, text: str) -> Iterator[Found]:
    yield from _matches(PHRASES, file, 1, text)
    yield from _british(file, text)


def _files(root: Path) -> Iterator[Path]:
    for place in PLACES:
        path = root / place
        yield from sorted(path.rglob("*")) if path.is_dir() else [path]


def found(root: Path = ROOT) -> list[Found]:
    """Return every phrase in the texts of the repository."""
    everything: set[Found] = set()
    for path in _files(root):
        file = str(path.relative_to(root))
        if not path.is_file() or path.is_symlink() or "__pycache__" in file or KEPT.fullmatch(file):
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        everything.update(_in_python(file, text) if file.endswith(".py") else _in_other_text(file, text))
    return sorted(everything)


def counts() -> dict[str, int]:
    """Return how many phrases each file has that has one."""
    files = [each.file for each in found()]
    return {file: files.count(file) for file in sorted(set(files))}


def main() -> None:
    if "--counts" in sys.argv:
        print("".join(f"{count} {file}\n" for file, count in counts().items()), end="")
    else:
        print("".join(f"{each.file}:{each.line}: {each.phrase}\n" for each in found()), end="")


if __name__ == "__main__":
    main()
