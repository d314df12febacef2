"""Check that texts are in plain technical English. Files that are not clean yet have an allowance, which only
shrinks: tests/house/prose.py prints the phrases and, with --counts, the allowances.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from prose import BRITISH, HEADLESS, PHRASES, found

ALLOWED = Path(__file__).with_name("allowed_phrases.txt")


def test_no_file_has_more_unclear_phrases_than_before() -> None:
    allowed = {file: int(count) for count, file in map(str.split, ALLOWED.read_text().splitlines())}
    more = []
    by_file: dict[str, list[str]] = {}
    for each in found():
        by_file.setdefault(each.file, []).append(f"{each.file}:{each.line}: {each.phrase!r}")
    for file, lines in by_file.items():
        if len(lines) > allowed.get(file, 0):
            more += [f"{file}: {len(lines)}, of {allowed.get(file, 0)} that are allowed", *lines]
    assert not more, "\n".join(more)


@pytest.mark.parametrize(
    "text", ["it is no file", "opened anew", "nobody reads it", "a file for want of space", "it shall end"]
)
def test_a_phrase_is_found(text: str) -> None:
    assert PHRASES.search(text)


@pytest.mark.parametrize(
    "text", ["there is no file", "it is no longer there", 'user "nobody"', "a new file", "shallow"]
)
def test_a_plain_phrase_is_not_found(text: str) -> None:
    assert not PHRASES.search(text)


def test_british_spellings_and_headless_sentences_are_found() -> None:
    assert all(map(BRITISH.fullmatch, ["colour", "labelled", "daemonised"]))
    assert not any(map(BRITISH.fullmatch, ["color", "promise", "otherwise", "exercise", "analysis"]))
    assert HEADLESS.match("What the keeper has")
    assert not HEADLESS.match("Whatnot")
