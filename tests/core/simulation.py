"""A keeper and tasks of make-believe around the real `step`: what a machine would do, without one. Time stands still unless it is moved."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from zmsvc.core import events as ev
from zmsvc.core.engine import step
from zmsvc.core.events import Effect, Fact, Key
from zmsvc.core.model import Action, Context, Endpoints, Limits, Rule, TaskService, Trigger
from zmsvc.core.world import World, task_from_row, task_to_row


def rule(trigger: str, action: str, call: str) -> Rule:
    return Rule(trigger=Trigger(trigger), action=Action(action), call=call)


def context(*tasks: TaskService) -> Context:
    points = Endpoints(frontend="ipc:///s", backend="ipc:///p", front_bind="ipc:///p", backend_bind="ipc:///s")
    return Context(name="Sim", id="context001", log_name="Sim", endpoints=points, tasks={task.id: task for task in tasks})


def task(name: str, *rules: Rule, entry: bool = True, **limits: float) -> TaskService:
    return TaskService(id=name, instance="Echo", rules=rules, entry=entry, limits=Limits(**limits))  # type: ignore[arg-type]


@dataclass
class Simulation:
    """The world of one context, the processes that live in it, and everything that was ordered."""

    world: World
    now: float = 1000.0
    epoch: str = "keeper-1"
    alive: dict[int, Key] = field(default_factory=dict)
    ends: dict[int, ev.TaskExited] = field(default_factory=dict)
    forked: dict[int, int] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)
    stubborn: bool = False

    @classmethod
    def of(cls, *tasks: TaskService) -> Simulation:
        return cls(world=World(context=context(*tasks)))

    # --- a supervisor

    def decide(self, fact: Fact) -> list[Effect]:
        """One step, and nothing carried out: what a supervisor has saved when it dies."""
        self.world, effects = step(self.world, fact, self.now)
        self.check()
        return list(effects)

    def happen(self, fact: Fact) -> list[Effect]:
        """One step, carried out."""
        effects = self.decide(fact)
        for effect in effects:
            self.perform(effect)
        return effects

    def begin(self, transaction: str | None = "T1", autostart: bool = True) -> list[Effect]:
        return self.happen(ev.SupervisorStarted(epoch=self.epoch, autostart=autostart, transaction=transaction, generated="GENERATED"))

    def crash(self, performed: int = 0, lost: list[Effect] | None = None) -> None:
        """The supervisor dies after it has carried out so many of its last orders; the next one has only the state file and the keeper."""
        for effect in (lost or [])[:performed]:
            self.perform(effect)
        tasks = {key: task_from_row(json.loads(json.dumps(task_to_row(each)))) for key, each in self.world.tasks.items()}
        assert tasks == dict(self.world.tasks)
        launches = {each.launch: key for key, each in tasks.items() if each.live}
        self.world = World(
            context=self.world.context,
            epoch=self.world.epoch,
            stopping=self.world.stopping,
            next_launch=self.world.next_launch,
            transactions=dict(self.world.transactions),
            tasks=tasks,
            launches=launches,
        )
        children = tuple(ev.Child(launch=launch, pid=1000 + launch, start_time=launch) for launch in self.alive)
        ends = dict(self.ends)
        self.happen(ev.SupervisorStarted(epoch=self.epoch, children=children, exits=frozenset(ends)))
        for end in ends.values():
            self.happen(end)

    # --- a machine

    def perform(self, effect: Effect) -> None:
        self.effects.append(effect)
        match effect:
            case ev.Launch(launch=launch, key=key) if launch not in self.forked:
                assert key not in self.alive.values(), f"two processes of {key}"
                self.forked[launch] = 1
                self.alive[launch] = key
                self.happen(ev.TaskLaunched(launch=launch, pid=1000 + launch, start_time=launch))
            case ev.KillAll(launch=launch):
                if launch in self.alive:
                    self.end(launch, signal="SIGKILL")
                self.happen(ev.TaskGone(launch=launch))
            case ev.Signal(launch=launch) if launch in self.alive and not self.stubborn:
                self.end(launch, code=0)
            case ev.Forget(launch=launch):
                self.ends.pop(launch, None)
            case _:
                pass

    def end(self, launch: int, *, code: int | None = None, signal: str | None = None, left: bool = False) -> list[Effect]:
        """The process ends, and the keeper keeps that until it is told to forget it."""
        del self.alive[launch]
        self.ends[launch] = ev.TaskExited(launch=launch, code=code, signal=signal, left=left)
        return self.happen(self.ends[launch])

    def ready(self) -> None:
        """Every process that has been started says that it is ready."""
        for launch in list(self.alive):
            self.happen(ev.TaskReady(launch=launch))

    def ring(self) -> bool:
        """Move on to the earliest deadline, and let it pass. False when there is none."""
        due = [(each.deadline, key) for key, each in self.world.tasks.items() if each.deadline is not None]
        if not due:
            return False
        at, key = min(due)
        self.now = max(self.now, at)
        self.happen(ev.DeadlinePassed(key=key))
        return True

    # --- what is always true

    def check(self) -> None:
        live = {key: each.launch for key, each in self.world.tasks.items() if each.live}
        assert {launch: key for key, launch in live.items()} == dict(self.world.launches)
        for key, each in self.world.tasks.items():
            assert key[0] in self.world.transactions
            assert each.pid is None or each.live, (key, each)

    # --- looking

    def sub(self, name: str, transaction: str = "T1") -> str:
        return self.world.tasks[(transaction, name)].sub.value

    def launch_of(self, name: str, transaction: str = "T1") -> int:
        return self.world.tasks[(transaction, name)].launch

    def launched(self, name: str, transaction: str = "T1") -> int:
        """How many processes of a task there have been."""
        orders = {effect.launch for effect in self.effects if isinstance(effect, ev.Launch) and effect.key == (transaction, name)}
        return len(orders)

    def ask(self, verb: str, *tasks: str, transaction: str | None = "T1", request: int | None = 7, **more: object) -> list[Effect]:
        origin = ev.Origin(by="operator", uid=0)
        fact = ev.Requested(verb=ev.Verb(verb), origin=origin, request=request, transaction=transaction, tasks=tasks, **more)  # type: ignore[arg-type]
        return self.happen(fact)

    def replies(self) -> list[ev.Reply]:
        return [effect for effect in self.effects if isinstance(effect, ev.Reply)]
