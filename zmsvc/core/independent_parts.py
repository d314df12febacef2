"""The parts of a context whose tasks do not influence each other, and the tasks in a part that are
interchangeable. So `check --prove` tries each part alone, and one task for all that are like it. Pure.

An influence is a rule, `<requires>`, or the process that Thread tasks share. `<after>` alone is not: it
delays tasks that start at the same time, and one event starts tasks of one part only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from zmsvc.core.frozen import frozen
from zmsvc.core.model import Context, Rule, TaskDefinition
from zmsvc.core.service_options import ServiceType

_CONTEXT = ""
"""The source of the rules of the context."""


@frozen
class IndependentPart:
    """Tasks that may influence each other, as a context of their own."""

    context: Context
    classes: tuple[tuple[str, ...], ...]
    """The tasks, those that are interchangeable together."""
    alike: tuple[tuple[str, ...], ...] = ()
    """The tasks of the other parts that are like this one except for the names of their tasks."""

    def like(self, name: str) -> tuple[str, ...]:
        """Return the tasks that are folded into this one."""
        at = [*self.context.tasks].index(name)
        own = next(members for members in self.classes if name in members)
        return (*(each for each in own if each != name), *(names[at] for names in self.alike))


def parts_of(context: Context, important: Iterable[str]) -> list[IndependentPart]:
    """Return the parts of a context. Of several parts that differ only in the names of their tasks, one is
    returned. `important` has the tasks about which something is to be proved; they are not interchangeable
    with other tasks.
    """
    marked = frozenset(important)
    found: dict[Any, IndependentPart] = {}
    for names in _connected(context):
        part = _restricted(context, names)
        shape = _shape(part, marked)
        if shape in found:
            found[shape] = replace(found[shape], alike=(*found[shape].alike, tuple(names)))
        else:
            found[shape] = IndependentPart(context=part, classes=_interchangeable(part, marked))
    return list(found.values())


def _connected(context: Context) -> list[list[str]]:
    """Return the tasks in groups, in the order of the file."""
    leader = {name: name for name in context.tasks}

    def find(name: str) -> str:
        while leader[name] != name:
            leader[name] = name = leader[leader[name]]
        return name

    called = [name for rule in context.on_any_fail for name in context.named(rule.call)]
    threads = [task.id for task in context.tasks.values() if task.service_type is ServiceType.THREAD]
    for service in context.tasks.values():
        together = threads[:1] if service.service_type is ServiceType.THREAD else ()
        for other in (*(rule.call for rule in service.rules), *service.requires, *called, *together):
            if other in leader:
                leader[find(other)] = find(service.id)
    groups: dict[str, list[str]] = {}
    for name in context.tasks:
        groups.setdefault(find(name), []).append(name)
    return list(groups.values())


def _restricted(context: Context, names: Sequence[str]) -> Context:
    kept = {*names}
    tasks = {
        name: replace(
            context.tasks[name], after=tuple(each for each in context.tasks[name].after if each in kept)
        )
        for name in names
    }
    return replace(context, tasks=tasks)


def _shape(context: Context, important: frozenset[str]) -> Any:
    """Return a value that is equal for contexts that differ only in the names of their tasks."""
    number = {name: at for at, name in enumerate(context.tasks)}
    rules = tuple((_about(rule), number.get(rule.call)) for rule in context.on_any_fail)
    return rules, tuple(
        (
            _options(service),
            service.id in important,
            tuple((_about(rule), number.get(rule.call)) for rule in service.rules),
            tuple(number.get(name) for name in service.after),
            tuple(number.get(name) for name in service.requires),
        )
        for service in context.tasks.values()
    )


def _about(rule: Rule) -> Rule:
    return replace(rule, call="")


def _options(service: TaskDefinition) -> Any:
    """Return the options of a task that have an effect on a simulated machine."""
    return (
        service.entry,
        service.service_type,
        service.notify,
        service.limits,
        service.success_exit_status,
        service.failure_action,
        service.memory_restart,
        service.health is not None,
        bool(service.ready),
        bool(service.expect),
    )


# --- interchangeable tasks


def _interchangeable(context: Context, important: frozenset[str]) -> tuple[tuple[str, ...], ...]:
    """Return the tasks in classes. An exchange of two tasks of a class leaves the context as it is."""
    links = _links(context)
    classes: dict[Any, list[list[str]]] = {}
    candidates: dict[Any, list[str]] = {}
    for service in context.tasks.values():
        own = _options(service), service.id in important
        groups = classes.setdefault(own, [])
        keys = [(own, key) for key in _keys(service.id, links)]
        group = next((candidates[key] for key in keys if key in candidates), None)
        if group is None or not _exchangeable(group[0], service.id, links):
            group = []
            groups.append(group)
            candidates |= dict.fromkeys(keys, group)
        group.append(service.id)
    return tuple(tuple(group) for groups in classes.values() for group in groups)


Ends = Mapping[str, Mapping[Any, int]]
"""The tasks at the other ends of links, and how many links of each kind there are."""


@frozen
class _Links:
    """The links of a task: `outgoing` has its rules and options that name other tasks, `incoming` those of
    other tasks that name it.
    """

    outgoing: Ends
    incoming: Ends


def _links(context: Context) -> dict[str, _Links]:
    outgoing: dict[str, dict[str, Counter[Any]]] = {name: {} for name in context.tasks}
    incoming: dict[str, dict[str, Counter[Any]]] = {name: {} for name in context.tasks}
    for rule in context.on_any_fail:
        for name in context.named(rule.call):
            incoming[name].setdefault(_CONTEXT, Counter())[_about(rule)] += 1
    for service in context.tasks.values():
        for name, what in _outgoing(service):
            outgoing[service.id].setdefault(name, Counter())[what] += 1
            if name in incoming:
                incoming[name].setdefault(service.id, Counter())[what] += 1
    return {name: _Links(outgoing=outgoing[name], incoming=incoming[name]) for name in context.tasks}


def _keys(name: str, links: Mapping[str, _Links]) -> Iterator[Any]:
    """Yield the keys of a task. Interchangeable tasks have at least one key in common, which is easily found.

    If no link leads from one task to the other, both have the same links, so the first key is equal. If links
    lead both ways between them, their links become equal when the link to the other task is counted as one to
    the task itself: that is what the other keys do. The sum of the hashes makes a key of any number of links
    in one step.
    """
    own = links[name]
    itself = _kinds(own.outgoing.get(name, {}))
    out, into = (
        {other: _kinds(kinds) for other, kinds in ends.items() if other != name}
        for ends in (own.outgoing, own.incoming)
    )
    sums = sum(map(hash, out.items())), sum(map(hash, into.items()))
    yield itself, *sums
    for kinds in {*out.values()} & {*into.values()}:
        more = hash((name, kinds))
        yield itself, kinds, sums[0] + more, sums[1] + more


def _kinds(kinds: Mapping[Any, int]) -> frozenset[tuple[Any, int]]:
    return frozenset(kinds.items())


def _outgoing(service: TaskDefinition) -> list[tuple[str, Any]]:
    return [
        *((rule.call, _about(rule)) for rule in service.rules),
        *((name, "after") for name in service.after),
        *((name, "requires") for name in service.requires),
    ]


def _exchangeable(one: str, two: str, links: Mapping[str, _Links]) -> bool:
    swap = {one: two, two: one}
    return all(
        {swap.get(name, name): kinds for name, kinds in first.items()} == second
        for first, second in (
            (links[one].outgoing, links[two].outgoing),
            (links[one].incoming, links[two].incoming),
        )
    )
