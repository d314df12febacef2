"""A context under load, and the checks that must hold whatever was killed. The load is updates, rings of
rules, threads, a program, and messages on the bus. Each task writes its launch and its cause to a file when
it begins. These files are compared with the history in the state file, as two independent witnesses.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from context import Context
from waiting import wait_for, wait_for_end

CLASSES = """
import json, os
from zmsvc.task import LoopedTask, SingleTask, TaskService

def note(task):
    told = [[source["task"], source["trigger"], source["launch"]] for source in task.cause.sources]
    began = int(open("/proc/self/stat").read().rpartition(")")[2].split()[19])
    line = {{"task": task.service_id, "launch": int(os.environ["ZMSVC_LAUNCH"]), "process": [os.getpid(), began], "sources": told}}
    with open("{home}/born", "a") as file:
        file.write(json.dumps(line) + "\\n")

class Steady(LoopedTask):
    interval = 3600.0
    def setup(self):
        note(self)
    def step(self):
        pass

class Pulse(LoopedTask):
    interval = 0.02
    n = 0
    def setup(self):
        note(self)
    def step(self):
        self.n += 1
        self.update(n=self.n)
        self.publish("talk", {{"header": {{}}, "n": self.n}})

class Once(SingleTask):
    def run(self):
        note(self)
        self.update(done=True)
"""

SERVICE = """
class Service{name}(TaskService):
    service_name = "{name}"
    task_class = {name}
