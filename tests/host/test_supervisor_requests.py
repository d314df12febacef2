"""Requests of the control socket that the supervisor refuses by itself."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

import pytest

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.host.kernel import signals
from zmsvc.keeper_client.children import Children
from zmsvc.supervisor.control_requests import Requests
from zmsvc.supervisor.loop import Loop


async def unwritten(_answer: Any, /) -> None:
    raise AssertionError("a refusal has one line")


def refused(
    request: dict[str, Any], *, protocol: int = 4, reload_signals: Mapping[str, str] = MappingProxyType({})
) -> tuple[int, str]:
    children = SimpleNamespace(protocol=protocol)
    children.knows_signal = partial(Children.knows_signal, cast(Children, children))
    tasks = {
        name: SimpleNamespace(signal_to_reload=each, reload_command=())
        for name, each in reload_signals.items()
    }
    context = SimpleNamespace(tasks=tasks, named=lambda name: (name,))
    world = SimpleNamespace(context=context)
    loop = SimpleNamespace(children=children, on_change=[], world=world)
    table = Requests(cast(Loop, loop), {"keeper_version": "1.0"}).table()
    answer = asyncio.run(table[request["verb"]](request, 0, unwritten))
    return answer["code"], answer["error"]


@pytest.mark.parametrize(
    ("fields", "unknown"),
    [
        # It would signal the main process alone, and the operator would not know.
        ({"signal": "HUP", "all": True}, "--all"),
        # The keeper of 1.0 would end.
        ({"signal": "RTMIN+3"}, "SIGRTMIN+3"),
        ({"signal": str(signal.SIGRTMIN + 3)}, "SIGRTMIN+3"),
    ],
)
def test_a_keeper_of_an_earlier_release_is_not_sent_a_signal_that_it_does_not_know(
    fields: dict[str, Any], unknown: str
) -> None:
    assert refused({"verb": "signal", "tasks": ["a"], **fields}, protocol=3) == (
        1,
        f"cannot signal: the keeper (zmsvc 1.0) does not know {unknown}; a restart of the context renews it",
    )


def test_a_keeper_of_an_earlier_release_is_not_sent_a_reload_signal_that_it_does_not_know() -> None:
    tasks = {"a": "", "b": "SIGRTMIN+3"}
    assert refused({"verb": "reload-tasks", "tasks": ["a", "b"]}, protocol=3, reload_signals=tasks) == (
        1,
        "cannot reload: the keeper (zmsvc 1.0) does not know SIGRTMIN+3; a restart of the context renews it",
    )


@pytest.mark.parametrize("word", ["", None, "FOO", 0, -1, 65, 99, "9" * 5000, ["HUP"]])
def test_a_signal_that_the_machine_does_not_have_is_refused(word: Any) -> None:
    code, error = refused({"verb": "signal", "tasks": ["a"], "signal": word})
    assert (code, "is not a signal" in error) == (2, True)


@pytest.mark.parametrize(
    "request_", [{"tasks": ["a"]}, {"tasks": [], "for": "active"}, {"tasks": ["a"], "for": "running"}]
)
def test_a_wait_names_a_task_and_a_state_that_lasts(request_: dict[str, Any]) -> None:
    assert refused({"verb": "wait", **request_}) == (
        2,
        "cannot wait: expected at least one task, and one state of active, inactive, failed",
    )


@pytest.mark.parametrize("seconds", [0, -1, "1", None, True, 0.2, 10**400, float("inf"), float("nan"), 1e308])
def test_any_time_limit_of_a_client_is_understood_or_is_none(seconds: Any) -> None:
    asked = []

    async def ask(request: Any) -> Any:
        asked.append(request)
        return SimpleNamespace(ok=True, code=0, error="", data={})

    loop = SimpleNamespace(ask=ask, next_request=lambda: 1)
    table = Requests(cast(Loop, loop), {}).table()
    request = {"verb": "start", "timeout": seconds}
    assert asyncio.run(table["start"](request, 0, unwritten))["ok"]
    assert len(asked) == 1


def test_a_task_that_is_named_twice_gets_one_signal() -> None:
    asked: list[Any] = []

    async def ask(request: Any) -> Any:
        asked.append(request)
        return SimpleNamespace(ok=True, code=0, error="", data={})

    children = SimpleNamespace(protocol=4, knows_signal=lambda _name: True)
    loop = SimpleNamespace(ask=ask, next_request=lambda: 1, children=children)
    table = Requests(cast(Loop, loop), {}).table()
    request = {"verb": "signal", "tasks": ["a", "b", "a"], "signal": "HUP"}
    assert asyncio.run(table["signal"](request, 0, unwritten))["ok"]
    assert asked[0].tasks == ("a", "b")


def test_a_real_time_signal_has_a_number_like_every_other_one() -> None:
    for number in range(signal.SIGRTMIN, signal.SIGRTMAX + 1):
        assert signals.number(signals.name(str(number))) == number


@pytest.mark.parametrize("host", [None, "", 3, ["h2"]])
@pytest.mark.parametrize("verb", ["drain", "undrain"])
def test_a_drain_names_a_host(verb: str, host: Any) -> None:
    assert refused({"verb": verb, "host": host}) == (2, f"cannot {verb}: expected the name of a host")


@pytest.mark.parametrize("verb", ["drain", "undrain"])
def test_a_drain_is_a_fact_with_its_operator(verb: str) -> None:
    taken: list[ft.DrainRequested] = []

    async def ask(fact: ft.DrainRequested) -> fx.Reply:
        taken.append(fact)
        return fx.Reply(request=7, ok=True, data={"tasks": []})

    loop = SimpleNamespace(next_request=lambda: 7, ask=ask)
    table = Requests(cast(Loop, loop), {}).table()
    request = {"verb": verb, "host": "h2", "block": False}
    answer = asyncio.run(table[verb](request, 12, unwritten))
    assert (answer["ok"], answer["data"]) == (True, {"tasks": []})
    origin = ft.Origin(by="operator", uid=12)
    assert taken == [
        ft.DrainRequested(host="h2", drained=verb == "drain", origin=origin, request=7, block=False)
    ]
