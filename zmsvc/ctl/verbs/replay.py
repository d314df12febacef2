"""The verb `replay`, and `status --at`: recorded facts run through today's engine. The bundle comes from
`report`; the record of this machine is that of `<record>`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zmsvc import __version__
from zmsvc.core.replay import Begin, Step
from zmsvc.ctl import bundle, record, render, terminal
from zmsvc.ctl.log import time_ranges
from zmsvc.ctl.record import Replayed
from zmsvc.ctl.select_context import choose
from zmsvc.ctl.status_reply import ContextStatus, all_active
from zmsvc.protocol.recording import fact_as_json

if TYPE_CHECKING:
    from zmsvc.ctl.client import Json

SHOWN = 10
"""The most differences that are shown; --json has MAX_DIFFERENCES."""
MAX_DIFFERENCES = 1000
MAX_TEXT = 200
"""The most characters of one value that are shown."""


def replay(args: argparse.Namespace) -> int:
    """replay: print the differences. Returns 1 if today's engine decides differently."""
    found = bundle.read(Path(args.file))
    until = math.inf if args.until is None else time_ranges.moment(args.until)
    replayed = Replayed(found.segments, args.file, until)
    differences: list[Json] = []
    steps: list[Json] = []
    for each in replayed.steps():
        if each.differs and len(differences) < MAX_DIFFERENCES:
            differences.append(_as_json(each))
        if not args.step:
            continue
        if args.json:
            steps.append(_as_json(each))
        else:
            terminal.out("".join(f"{terminal.clean(line)}\n" for line in _lines(each)))
    data = record.status(replayed, found.context)
    if args.json:
        told = {"contexts": [data], **_summary(replayed), "differences": differences}
        terminal.out(json.dumps(told | ({"steps": steps} if args.step else {})) + "\n")
        return 1 if replayed.differing else 0
    lines = [*_tree(data, replayed), *map(terminal.clean, _told(replayed, differences))]
    terminal.page("\n".join(lines) + "\n", wanted=not args.no_pager and not args.step)
    return 1 if replayed.differing else 0


def status_at(args: argparse.Namespace) -> int:
    """status --at: show the context at a time. Returns 0 if everything that was asked for was active then,
    else 3.
    """
    until = time_ranges.moment(args.at)
    places = choose(args.context)
    replayed = Replayed(record.local(places), f"the record of {places.name}", until)
    for _ in replayed.steps():
        pass
    tasks = [*args.tasks, *args.task]
    data = record.status(replayed, places.name, args.transaction, tasks)
    if args.json:
        terminal.out(json.dumps({"contexts": [data]}) + "\n")
    else:
        terminal.page("\n".join(_tree(data, replayed)) + "\n", wanted=not args.no_pager)
    shown = ContextStatus(data)
    return 0 if all_active(shown, transaction=args.transaction is not None, task=bool(tasks)) else 3


def _tree(data: Json, replayed: Replayed) -> list[str]:
    return render.recorded(ContextStatus(data), render.StatusExtras(now=replayed.shown_at), terminal.style())


def _summary(replayed: Replayed) -> Json:
    return {
        "from": record.rfc3339(replayed.begins),
        "until": record.rfc3339(replayed.at),
        "facts": replayed.facts,
        "supervisors": len(replayed.runs),
        "unrecorded": replayed.unrecorded,
        "recorded_by": replayed.versions,
        "version": __version__,
        "differing": replayed.differing,
    }


# --- text


def _told(replayed: Replayed, differences: Sequence[Json]) -> Iterator[str]:
    summary = _summary(replayed)
    yield (
        f"recorded by zmsvc {', '.join(replayed.versions)}: {summary['facts']} facts of "
        f"{summary['supervisors']} supervisors from {summary['from']} to {summary['until']}"
    )
    if replayed.unrecorded:
        yield f"{replayed.unrecorded} facts were not recorded"
    if not replayed.differing:
        yield f"zmsvc {__version__} decides the same"
        return
    yield f"zmsvc {__version__} decides otherwise at {replayed.differing} facts:"
    for each in differences[:SHOWN]:
        yield from _difference(each)
    if replayed.differing > SHOWN:
        yield f"and {replayed.differing - SHOWN} more, most of which follow from these"


def _difference(told: Json) -> Iterator[str]:
    if "fact" not in told:
        yield f"{told['at']}  the world is another one than that of the record"
        return
    yield f"{told['at']}  {_words(told['fact'])}"
    for name in ("recorded", "today"):
        effects = told[name]
        if effects is None:
            yield f"    {name}: the engine failed" + (f" ({told['error']})" if name == "today" else "")
            continue
        other = told["today" if name == "recorded" else "recorded"] or ()
        own = [each for each in effects if each not in other]
        yield f"    {name}: {'; '.join(map(_words, own)) or 'the same effects in another order, or fewer'}"


def _lines(each: Begin | Step) -> Iterator[str]:
    told = _as_json(each)
    if isinstance(each, Begin):
        yield f"{told['at']}  the world of supervisor {each.run}"
        return
    yield f"{told['at']}  {_words(told['fact'])}"
    for effect in told["today"] or ():
        yield f"    {_words(effect)}"
    if each.differs:
        yield from list(_difference(told))[1:]


def _words(found: Mapping[str, Any]) -> str:
    values = " ".join(f"{name}={_value(value)}" for name, value in found.items() if name != "op")
    return f"{found.get('op')} {values}".rstrip()


def _value(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        text = "/".join(value)
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."


# --- JSON


def _as_json(each: Begin | Step) -> Json:
    if isinstance(each, Begin):
        return {"at": record.rfc3339(each.snapshot.at), "supervisor": each.run, "world_differs": each.differs}
    return {
        "at": record.rfc3339(each.turn.at),
        "turn": each.turn.number,
        "fact": fact_as_json(each.fact),
        "recorded": each.recorded,
        "today": each.today,
        "error": each.error,
        "differs": each.differs,
    }
