"""The faults between `<placement>` and other elements of a context file. Pure; checks.py has those between
all other elements, and all warnings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from zmsvc.core.checks import Fault, KnownTasks, rings
from zmsvc.core.frozen import frozen
from zmsvc.core.model import TaskDefinition
from zmsvc.core.placement import ListedHosts, Placement, apart_from, together_with
from zmsvc.core.service_options import ServiceType
from zmsvc.core.similar import similar
from zmsvc.core.values import Endpoint, quote

_NAMED = 5
"""The number of hosts that a message names."""
_HOST = "placement/host"
_APART = "placement/apart"
_WITH = "placement/with"
_ELEMENTS = ("FrontEndEndpoint", "BackendEndpoint")


@frozen
class _Placements:
    """The placements of a file by the IDs of their tasks, and what follows from them for each task."""

    of: Mapping[str, Placement]
    indexes: Mapping[str, int]
    apart: Mapping[str, Sequence[str]]
    together: Mapping[str, Sequence[str]]


def placement_faults(
    tasks: Sequence[TaskDefinition], listed: ListedHosts, bus: Mapping[str, Endpoint]
) -> list[Fault]:
    """Return every fault of the placements. `bus` maps the names of elements to their endpoints, as far as
    those could be read.
    """
    placed = [index for index, task in enumerate(tasks) if task.placement is not None]
    if not placed:
        return []
    if not listed.names:
        text = "<placement> is for a context in a cluster, expected <hosts> in <Context>, or no <placement>"
        return [Fault(text=text, task=index, option="placement") for index in placed]
    known = KnownTasks(tasks)
    of = {tasks[index].id: placement for index in placed if (placement := tasks[index].placement)}

    def named(name: str) -> tuple[str, ...]:
        return (name,) if name in of else ()

    found = _Placements(
        of=of, indexes=known.indexes, apart=apart_from(of, named), together=together_with(of, named)
    )
    return [
        *_unreached(bus),
        *_unable(tasks, placed),
        *_unknown_hosts(tasks, placed, listed),
        *_unknown_tasks(tasks, placed, known),
        *_circles(found),
        *_contradictions(found),
    ]


def _unreached(bus: Mapping[str, Endpoint]) -> Iterator[Fault]:
    """Yield the endpoints of the bus that no other host reaches, whatever its addresses are."""
    for element in _ELEMENTS:
        if element in bus and bus[element].scheme == "ipc":
            text = (
                f"{element} {bus[element]} is a socket of one host, which tasks with a <placement> do not "
                f"reach from others, expected tcp://ADDRESS:PORT"
            )
            yield Fault(text=text, element=element)


_NEED_HOME = {
    "listen": "the keeper of the context holds the sockets",
    "file_descriptor_store_max": "a process beside the keeper of the context holds the descriptors",
    "memory_restart": "the supervisor measures the memory of this host alone",
}
"""The options that a task on another host cannot have yet, with the reason."""


def _unable(tasks: Sequence[TaskDefinition], placed: Sequence[int]) -> Iterator[Fault]:
    for index in placed:
        task = tasks[index]
        asked = {
            "listen": bool(task.listen),
            "file_descriptor_store_max": task.file_descriptor_store_max > 0,
            "memory_restart": task.memory_restart not in (-1,),
        }
        for option, why in _NEED_HOME.items():
            if asked[option]:
                what = "a LastValue" if task.retains and option != "listen" else f"<{option}>"
                text = f"{what} and <placement> exclude each other, because {why}, expected one of them"
                yield Fault(text=text, task=index, option="placement")
        if task.service_type is ServiceType.THREAD:
            text = (
                "<placement> is for a Process or Command, expected none for a Thread, which shares its "
                "process with others"
            )
            yield Fault(text=text, task=index, option="placement")


def _unknown_hosts(
    tasks: Sequence[TaskDefinition], placed: Sequence[int], listed: ListedHosts
) -> Iterator[Fault]:
    for index in placed:
        placement = tasks[index].placement
        for name in placement.hosts if placement is not None else ():
            if name not in listed.names:
                wanted = f"a host of <hosts>: {_shown(listed.names)}{similar(name, listed.names)}"
                text = f"<host> names {quote(name)}, expected {wanted}"
                yield Fault(text=text, task=index, option=_HOST, word=name)


def _shown(names: Sequence[str]) -> str:
    more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return ", ".join([*names[:_NAMED], *more])


def _unknown_tasks(
    tasks: Sequence[TaskDefinition], placed: Sequence[int], known: KnownTasks
) -> Iterator[Fault]:
    for index in placed:
        task = tasks[index]
        if task.placement is None:
            continue
        for option, names in ((_APART, task.placement.apart), (_WITH, task.placement.together)):
            word = f"<{option.partition('/')[2]}>"
            for name in names:
                text = ""
                if name not in known.indexes:
                    text = f"{word} names {quote(name)}, {known.expected_for(name)}"
                elif name == task.id and (task.replicas or 1) == 1:
                    text = f"{word} names the task itself, expected another task, or <replicas>"
                elif tasks[known.indexes[name]].placement is None:
                    text = (
                        f"{word} names {quote(name)}, which has no <placement> and runs on the host of the "
                        f"context, expected a task that has one"
                    )
                if text:
                    yield Fault(text=text, task=index, option=option, word=name)


def _circles(found: _Placements) -> Iterator[Fault]:
    """Yield the rings of `<with>`. One element of a ring has no effect, since the others say the same."""
    follows = {
        task: [name for name in placement.together if name in found.of and name != task]
        for task, placement in found.of.items()
    }
    for ring in rings(follows):
        words = " with ".join(ring)
        text = f"ring of <with>: {words}, expected that one of these tasks decides and the others follow"
        yield Fault(text=text, task=found.indexes[ring[0]], option=_WITH, word=ring[1])


def _contradictions(found: _Placements) -> Iterator[Fault]:
    """Yield the pairs of tasks that have to share a host and may not, and the groups that have no host."""
    for task, placement in found.of.items():
        group = found.together.get(task, ())
        for name in placement.apart:
            # All replicas of a task share one host if it is `<with>` another task, or with itself.
            whole = name == task and (task in placement.together or bool(group))
            if name in group or whole:
                text = (
                    f"<apart> names {quote(name)}, with which the task shares a host by <with>, expected one "
                    f"of them"
                )
                yield Fault(text=text, task=found.indexes[task], option=_APART, word=name)
    seen: set[str] = set()
    for task in found.of:
        if task in seen:
            continue
        members = (task, *found.together.get(task, ()))
        seen.update(members)
        yield from _no_common_host(found, members)


def _no_common_host(found: _Placements, members: Sequence[str]) -> Iterator[Fault]:
    left: set[str] | None = None
    before = ""
    for task in members:
        hosts = found.of[task].hosts
        if not hosts:
            continue
        if left is not None and not left & {*hosts}:
            text = (
                f"none of the hosts {_shown(hosts)} is one of {before}, with which the task shares a host, "
                f"expected one that all of them may have"
            )
            yield Fault(text=text, task=found.indexes[task], option="placement", other=found.indexes[before])
            return
        left, before = ({*hosts} if left is None else left & {*hosts}), task
