"""The prefixes of a subscriber match every form of JSON about its transaction, and no message of zmsvc
about another transaction.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from zmsvc.core import messages, prefixes

TX = "6FDAHH3WPRVV7FGZCRIN"
HEARD = tuple(prefixes.control(TX))
KEYS = st.sampled_from(["content", "Task", "id", "version", "sent_at", "x"])
HEAD_KEYS = st.sampled_from(
    [
        "service_id",
        "action",
        "service_name",
        "sender",
        "sequence",
        "launch",
        "origin",
        "source",
        "service_type",
    ]
)


def head(transaction: str, more: dict[str, Any]) -> list[tuple[str, Any]]:
    return [*more.items(), ("service_transaction", transaction)]


@given(
    more=st.dictionaries(HEAD_KEYS, st.text(max_size=5) | st.integers()),
    rest=st.dictionaries(KEYS, st.text(max_size=5) | st.none()),
    order=st.randoms(use_true_random=False),
    indent=st.none() | st.integers(0, 4),
    separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :")]),
    before=st.text(" \t\r\n", max_size=3),
)
def test_every_json_form_of_a_message_of_the_transaction_matches_a_prefix(
    more: dict[str, Any],
    rest: dict[str, Any],
    order: Any,
    indent: int | None,
    separators: tuple[str, str],
    before: str,
) -> None:
    inner = head(TX, more)
    order.shuffle(inner)
    outer = [*rest.items(), ("header", dict(inner))]
    order.shuffle(outer)
    text = before + json.dumps(dict(outer), indent=indent, separators=separators)
    assert f"control @@@ {text}".encode().startswith(HEARD)


@given(st.dictionaries(HEAD_KEYS, st.text(max_size=5)), st.dictionaries(KEYS, st.text(max_size=5)))
def test_messages_of_zmsvc_match_the_prefixes_of_their_own_transaction_only(
    more: dict[str, Any], rest: dict[str, Any]
) -> None:
    for transaction in (TX, f"{TX}2", TX[:-1], "OTHER"):
        frame = messages.encode("control", {"header": dict(head(transaction, more)), **rest})
        assert frame.startswith(HEARD) is (transaction == TX)
        assert frame.startswith(tuple(prefixes.control(TX, ours_only=True))) is (transaction == TX)


def test_subscribers_share_all_prefixes_except_that_of_their_transaction() -> None:
    assert len(set(HEARD) ^ set(prefixes.control("OTHER"))) == 2
    assert len(HEARD) < 100, "each publisher is told of each"
