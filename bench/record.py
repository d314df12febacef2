"""Measure what a record costs the supervisor: the CPU time in which the engine decides on the start of many
tasks, and that in which these turns are recorded.

`python -m bench.record`, or `make bench-record`. No task is started: the facts are those of such a start, in
turns of a few tasks.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from zmsvc.core import facts as ft
from zmsvc.core.engine import step
from zmsvc.core.facts import Fact
from zmsvc.core.model import Context
from zmsvc.core.world import World
from zmsvc.host.config import reader
from zmsvc.host.record_ring import RecordRing
from zmsvc.supervisor.fact_recorder import FactRecorder

PORTION = 12
"""The tasks of one turn."""
TASK = """<TaskService id="ts_{number}" topic="process" instance="EchoAction" serviceType="Process"><Task>
<description>An echo action</description><message><header><action>start</action>
<service_name>echo_action</service_name></header><content><configuration><device_action>shout</device_action>
</configuration></content></message><state type="on_start"><on_fail><action>restart</action>
<call>ts_{number}</call></on_fail></state></Task></TaskService>"""


def context(tasks: int) -> Context:
    text = "".join(TASK.format(number=number) for number in range(tasks))
    return reader.parse(f"<Context>{text}</Context>".encode(), path="/Context-Bench.xml", name="Bench")


def turns(tasks: int) -> Iterator[list[Fact]]:
    """Yield the facts of a start: each task is forked, declares its topics, is ready and reports a result."""
    yield [ft.SupervisorStarted(keeper_id="keeper", transaction="T")]
    for first in range(1, tasks + 1, PORTION):
        launches = range(first, min(first + PORTION, tasks + 1))
        yield [ft.TaskLaunched(launch=each, pid=1000 + each, start_time=each) for each in launches]
        yield [ft.TaskDeclared(launch=each, topics=()) for each in launches]
        yield [ft.TaskReady(launch=each) for each in launches]
        yield [ft.TaskUpdated(launch=each, items={"shout": "now"}, sequence=1) for each in launches]


def measure(given: Context, tasks: int, folder: Path) -> tuple[float, float, int]:
    """Return the seconds of the engine and of the recorder, and the bytes of the record."""
    world, now, decides, records = World(context=given), 1000.0, 0.0, 0.0
    soon: deque[Callable[[], None]] = deque()
    recorder = FactRecorder(RecordRing(folder), "Bench", lambda: "boot", soon.append)
    for facts in turns(tasks):
        now += 0.01
        before, effects, begin = world, [], time.process_time()
        for fact in facts:
            world, more = step(world, fact, now)
            effects.append(more)
        middle = time.process_time()
        recorder.turn(before, facts, effects, now, now)
        if soon:
            soon.popleft()()
        decides += middle - begin
        records += time.process_time() - middle
    recorder.close()
    assert not recorder.unrecorded
    return decides, records, sum(file.stat().st_size for file in folder.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.record")
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    given = context(args.tasks)
    found = []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure(given, args.tasks, Path(folder)))
    decides, records, size = (statistics.median(each) for each in zip(*found, strict=True))
    print(
        f"{args.tasks} tasks: the engine decides in {decides * 1000:.0f} ms of CPU time, the recorder takes "
        f"{records * 1000:.0f} ms and writes {size / 1e6:.1f} MB (medians of {args.rounds})"
    )


if __name__ == "__main__":
    main()
