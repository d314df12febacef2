"""The channel between the keeper and the zygote, which forks tasks: the keeper orders a launch, and the
zygote answers with a PID.

The launch itself is in a memory file whose descriptor is sent with the order, and only the forked task reads
it. So the memory of a task never contains the environment, configuration or key of another task. The file has
the interpreter's own format (marshal), which is decoded without Python code. In a task that was just forked,
Python code would copy pages.

The zygote is executed, so after an upgrade it may be newer than the keeper. It gets the keeper's protocol
number as an argument, and refuses to run if it does not speak that number.
"""

from __future__ import annotations

import json
import marshal
import os
from dataclasses import fields
from operator import attrgetter

from zmsvc.core.errors import ProtocolError
from zmsvc.core.frozen import frozen
from zmsvc.protocol.launch import Descriptors, LaunchSpec

PROTOCOL = 3
"""1: all tasks of a zygote wait at one start gate. 2: each launch has a start gate of its own, and may have a
pipe for the task's output. 3: the zygote forks spare tasks.
"""
PROTOCOL_GATES = 2
"""The first protocol with a start gate for each launch."""
PROTOCOL_SPARE_TASKS = 3
"""The first protocol with spare tasks."""
OLDEST = 1
"""zmsvc 1.0 forked the keeper itself and executed no zygote."""

PACKET = 4096
"""Maximum bytes of a packet of the zygote."""

_NAMES = tuple(each.name for each in fields(LaunchSpec))
_VALUES = attrgetter(*_NAMES)
_KNOWN = frozenset(_NAMES)
_SPEC = "spec"
"""The name of the descriptor of the memory file, which comes with those of a launch."""
_CGROUP, _WARM, _COLD = "cgroup", "spare", "cold-spare"


# --- from the keeper


def encode_launch(spec: LaunchSpec) -> bytes:
    """Return the content of the memory file."""
    # Format 4, because the interpreter of a task may be an earlier Python than this one.
    return marshal.dumps(dict(zip(_NAMES, _VALUES(spec), strict=True)), 4)


def decode_launch(data: bytes) -> LaunchSpec:
    """Return the launch in a memory file. Fields that a newer keeper has added are dropped."""
    body = marshal.loads(data)
    return LaunchSpec(
        **body if body.keys() <= _KNOWN else {name: value for name, value in body.items() if name in _KNOWN}
    )


def order(fds: Descriptors, spec: int) -> tuple[bytes, dict[str, int]]:
    """Return the packet that orders a launch, and the descriptors to send with it. `spec` is the descriptor
    of the memory file.
    """
    descriptors = {**fds.given(), _SPEC: spec}
    return " ".join(descriptors).encode(), descriptors


def order_spare(cgroup: int | None, line: int, *, warm: bool) -> tuple[bytes, dict[str, int]]:
    """Return the packet that orders a spare task, and the descriptors to send with it. The spare task waits
    at `line` for the packet of its launch.
    """
    descriptors = {} if cgroup is None else {_CGROUP: cgroup}
    descriptors[_WARM if warm else _COLD] = line
    return " ".join(descriptors).encode(), descriptors


@frozen
class SpareOrder:
    """The order of a spare task: the descriptors of its control group and of its line, and True if it
    rehearses a start.
    """

    cgroup: int | None
    line: int
    warm: bool


def read_spare(packet: bytes, received: list[int]) -> SpareOrder | None:
    """Return the order of a spare task; None if it is the order of a launch. Only the fork calls this."""
    *_, last = packet.decode().split()
    if last not in (_WARM, _COLD):
        return None
    cgroup = received[0] if len(received) > 1 else None
    return SpareOrder(cgroup=cgroup, line=received[-1], warm=last == _WARM)


def read_launch(packet: bytes, received: list[int]) -> tuple[LaunchSpec, Descriptors]:
    """Return the launch and the descriptors of an order, and close the memory file. Only the forked task
    calls this. `received` are the descriptors that came with the packet.
    """
    fds = dict(zip(packet.decode().split(), received, strict=True))
    memory = fds.pop(_SPEC)
    data = os.pread(memory, os.fstat(memory).st_size, 0)
    os.close(memory)
    return decode_launch(data), Descriptors.named(fds)


# --- from a spare task

SPARE_IS_READY = b"ready"
"""The packet of a spare task that waits for its launch."""
SPARE_IS_NEEDLESS = b"needless"
"""The packet of a spare task that ends: here a fork begins in its control group (clone3),
while a spare task would have to wait for the move into it.
"""


# --- from the zygote


def encode_hello(version: str) -> bytes:
    """Return the zygote's greeting: it runs, and this is its version."""
    return json.dumps({"version": version, "protocol": PROTOCOL}).encode()


def decode_hello(data: bytes) -> tuple[str, int]:
    """Return the version and the protocol number in the zygote's greeting. Raises ProtocolError for any other
    packet.
    """
    try:
        greeting = json.loads(data)
        return str(greeting["version"]), int(greeting.get("protocol", 1))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"cannot greet the zygote: {error!r}") from None


@frozen
class Forked:
    """The task is forked and waits at its start gate."""

    pid: int


@frozen
class NotForked:
    """The kernel refused the fork, with this errno."""

    number: int

    def error(self) -> OSError:
        return OSError(self.number, os.strerror(self.number))


Answer = Forked | NotForked


def encode_answer(answer: Answer) -> bytes:
    return b"%d" % (answer.pid if isinstance(answer, Forked) else -answer.number)


def decode_answer(data: bytes) -> Answer:
    """Return the answer in a packet. Raises ProtocolError for any other packet."""
    try:
        number = int(data)
    except ValueError:
        raise ProtocolError(f"cannot read the zygote's answer {data!r}") from None
    return Forked(pid=number) if number > 0 else NotForked(number=-number)
