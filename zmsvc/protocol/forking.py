"""The line between the keeper and the template out of which tasks are forked: the keeper sends a launch, the template answers a PID.

Both are of one version, being fork and parent. So a launch is in the interpreter's own form (marshal): a task that was just forked
reads it without a line of Python, which would cost it copied pages.
"""

from __future__ import annotations

import marshal
import os
from dataclasses import dataclass, fields

from zmsvc.protocol.launch import Descriptors, LaunchSpec

ANSWER = 64
"""Bytes that the longest answer has at most."""

_NAMES = tuple(each.name for each in fields(LaunchSpec))


def encode_launch(spec: LaunchSpec, fds: Descriptors) -> bytes:
    """Return a launch for the template. The descriptors go beside it, in the order of `fds.given()`."""
    return marshal.dumps(({name: getattr(spec, name) for name in _NAMES}, tuple(fds.given())))


def decode_launch(data: bytes, came: list[int]) -> tuple[LaunchSpec, Descriptors]:
    """Return what `encode_launch` was given; `came` are the descriptors that came beside it."""
    body, names = marshal.loads(data)
    return LaunchSpec(**body), Descriptors(**dict(zip(names, came, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Forked:
    """The task waits at its gate."""

    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotForked:
    """The kernel refused, with this errno."""

    number: int

    def error(self) -> OSError:
        return OSError(self.number, os.strerror(self.number))


Answer = Forked | NotForked


def encode_answer(answer: Answer) -> bytes:
    return b"%d" % (answer.pid if isinstance(answer, Forked) else -answer.number)


def decode_answer(data: bytes) -> Answer:
    """Raises ValueError for what is no answer."""
    number = int(data)
    return Forked(pid=number) if number > 0 else NotForked(number=-number)
