"""core/deadline: an observer that stood still gives the observed process its time once more."""

from __future__ import annotations

from zmsvc.core.deadline import LATE, Deadline

TIME = 3.0


def begun() -> Deadline:
    deadline = Deadline()
    deadline.begin(100.0, TIME)
    return deadline


def test_a_look_in_time_ends_it() -> None:
    deadline = begun()
    assert not deadline.is_over(100.0 + TIME - 0.1)
    assert deadline.is_over(100.0 + TIME)
    assert begun().is_over(100.0 + TIME + LATE)


def test_a_late_look_gives_the_time_once_more_and_not_twice() -> None:
    deadline = begun()
    late = 100.0 + TIME + LATE + 0.1
    assert not deadline.is_over(late)
    assert deadline.due == late + TIME
    assert deadline.is_over(late + TIME + 10 * LATE)


def test_a_sign_of_life_counts_anew() -> None:
    deadline = begun()
    assert not deadline.is_over(100.0 + 10 * TIME)
    deadline.begin(200.0, TIME)
    assert not deadline.is_over(200.0 + 10 * TIME)


def test_nothing_is_over_while_nothing_is_expected() -> None:
    deadline = begun()
    deadline.clear()
    assert deadline.due is None
    assert not deadline.is_over(1000.0)
    assert not Deadline().is_over(1000.0)
