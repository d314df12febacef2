"""The line between the keeper and the zygote, out of which tasks are forked: the keeper orders a launch, the
zygote answers a PID.

The launch itself lies in a memory file whose descriptor goes with the order, and only the forked task reads
it. So no environment, configuration or key of one task is ever in the memory that another is forked with. It
is in the interpreter's own form (marshal), which is read without a line of Python: a task that was just
forked would pay for that with copied pages.

The zygote is executed, so an upgrade may bring one that is newer than the keeper. It gets the keeper's
protocol number as an argument, and it refuses to run under one that it does not speak.
"""

from __future__ import annotations

import json
import marshal
import os
from dataclasses import dataclass, fields

from zmsvc.core.errors import ProtocolError
from zmsvc.protocol.launch import Descriptors, LaunchSpec

PROTOCOL = 2
"""1: all tasks of a zygote wait at one gate. 2: each launch brings a gate of its own, and may bring a pipe
for the task's output."""
OLDEST = 1
"""zmsvc 1.0 forked its own process and executed no zygote."""

PACKET = 4096
"""Bytes that the longest packet of the zygote has at most."""

_NAMES = tuple(each.name for each in fields(LaunchSpec))
_KNOWN = frozenset(_NAMES)
_SPEC = "spec"
"""The descriptor of the memory file, beside those of a launch."""


# --- from the keeper


def encode_launch(spec: LaunchSpec) -> bytes:
    """Return the content of the memory file."""
    return marshal.dumps({name: getattr(spec, name) for name in _NAMES})


def decode_launch(data: bytes) -> LaunchSpec:
    """Return what `encode_launch` was given; what a newer keeper adds is left out."""
    body = marshal.loads(data)
    return LaunchSpec(
        **body if body.keys() <= _KNOWN else {name: value for name, value in body.items() if name in _KNOWN}
    )


def order(fds: Descriptors, spec: int) -> tuple[bytes, dict[str, int]]:
    """Return the packet that orders a launch whose memory file is open as `spec`, and its descriptors in
    their order.
    """
    given = {**fds.given(), _SPEC: spec}
    return " ".join(given).encode(), given


def read_launch(packet: bytes, came: list[int]) -> tuple[LaunchSpec, Descriptors]:
    """Return what an order stands for, in the task. `came` are the descriptors that came beside it; the
    memory file is closed.
    """
    fds = dict(zip(packet.decode().split(), came, strict=True))
    memory = fds.pop(_SPEC)
    data = os.pread(memory, os.fstat(memory).st_size, 0)
    os.close(memory)
    return decode_launch(data), Descriptors(**fds)


# --- from the zygote


def encode_hello(version: str) -> bytes:
    """Return the zygote's first packet: it lives, and this is its version."""
    return json.dumps({"version": version, "protocol": PROTOCOL}).encode()


def decode_hello(data: bytes) -> tuple[str, int]:
    """Return the version and the protocol in the zygote's first packet. Raises ProtocolError for anything
    else.
    """
    try:
        said = json.loads(data)
        return str(said["version"]), int(said.get("protocol", 1))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"cannot greet the zygote: {error!r}") from None


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
    """Raises ProtocolError for what is no answer."""
    try:
        number = int(data)
    except ValueError:
        raise ProtocolError(f"cannot read the zygote's answer {data!r}") from None
    return Forked(pid=number) if number > 0 else NotForked(number=-number)
