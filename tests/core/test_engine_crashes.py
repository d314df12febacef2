"""A supervisor may die at any line. The next one comes to the same result: no launch happens twice, no firing
is lost or repeated.

Each story is told once without a crash, and then once for every point between any two side effects in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import Simulation, rule, task
from test_engine_properties import files

from zmsvc.core import facts as ft
from zmsvc.core import probing
from zmsvc.core.model import TaskDefinition
from zmsvc.core.ready_line import ReadyLine

Story = Callable[[Simulation], None]


def chain(sim: Simulation) -> None:
    sim.ready()
    sim.update("a", n=1)
    sim.end("a", code=0)
    sim.ready()
    sim.end("b", code=3)
    sim.ready()
    sim.end("c", signal="SIGSEGV")


CHAIN = (
    task("a", rule("on_update", "start", "d"), rule("on_exit", "start", "b")),
    task("b", rule("on_fail", "start", "c"), rule("on_fail", "restart", "d"), entry=False),
    task("c", rule("on_fail", "restart", "c"), rule("on_fail", "stop", "d"), entry=False),
    task("d", rule("on_exit", "start", "a"), entry=False),
)


def orders(sim: Simulation) -> None:
    sim.ready()
    sim.ask("restart", "a", request=1)
    sim.ready()
    sim.now += 5
    sim.ask("stop", "b", request=2)
    sim.ask("start", "b", request=3)
    sim.ready()
    sim.ask("restart", request=4)
    sim.ready()
    sim.ask("stop", request=5)
    sim.ask("start", request=6)
    sim.ready()
    sim.ask("start", transaction="T2", request=7)
    sim.ask("stop", transaction="T2", request=8)


PAIR = (
    task("a", rule("on_exit", "start", "c")),
    task("b", rule("on_exit", "restart", "a")),
    task("c", entry=False),
)


def hard(sim: Simulation) -> None:
    """Let processes ignore signals, leave others behind, be late for READY=1, and hang."""
    sim.ready("a", "b")
    sim.obedient = False
    sim.ask("stop", "a", request=1)
    sim.rest()
    sim.ask("start", "b", "c", request=2)
    sim.ready("b", "c")
    sim.end("c", code=1, left=2)
    sim.ask("restart", "b", request=3)
    sim.ask("stop", "b", request=4)
    sim.rest()


HARD = (
    task("a", rule("on_exit", "start", "b"), stop_timeout=2.0),
    task("b", rule("on_fail", "start", "c"), stop_timeout=2.0, watchdog=30.0),
    task("c", rule("on_fail", "start", "a"), start_timeout=1.0, stop_timeout=2.0),
)


def new_file(sim: Simulation) -> None:
    sim.ready()
    sim.reload(task("a", nice=3), task("c"), task("d"))
    sim.ready()
    sim.reload(task("a", nice=3), task("b", entry=False), task("c"))
    sim.reload(task("c"))


def goodbye(sim: Simulation) -> None:
    sim.ready("a")
    sim.end("b", code=1)
    sim.ask("exit", transaction=None, request=1)


def in_order(sim: Simulation) -> None:
    """Starts and stops that wait for others, and a required task that fails before it can start."""
    sim.ready("a")
    sim.ready("b")
    sim.ready("c")
    sim.now += 30
    sim.ask("restart", "a", request=1)
    for _ in range(3):
        sim.ready()
    sim.ask("stop", request=2)
    sim.ask("start", request=3)
    sim.end("a", code=1)
    sim.now += 30
    sim.ask("start", "c", request=4)
    sim.ready("a")
    sim.ask("stop", "a", request=5)


def together(sim: Simulation) -> None:
    """A start of several tasks that publish and hear: each first step waits for those that hear it."""
    sim.declare("b", topics=["raw"], publishes=["filtered"])
    sim.declare("a", topics=[], publishes=["raw"])
    sim.ready("a")
    sim.ready("b")
    sim.ready("c")
    sim.end("c", code=1)
    sim.ask("restart", "a", "b", request=1)
    sim.end("b", code=1)
    sim.ready("a")


def probed(sim: Simulation) -> None:
    """A Command that is ready by its probe, becomes unhealthy, and whose probe process dies."""
    sim.execute("a")
    sim.end(sim.auxiliary("a"), code=0)
    sim.probe("a", "healthy")
    sim.end(sim.auxiliary("a"), signal="SIGKILL")
    sim.ring()
    sim.probe("a", "unhealthy", "why")
    sim.probe("a", "failed", "why")
    sim.ring()
    sim.end(sim.auxiliary("a"), code=1)
    sim.ask("stop", request=1)


def lined(sim: Simulation) -> None:
    """A Command that is ready by a line of its output, fails, and does not write the line again."""
    sim.execute("a")
    sim.write_line("a")
    sim.end("a", code=1)
    sim.ring()
    sim.execute("a")
    sim.ring()
    sim.ask("stop", request=1)


LINED = (
    replace(
        task("a", rule("on_fail", "restart", "a"), kind="Command", start_timeout=5.0),
        ready=ReadyLine(pattern="up"),
    ),
)

PROBED = (
    replace(
        task("a", rule("on_fail", "restart", "a"), kind="Command"), health=probing.HEALTH, ready=probing.READY
    ),
)

IN_ORDER = (task("c", requires=("b",)), task("b", after=("a",), requires=("a",)), task("a", entry=True))


def give_up(sim: Simulation) -> None:
    """A failure starts an alert and stops a transaction; another one ends the daemon."""
    sim.ready()
    sim.ask("start", transaction="T2", request=1)
    sim.ready()
    sim.end("a", code=1)
    sim.ready("alert")
    sim.end("alert", code=0)
    sim.end("b", code=1)
    sim.ask("start", request=2)
    sim.ready()
    sim.end("c", code=1)


GIVE_UP = (
    task("a", rule("on_fail", "start", "alert")),
    task("b", failure_action="stop"),
    task("c", failure_action="exit"),
    task("alert", entry=False),
)


def counted(sim: Simulation) -> None:
    """Failures that are counted and judged by their ends, and recoveries from them."""
    sim.ready()
    for code in (75, 1, 75):
        sim.end("a", code=code)
        sim.ring()
        sim.ready("a")
        sim.now += 1
    sim.end("mail", code=0)
    sim.end("a", signal="SIGSEGV")
    sim.ring()
    sim.ready()
    sim.update("a", n=1)
    sim.update("a", n=2)
    sim.reload(task("a", *COUNTED[0].rules[:2]), *COUNTED[1:])
    sim.end("a", code=75)


COUNTED = (
    task(
        "a",
        rule("on_fail", "restart", "a"),
        rule("on_fail", "start", "mail", when="exit-code:75", after="2 in 1min"),
        rule("on_fail", "restart", "b", when="signal:SIGSEGV"),
        rule("on_update", "stop", "b", after="2 in 10s"),
        rule("on_recover", "start", "mail"),
    ),
    task("b"),
    task("mail", entry=False),
)


def no_fork(sim: Simulation) -> None:
    sim.keeper.broken = True
    sim.ask("restart", "a", request=1)
    sim.ring()
    sim.keeper.broken = False
    sim.ring()
    sim.ready()


def memory(sim: Simulation) -> None:
    sim.ready()
    sim.happen(ft.MemoryMeasured(launch=sim.launch_of("a"), used=2, machine=1000))
    sim.ring()
    sim.ready()
    sim.end("a", signal="SIGKILL")


def reload_tasks(sim: Simulation) -> None:
    """One task reports the end of its reload, the other one begins to reload and does not end that."""
    sim.ready()
    sim.ask("reload-tasks", "a", "b", request=1)
    sim.happen(*(ft.TaskReloading(launch=launch, at=sim.now) for launch in sim.alive))
    sim.ready("a")
    sim.ring()
    sim.ask("reload-tasks", "a", request=2)
    sim.ask("restart", "a", request=3)
    sim.ready()


def reload_command(sim: Simulation) -> None:
    """A reload_command ends well, another one fails, and a third one takes too long."""
    sim.ready()
    for number, code in enumerate((0, 1)):
        sim.ask("reload-tasks", "a", request=number)
        sim.end(sim.task("a").auxiliaries[0].launch, code=code)
    sim.ask("reload-tasks", "a", request=3)
    sim.ring()
    sim.ask("stop", "a", request=4)


RELOADS = replace(task("a", start_timeout=5.0), reload_command=("reload",))
NOTIFIES = replace(task("a", kind="Command", notify=True, start_timeout=5.0), notify_reload=True)

STORIES: dict[str, tuple[Story, tuple[TaskDefinition, ...]]] = {
    "chain": (chain, CHAIN),
    "orders": (orders, PAIR),
    "hard": (hard, HARD),
    "new file": (new_file, PAIR),
    "goodbye": (goodbye, PAIR),
    "in order": (in_order, IN_ORDER),
    "give up": (give_up, GIVE_UP),
    "together": (together, (task("a"), task("b", rule("on_fail", "restart", "b")), task("c"))),
    "memory": (
        memory,
        (replace(task("a", rule("on_fail", "restart", "a"), stop_timeout=2.0), memory_restart=1),),
    ),
    "reload tasks": (reload_tasks, (NOTIFIES, replace(NOTIFIES, id="b"))),
    "reload command": (reload_command, (RELOADS,)),
    "probed": (probed, PROBED),
    "lined": (lined, LINED),
    "counted": (counted, COUNTED),
    "no fork": (no_fork, (task("a", rule("on_fail", "restart", "a")),)),
}


def told(
    story: Story, tasks: tuple[TaskDefinition, ...], die_at: tuple[int, int | None] | None = None
) -> Simulation:
    sim = Simulation.of(*tasks)
    sim.die_at, sim.checked = die_at, die_at is None
    sim.begin()
    story(sim)
    return sim


@pytest.mark.parametrize("name", STORIES)
def test_a_crash_at_any_point_changes_nothing(name: str) -> None:
    story, tasks = STORIES[name]
    whole = told(story, tasks)
    for turn, orders_given in enumerate(whole.performed, start=1):
        for point in (None, *range(orders_given + 1)):
            broken = told(story, tasks, (turn, point))
            assert broken.crashes == 1
            assert broken.outcome() == whole.outcome(), f"dead in turn {turn} at {point}"


class Steps:
    """Steps of an operator, a task or time, by number. The target of a step follows from the world."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers

    def __call__(self, sim: Simulation) -> None:
        for number in self.numbers:
            self.one(sim, *divmod(number, 10))

    @staticmethod
    def one(sim: Simulation, which: int, what: int) -> None:
        names = sorted(name for tx, name in sim.world.tasks if tx == "T1")
        name = names[which % len(names)]
        alive = sorted(sim.alive)
        launch = alive[which % len(alive)] if alive else 0
        request = which + 1  # 0 is the start of the daemon
        match what:
            case 0 | 1:
                sim.ready()
            case 2 | 3 if alive:
                sim.end(launch, code=which % 3, left=which % 2)
            case 4 if alive:
                sim.happen(
                    ft.TaskUpdated(
                        launch=launch,
                        items={"n": which},
                        sequence=sim.world.tasks[sim.alive[launch].key].sequence + 1,
                    )
                )
            case 5:
                sim.ring()
            case 6:
                sim.ask(("start", "stop", "restart")[which % 3], name, request=request)
            case 7:
                sim.ask(("start", "stop", "restart")[which % 3], request=request)
            case _:
                sim.now += which / 10


@settings(settings(), max_examples=100)
@given(
    tasks=files(watched=False),
    numbers=st.lists(st.integers(0, 299), max_size=12),
    turn=st.integers(1, 12),
    point=st.none() | st.integers(0, 12),
)
def test_a_crash_in_any_history_of_orders_changes_nothing(
    tasks: list[TaskDefinition], numbers: list[int], turn: int, point: int | None
) -> None:
    whole = told(Steps(numbers), tuple(tasks))
    broken = told(Steps(numbers), tuple(tasks), (turn, point))
    assert broken.outcome() == whole.outcome()
