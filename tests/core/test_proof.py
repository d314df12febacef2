"""core/proof: the claims of `check --prove` about a context, and their counter-examples."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from counting import calls_in
from simulation import context, rule, task

from zmsvc.core.exploration import THREADS, Trial
from zmsvc.core.independent_parts import parts_of
from zmsvc.core.model import TRIGGERS_OF_TASK, Context, Only, Rule, TaskDefinition
from zmsvc.core.proof import Claim, Proof, important_of, prove
from zmsvc.core.scenario import TRANSACTION, Event, EventKind
from zmsvc.core.service_options import ServiceType
from zmsvc.core.world import Reason

SIZE = 30


def up(name: str, *rules: Rule, **more: Any) -> TaskDefinition:
    """Return a task that starts again after each failure."""
    return task(name, rule("on_fail", "restart", name), *rules, **more)


def waiting(name: str, *rules: Rule, **more: Any) -> TaskDefinition:
    return up(name, *rules, entry=False, **more)


def only(given: Rule, ends: Only) -> Rule:
    return replace(given, only=ends)


def filled(*tasks: TaskDefinition) -> list[TaskDefinition]:
    """Return these tasks and further ones, 30 in total, no two of which are alike."""
    others = [up(f"other{number}", restart_delay=1.0 + number) for number in range(SIZE - len(tasks))]
    return [*tasks, *others]


def proof_of(tasks: Sequence[TaskDefinition], any_fail: Sequence[Rule] = ()) -> Proof:
    assert len(tasks) <= SIZE
    return prove(context(*tasks, any_fail=any_fail))


WRONG: dict[str, tuple[Sequence[TaskDefinition], Claim, tuple[str, ...]]] = {
    "no rule starts a task": ([up("a"), waiting("b")], Claim.CAN_START, ("b",)),
    "the only caller never starts": (
        [up("a"), waiting("b"), waiting("c", rule("on_start", "start", "b"))],
        Claim.CAN_START,
        ("b", "c"),
    ),
    "the only rule is for an end that the task cannot have": (
        [up("a", only(rule("on_fail", "start", "b"), Only.WATCHDOG)), waiting("b")],
        Claim.CAN_START,
        ("b",),
    ),
    "an important task stays down": ([up("b"), task("a")], Claim.ACTIVE_AGAIN, ("a",)),
    "a task is restarted for one reason of two": (
        [task("a", only(rule("on_fail", "restart", "a"), Only.WATCHDOG), watchdog=4.0)],
        Claim.ACTIVE_AGAIN,
        ("a",),
    ),
    "a standby stops an important task": (
        [up("a", rule("on_fail", "start", "b")), waiting("b", rule("on_start", "stop", "c")), up("c")],
        Claim.ACTIVE_AGAIN,
        ("a", "c"),
    ),
    "a failure action stops all": ([task("a", failure_action="exit"), up("b")], Claim.ACTIVE_AGAIN, ("a",)),
    "a task is restarted for one exit status alone": (
        [task("a", rule("on_fail", "restart", "a", when="exit-code:75"))],
        Claim.ACTIVE_AGAIN,
        ("a",),
    ),
    "an exit status stops an important task": (
        [up("a", rule("on_fail", "stop", "b", when="exit-code:75 lost")), up("b")],
        Claim.ACTIVE_AGAIN,
        ("a", "b"),
    ),
    "the last of several failures stops an important task": (
        [up("a", rule("on_fail", "stop", "b", after="3 in 1min")), up("b")],
        Claim.ACTIVE_AGAIN,
        ("a", "b"),
    ),
    "a recovery stops an important task": (
        [up("a", rule("on_recover", "stop", "b")), up("b")],
        Claim.ACTIVE_AGAIN,
        ("a", "b"),
    ),
    "nothing recovers that does not fail": (
        [up("a"), waiting("b", rule("on_recover", "start", "c")), waiting("c")],
        Claim.CAN_START,
        ("b", "c"),
    ),
    "two tasks restart each other": (
        [up("a", rule("on_start", "restart", "b")), waiting("b", rule("on_start", "restart", "a"))],
        Claim.NO_RING,
        ("b", "a"),
    ),
    "a ring begins with a failure of a task that an exit has started": (
        [
            up("a", rule("on_exit", "start", "b")),
            waiting("b", rule("on_fail", "start", "c")),
            waiting("c", rule("on_start", "restart", "d")),
            waiting("d", rule("on_start", "restart", "c")),
        ],
        Claim.NO_RING,
        ("c", "d"),
    ),
    "one rule starts what another stops": (
        [
            up("a", rule("on_update", "start", "b")),
            waiting("b", rule("on_start", "restart", "c"), rule("on_exit", "restart", "d")),
            waiting("c", rule("on_start", "stop", "b")),
            waiting("d", rule("on_start", "start", "b")),
        ],
        Claim.NO_RING,
        ("b", "c", "d"),
    ),
}

RIGHT: dict[str, tuple[Sequence[TaskDefinition], Sequence[Rule]]] = {
    "each task restarts itself": ([up("a", watchdog=4.0)], ()),
    "a chain of after": ([up(f"t{n}", after=(f"t{n - 1}",) if n else ()) for n in range(SIZE)], ()),
    "a chain of requires": ([up(f"t{n}", requires=(f"t{n - 1}",) if n else ()) for n in range(SIZE)], ()),
    "a pipeline in which each end starts the next one": (
        [
            up(f"t{n}", *([rule("on_exit", "start", f"t{n + 1}")] if n < SIZE - 1 else ()), entry=not n)
            for n in range(SIZE)
        ],
        (),
    ),
    "an alert after any failure": (
        [*(up(f"t{n}", restart_delay=1.0 + n) for n in range(SIZE - 1)), task("alert", entry=False)],
        [rule("on_any_fail", "start", "alert")],
    ),
    "a collector of jobs that are alike": (
        [*(task(f"job{n}", rule("on_exit", "start", "all")) for n in range(SIZE - 1)), waiting("all")],
        (),
    ),
    "a standby for a task that may stay down": (
        [
            replace(task("a", rule("on_fail", "start", "b")), important=False),
            task("b", rule("on_fail", "start", "a"), entry=False),
        ],
        (),
    ),
    "a failure action behind a restart": ([up("a", failure_action="exit")], ()),
    "a ring that needs an end for each step": (
        [
            up("a", rule("on_exit", "start", "b")),
            waiting("b", rule("on_exit", "start", "c")),
            waiting("c", rule("on_exit", "start", "a")),
        ],
        (),
    ),
    "a rule for an exit status, a rule that counts and a recovery start tasks": (
        [
            up(
                "a",
                rule("on_fail", "start", "b", when="signal:SIGSEGV"),
                rule("on_fail", "start", "c", after="3 in 1min"),
                rule("on_recover", "start", "d"),
            ),
            *map(waiting, "bcd"),
        ],
        (),
    ),
    "a rule that counts ends a ring": (
        [
            up("a", rule("on_update", "start", "b")),
            waiting("b", rule("on_start", "restart", "c"), rule("on_start", "stop", "c", after="5 in 1h")),
            waiting("c", rule("on_start", "restart", "b")),
        ],
        (),
    ),
    "an update starts a task, and its start limit ends a ring": (
        [
            up("a", rule("on_update", "start", "b")),
            waiting("b", rule("on_start", "restart", "c"), start_limit_burst=3),
            waiting("c", rule("on_start", "restart", "b"), start_limit_burst=3),
        ],
        (),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_fault_is_found_with_a_counter_example(name: str) -> None:
    tasks, claim, about = WRONG[name]
    found = proof_of(filled(*tasks))
    assert {each.claim for each in found.violations} == {claim}
    assert {each for violation in found.violations for each in violation.tasks} >= {*about}
    assert not found.proven
    assert found.decisions < found.bound, "the fault is found without the bound"
    for each in found.violations:
        assert each.advice
        assert claim is Claim.CAN_START or (each.timeline and each.events[0] == "start")
        assert claim is not Claim.NO_RING or each.rules


def test_the_counter_example_of_a_task_that_never_starts_has_the_start_of_its_part() -> None:
    tasks, _, _ = WRONG["the only rule is for an end that the task cannot have"]
    (violation,) = proof_of(filled(*tasks)).violations
    assert "started" in [each.record.event for each in violation.timeline]


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_context_is_proven(name: str) -> None:
    tasks, any_fail = RIGHT[name]
    if name == "a collector of jobs that are alike":
        tasks = [replace(each, important=each.id == "all") for each in tasks]
    found = proof_of(filled(*tasks), any_fail)
    assert (found.violations, found.unseen) == ((), ())
    assert (found.proven, found.exhausted) == (True, True)
    assert found.decisions < found.bound


def test_the_counter_example_has_the_shortest_way_and_the_rules() -> None:
    tasks = WRONG["a ring begins with a failure of a task that an exit has started"][0]
    (ring,) = proof_of(filled(*tasks)).violations
    assert ring.events == ("start", "exit(a)", "fail(b)")
    assert [each.text for each in ring.rules] == ["c on_start:restart:d", "d on_start:restart:c"]
    assert ring.repeats
    told = [(each.record.task, each.record.event) for each in ring.timeline]
    assert told[:4] == [("a", "launching"), ("a", "started"), ("a", "stopped"), ("b", "rule")]
    assert told.count(("c", "started")) < 4, "one turn is enough"


def test_a_bound_that_is_reached_is_no_proof() -> None:
    tasks = [
        up(f"t{n}", *([rule("on_start", "start", f"t{n + 1}")] if n < SIZE - 1 else ()), entry=not n)
        for n in range(SIZE)
    ]
    found = prove(context(*tasks), 800)
    assert (found.proven, found.exhausted, found.violations) == (False, False, ())
    assert 800 <= found.decisions < 900
    assert found.ends == 0, "all that can happen while no task ends was tried"
    never = [*tasks, waiting("x", rule("on_start", "start", "t0"))]
    found = prove(context(*never), 800)
    assert (found.unseen, found.violations) == (("x",), ()), "not seen within the bound is not never"


def ring_of(size: int) -> Context:
    """Return tasks that all start at once, and of which each restarts the next one when it starts."""
    return context(*(up(f"t{n}", rule("on_start", "restart", f"t{(n + 1) % size}")) for n in range(size)))


def test_the_bound_holds_while_one_event_still_has_consequences() -> None:
    found = prove(ring_of(SIZE), 300)
    assert 300 <= found.decisions < 300 + 3 * SIZE
    assert (found.proven, found.exhausted, found.violations) == (False, False, ())
    assert (found.unfinished, found.depth, found.states) == (("start",), 0, 0)
    assert found.unseen == (), "all have started by then"
    waits = [up("a", rule("on_exit", "start", "t0")), *ring_of(SIZE).tasks.values()]
    later = prove(context(*(replace(each, entry=each.id == "a") for each in waits)), 40)
    assert 40 <= later.decisions < 40 + 13 * SIZE
    assert (later.unfinished, later.violations) == (("start", "exit(a)"), ())


def test_a_part_that_never_settles_leaves_the_results_of_the_others() -> None:
    small = [up("x"), task("y", restart_delay=7.0)]
    found = prove(context(*small, *ring_of(SIZE).tasks.values()), 300)
    assert [each.tasks for each in found.violations] == [("y",)]
    assert found.unfinished == ("start",)


def pairwise(of: Context) -> set[frozenset[str]]:
    """Return the classes of interchangeable tasks of a part by an exchange of each pair."""

    def links(renamed: dict[str, str]) -> Counter[Any]:
        def new(name: str) -> str:
            return renamed.get(name, name)

        return Counter(
            (new(one.id), new(other), what)
            for one in of.tasks.values()
            for other, what in (
                *((each.call, replace(each, call="")) for each in one.rules),
                *((name, "after") for name in one.after),
                *((name, "requires") for name in one.requires),
            )
        )

    def own(one: TaskDefinition) -> Any:
        return replace(one, id="", rules=(), after=(), requires=(), source={})

    return {
        frozenset(
            other
            for other in of.tasks
            if own(of.tasks[other]) == own(of.tasks[name]) and links({name: other, other: name}) == links({})
        )
        for name in of.tasks
    }


@pytest.mark.parametrize("first", range(0, 300, 100))
def test_tasks_are_in_one_class_if_and_only_if_their_exchange_changes_nothing(first: int) -> None:
    for seed in range(first, first + 100):
        chance = random.Random(seed)
        names = [f"t{n}" for n in range(chance.randint(2, 5))]
        tasks = [
            task(
                name,
                *(rule("on_fail", "restart", each) for each in names if chance.random() < 0.8),
                *(rule("on_exit", "start", each) for each in names if chance.random() < 0.15),
                entry=chance.random() < 0.9,
            )
            for name in names
        ]
        for part in parts_of(context(*tasks), ()):
            assert {frozenset(each) for each in part.classes} == pairwise(part.context), seed


@pytest.mark.parametrize("together", [False, True])
def test_the_search_for_tasks_that_are_alike_takes_work_in_proportion_to_the_tasks(together: bool) -> None:
    def work(size: int) -> int:
        made = context(*([up(f"t{n}") for n in range(size)] if together else ring_of(size).tasks.values()))
        return calls_in(lambda: parts_of(made, made.tasks))

    assert work(80) < 5 * work(20)


def test_tasks_that_are_alike_are_tried_once() -> None:
    found = proof_of([task(f"t{n}", after=("hub",)) for n in range(SIZE - 1)] + [up("hub")])
    assert (found.tasks, found.folded) == (SIZE, 2)
    (down,) = found.violations
    assert (down.tasks, len(down.alike)) == (("t0",), SIZE - 2)


def test_a_failed_start_is_tried_where_a_rule_distinguishes_it() -> None:
    abnormal = only(rule("on_fail", "restart", "a"), Only.ABNORMAL)
    plain = rule("on_fail", "start", "b")
    found = proof_of([task("a", abnormal, plain), waiting("b")])
    assert [each.events for each in found.violations] == [("start", "fail(a)")]


def test_the_end_of_the_process_that_thread_tasks_share_is_one_failure() -> None:
    helper = task("c", rule("on_start", "restart", "a"), rule("on_start", "stop", "c"), entry=False)
    one = task("a", rule("on_fail", "start", "c"), kind="Thread")
    two = up("b", rule("on_fail", "stop", "c"), kind="Thread")
    (together,) = proof_of([one, two, helper]).violations
    assert together.events == ("start", "kill(the process of all Thread tasks)")
    assert together.tasks == ("a",)
    assert proof_of([replace(one, service_type=ServiceType.PROCESS), two, helper]).proven, "each alone"
    assert proof_of([up("a", kind="Thread"), up("b", kind="Thread")]).proven


def test_important_are_those_that_say_so_or_else_all_that_start_with_their_transaction() -> None:
    one, two, three = task("a"), task("b"), task("c", entry=False)
    assert important_of(context(one, two, three)) == ("a", "b")
    assert important_of(context(one, two, replace(three, important=True))) == ("c",)
    assert important_of(context(replace(one, important=False), two, three)) == ("b",)


# --- the reductions


def naive(of: Context) -> set[Claim]:
    """Return the claims that do not hold, by trying every event of every task in every state."""
    important, violated, started = important_of(of), set[Claim](), set[str]()
    counts = (
        (False, True) if any(each.after for task in of.tasks.values() for each in task.rules) else (False,)
    )
    first = Trial.of(of)
    first.begin(TRANSACTION)
    waits, seen = [first], set[object]()
    if first.come_to_rest():
        return {Claim.NO_RING}
    while waits:
        here = waits.pop()
        started |= {each.record.task for each in here.timeline if each.record.event == "started"}
        state = tuple((each.sub_state, each.has_failed) for each in here.world.tasks.values())
        if state in seen or here.world.stopping:
            continue
        seen.add(state)
        assert len(seen) < 2_000
        for event, counted in product(every_event(here), counts):
            run = Trial.from_world(here.world, here.now + 1_000.0, counted=counted)
            if event.what == THREADS:
                run.threads_die()
            else:
                run.apply(event)
            if run.come_to_rest():
                violated.add(Claim.NO_RING)
                continue
            lost = [name for name in important if here.runs(name) and not run.runs(name)]
            if event.kind in (EventKind.FAIL, EventKind.KILL) and lost:
                violated.add(Claim.ACTIVE_AGAIN)
            waits.append(run)
    return violated | ({Claim.CAN_START} if started != {*of.tasks} else set())


def every_event(run: Trial) -> Iterator[Event]:
    for name in run.world.context.tasks:
        if run.runs(name):
            yield Event(kind=EventKind.EXIT, what=name)
            yield Event(kind=EventKind.UPDATE, what=name)
            yield Event(kind=EventKind.FAIL, what=name)
            yield Event(kind=EventKind.FAIL, what=name, reason=Reason.SIGNAL)
    if any(task.service_type is ServiceType.THREAD for task in run.world.context.tasks.values()):
        yield Event(kind=EventKind.KILL, what=THREADS)


def made_up(seed: int) -> Context:
    """Return a small context with random rules."""
    chance = random.Random(seed)
    names = ["a", "b", "c", "d"][: chance.randint(2, 4)]
    triggers = [each.value for each in TRIGGERS_OF_TASK]
    conditions: list[dict[str, str]] = [{}, {}, {"when": "signal"}, {"after": "2 in 1h"}]
    tasks = []
    for number, name in enumerate(names):
        rules = []
        for other in chance.choices(names, k=chance.randint(0, 2)):
            trigger, action = chance.choice(triggers), chance.choice(["start", "start", "restart", "stop"])
            more = chance.choice(conditions if trigger == "on_fail" else conditions[:2])
            rules.append(rule(trigger, action, other, **more))
        own = [rule("on_fail", "restart", name)] if chance.random() < 0.6 else []
        after = tuple(names[:number]) if chance.random() < 0.2 else ()
        requires = tuple(chance.sample(names[:number], 1)) if number and chance.random() < 0.2 else ()
        entry = not number or chance.random() < 0.6
        kind = "Thread" if chance.random() < 0.4 else "Process"
        made = task(name, *own, *rules, entry=entry, after=after, requires=requires, kind=kind)
        tasks.append(replace(made, important=chance.choice([None, None, True, False])))
    return context(*tasks)


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_what_is_left_out_changes_no_result(first: int) -> None:
    for seed in range(first, first + 20):
        made = made_up(seed)
        found = prove(made)
        assert found.exhausted, seed
        told, expected = {each.claim for each in found.violations}, naive(made)
        # No event is tried while a ring turns, and parts without a ring are not told apart here.
        assert (Claim.NO_RING in told) is (Claim.NO_RING in expected), seed
        assert Claim.NO_RING in told or told == expected, seed


def test_no_task_is_reported_as_never_starting_beside_a_ring() -> None:
    tasks = [
        up("a", rule("on_start", "restart", "b"), rule("on_update", "start", "c")),
        waiting("b", rule("on_start", "restart", "a")),
        waiting("c"),
    ]
    found = proof_of(tasks)
    assert ([each.claim for each in found.violations], found.unseen) == ([Claim.NO_RING], ("c",))


def test_a_task_that_a_rule_of_the_context_calls_is_not_like_those_that_none_calls() -> None:
    waiting_tasks = [task(name, entry=False) for name in "bcd"]
    (part,) = parts_of(
        context(task("a"), *waiting_tasks, any_fail=[rule("on_any_fail", "start", "b")]), ("a",)
    )
    assert part.classes == (("a",), ("b",), ("c", "d"))


def test_a_violation_names_the_rules_of_the_context_that_fired() -> None:
    fired = rule("on_any_fail", "start", "alert")
    found = prove(context(task("a"), task("alert", entry=False), any_fail=[fired]))
    (violation,) = found.violations
    assert violation.claim is Claim.ACTIVE_AGAIN
    assert [(each.task, each.rule) for each in violation.rules] == [("", fired)]
