"""The format of a record: the facts that the engine took and the effects that it decided on, which the
supervisor writes and zmsvcctl reads. A record is a sequence of segments. A segment consists of lines, each
with a JSON object.

The first line of a segment is its head. A snapshot of the world takes several lines, because it is written
little by little while turns go on: it is the world before the first turn of the segment, wherever its lines
are. A line without its final line break, which a killed supervisor leaves, is not read.

What `step` does not need is left out: the texts of the context file, and the contents of messages that tasks
could not handle.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from itertools import islice
from typing import Any, TypeVar, get_args

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.effects import Effect
from zmsvc.core.errors import ProtocolError
from zmsvc.core.facts import Fact
from zmsvc.core.frozen import frozen
from zmsvc.core.json_depth import check_depth
from zmsvc.core.model import Context, TaskDefinition
from zmsvc.core.replay import Turn, WorldSnapshot
from zmsvc.core.world import Task, World, launches_of, load_of, starts_of
from zmsvc.protocol.codec import CompactCodec

FORMAT = 1
"""The number of this format. A reader refuses any other one. A field that has a default may be added without
another number, if a record without it means the default.
"""
MAX_TIME = 250e9
"""The latest time that is accepted, in the year 9891: later ones cannot be shown."""
PORTION = 50
"""The tasks of a snapshot that one line has. To write one takes a millisecond."""

T = TypeVar("T")

_UNUSED = {Context: ("source", "text", "parts", "passed_over")}
"""The fields of a context that no decision depends on."""
_APART = {
    World: ("context", "tasks", "launches", "auxiliaries", "starts", "load"),
    Context: ("tasks", "written", *_UNUSED[Context]),
}
"""The fields that a snapshot has in other lines, or that follow from other fields."""
_REPEATED = {
    fx.PublishControl: ("items", "service"),
    fx.PublishProcess: ("service",),
    fx.Quarantine: ("message",),
}
"""The fields of effects that repeat what the facts and the context have."""

_dumps = json.JSONEncoder(separators=(",", ":")).encode


@frozen
class SegmentHead:
    """The first line of a segment."""

    format: int
    version: str
    """The release of the supervisor."""
    context: str
    """The name of the context."""
    boot: str
    """The boot ID of the machine, whose monotonic clock the times are of."""
    run: str
    """The ID of the supervisor. Segments of one run continue each other."""
    first: int
    """The number of the first turn of the segment."""
    unrecorded: int = 0
    """The facts that this supervisor could not record before this segment."""


@frozen
class Segment:
    """A segment that was read. Its turns are decoded when they are needed."""

    head: SegmentHead
    snapshot: WorldSnapshot | None
    """None if the supervisor ended before it was complete."""
    lines: tuple[bytes, ...] = field(repr=False)

    @property
    def run(self) -> str:
        return self.head.run

    @property
    def first(self) -> int:
        return self.head.first

    def turns(self) -> Iterator[Turn]:
        """Yield the turns in order. Raises ProtocolError."""
        for line in self.lines:
            if line.startswith(_TURN):
                yield _turn(_parsed(line))


_TURN = b'{"op":"turn",'

_PARTS = CompactCodec[Any](
    {"head": SegmentHead, "world": World, "context": Context, "service": TaskDefinition, "task": Task}, _APART
)
_FACTS = CompactCodec[Any]({kind.__name__: kind for kind in get_args(Fact)}, _UNUSED)
_EFFECTS = CompactCodec[Any]({kind.__name__: kind for kind in get_args(Effect)}, _REPEATED)


# --- writing


def head_line(head: SegmentHead) -> bytes:
    return _line(_PARTS.encode(head))


def snapshot_lines(world: World, now: float, at: float) -> Iterator[bytes]:
    """Yield the lines of a snapshot, each of which takes little time."""
    yield _line({**_PARTS.encode(world), "now": now, "at": at})
    yield from _context_lines(world.context)
    for portion in _portions(world.tasks.items()):
        yield _line({"op": "tasks", "tasks": [[*key, _PARTS.encode(task)] for key, task in portion]})
    yield _line({"op": "complete"})


def _context_lines(context: Context) -> Iterator[bytes]:
    yield _line(_PARTS.encode(context))
    for portion in _portions(context.tasks.items()):
        yield _line({"op": "services", "services": [_PARTS.encode(each) for _, each in portion]})
    for written in _portions(_written(context)):
        yield _line({"op": "written", "written": written})


def _written(context: Context) -> Iterator[Any]:
    """Yield the tasks as the file has them. For one that equals the task of the context with this ID, yield
    only the ID.
    """
    for name, service in context.written.items():
        yield name if context.tasks.get(name) is service else _PARTS.encode(service)


def turn_line(
    number: int, now: float, at: float, facts: Iterable[Fact], effects: Iterable[Iterable[Effect]]
) -> bytes:
    """Return the line of a turn. `effects` has the effects of each fact."""
    body = {
        "op": "turn",
        "number": number,
        "now": now,
        "at": at,
        "facts": list(map(fact_as_json, facts)),
        "effects": [list(map(_EFFECTS.encode, each)) for each in effects],
    }
    return _line(body)


def fact_as_json(fact: Fact) -> dict[str, Any]:
    """Return a fact as a record has it."""
    if isinstance(fact, ft.MessagePoisoned):
        fact = _without_contents(fact)
    elif isinstance(fact, ft.OnHost) and isinstance(fact.fact, ft.MessagePoisoned):
        fact = replace(fact, fact=_without_contents(fact.fact))
    return _FACTS.encode(fact)


def _without_contents(fact: ft.MessagePoisoned) -> ft.MessagePoisoned:
    return replace(fact, message=replace(fact.message, traceback="", frame=None))


def _line(body: Mapping[str, Any]) -> bytes:
    # JSON has ASCII only, with the escapes of lone surrogates.
    return _dumps(body).encode() + b"\n"


def _portions(found: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(found)
    while portion := list(islice(rest, PORTION)):
        yield portion


def essence(effects: Iterable[Effect]) -> tuple[Mapping[str, Any], ...]:
    """Return effects as a record has them, so that both can be compared."""
    return tuple(json.loads(_dumps([_EFFECTS.encode(each) for each in effects])))


# --- reading


def read_segment(data: bytes) -> Segment:
    """Read a segment. Raises ProtocolError for any other data, and for a segment of another format."""
    lines = data.split(b"\n")[:-1]
    if not lines:
        raise ProtocolError("it has no head")
    head = _parsed(lines[0])
    if head.get("op") != "head":
        raise ProtocolError("its first line is not the head of a segment")
    if head.get("format") != FORMAT:
        raise ProtocolError(
            f"it has format {head.get('format')!r} of zmsvc {head.get('version')}, and this zmsvc reads "
            f"format {FORMAT}"
        )
    others = [_parsed(line) for line in lines[1:] if not line.startswith(_TURN)]
    complete = any(each.get("op") == "complete" for each in others)
    return Segment(
        head=_PARTS.decode(head), snapshot=_snapshot(others) if complete else None, lines=tuple(lines)
    )


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        text = line.decode()
        check_depth(text)
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a line is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise ProtocolError("a line is not an object")
    return body


def _snapshot(bodies: Sequence[Mapping[str, Any]]) -> WorldSnapshot:
    """Return the snapshot that these lines contain."""
    whole = next((each for each in bodies if each.get("op") == "world"), {})
    context = next((each for each in bodies if each.get("op") == "context"), {})
    services = {_id(each): each for each in _entries(bodies, "services")}
    written = {
        each if isinstance(each, str) else _id(each): services.get(each) if isinstance(each, str) else each
        for each in _entries(bodies, "written")
    }
    tasks = [
        [entry[:2], entry[2]]
        for entry in _entries(bodies, "tasks")
        if isinstance(entry, list) and len(entry) == 3
    ]
    context = {**context, "tasks": services, "written": written}
    world = _PARTS.decode({**whole, "context": context, "tasks": tasks})
    launches, auxiliaries = launches_of(world.tasks)
    world = replace(
        world,
        launches=launches,
        auxiliaries=auxiliaries,
        starts=starts_of(world.tasks),
        load=load_of(world.tasks),
    )
    return WorldSnapshot(now=_time(whole, "now"), at=_time(whole, "at"), world=world)


def _entries(bodies: Sequence[Mapping[str, Any]], op: str) -> Iterator[Any]:
    """Yield the entries of all lines of this kind."""
    for body in bodies:
        if body.get("op") == op:
            entries = body.get(op)
            if not isinstance(entries, list):
                raise ProtocolError(f"a line of the kind {op} has no list of entries")
            yield from entries


def _id(service: Any) -> str:
    name = service.get("id") if isinstance(service, dict) else None
    if not isinstance(name, str):
        raise ProtocolError("a task has no ID")
    return name


def _time(body: Mapping[str, Any], name: str) -> float:
    value = body.get(name)
    if not isinstance(value, int | float) or not 0 <= value < MAX_TIME:
        raise ProtocolError(f"{name} is not a time")
    return float(value)


def _turn(body: Mapping[str, Any]) -> Turn:
    facts, effects, number = body.get("facts"), body.get("effects"), body.get("number")
    if type(number) is not int or not isinstance(facts, list) or not isinstance(effects, list):
        raise ProtocolError("a turn has no number, facts or effects")
    if not all(isinstance(each, dict) for each in facts):
        raise ProtocolError("a fact is not an object")
    return Turn(
        number=number,
        now=_time(body, "now"),
        at=_time(body, "at"),
        facts=tuple(map(_FACTS.decode, facts)),
        effects=tuple(tuple(each) if isinstance(each, list) else () for each in effects),
    )
