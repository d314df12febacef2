"""JSON of any kind, for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st


def json_values(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Return small values of JSON with these texts, also as names."""
    numbers = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    return st.recursive(
        st.none() | st.booleans() | numbers | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=8,
    )
