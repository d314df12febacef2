"""The verb `simulate`: a context file runs on the simulated machine of core/scenario.py, without any process.
What happens, the matrix of failures and the expectations are printed here.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zmsvc.core import expectations, scenario
from zmsvc.core.errors import UsageError, reason
from zmsvc.core.expectations import Expectation, Result
from zmsvc.core.model import Context
from zmsvc.core.scenario import Consequence, Run, TimedRecord
from zmsvc.ctl import render, terminal
from zmsvc.ctl.verbs.events import as_text
from zmsvc.host.config import reader

if TYPE_CHECKING:
    from zmsvc.ctl.client import Json

ASSUMED = (
    f"assumed: a process is ready {scenario.START_TIME:g} s after its fork and ends {scenario.STOP_TIME:g} s "
    "after its stop signal; it feeds its watchdog, and runs until an event ends it"
)


def one_host(context: Context) -> str:
    """Return what is assumed of a context with placements; empty for any other one."""
    number = len(context.placed)
    return f"all tasks run on one host: the <placement> of {number} is left out" if number else ""


def simulate(args: argparse.Namespace) -> int:
    """simulate: print what would happen. Returns 1 if an expectation does not hold."""
    context = reader.load(args.file)
    duration = args.duration or scenario.DURATION
    words = [*(_script(args.script) if args.script else ()), *args.steps]
    events = scenario.events_of(words)
    asked = bool(events or args.matrix)
    expected = _expected(context, args.file, args.expect, file_too=not asked)
    results = expectations.check(context, expected)
    # With expectations alone, the plain start is of no interest.
    run = scenario.simulate(context, events, duration) if events or not (args.matrix or expected) else None
    found = list(scenario.matrix(context, duration)) if args.matrix else []
    if args.json:
        terminal.out(json.dumps(_as_json(context, args.file, run, found, results)) + "\n")
    else:
        lines = [*(_run_lines(run) if run else ()), *(_matrix_lines(found) if args.matrix else ())]
        lines += [line for result in results for line in _result_lines(result)]
        assumed = "; ".join(filter(None, (ASSUMED, one_host(context))))
        terminal.out("".join(f"{terminal.clean(line)}\n" for line in (*lines, assumed)))
    return 0 if all(result.after is not None for result in results) else 1


def _script(file: str) -> list[tuple[str, str]]:
    return scenario.script_of(_read(file), file)


def _read(file: str | Path) -> str:
    try:
        return Path(file).read_text()
    except OSError as error:
        raise UsageError(f"cannot read {reason(error)}") from None
    except ValueError as error:
        raise UsageError(f"cannot read {file}: {error}") from None


def _expected(context: Context, file: str, texts: Sequence[str], *, file_too: bool) -> list[Expectation]:
    """Return the expectations of the command line, and those of the file beside the context file."""
    found = [expectations.parse(text, context) for text in texts]
    beside = Path(file).with_suffix(".expect")
    if file_too and beside.exists():
        for number, line in expectations.lines_of(_read(beside)):
            try:
                found.append(expectations.parse(line, context))
            except UsageError as error:
                raise UsageError(f"{beside}:{number}: {error}") from None
    return found


# --- text


def _run_lines(run: Run) -> list[str]:
    lines = timeline_lines(run.timeline)
    launches = Counter(each.record.task for each in run.timeline if each.record.event == "launching")
    rows = [
        (key[1], f"{task.state.value} ({task.sub_state.value})", str(launches[key[1]]), str(task.restarts))
        for key, task in run.world.tasks.items()
    ]
    ended = f"after {run.now:g} s" + (", with too many events to go on" if run.too_long else "")
    return [
        *lines,
        *run.notes,
        "",
        f"{ended}:",
        *render.table(("TASK", "STATE", "STARTS", "RESTARTS"), rows),
        "",
    ]


def timeline_lines(timeline: Sequence[TimedRecord], begin: float = 0.0) -> list[str]:
    rows = [
        (
            f"{each.at - begin:.3f}",
            each.record.task or "-",
            each.record.event,
            as_text({**each.record.detail}),
        )
        for each in timeline
    ]
    return render.table(("TIME", "TASK", "EVENT", "DETAIL"), rows)


def _matrix_lines(found: Sequence[Consequence]) -> list[str]:
    rows = [
        (
            each.event.text,
            " ".join(each.down) or "-",
            " ".join(f"{task}:{count}" for task, count in each.started.items()) or "-",
            "never" if each.recovered is None else f"{each.recovered:.3f}",
            " ".join(f"{task}:{rate:g}/min" for task, rate in each.rings.items()) or "-",
        )
        for each in found
    ]
    return [*render.table(("FAILURE", "DOWN", "STARTED", "RECOVERED", "RINGS"), rows), ""]


def _result_lines(result: Result) -> list[str]:
    if result.after is not None:
        return [f"holds after {result.after:g} s: {result.expectation.text}"]
    shown = [f"  {line}" for line in timeline_lines(result.timeline, result.begin)]
    return [f"does not hold: {result.expectation.text}", f"  {result.why}", *shown, ""]


# --- JSON


def _as_json(
    context: Context, file: str, run: Run | None, found: Sequence[Consequence], results: Sequence[Result]
) -> Json:
    times = {"start": scenario.START_TIME, "stop": scenario.STOP_TIME}
    told: Json = {"file": file, "assumed": {**times, "placements_left_out": len(context.placed)}}
    if run is not None:
        launches = Counter(each.record.task for each in run.timeline if each.record.event == "launching")
        told["duration"] = run.now
        told["timeline"] = timeline_as_json(run.timeline)
        told["notes"] = run.notes
        told["tasks"] = [
            {
                "id": key[1],
                "state": task.state.value,
                "sub": task.sub_state.value,
                "starts": launches[key[1]],
                "restarts": task.restarts,
            }
            for key, task in run.world.tasks.items()
        ]
    if found:
        told["matrix"] = [
            {
                "failure": each.event.text,
                "down": [*each.down],
                "started": each.started,
                "recovered": each.recovered,
                "rings": each.rings,
            }
            for each in found
        ]
    told["expectations"] = [
        {
            "text": each.expectation.text,
            "ok": each.after is not None,
            "after": each.after,
            "why": each.why,
            "timeline": timeline_as_json(each.timeline),
        }
        for each in results
    ]
    return told


def timeline_as_json(timeline: Sequence[TimedRecord]) -> list[Json]:
    return [
        {
            "at": round(each.at, 3),
            "task": each.record.task,
            "event": each.record.event,
            "detail": {**each.record.detail},
        }
        for each in timeline
    ]
