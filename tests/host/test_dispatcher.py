"""The dispatcher of the keeper on real descriptors: late events, and callbacks that fail."""

from __future__ import annotations

import errno
import os
import selectors
from collections.abc import Iterator

import pytest

from zmsvc.keeper.dispatcher import Dispatcher
from zmsvc.keeper.machine import Machine


class Clock(Machine):
    """The machine, with a clock that stands still."""

    time = 100.0

    def now(self) -> float:  # type: ignore[override]
        return self.time


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    """Yield two readable pipes."""
    made = [os.pipe() for _ in range(2)]
    for _, writer in made:
        os.write(writer, b"x")
    yield made
    for pipe in made:
        for fd in pipe:
            try:
                os.close(fd)
            except OSError:
                continue  # The test has closed it already.


def test_an_event_of_a_removed_registration_is_dropped(pipes: list[tuple[int, int]]) -> None:
    dispatcher, called = Dispatcher(Machine()), []

    def remove(own: int, other: int) -> None:
        called.append(own)
        dispatcher.unwatch(other)

    (first, _), (second, _) = pipes
    dispatcher.watch(first, lambda: remove(first, second))
    dispatcher.watch(second, lambda: remove(second, first))
    dispatcher.turn(0)
    assert len(called) == 1


def test_an_event_does_not_reach_another_object_with_the_same_descriptor(
    pipes: list[tuple[int, int]],
) -> None:
    dispatcher, called = Dispatcher(Machine()), []

    def replace(own: int, other: int) -> None:
        dispatcher.unwatch(own)
        dispatcher.unwatch(other)
        dispatcher.watch(other, lambda: called.append("new"))

    (first, _), (second, _) = pipes
    dispatcher.watch(first, lambda: replace(first, second))
    dispatcher.watch(second, lambda: replace(second, first))
    dispatcher.turn(0)
    assert called == []
    dispatcher.turn(0)
    assert called == ["new"], "what is there now is called in its own turn"


def test_an_object_whose_call_fails_is_dropped_and_the_others_continue(
    pipes: list[tuple[int, int]], capfd: pytest.CaptureFixture[str]
) -> None:
    dispatcher, called = Dispatcher(Machine()), []
    (first, _), (second, _) = pipes
    dispatcher.watch(first, lambda: 1 / 0, drop=lambda: called.append("dropped"))
    dispatcher.watch(second, lambda: called.append("other"))
    dispatcher.turn(0)
    assert sorted(called) == ["dropped", "other"]
    assert not dispatcher.watched(first)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_failed_call_without_an_object_to_drop_is_retried_after_a_pause(
    pipes: list[tuple[int, int]],
) -> None:
    clock = Clock()
    dispatcher, called = Dispatcher(clock), []
    (first, _), _ = pipes

    def fail() -> None:
        called.append(clock.time)
        raise OSError

    dispatcher.watch(first, fail)
    for _ in range(3):
        dispatcher.turn(0)
    assert called == [100.0]
    due = dispatcher.due()
    assert due is not None
    clock.time = due
    dispatcher.turn(0)
    assert called == [100.0, due]


def test_a_selector_that_fails_is_replaced(pipes: list[tuple[int, int]]) -> None:
    clock = Clock()
    dispatcher, called = Dispatcher(clock), []
    (first, _), _ = pipes
    dispatcher.watch(first, lambda: called.append("called"))
    os.close(dispatcher._selector.fileno())  # type: ignore[attr-defined]
    dispatcher.turn(0)
    clock.time += 2
    dispatcher.turn(0)
    assert called == ["called"]


def test_a_selector_is_replaced_though_no_descriptor_is_left(
    pipes: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    dispatcher, called = Dispatcher(clock), []
    (first, _), _ = pipes
    dispatcher.watch(first, lambda: called.append("called"))

    def refuse() -> selectors.BaseSelector:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(clock, "selector", refuse)
    os.close(dispatcher._selector.fileno())  # type: ignore[attr-defined]
    dispatcher.turn(0)
    clock.time += 2
    dispatcher.turn(0)
    assert called == ["called"]