"""

QUICK = "<restart_delay>20ms</restart_delay><restart_max_delay>200ms</restart_max_delay>"
STEADY = ("steady_1", "steady_2", "pulse", "program")
"""Tasks that end only if the test kills them, each in its own process."""
SHARED = ("thread_1", "thread_2")
"""Tasks of the same kind that share a process."""
TX = "KILLS"
MAX_SOURCES = 64
"""The number of causes that one launch can have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the history in the state file."""

    seq: int
    task: str
    event: str
    detail: dict[str, Any]


def populate(context: Context) -> None:
    """Write the services and tasks of the crowd."""
    for name in ("Steady", "Pulse", "Once"):
        context.service(name, CLASSES.format(home=context.home) + SERVICE.format(name=name))
    for task, instance, kind, config in (
        ("steady_1", "Steady", "Process", ""),
        ("steady_2", "Steady", "Process", ""),
        ("program", "Sleep", "Command", "<command>sleep 100000</command>"),
        ("thread_1", "Steady", "Thread", ""),
        ("thread_2", "Steady", "Thread", ""),
    ):
        context.task(
            task, instance, kind=kind, service=QUICK, config=config, rules={"on_fail": ("restart", task)}
        )
    context.task(
        "pulse",
        "Pulse",
        service=QUICK,
        rules={"on_fail": ("restart", "pulse"), "on_update": ("start", "echo")},
    )
    context.task("echo", "Once", entry=False, service=QUICK, rules={"on_update": ("start", "sink")})
    context.task("sink", "Once", entry=False, service=QUICK)
    context.task("ring_1", "Once", service=QUICK, rules={"on_exit": ("start", "ring_2")})
    context.task("ring_2", "Once", entry=False, service=QUICK, rules={"on_exit": ("start", "ring_1")})


def history(context: Context, after: int = 0) -> list[Row]:
    """Return the rows of the state file after row `after`."""
    db = sqlite3.connect(f"file:{context.home}/state/{context.name}/state.db?mode=ro", uri=True)
    try:
        rows = db.execute(
            "SELECT seq, task, event, detail FROM events WHERE seq > ? ORDER BY seq", (after,)
        ).fetchall()
    finally:
        db.close()
    return [
        Row(seq=seq, task=task, event=event, detail=json.loads(detail)) for seq, task, event, detail in rows
    ]


def born(context: Context) -> list[dict[str, Any]]:
    """Return the files that the tasks wrote at their start."""
    file = context.home / "born"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def living(keeper: int) -> dict[tuple[int, int], str]:
    """Return the commands of the children of the keeper that are not zombies, by PID and start time: in a
    long run PIDs are used again.
    """
    found = {}
    for word in Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split():
        try:
            name, _, rest = Path(f"/proc/{word}/stat").read_text().partition("(")[2].rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = rest.split()
        if fields[0] not in "ZX":
            found[int(word), int(fields[19])] = name
    return found


class Crowd:
    """The running context, and the processes that the test has killed so far."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.hits: Counter[tuple[str, int]] = Counter()
        """The number of times that each task was in a killed process with this PID. In a long run PIDs are
        used again.
        """
        self.rows: list[Row] = []
        """The history as far as it was read. The state file has only the last part of a long one."""

    def follow(self) -> None:
        """Read the new rows of the history."""
        self.rows += history(self.context, self.rows[-1].seq if self.rows else 0)
        assert len(self.rows) == self.rows[-1].seq, "rows of the history are missing"

    def pids(self) -> dict[str, int]:
        """Return the PIDs of the tasks that end only if the test kills them."""
        tasks = self.context.tasks()
        return {name: tasks[name]["pid"] for name in (*STEADY, *SHARED)}

    def kill(self, *victims: str) -> None:
        """Kill these tasks or workers (`supervisor`, `device`, `zygote`) at one moment. Return when they have
        been replaced, and check that the others are the same.
        """
        before, status = self.settled()
        marked = {
            status[f"{name}_pid".replace("supervisor_", "")]
            for name in victims
            if name in ("supervisor", "device")
        }
        if "zygote" in victims:
            # The zygote may have been killed a moment ago. The next launch starts another one.
            marked.add(wait_for(self.context.zygote))
        for name in victims:
            if name in before:
                marked.add(before[name])
        self.hits.update((task, pid) for task, pid in before.items() if pid in marked)
        for pid in sorted(marked):
            os.kill(pid, signal.SIGKILL)
        for pid in sorted(marked):
            wait_for_end(pid)
        after, later = self.settled(gone=marked)
        for name, pid in before.items():
            assert (after[name] == pid) is (pid not in marked), (
                f"{name}: {pid} became {after[name]} when {victims} were killed"
            )
        for name in ("device", "supervisor"):
            number = f"{name}_restarts".replace("supervisor_", "")
            assert later[number] - status[number] == (name in victims), (
                f"{name} ended without being killed, when {victims} were"
            )
        for name in victims:
            if name in before:
                end = self.context.tasks()[name]["exit"]
                assert (end["signal"], end["reason"], end["code"]) == ("SIGKILL", "signal", None), name
        self.no_two_of_one()
        self.follow()

    def settled(self, gone: set[int] = frozenset()) -> tuple[dict[str, int], dict[str, Any]]:  # type: ignore[assignment]
        """Wait until every task that should run does, in other processes than these. Return the PIDs and the
        status.
        """

        def fact() -> tuple[dict[str, int], dict[str, Any]]:
            status = self.context.status()
            tasks = {task["id"]: task for task in status["transactions"][0]["tasks"]}
            subs = {name: tasks[name]["sub"] for name in (*STEADY, *SHARED)}
            assert set(subs.values()) == {"running"}, subs
            assert status["device_pid"], "no device"
            pids = {name: tasks[name]["pid"] for name in subs}
            assert not gone & {*pids.values(), status["device_pid"], status["pid"]}, gone
            return pids, status

        return wait_for(fact)

    def no_two_of_one(self) -> None:
        """Check that a task never has two processes: of the keeper's children only one has written that it is
        this task.
        """
        assert self.context.daemon is not None
        alive = living(self.context.daemon.pid)
        of = {tuple(note["process"]): note["task"] for note in born(self.context)}
        count = Counter(
            of[process] for process in alive if process in of and not of[process].startswith("thread")
        )
        assert not [task for task, number in count.items() if number > 1], count
        threads = {process for process in alive if of.get(process, "").startswith("thread")}
        assert len(threads) <= 1, threads
        assert list(alive.values()).count("sleep") <= 1, alive

    def check_history(self, *, stopped: bool = False) -> None:
        """Check that the history agrees with itself and with the files of the tasks. A context that stops
        fires no rules.
        """
        # Read in this order, because the history has every task that has begun.
        notes = born(self.context)
        self.follow()
        self._once(self.rows, notes)
        self._ends(self.rows)
        if not stopped:
            self._firings(self.rows, notes)

    def _once(self, rows: list[Row], notes: list[dict[str, Any]]) -> None:
        for event in ("launching", "started"):
            count = Counter(row.detail["launch"] for row in rows if row.event == event)
            assert not [launch for launch, number in count.items() if number > 1], (
                f"{event} twice: {count.most_common(3)}"
            )
        # A start that is given up while it waits for its time has no launch.
        ends = Counter(
            row.detail["launch"]
            for row in rows
            if row.event in ("failed", "stopped") and "launch" in row.detail
        )
        assert not [launch for launch, number in ends.items() if number > 1], (
            f"ended twice: {ends.most_common(3)}"
        )
        wrote = Counter(
            (note["task"], note["launch"]) for note in notes if not note["task"].startswith("thread")
        )
        assert not [launch for launch, number in wrote.items() if number > 1], (
            f"forked twice: {wrote.most_common(3)}"
        )
        known = {(row.task, row.detail["launch"]) for row in rows if row.event == "launching"}
        assert set(wrote) <= known, set(wrote) - known

    def _ends(self, rows: list[Row]) -> None:
        """Check that each killed task ended by SIGKILL, once, and that no other task failed."""
        failed = Counter(
            (row.task, row.detail["pid"])
            for row in rows
            if row.event == "failed" and row.detail["signal"] == "SIGKILL"
        )
        assert failed == self.hits, (failed - self.hits, self.hits - failed)
        others = [row for row in rows if row.event == "failed" and row.detail["signal"] != "SIGKILL"]
        assert not others, others
        assert not [row for row in rows if row.event in ("lost", "stranger", "survivor")]

    def _firings(self, rows: list[Row], notes: list[dict[str, Any]]) -> None:
        fired = [row for row in rows if row.event == "rule"]
        once = Counter(
            (row.detail["source"], row.detail["launch"], row.detail["rule"])
            for row in fired
            if row.detail["source"] != "pulse"
        )
        assert not [firing for firing, number in once.items() if number > 1], (
            f"fired twice: {once.most_common(3)}"
        )
        answered = {
            (row.detail["source"], row.detail["launch"], row.detail["rule"].partition(":")[0])
            for row in fired
        }
        for row in rows:
            if row.event == "failed" or (
                row.event == "stopped" and row.task.startswith("ring") and row.detail["reason"] == "exited"
            ):
                wanted = "on_fail" if row.event == "failed" else "on_exit"
                assert (row.task, row.detail["launch"], wanted) in answered, f"its {wanted} was lost: {row}"
        for task in ("echo", "sink", "ring_1", "ring_2", "steady_1", "steady_2", "pulse"):
            told = {note["launch"]: note["sources"] for note in notes if note["task"] == task}
            self._told(task, told, [row for row in rows if row.task == task])

    def _told(self, task: str, notes: dict[int, list[Any]], rows: list[Row]) -> None:
        """Check that each firing is a cause of exactly one launch, in the order of the history."""
        for launch, fired in launches(rows):
            if launch in notes:
                told = [firing(row) for row in fired][-MAX_SOURCES:]
                assert notes[launch] == told, (
                    f"launch {launch} of {task} was told {notes[launch]}, the history has {told}"
                )


def firing(row: Row) -> list[Any]:
    """Return a firing in the form in which the started task writes it."""
    return [row.detail["source"], row.detail["rule"].partition(":")[0], row.detail["launch"]]


def launches(rows: list[Row]) -> Iterator[tuple[int, list[Row]]]:
    """Yield each launch of one task that has begun, with the firings before it."""
    fired: list[Row] = []
    launch = 0
    for row in rows:
        if row.event == "rule":
            fired.append(row)
        elif row.event == "launching":
            launch = row.detail["launch"]
        elif launch and row.event in ("started", "failed", "stopped"):
            yield launch, fired
            fired, launch = [], 0
