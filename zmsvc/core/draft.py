"""The working copy of a world in one step. It has the next states of the tasks and collects the effects.

A step copies a map before its first change to it, so a world never changes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Unpack

from zmsvc.core import effects as fx
from zmsvc.core import held_descriptors, topic_watches
from zmsvc.core.auxiliary_name import AuxiliaryName
from zmsvc.core.effects import Effect
from zmsvc.core.frozen import frozen
from zmsvc.core.history import Detail
from zmsvc.core.hosts import Host, HostState
from zmsvc.core.lifecycle import SubState
from zmsvc.core.model import TaskDefinition
from zmsvc.core.service_options import Limits
from zmsvc.core.task_key import Key
from zmsvc.core.totals import Total
from zmsvc.core.world import (
    Auxiliary,
    AwaitedCounts,
    PendingRequest,
    Task,
    Transaction,
    World,
    service_of,
    with_changes,
)


@frozen
class Failure:
    """A failure in this step: the index of its record among the effects, and the task as it was before its
    rules fired.
    """

    record: int
    task: Task


class Draft:
    """A world that a step is changing."""

    def __init__(self, world: World, now: float) -> None:
        self.before = world
        self.now = now
        self.context = world.context
        self.keeper_id = world.keeper_id
        self.stopping = world.stopping
        self.exit_status = world.exit_status
        self.hands_over = world.hands_over
        self.next_launch = world.next_launch
        self.disabled = world.disabled
        self.keeper_signals_others = world.keeper_signals_others
        self.tasks: dict[Key, Task] | Mapping[Key, Task] = world.tasks
        self.transactions: Mapping[str, Transaction] = world.transactions
        self.launches: Mapping[int, Key] = world.launches
        self.auxiliaries: Mapping[int, Key] = world.auxiliaries
        self.starts: Mapping[int, AwaitedCounts] = world.starts
        self.hosts: Mapping[str, Host] = world.hosts
        self.load: Mapping[str, int] = world.load
        self.pending: tuple[PendingRequest, ...] = world.pending
        self.effects: list[Effect] = []
        self.unsettled: dict[Key, None] = {}
        """The tasks that have changed since core.ordering_waits looked for tasks that wait for them."""
        self.wants_required: list[Key] = []
        """The tasks whose required tasks are to be started."""
        self.started: dict[Key, None] = {}
        """The tasks whose start this step has ordered, or has postponed until other tasks are ready."""
        self.at_barrier: dict[int, list[Key]] = {}
        """The common starts that have changed in this step, each with the tasks that have come to its
        barrier. core.start_barrier lets them pass.
        """
        self.failed: dict[Key, Failure] = {}
        """The tasks that have failed in this step, in order. core.failures decides what follows."""
        self.moved: dict[Key, None] = {}
        """The tasks whose launch on another host has begun or ended in this step."""
        self.free_hosts: dict[tuple[str, ...], tuple[str, ...] | None] = {}
        """For each list of hosts that placements name: those that take tasks in this step. See
        core.host_choice.
        """
        self.hosts_changed = False
        """True if a host may have become free for tasks that wait for one. core.host_waits looks at all of
        them.
        """
        self.new_supervisor = False
        """True in the first step of a new supervisor: orders of its predecessor may not have been carried
        out.
        """
        self._touched: dict[Key, None] = {}
        self._changed: dict[str, None] = {}
        self._to_remove: dict[Key, None] = {}
        self._own_launches = self._own_load = False

    # --- reading

    def service(self, key: Key) -> TaskDefinition | None:
        """Return the definition of a task in the context file; None if a reload has removed it."""
        return self.context.tasks.get(key[1])

    def described(self, key: Key) -> TaskDefinition | None:
        """Return the definition of a task even if a reload has removed it. This is for messages, never for
        decisions.
        """
        return service_of(self.context, key[1], self.tasks.get(key))

    def limits(self, key: Key) -> Limits:
        service = self.service(key)
        return service.limits if service else Limits()

    def of_launch(self, launch: int) -> Key | None:
        """Return the task of a current launch; None if the launch is over or unknown."""
        key = self.launches.get(launch)
        return key if key is not None and self.tasks[key].launch == launch else None

    def of_auxiliary(self, launch: int) -> tuple[Key, Auxiliary] | None:
        """Return an auxiliary process and its task; None if the process is over or unknown."""
        key = self.auxiliaries.get(launch)
        if key is None:
            return None
        return next((key, each) for each in self.tasks[key].auxiliaries if each.launch == launch)

    def keys_of(self, transaction: str) -> list[Key]:
        return [key for key in self.tasks if key[0] == transaction]

    # --- writing

    def put(self, key: Key, task: Task) -> Task:
        """Set the record of a task. The time of a new state is now."""
        old = self.tasks.get(key)
        if old is None or old.sub_state is not task.sub_state:
            self._changed[key[0]] = None
            if old is None or old.state is not task.state:
                task = with_changes(task, {"since": self.now})
        if not self._touched:
            self.tasks = dict(self.tasks)
        self._touched[key] = self.unsettled[key] = None
        assert isinstance(self.tasks, dict)
        self.tasks[key] = task
        return task

    def change(self, key: Key, **changes: Any) -> Task:
        return self.put(key, with_changes(self.tasks[key], changes))

    def remove(self, key: Key) -> None:
        """Remove the record of a task that is at rest."""
        if not self._touched:
            self.tasks = dict(self.tasks)
        self._touched[key] = None
        self._changed[key[0]] = None
        assert isinstance(self.tasks, dict)
        del self.tasks[key]

    def schedule_removal(self, key: Key) -> None:
        """Remove a task that the context file no longer has: at the end of the step, or later, when no client
        waits for its outcome any more.
        """
        self._to_remove[key] = None

    def _remove_scheduled(self) -> None:
        asked = {key for waiter in self.pending for key in waiter.keys} if self._to_remove else set()
        for key in self._to_remove:
            task = self.tasks.get(key)
            if task is not None and task.resting and key not in asked:
                self.remove(key)

    def settle_all(self) -> None:
        """Look at each task again, because its definition may have changed."""
        self.unsettled |= dict.fromkeys(self.tasks)

    def entered(self, sub_state: SubState) -> list[Key]:
        """Return the tasks that have come into this sub-state in this step."""
        return [
            key
            for key in self._touched
            if (task := self.tasks.get(key)) is not None
            and task.sub_state is sub_state
            and ((old := self.before.tasks.get(key)) is None or old.sub_state is not sub_state)
        ]

    def mark_changed(self, transaction: str) -> None:
        """Publish the state of this transaction at the end of the step."""
        self._changed[transaction] = None

    def put_transaction(self, transaction: Transaction) -> None:
        self.transactions = {**self.transactions, transaction.id: transaction}
        self._changed[transaction.id] = None

    def drop_transaction(self, name: str) -> None:
        self.transactions = {other: kept for other, kept in self.transactions.items() if other != name}
        self._changed[name] = None

    def new_launch(self, key: Key) -> int:
        launch, self.next_launch = self.next_launch, self.next_launch + 1
        self._own()[launch] = key
        return launch

    def forget_launch(self, launch: int) -> None:
        self._own().pop(launch, None)

    def put_host(self, name: str, host: Host) -> None:
        self.hosts = {**self.hosts, name: host}
        self.hosts_changed = True
        self.free_hosts.clear()

    def note_silence(self) -> None:
        """Note that this supervisor is not connected to any other host."""
        for name, host in self.hosts.items():
            quiet = replace(host, given_up=False)
            if host.state is HostState.HERE:
                quiet = replace(quiet, state=HostState.SILENT, since=self.now)
            if quiet != host:
                self.put_host(name, quiet)

    def move(self, key: Key, host: str, number: int) -> None:
        """Note that a launch on another host has begun (`number` 1) or ended (-1)."""
        if not self._own_load:
            self.load, self._own_load = dict(self.load), True
        assert isinstance(self.load, dict)
        self.load[host] = self.load.get(host, 0) + number
        if not self.load[host]:
            del self.load[host]
        self.moved[key] = None

    def new_auxiliary(self, key: Key, name: AuxiliaryName, command: tuple[str, ...]) -> Auxiliary:
        launch, self.next_launch = self.next_launch, self.next_launch + 1
        made = Auxiliary(launch=launch, name=name, command=command, since=self.now)
        self.auxiliaries = {**self.auxiliaries, launch: key}
        self.change(key, auxiliaries=(*self.tasks[key].auxiliaries, made))
        return made

    def forget_auxiliaries(self, key: Key, forgotten: Collection[int]) -> None:
        """Forget those auxiliary processes of a task that have these launch IDs."""
        if not forgotten:
            return
        self.auxiliaries = {launch: of for launch, of in self.auxiliaries.items() if launch not in forgotten}
        left = tuple(each for each in self.tasks[key].auxiliaries if each.launch not in forgotten)
        self.change(key, auxiliaries=left)

    def _own(self) -> dict[int, Key]:
        if not self._own_launches:
            self.launches, self._own_launches = dict(self.launches), True
        assert isinstance(self.launches, dict)
        return self.launches

    def emit(self, *effects: Effect) -> None:
        self.effects.extend(effects)

    def record(self, key: Key, event: str, **detail: Unpack[Detail]) -> None:
        service = self.described(key)
        instance = service.instance if service else ""
        self.emit(fx.Record(transaction=key[0], task=key[1], event=event, detail=detail, instance=instance))

    def count(self, total: Total, task: str, detail: str = "", amount: float = 1) -> None:
        self.emit(fx.Count(total=total, task=task, detail=detail, amount=amount))

    def record_failure(self, key: Key, **detail: Unpack[Detail]) -> None:
        """Record that a task has failed. Only at the end of the step is it known whether the task has failed
        for good.
        """
        self.failed[key] = Failure(record=len(self.effects), task=self.tasks[key])
        self.record(key, "failed", **detail)
        self.count(Total.FAILURES, key[1], detail["reason"])

    def amend(self, record: int, **detail: Unpack[Detail]) -> None:
        """Add details to a record of this step."""
        effect = self.effects[record]
        assert isinstance(effect, fx.Record)
        self.effects[record] = replace(effect, detail={**effect.detail, **detail})

    def publish_control(
        self, key: Key, action: str, *, success: bool, pid: int | None, items: Mapping[str, Any]
    ) -> None:
        """Publish an event of a task."""
        service = self.described(key)
        self.emit(
            fx.PublishControl(key=key, action=action, success=success, pid=pid, items=items, service=service)
        )

    def publish_process(self, key: Key, action: str) -> None:
        """Publish that a task is being started or stopped."""
        self.emit(fx.PublishProcess(key=key, action=action, service=self.described(key)))

    # --- the end of a step

    def _hold(self) -> None:
        """Have the keeper hold the sockets and descriptor stores that are needed now, if they differ from
        those before this step. A new supervisor always does so: its predecessor may not have sent the order.
        """
        if not (self.new_supervisor or self.context is not self.before.context or self._rest_of_owners()):
            return
        needed = held_descriptors.sockets_in_use(self.context, self.tasks)
        if self.new_supervisor or needed != held_descriptors.sockets_in_use(
            self.before.context, self.before.tasks
        ):
            self.emit(fx.HoldSockets(sockets=needed))
        stores = held_descriptors.stores_in_use(self.context, self.tasks)
        if self.new_supervisor or stores != held_descriptors.stores_in_use(
            self.before.context, self.before.tasks
        ):
            self.emit(fx.HoldStores(stores=stores))

    @staticmethod
    def _sets_alarm(task: Task | None) -> bool:
        """Return True if a task may get a new deadline in the first step of a supervisor. That supervisor has
        set no alarm for the old deadline, and the new one may be the same by chance.
        """
        return task is not None and (bool(task.host) or task.sub_state is SubState.UNPLACED)

    def _rest_of_owners(self) -> bool:
        """Return True if a task with sockets or a descriptor store has come to rest in this step, or is at
        rest no longer.
        """
        for key in self._touched:
            service = self.service(key)
            if service is not None and (service.listen or service.file_descriptor_store_max):
                old, new = self.before.tasks.get(key), self.tasks.get(key)
                if (old is None or old.resting) != (new is None or new.resting):
                    return True
        return False

    def _watch_topics(self) -> None:
        """Order the watches of the topics of Commands that are needed now, if they differ from those before
        this step. A new supervisor orders all of them: its predecessor may not have sent the last orders.
        """
        if self.new_supervisor:
            found = (topic_watches.watch_of(self.service(key), key, task) for key, task in self.tasks.items())
            wanted = [each for each in found if each is not None]
            self.emit(fx.KeepWatches(launches=frozenset(each.launch for each in wanted)), *wanted)
            return
        for key in self._touched:
            before = self.before.context.tasks.get(key[1])
            was = topic_watches.watch_of(before, key, self.before.tasks.get(key))
            wants = topic_watches.watch_of(self.service(key), key, self.tasks.get(key))
            self.emit(*topic_watches.changes(was, wants))

    def finish(self) -> tuple[World, tuple[Effect, ...]]:
        """Return the next world and the effects in the order of the decisions. Alarms and the state of
        transactions come last.
        """
        self._remove_scheduled()
        for key in self._touched:
            old, new = self.before.tasks.get(key), self.tasks.get(key)
            was, wants = old.alarm if old else None, new.alarm if new else None
            if was != wants or (self.new_supervisor and wants is not None and self._sets_alarm(new)):
                self.emit(fx.WakeAt(key=key, when=wants))
        self._hold()
        self._watch_topics()
        for transaction in self._changed:
            self.emit(fx.PublishInfo(transaction=transaction))
        world = World(
            context=self.context,
            keeper_id=self.keeper_id,
            stopping=self.stopping,
            exit_status=self.exit_status,
            hands_over=self.hands_over,
            next_launch=self.next_launch,
            disabled=self.disabled,
            keeper_signals_others=self.keeper_signals_others,
            transactions=self.transactions,
            tasks=self.tasks,
            launches=self.launches,
            auxiliaries=self.auxiliaries,
            starts=self.starts,
            hosts=self.hosts,
            load=self.load,
            pending=self.pending,
        )
        return world, tuple(self.effects)


def ensure_task(draft: Draft, transaction: str, task_id: str) -> None:
    """Add a task of the context file to a transaction that does not have it yet."""
    if (transaction, task_id) not in draft.tasks:
        draft.put((transaction, task_id), Task(sub_state=SubState.WAITING))
