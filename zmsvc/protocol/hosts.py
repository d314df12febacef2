"""The channel between the supervisor and the envoy of another host: the envoy sends what its keeper reports,
the supervisor sends orders. It is a CURVE connection over tcp, from a DEALER to a ROUTER.

1. An envoy sends `Call` until a supervisor answers with `Word`, which has the ID of that supervisor's run.
2. It sends `Greeting`, once in its life: what its keeper holds. The supervisor answers with `Word`, which has
   the number of that greeting.
3. Facts and orders are numbered from 1 within a greeting. Both sides say each second which number was their
   last one (`Word`, `Alive`), so each notices what is missing. The envoy then makes way for the next one,
   which greets with what the keeper holds by then.

A lost connection loses messages on their way, and never says which. So nothing is ever sent again: all that
must not be lost stays with the keeper, or with the tasks' notify socket, until the supervisor has saved it.
"""

from __future__ import annotations

import json
from typing import Any

from zmsvc.core import facts as ft
from zmsvc.core.errors import ProtocolError
from zmsvc.core.frozen import frozen
from zmsvc.core.json_depth import check_depth
from zmsvc.protocol import supervision as sv
from zmsvc.protocol.codec import CompactCodec
from zmsvc.protocol.launch import LaunchSpec

HOST_PROTOCOL = 1
"""The protocol number of this release. A supervisor refuses an envoy with another one: all hosts of a cluster
are to have the same release.
"""
BEAT = 1.0
"""Seconds between two words of each side."""
SILENCE = 3.0
"""Seconds without a word after which each side takes the connection for cut."""
MAX_BYTES = 16 << 20
"""Bytes of a message. A fact has at most a result of 1 MiB, whose text JSON may make six times as long."""
FULL = 1 << 20
"""Bytes of facts after which a message is sent and the next one begins."""


# --- what the envoy says


@frozen
class Call:
    """An envoy looks for the supervisor of its context."""

    host: str
    protocol: int
    version: str


@frozen
class Greeting:
    """The launches that the keeper of a host has. Their ends follow as facts, behind what the tasks have said
    before.
    """

    host: str
    run: str
    """The run of the supervisor that has answered."""
    epoch: str
    """The ID of the keeper."""
    greeting: int
    """The number of this report of the keeper: later ones have higher numbers."""
    keeper_protocol: int
    """The number of the protocol between that keeper and a supervisor (zmsvc.protocol)."""
    children: tuple[ft.Child, ...] = ()
    exits: tuple[int, ...] = ()
    """The launches whose ends no supervisor has acknowledged."""


@frozen
class Facts:
    """Facts about launches of this host, in their order."""

    host: str
    run: str
    greeting: int
    number: int
    facts: tuple[ft.TaskFact, ...]


@frozen
class Alive:
    """The envoy is there. `facts` is the number of its last message with facts."""

    host: str
    run: str
    greeting: int
    facts: int
    leaving: bool = False
    """True if systemd or a person ends the keeper: its tasks are to move to other hosts."""
    dropped: int = 0
    """The number of facts that this envoy has dropped since its start, because it was not connected for long.
    """


Said = Call | Greeting | Facts | Alive

# --- what the supervisor says


@frozen
class AdmitAll:
    """Every process of this launch, which is ordered next, may notify for its task."""

    launch: int


HostOrder = LaunchSpec | sv.SignalTask | sv.SetMain | sv.KillTask | sv.OpenBarrier | sv.Acknowledge | AdmitAll
"""An order to the keeper of the host, or to its envoy. The envoy completes a launch with what only its host
knows: paths and user IDs.
"""


@frozen
class Word:
    """The supervisor is there."""

    run: str
    greeting: int = 0
    """The greeting of this host that it has taken; 0 if it has taken none."""
    orders: int = 0
    """The number of its last order."""
    taken: int = 0
    """The number of the last message with facts that it has acted on. The end of a launch is acknowledged by
    an order of its own, when it is in the state file.
    """
    admit_all: tuple[int, ...] = ()
    """The launches of this host of which every process may notify for its task, and not the main one alone.
    """
    refusal: str = ""
    """The reason why this envoy is not admitted."""


@frozen
class Ordered:
    """One order."""

    run: str
    greeting: int
    number: int
    order: HostOrder


Told = Word | Ordered

SAID = CompactCodec[Said]({"call": Call, "greeting": Greeting, "facts": Facts, "alive": Alive}, {})
TOLD = CompactCodec[Told]({"word": Word, "ordered": Ordered}, {})

_FACT = 200
"""Bytes of a fact without its texts, or of a leftover."""
_dumps = json.JSONEncoder(separators=(",", ":")).encode


def encode_said(message: Said) -> bytes:
    """Return the bytes of a message of an envoy."""
    return _dumps(SAID.encode(message)).encode()


def encode_told(message: Told) -> bytes:
    """Return the bytes of a message of a supervisor."""
    return _dumps(TOLD.encode(message)).encode()


def decode_said(data: bytes) -> Said:
    """Return a message of an envoy. Raises ProtocolError."""
    return SAID.decode(_object(data))


def decode_told(data: bytes) -> Told:
    """Return a message of a supervisor. Raises ProtocolError."""
    return TOLD.decode(_object(data))


def size_of(fact: ft.TaskFact) -> int:
    """Return the approximate size of a fact in a message, in bytes. It is seldom smaller than the real one: a
    message that is longer than MAX_BYTES ends the connection.
    """
    match fact:
        case ft.TaskUpdated():
            return _FACT + len(_dumps(fact.items))
        case ft.MessagePoisoned():
            return _FACT + 6 * fact.message.size
        case ft.TaskGone():
            return _FACT * (1 + len(fact.leftovers))
        case ft.TaskDeclared():
            return _FACT + len(_dumps(fact.topics)) + len(_dumps(fact.publishes))
        case ft.TaskSaid(status=text) | ft.HealthReported(text=text):
            return _FACT + len(_dumps(text))
        case ft.TopicHeard(topic=text) | ft.TopicSilent(topic=text):
            return _FACT + len(_dumps(text))
        case ft.LaunchFailed(why=text) | ft.TaskExited(why=text):
            return _FACT + len(_dumps(text))
        case _:
            return _FACT


def _no_number(name: str) -> Any:
    """Refuse NaN and Infinity, which JSON does not have: no deadline is computed from them."""
    raise ProtocolError(f"{name} is not JSON")


def _object(data: bytes) -> dict[str, Any]:
    try:
        text = data.decode()
        check_depth(text)
        body = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"it is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise ProtocolError("it is not a JSON object")
    return body
