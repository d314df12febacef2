"""core/updates: the limits of rate and nesting of updates, and their result."""

from __future__ import annotations

from typing import Any

import pytest

from zmsvc.core import updates


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1


def test_a_full_bucket_passes_a_burst_and_no_more() -> None:
    tokens, since, passed = 0.0, None, 0
    while not (judged := updates.judge(tokens, since, {})).refusal:
        tokens, since, passed = judged.tokens, 0.0, passed + 1
    assert passed == int(updates.BURST)
    assert judged.too_fast
    assert judged.refusal == "more than 1000 updates a second"


@pytest.mark.parametrize(
    ("tokens", "since", "left"),
    [
        (1.0, 0.0, 0.0),
        (0.0, 0.001, 0.0),
        (5.0, 0.002, 6.0),
        (updates.BURST, 60.0, updates.BURST - 1.0),
        (0.0, 3600.0, updates.BURST - 1.0),
        (0.0, None, updates.BURST - 1.0),
    ],
)
def test_an_update_costs_one_token_of_a_bucket_that_fills_at_the_rate(
    tokens: float, since: float | None, left: float
) -> None:
    judged = updates.judge(tokens, since, {"n": 1})
    assert judged.tokens == pytest.approx(left)
    assert (judged.refusal, judged.too_fast) == ("", False)


@pytest.mark.parametrize(
    ("tokens", "since", "left"), [(0.0, 0.0, 0.0), (0.5, 0.0004, 0.9), (0.99, 0.0, 0.99)]
)
def test_without_a_whole_token_an_update_is_refused_and_costs_nothing(
    tokens: float, since: float, left: float
) -> None:
    judged = updates.judge(tokens, since, {})
    assert judged.too_fast
    assert judged.tokens == pytest.approx(left)


def test_a_too_deeply_nested_update_costs_a_token_and_is_not_too_fast() -> None:
    judged = updates.judge(10.0, 0.0, {"x": nested(updates.MAX_NESTING)})
    assert judged == updates.Judged(tokens=9.0, refusal="an update is nested more than 64 deep")


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: (inner,), lambda inner: {"x": inner}])
def test_the_depth_limit_counts_the_update_and_its_innermost_values(wrap: Any) -> None:
    inner: Any = 1
    for _ in range(updates.MAX_NESTING - 2):
        inner = wrap(inner)
    assert not updates.too_deep({"x": inner})
    assert updates.too_deep({"x": wrap(inner)})
    assert updates.too_deep({"x": [1, "text", wrap(inner)]}), "in any of its branches"


def test_a_text_is_not_nested() -> None:
    assert not updates.too_deep({"x": "long text", "y": None})


@pytest.mark.parametrize(
    ("items", "result"), [({}, "success"), ({"result": "failed"}, "failed"), ({"result": 5}, "success")]
)
def test_the_result_is_the_tasks_word(items: dict[str, Any], result: str) -> None:
    assert updates.result_of(items) == result


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ({"good": 1, "bad": {1, 2}}, "cannot update: bad is not JSON: .*set"),
        ({"good": 1, "bad": float("nan")}, "cannot update: bad is not JSON: "),
        ({("a", "b"): 1}, "cannot update: keys must be"),
    ],
)
def test_an_item_that_is_not_json_is_named(items: dict[Any, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        updates.as_json(items)


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ({"pid": 1}, "zmsvc itself sets pid"),
        ({"result": 1}, "result must be a str"),
        ({"x": nested(updates.MAX_NESTING)}, "nested more than 64 deep"),
    ],
)
def test_an_item_that_the_message_cannot_hold_is_refused(items: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        updates.as_json(items)


def test_the_burst_of_the_sdk_and_what_the_kernel_queues_fit_into_that_of_the_engine() -> None:
    assert updates.as_json({"n": 1, "result": "x"}) == '{"n":1,"result":"x"}'
    assert updates.OWN_BURST + 512 < updates.BURST
