"""Names of signals as people write them."""

from __future__ import annotations

import signal

import pytest

from zmsvc.host.kernel import signals


@pytest.mark.parametrize(
    ("text", "name", "number"),
    [
        ("QUIT", "SIGQUIT", signal.SIGQUIT),
        ("SIGQUIT", "SIGQUIT", signal.SIGQUIT),
        (" term ", "SIGTERM", signal.SIGTERM),
        ("1", "SIGHUP", signal.SIGHUP),
        ("SIGRTMIN+3", "SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("RTMIN+0", "SIGRTMIN+0", signal.SIGRTMIN),
    ],
)
def test_a_signal_may_be_written_in_each_of_these_ways(text: str, name: str, number: int) -> None:
    assert signals.name(text) == name
    assert signals.number(name) == number


@pytest.mark.parametrize("text", ["", "0", "65", "-1", "NOPE", "SIGRTMIN+99", "SIGTERM SIGHUP"])
def test_an_unknown_signal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a signal"):
        signals.name(text)
