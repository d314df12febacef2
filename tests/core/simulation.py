"""A simulated machine around the real `step`: keeper, processes, clock and state file. It works as the loop
of the supervisor does: it takes facts in turns, saves the world, and then carries out the effects.
`checked_step` checks each step against everything that must hold in every world, so each test that uses the
simulation tests that as well.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.access import Verb
from zmsvc.core.cause_chain import Row
from zmsvc.core.effects import Effect
from zmsvc.core.engine import step
from zmsvc.core.expansion import expand
from zmsvc.core.facts import Fact
from zmsvc.core.held_descriptors import sockets_in_use, stores_in_use
from zmsvc.core.host_choice import host_for
from zmsvc.core.hosts import HostState, hosts_from_json, hosts_to_json
from zmsvc.core.lifecycle import TABLE, State, SubState, TaskEvent
from zmsvc.core.model import Action, Context, DeviceEndpoints, Rule, TaskDefinition, Trigger
from zmsvc.core.ordering import awaited_ends, awaited_starts, unmet
from zmsvc.core.probing import Health
from zmsvc.core.rule_conditions import read_ends, read_threshold
from zmsvc.core.service_options import FailureAction, Limits, ServiceType
from zmsvc.core.silent_hosts import is_left
from zmsvc.core.simulated_machine import Process, SimulatedKeeper, SimulatedMachine
from zmsvc.core.task_key import Key
from zmsvc.core.world import (
    Reason,
    Stage,
    Task,
    World,
    barrier_to_row,
    launches_of,
    load_of,
    starts_of,
    task_from_row,
    task_to_row,
    with_barrier,
)

BEGINNING = 1000.0
SMALL = 200
"""The most tasks of a world that is compared with its machine after each turn. One with more tasks is compared
after this number of turns: a chain of 1,500 tasks would take as long as a quarter of all tests of the core.
"""


def rule(trigger: str, action: str, call: str, *, when: str = "", after: str = "") -> Rule:
    made = Rule(trigger=Trigger(trigger), action=Action(action), call=call)
    return replace(
        made,
        when=read_ends(made.trigger, when, str) if when else (),
        after=read_threshold(after) if after else None,
    )


def context(*tasks: TaskDefinition, ident: str = "context001", any_fail: Iterable[Rule] = ()) -> Context:
    points = DeviceEndpoints(
        subscribe_endpoint="ipc:///s",
        publish_endpoint="ipc:///p",
        publish_bind="ipc:///p",
        subscribe_bind="ipc:///s",
    )
    return Context(
        name="Sim",
        id=ident,
        log_name="Sim",
        endpoints=points,
        tasks=expand(tasks),
        written={task.id: task for task in tasks},
        on_any_fail=tuple(any_fail),
    )


def task(
    name: str,
    *rules: Rule,
    entry: bool = True,
    kind: str = "Process",
    notify: bool = False,
    nice: int | None = None,
    failure_action: str = "none",
    after: tuple[str, ...] = (),
    requires: tuple[str, ...] = (),
    **limits: float,
) -> TaskDefinition:
    return TaskDefinition(
        id=name,
        instance="Echo",
        rules=rules,
        entry=entry,
        service_type=ServiceType(kind),
        notify=notify,
        nice=nice,
        failure_action=FailureAction(failure_action),
        after=after,
        requires=requires,
        limits=Limits(**limits),  # type: ignore[arg-type]
    )


# --- what must hold in every step


def checked_step(world: World, fact: Fact, now: float) -> tuple[World, tuple[Effect, ...]]:
    """Return the result of one step. Check every promise that one step alone can break."""
    before = _maps(world)
    after, effects = step(world, fact, now)
    assert step(world, fact, now) == (after, effects), "the same arguments give the same answer"
    assert _maps(world) == before, "a world never changes"
    check_world(after)
    check_launches(world, after, effects, fact)
    check_alarms(world, after, effects)
    check_answers(world, after, effects, fact)
    check_walls(world, after, fact)
    check_order(world, after, fact)
    return after, effects


def _maps(world: World) -> tuple[object, ...]:
    maps = (world.tasks, world.launches, world.auxiliaries, world.transactions, world.starts, world.hosts)
    return (*map(dict, maps), world.pending)


def check_world(world: World) -> None:
    assert launches_of(world.tasks) == (dict(world.launches), dict(world.auxiliaries)), (
        "the live launches, and no other"
    )
    check_barriers(world)
    check_hosts(world)
    assert all(0 < launch < world.next_launch for launch in (*world.launches, *world.auxiliaries))
    for key, task in world.tasks.items():
        transaction = world.transactions[key[0]]
        assert task.pid is None or task.live, (key, task)
        assert not task.auxiliaries or task.pid is not None, (key, task)
        assert len({each.name for each in task.auxiliaries}) == len(task.auxiliaries), (key, task)
        assert task.live or (task.stop_reason is None and not task.restart_pending), (key, task)
        assert task.deadline is None or TaskEvent.DEADLINE in TABLE[task.sub_state], (
            f"{key}: nothing would follow from its deadline: {task}"
        )
        assert task.probe_at is None or task.state in (State.ACTIVATING, State.ACTIVE), (key, task)
        assert task.health is None or task.pid is not None, (key, task)
        assert not (task.resting and key[1] not in world.context.tasks) or asked_for(world, key), (
            f"{key} is in no file"
        )
        stops = world.stopping and not is_left(world, task.host)
        assert not (stops or not transaction.open) or not task.restart_pending, (
            f"{key} would start in what is stopped"
        )
    for name, transaction in world.transactions.items():
        assert not transaction.open or all((name, task) in world.tasks for task in world.context.tasks)
    for waiter in world.pending:
        assert waiter.remaining, "a request that waits for nothing has its answer"
        assert {name for name, _ in waiter.keys} <= set(waiter.transactions) <= set(world.transactions), (
            waiter
        )
        assert all(not world.tasks[key].resting for key in waiter.remaining), f"nothing will come of {waiter}"


def check_hosts(world: World) -> None:
    """Check that only a live task is on a host, and that no task waits for a host that takes it."""
    assert load_of(world.tasks) == dict(world.load)
    for key, task in world.tasks.items():
        assert not task.host or (task.live and task.host in world.hosts), (key, task)
        if task.sub_state is SubState.UNPLACED:
            assert host_for(world, key) is None, f"{key} has a host and is not launched"


def check_barriers(world: World) -> None:
    """Check that a task waits before its first step only for tasks that will be ready or fail."""
    assert starts_of(world.tasks) == dict(world.starts)
    for key, task in world.tasks.items():
        if task.barrier is None:
            continue
        assert task.live or task.sub_state is SubState.START_AFTER, (key, task)
        if task.barrier.stage is Stage.WAITING:
            service = world.context.tasks.get(key[1])
            early = service is not None and service.ready is not None
            others = [
                each.barrier.topics
                for each in world.tasks.values()
                if each.barrier and each.barrier.start == task.barrier.start and each.barrier.is_awaited
                if not (early and each.sub_state is SubState.START_AFTER)
            ]
            published = task.barrier.publishes
            assert any(published is None or heard is None or {*heard} & {*published} for heard in others), (
                f"nothing will let {key} go on"
            )


def asked_for(world: World, key: Key) -> bool:
    return any(key in waiter.keys for waiter in world.pending)


def check_launches(before: World, after: World, effects: Iterable[Effect], fact: Fact) -> None:
    """Check that each launch is ordered once and forgotten once, and that orders name launches that exist.
    The keeper ends the auxiliary processes of a task that ends; each of them is forgotten when its own end is
    reported.
    """
    launched = Counter(e.launch for e in effects if isinstance(e, fx.Launch | fx.LaunchAuxiliary))
    forgotten = Counter(e.launch for e in effects if isinstance(e, fx.Forget))
    known = before.launches.keys() | before.auxiliaries.keys()
    new = (after.launches.keys() | after.auxiliaries.keys()) - known
    over = before.launches.keys() - after.launches.keys()
    assert after.next_launch >= before.next_launch, "launch IDs only grow"
    assert min(new, default=before.next_launch) >= before.next_launch, "no launch ID is used twice"
    told = fact.fact if isinstance(fact, ft.OnHost) else fact
    if isinstance(fact, ft.SupervisorStarted | ft.HostJoined):
        assert set(launched) <= {*after.launches, *after.auxiliaries}
        same = (
            before.keeper_id == fact.keeper_id
            if isinstance(fact, ft.SupervisorStarted)
            else fact.host in before.hosts and before.hosts[fact.host].epoch == fact.epoch
        )
        mine = before.launches.keys() if same else set()
        strangers = {child.launch for child in fact.children} - mine
    else:
        assert launched == Counter(new), "every new launch is ordered once, and nothing else"
        mine = (
            {told.launch}
            if isinstance(told, ft.TaskExited | ft.LaunchFailed)
            and (
                is_unknown(before, fact)
                if isinstance(fact, ft.OnHost)
                else told.launch not in before.launches
            )
            else set()
        )
        assert forgotten == Counter([*over, *mine]), "every end is acknowledged once, and nothing else"
        strangers = set()
    check_orders(before, after, effects)
    for effect in effects:
        if isinstance(effect, fx.Terminate):
            assert effect.key in (after.launches.get(effect.launch), before.launches.get(effect.launch))
        if isinstance(effect, fx.SendSignal):
            assert after.launches.get(effect.launch) == effect.key
        if isinstance(effect, fx.LaunchAuxiliary):
            assert after.launches.get(effect.of) == effect.key
        if isinstance(effect, fx.KillAll):
            of = after.launches.get(effect.launch, after.auxiliaries.get(effect.launch))
            assert of == effect.key or effect.launch in strangers


def check_orders(before: World, after: World, effects: Iterable[Effect]) -> None:
    """Check that each order goes to the host of its launch, and that no launch is ordered where it may not
    run.
    """
    for effect in effects:
        if isinstance(effect, fx.LaunchAuxiliary | fx.Terminate | fx.SendSignal | fx.KillAll | fx.Launch):
            hosts = {world.tasks[effect.key].host for world in (before, after) if effect.key in world.tasks}
            assert effect.host in hosts or effect.key == ("", ""), effect
        if isinstance(effect, fx.Launch):
            service = after.context.tasks.get(effect.key[1])
            placed = service is not None and service.placement is not None
            assert placed or not effect.host or effect.launch in before.launches, effect
            if effect.host and effect.launch not in before.launches:
                host = after.hosts[effect.host]
                assert host.state is HostState.HERE, effect
                assert not host.drained, effect


def is_unknown(world: World, fact: ft.OnHost) -> bool:
    """Return True if a fact belongs to the present epoch of its host, and to no launch that a task has there."""
    host = world.hosts.get(fact.host)
    current = host is not None and host.epoch == fact.epoch and host.state is not HostState.OFF
    key = world.launches.get(fact.fact.launch)
    return current and (key is None or world.tasks[key].host != fact.host)


def check_alarms(before: World, after: World, effects: Iterable[Effect]) -> None:
    rung: dict[Key, float | None] = {
        effect.key: effect.when for effect in effects if isinstance(effect, fx.WakeAt)
    }
    for key in before.tasks.keys() | after.tasks.keys():
        was, wants = (world.tasks[key].alarm if key in world.tasks else None for world in (before, after))
        assert rung.get(key, was) == wants, f"the alarm of {key} is not its deadline"


def check_answers(before: World, after: World, effects: Iterable[Effect], fact: Fact) -> None:
    """Check that each request is answered once: those that stop waiting, and those that never wait. If a
    failure ends the context during its start, that start has no answer.
    """
    answered = Counter(
        0 if isinstance(e, fx.Ready) else e.request for e in effects if isinstance(e, fx.Reply | fx.Ready)
    )
    expected = Counter(waiter.request for waiter in before.pending)
    if isinstance(fact, ft.SupervisorStarted):
        expected = Counter({0: 1})
    elif isinstance(fact, ft.Requested | ft.ContextReloaded | ft.DrainRequested) and fact.request is not None:
        expected[fact.request] += 1
    expected.subtract(Counter(waiter.request for waiter in after.pending))
    if after.exit_status:
        del expected[0]
    assert answered == +expected


def check_walls(before: World, after: World, fact: Fact) -> None:
    """Check that events in one transaction do not touch another one."""
    of_all = ft.SupervisorStarted | ft.ContextReloaded | ft.HostJoined | ft.HostLost | ft.DrainRequested
    if isinstance(fact, of_all) or (isinstance(fact, ft.Requested) and fact.transaction is None):
        return
    if isinstance(fact, ft.Requested) and (fact.verb is Verb.EXIT or fact.new):
        return
    if after.exit_status != before.exit_status:
        # A failure ends the whole context.
        return
    touched = {key[0] for key, task in after.tasks.items() if before.tasks.get(key) is not task}
    if isinstance(fact, ft.OnHost):
        if before.hosts != after.hosts:
            # The last process that may have been a copy is gone: tasks that wait for a host go on.
            return
        fact = fact.fact
    match fact:
        case ft.HostSilent() | ft.DeadlinePassed() if after.stopping:
            pass  # The stop of the whole context waits for a silent host for a while.
        case ft.HostSilent():
            assert not touched
        case ft.Requested():
            assert touched <= {fact.transaction}
        case ft.DeadlinePassed():
            assert touched <= {fact.key[0]}
        case _:
            key = before.launches.get(fact.launch, before.auxiliaries.get(fact.launch))
            assert touched <= ({key[0]} if key else set())


def check_order(before: World, after: World, fact: Fact) -> None:
    """Check that no task waits for nothing, that no task starts before those that it comes after, and that
    none is asked to stop before those that come after it.
    """
    for key, task in after.tasks.items():
        if task.sub_state is SubState.START_AFTER:
            assert after.transactions[key[0]].open
            assert not after.stopping
            assert awaited_starts(after, key), f"{key} waits for nothing"
            assert unmet(after, key) is None, f"{key} waits in vain"
        if task.sub_state is SubState.STOP_AFTER:
            assert awaited_ends(after, key), f"{key} waits for nothing"
        if key not in after.tasks or key not in before.tasks:
            continue
        if task.sub_state is SubState.LAUNCHING and task.launch != before.tasks[key].launch:
            assert not awaited_starts(after, key), f"{key} starts too early"
            assert unmet(after, key) is None, f"{key} starts without what it requires"
        asked = task.sub_state is SubState.STOP_SIGTERM and task.stop_reason is Reason.REQUESTED
        if asked and before.tasks[key].sub_state is not SubState.STOP_SIGTERM:
            # A reload stops by the order of the old file, which is gone then.
            late = isinstance(fact, ft.TaskLaunched | ft.ContextReloaded) or (
                isinstance(fact, ft.Requested) and fact.now
            )
            assert late or not awaited_ends(after, key), f"{key} stops too early"


def reread(task: Task) -> Task:
    """Return the task as it is after a save and a load."""
    again = task_from_row(json.loads(json.dumps(task_to_row(task))), task.sub_state.value)
    if (row := barrier_to_row(task)) is not None:
        again = with_barrier(again, json.loads(json.dumps(row)))
    assert again == task
    return again


def timeless(task: Task) -> Task:
    end = replace(task.exit, at=0.0) if task.exit else None
    others = tuple(replace(each, since=0.0) for each in task.auxiliaries)
    times = {"since": 0.0, "deadline": None, "probe_at": None, "launched_at": 0.0, "reload_at": 0.0}
    return replace(task, **times, exit=end, auxiliaries=others)


# --- the machine


@dataclass
class Simulation(SimulatedMachine):
    """A machine with all its orders, whose steps are checked and whose supervisor may die at any point."""

    now: float = BEGINNING
    obedient: bool = True
    """True if processes end at SIGTERM, with status 0."""
    stuck: set[int] | None = None
    """The launches that have SIGKILL and are stuck in the kernel; None if processes die of SIGKILL at
    once.
    """
    effects: list[Effect] = field(default_factory=list)
    """All effects that were decided, carried out or not."""
    saved: World | None = None
    records: list[fx.Record] = field(default_factory=list)
    totals: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """The totals in the state file."""
    """The history in the state file."""
    rows: list[Row] = field(default_factory=list)
    """The same with its times."""
    die_at: tuple[int, int | None] | None = None
    """The turn in which the supervisor dies, and the number of effects that it has performed by then. None:
    it dies before it saves.
    """
    turns: int = 0
    performed: list[int] = field(default_factory=list)
    """The number of effects of each turn."""
    crashes: int = 0
    checked: bool = True
    """True if every step is checked. Only the first telling of a story is; the many repetitions are not."""
    disk_full: bool = False
    """True if the state file cannot be written. The supervisor then goes on from memory and acknowledges
    nothing.
    """

    @classmethod
    def of(cls, *tasks: TaskDefinition, any_fail: Iterable[Rule] = ()) -> Simulation:
        return cls(world=World(context=context(*tasks, any_fail=any_fail)))

    # --- a supervisor

    def happen(self, *facts: Fact) -> list[Effect]:
        """Take these facts and everything that follows from them now. Return the effects."""
        mark = len(self.effects)
        self.facts.extend(facts)
        while self.waits:
            self.turn()
        return self.effects[mark:]

    def turn(self) -> list[Effect]:
        """Take one turn as the supervisor does: take all facts, decide, save, act."""
        facts = self.taken()
        effects: list[Effect] = []
        for fact in facts:
            effects += self.decide(fact)
        self.turns += 1
        # A count is saved with the world, and nothing is left to perform.
        performed = [effect for effect in effects if not isinstance(effect, fx.Count)]
        self.performed.append(len(performed))
        fate = self.die_at if self.die_at and self.die_at[0] == self.turns else None
        if fate is not None and fate[1] is None:
            # Nothing of this turn has happened. The keeper repeats its reports, notifications of tasks are
            # still queued, and clients ask again.
            self.crash(
                [
                    fact
                    for fact in facts
                    if not isinstance(fact, ft.TaskLaunched | ft.TaskExited | ft.LaunchFailed | ft.TaskGone)
                ]
            )
            return effects
        if not self.disk_full:
            self.save(effects)
        for number, effect in enumerate(performed):
            if fate is not None and fate[1] == number:
                self.crash([])
                return effects
            self.perform(effect)
        if fate is not None:
            self.crash([])
            return effects
        if not self.disk_full:
            self.acknowledge()
        if len(self.world.tasks) <= SMALL or not self.turns % SMALL:
            self.check_machine()
        return effects

    def check_machine(self) -> None:
        """Check that the keeper and the alarms are as the world says."""
        assert self.keeper.sockets == sockets_in_use(self.world.context, self.world.tasks)
        assert self.keeper.stores == stores_in_use(self.world.context, self.world.tasks)
        for each in self.world.tasks.values():
            if each.live and each.barrier and (keeper := self.keeper_of(each.host)) is not None:
                assert (each.barrier.stage is Stage.PASSED) <= (each.launch in keeper.opened)
        due = {key: each.alarm for key, each in self.world.tasks.items() if each.alarm is not None}
        assert self.alarms == due, (self.alarms, due)

    def decide(self, fact: Fact) -> list[Effect]:
        """Take one step. Nothing is saved or performed."""
        self.world, effects = (checked_step if self.checked else step)(self.world, fact, self.now)
        self.effects += effects
        return list(effects)

    def save(self, effects: Collection[Effect]) -> None:
        old = self.saved.tasks if self.saved else {}
        for key, each in self.world.tasks.items() if self.checked else ():
            if old.get(key) is not each:
                reread(each)
        self.saved = self.world
        counts = [effect for effect in effects if isinstance(effect, fx.Count)]
        for count in counts:
            self.totals[count.total, count.task, count.detail] += count.amount  # type: ignore[assignment]
        told = [effect for effect in effects if isinstance(effect, fx.Record)]
        self.records += told
        self.rows += [
            Row(
                at=self.now,
                transaction=each.transaction,
                task=each.task,
                event=each.event,
                detail=each.detail,
            )
            for each in told
        ]

    def crash(self, still: Iterable[Fact] = ()) -> None:
        """Let the supervisor die. The next one has only the state file and the keeper. `still` has facts that
        wait in other queues.
        """
        self.crashes += 1
        self.die_at = None
        self.lose_supervisor(self.reloaded(), still)

    def reloaded(self) -> World:
        """Return the world as the next supervisor reads it from the state file."""
        saved = self.saved or World(context=self.world.context)
        return World(
            context=saved.context,
            keeper_id=saved.keeper_id,
            stopping=saved.stopping,
            exit_status=saved.exit_status,
            hands_over=saved.hands_over,
            next_launch=saved.next_launch,
            disabled=saved.disabled,
            hosts=hosts_from_json(json.loads(json.dumps(hosts_to_json(saved.hosts)))),
            transactions=dict(saved.transactions),
            tasks={key: reread(each) for key, each in saved.tasks.items()},
        )

    def restore(self) -> None:
        """Lose everything in memory."""
        self.lose_supervisor(self.reloaded())
        self.facts.clear()

    def another_keeper(self, epoch: str = "keeper-2", **more: Any) -> list[Effect]:
        """Let the keeper die, with all processes, and start the daemon again."""
        self.restore()
        self.keeper = SimulatedKeeper(keeper_id=epoch)
        return self.begin(**{"transaction": None, **more})

    # --- a machine

    def signaled(self, keeper: SimulatedKeeper, launch: int, _name: str) -> None:
        if self.obedient:
            keeper.end(launch, code=0)

    def others_signaled(self, keeper: SimulatedKeeper, launch: int, name: str) -> None:
        if self.stuck is None:
            keeper.terminate_others(launch, name)
        elif launch in keeper.ends:
            self.stuck.add(launch)

    def killed(self, keeper: SimulatedKeeper, launch: int) -> None:
        if self.stuck is None:
            keeper.kill(launch)
        else:
            self.stuck.add(launch)

    def let_die(self) -> None:
        """Let processes that are stuck in the kernel die."""
        stuck, self.stuck = self.stuck or set(), None
        for launch in stuck:
            self.keeper.kill(launch)
        self.happen()

    @property
    def alive(self) -> dict[int, Process]:
        return self.keeper.alive

    def end(
        self, launch: int | str, *, code: int | None = None, signal: str | None = None, left: int = 0
    ) -> list[Effect]:
        """Let the process of a launch, or of a task of T1, end."""
        number = self.launch_of(launch) if isinstance(launch, str) else launch
        self.alive[number].left = left
        self.keeper.end(number, code=code, signal=signal)
        return self.happen()

    def exit_of(self, name: str, *, code: int) -> ft.TaskExited:
        """End the process of a task of T1; return the fact for its supervisor, which has not decided on it
        yet.
        """
        launch = self.launch_of(name)
        del self.alive[launch]
        return ft.TaskExited(launch=launch, code=code)

    def ready(self, *names: str) -> None:
        """Let every process, or those of the named tasks, send READY=1."""
        self.happen(
            *(
                ft.TaskReady(launch=each.launch)
                for each in self.alive.values()
                if not names or each.key[1] in names
            )
        )

    def declare(self, name: str, *, topics: Iterable[str], publishes: Iterable[str] | None = None) -> None:
        """Let a task of T1 declare what it hears and publishes."""
        published = None if publishes is None else tuple(publishes)
        launch = self.launch_of(name)
        self.happen(ft.TaskDeclared(launch=launch, topics=tuple(topics), publishes=published))

    def execute(self, name: str) -> list[Effect]:
        """Let the launcher of a Command execute the program."""
        launch = self.launch_of(name)
        self.alive[launch].executed = True
        return self.happen(ft.TaskExecuted(launch=launch))

    def write_line(self, name: str) -> list[Effect]:
        """Let a Command write the line that its `<ready>` names."""
        launch = self.launch_of(name)
        self.alive[launch].line_seen = True
        return self.happen(ft.ReadyLineSeen(launch=launch))

    def auxiliary(self, name: str) -> int:
        """Return the launch of the auxiliary process of a task of T1."""
        (found,) = self.task(name).auxiliaries
        return found.launch

    def probe(self, name: str, health: str, text: str = "") -> list[Effect]:
        """Let the probe process of a task of T1 report this health."""
        return self.happen(ft.HealthReported(launch=self.auxiliary(name), health=Health(health), text=text))

    def update(self, name: str, **items: Any) -> list[Effect]:
        launch = self.launch_of(name)
        sequence = self.world.tasks[("T1", name)].sequence + 1
        return self.happen(ft.TaskUpdated(launch=launch, items=items, sequence=sequence))

    def rest(self, limit: int = 500) -> None:
        """Let every alarm ring, until none is set."""
        for _ in range(limit):
            if not self.ring():
                return
        raise AssertionError(f"it does not come to rest: {self.alarms}")

    # --- looking

    def task(self, name: str, transaction: str = "T1") -> Task:
        return self.world.tasks[(transaction, name)]

    def sub_state(self, name: str, transaction: str = "T1") -> str:
        return self.task(name, transaction).sub_state.value

    def reason(self, name: str, transaction: str = "T1") -> str:
        end = self.task(name, transaction).exit
        assert end is not None
        return end.reason.value

    def launch_of(self, name: str, transaction: str = "T1") -> int:
        return self.task(name, transaction).launch

    def launched(self, name: str, transaction: str = "T1") -> int:
        """Return the number of processes that a task has had."""
        return sum(key == (transaction, name) for _, key in self.keeper.forked)

    def ask(
        self, verb: str, *tasks: str, transaction: str | None = "T1", request: int | None = 7, **more: Any
    ) -> list[Effect]:
        origin = ft.Origin(by="operator", uid=0)
        return self.happen(
            ft.Requested(
                verb=Verb(verb), origin=origin, request=request, transaction=transaction, tasks=tasks, **more
            )
        )

    def reload(
        self, *tasks: TaskDefinition, request: int | None = 8, ident: str = "context001"
    ) -> list[Effect]:
        return self.happen(ft.ContextReloaded(context=context(*tasks, ident=ident), request=request))

    def history(self) -> Counter[str]:
        """Return the history in the state file, without entries about the supervisor itself."""
        told = [record for record in self.records if record.event not in ("adopted", "requested")]
        return Counter(
            json.dumps([record.transaction, record.task, record.event, record.detail], sort_keys=True)
            for record in told
        )

    def outcome(self) -> dict[str, Any]:
        """Return everything that must be the same if a supervisor dies during a story. A stop timeout that
        begins again does not count. Nor does the fork of an auxiliary process: its task may end first.
        """
        assert not self.facts
        assert not self.keeper.out
        return {
            "tasks": {key: timeless(each) for key, each in self.world.tasks.items()},
            "totals": dict(self.totals),
            "transactions": dict(self.world.transactions),
            "exit": (self.world.stopping, self.world.exit_status),
            "forked": sorted(each for each in self.keeper.forked if each[0] not in self.keeper.auxiliaries),
            "alive": {launch: process.key for launch, process in self.keeper.alive.items()},
            "kept": dict(self.keeper.ends),
            "history": self.history(),
        }

    def told(self, kind: type[Effect]) -> list[Any]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def replies(self, request: int | None = None) -> list[fx.Reply]:
        return [reply for reply in self.told(fx.Reply) if request in (None, reply.request)]

    def said(self, name: str) -> list[str]:
        """Return the actions that were published about a task, in order."""
        return [effect.action for effect in self.told(fx.PublishControl) if effect.key == ("T1", name)]
