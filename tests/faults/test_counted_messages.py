"""A sensor, a filter and a writer talk while they, the device and the supervisor are killed at random: each
lost message is counted by its subscriber, unless subscriber or sender was dead at the time.

The services write what they publish and receive to files. In-order delivery makes the check one of numbers, not
of times.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest
from chance import SEED
from context import Context
from crowd import QUICK
from waiting import wait_for, wait_for_end

KILLS = int(os.environ.get("ZMSVC_KILLS", "6"))
"""`make kills` has 100 of them; KILLS=600 takes 10 minutes."""
VICTIMS = ("ts_sensor", "ts_filter", "ts_writer", "device", "supervisor")
BETWEEN = 20
"""Messages that the writer gets between two kills."""

SERVICES = """
import json, os, sqlite3
from zmsvc.task import LoopedTask, MessageTask, TaskService

LAUNCH = int(os.environ["ZMSVC_LAUNCH"])

def note(file, *values):
    with open("{home}/" + file, "a") as out:
        out.write(json.dumps(values) + "\\n")

class Sensor(LoopedTask):
    interval = 0.02
    n = 0
    def step(self):
        self.n += 1
        note("raw.published", LAUNCH, self.n)
        self.publish("raw", {{"celsius": 20.5}})

class Filter(MessageTask):
    topics = ("raw",)
    n = 0
    def on_message(self, message):
        note("raw.received", LAUNCH, message.header["launch"], message.sequence, message.missed)
        self.n += 1
        note("filtered.published", LAUNCH, self.n)
        self.publish("filtered", message.content)

class Writer(MessageTask):
    topics = ("filtered",)
    def setup(self):
        self.db = sqlite3.connect("{home}/readings.db", isolation_level=None)
        self.db.execute("PRAGMA synchronous = OFF")
        self.db.execute("CREATE TABLE IF NOT EXISTS readings (reader INT, launch INT, n INT, missed INT, celsius REAL)")
    def on_message(self, message):
        row = (LAUNCH, message.header["launch"], message.sequence, message.missed, message.content["celsius"])
        self.db.execute("INSERT INTO readings VALUES (?, ?, ?, ?, ?)", row)

class Service{name}(TaskService):
    task_class = {name}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A message that a subscriber has received; `missed` as the subscriber counted it."""

    subscriber: int
    """Launch of the subscriber."""
    sender: int
    """Launch of the sender."""
    number: int
    missed: int


class Run:
    """The three services of one context, and the files that they write."""

    def __init__(self, context: Context, home: Path) -> None:
        self._context, self._home = context, home
        for name in ("Sensor", "Filter", "Writer"):
            context.service(name, SERVICES.format(home=home, name=name))
            task = f"ts_{name.lower()}"
            context.task(task, name, service=QUICK, rules={"on_fail": ("restart", task)})

    def kill(self, victim: str) -> None:
        """Kill a process and wait until messages reach the writer again."""
        status = self._context.status()
        pids = {"supervisor": status["pid"], "device": status["device_pid"]}
        pids |= {task: entry["pid"] for task, entry in self._context.tasks().items()}
        if (pid := pids[victim]) is None:
            return
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)
        self.wait_for_messages()

    def wait_for_messages(self) -> None:
        goal = self.count() + BETWEEN
        wait_for(lambda: self.count() >= goal)

    def count(self) -> int:
        """Return the number of messages that the writer has written."""
        return int(self._ask("SELECT count(*) FROM readings", [(0,)])[0][0])

    def published(self, topic: str) -> dict[int, int]:
        """Return the highest number that each launch of the sender has published."""
        found: dict[int, int] = {}
        for launch, number in self._lines(f"{topic}.published"):
            found[launch] = number
        return found

    def received(self, topic: str) -> list[Received]:
        return [
            Received(subscriber=subscriber, sender=sender, number=number, missed=missed)
            for subscriber, sender, number, missed in (
                self._ask("SELECT reader, launch, n, missed FROM readings ORDER BY rowid", [])
                if topic == "filtered"
                else self._lines(f"{topic}.received")
            )
        ]

    def _ask(self, query: str, none: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Return the rows of the writer's database, `none` while it has no table."""
        if not (self._home / "readings.db").exists():
            return none
        with closing(sqlite3.connect(f"file:{self._home}/readings.db?mode=ro", uri=True)) as db:
            try:
                return db.execute(query).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" not in str(error):
                    raise
                return none

    def _lines(self, name: str) -> Iterator[tuple[int, ...]]:
        file = self._home / name
        for line in file.read_text().splitlines() if file.exists() else []:
            yield tuple(json.loads(line))


def unexplained(received: list[Received], published: dict[int, int]) -> list[str]:
    """Return the faults in the counts: a subscriber's messages and those that it counted as missed must be
    all of a sender's from the first to the last that it noticed, and no two subscribers have the same.
    """
    faults = []
    seen: dict[int, set[int]] = defaultdict(set)
    for subscriber, all_of_it in groupby(received, lambda each: each.subscriber):
        before: dict[int, int] = {}
        for each in all_of_it:
            noticed = range(each.number - each.missed, each.number + 1)
            # Of the first sender it cannot know what came before it; later launches begin with 1.
            expected = before.get(each.sender, 0 if before else each.number - 1) + 1
            if noticed.start != expected:
                faults.append(f"subscriber {subscriber}: {expected} to {noticed.start - 1} of {each.sender}")
            if seen[each.sender] & set(noticed):
                faults.append(f"{each} twice")
            seen[each.sender] |= set(noticed)
            before[each.sender] = each.number
    for sender, numbers in seen.items():
        if max(numbers) > published.get(sender, 0):
            faults.append(f"{max(numbers)} of {sender} was never published")
    last = max(published)
    if published[last] not in seen[last]:
        faults.append(f"the last message, {published[last]} of {last}, was neither received nor counted")
    return faults


@pytest.mark.deadline(240 + 5 * KILLS)
def test_each_lost_message_is_counted(context: Context, home: Path) -> None:
    print(f"ZMSVC_SEED={SEED} ZMSVC_KILLS={KILLS}")
    chance = random.Random(SEED)
    run = Run(context, home)
    context.start("--transaction", "T")
    run.wait_for_messages()
    victims = chance.sample(VICTIMS, len(VICTIMS)) + chance.choices(VICTIMS, k=KILLS)
    for victim in victims[:KILLS]:
        run.kill(victim)
    # One after the other, so that each has received all when it is told to end.
    for sender, topic, subscriber in (
        ("ts_sensor", "raw", "ts_filter"),
        ("ts_filter", "filtered", "ts_writer"),
    ):
        context.ctl("stop", "--transaction", "T", sender)

        def counted(topic: str = topic) -> bool:
            assert unexplained(run.received(topic), run.published(topic)) == []
            return True

        wait_for(counted)
        received = run.received(topic)
        missed = sum(each.missed for each in received if each.subscriber == received[-1].subscriber)

        def reported(subscriber: str = subscriber, missed: int = missed) -> bool:
            told = context.tasks()[subscriber]["missed"]
            assert told == missed, f"status has {told} missed messages of {subscriber}, its file {missed}"
            return True

        # A task reports this number once a second at most.
        wait_for(reported)
        print(topic, summary(received, run.published(topic)))


def summary(received: list[Received], published: dict[int, int]) -> str:
    missed = sum(each.missed for each in received)
    absent = sum(published.values()) - len(received) - missed
    return f"{sum(published.values())} published, {len(received)} received, {missed} counted as missed, {absent} in absences"
