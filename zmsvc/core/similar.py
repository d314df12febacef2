"""Suggest a known word that is similar to an unknown one. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST = 1000
"""The number of known words that are compared, since a comparison takes time."""


def closest(word: str, known: Iterable[str], cutoff: float = 0.7) -> str:
    """Return the known word that is close to this one; empty if there is none. Case does not count."""
    folded = {other.lower(): other for other, _ in zip(known, range(MOST), strict=False)}
    close = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=cutoff)
    return folded[close[0]] if close else ""


def similar(word: str, known: Iterable[str], cutoff: float = 0.7) -> str:
    """Return ` (did you mean X?)` if a known word is close to this one, else an empty text."""
    found = closest(word, known, cutoff)
    return f" (did you mean {found}?)" if found else ""


def similar_id(word: str, known: Iterable[str]) -> str:
    """Return the same for the ID of a task or a transaction. Many IDs differ only in a number, such as ts_1
    and ts_2, which is not a mistake in typing.
    """
    return similar(word, known, 0.8)
