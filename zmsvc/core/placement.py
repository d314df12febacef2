"""The hosts of a context, and the placement of a task: the hosts on which it may run. Pure; host_choice.py
chooses one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from zmsvc.core.frozen import frozen

Named = Callable[[str], tuple[str, ...]]
"""A function that returns the IDs of the tasks that a name of the file means."""


@frozen
class ListedHosts:
    """The `<hosts>` of a context file: the hosts of a cluster on which its tasks may run."""

    names: tuple[str, ...] = ()
    """The hosts, in the order of the file."""
    endpoint: str = ""
    """Where these hosts connect to the supervisor: an address that moves with the context."""
    bind: str = ""
    """The address that the supervisor binds for them."""


@frozen
class Placement:
    """The hosts on which a task may run. A task without a placement runs on the host of its supervisor."""

    hosts: tuple[str, ...] = ()
    """The hosts in the order in which they are tried; empty: those of the context, the one with the fewest
    tasks first.
    """
    apart: tuple[str, ...] = ()
    """Tasks on whose hosts this one does not run."""
    together: tuple[str, ...] = ()
    """Tasks on whose host this one runs (`<with>`)."""


def placement(**elements: tuple[str, ...]) -> Placement:
    """Return the placement of a `<placement>`, from the words of its elements by their names."""
    host, apart, together = (
        tuple(dict.fromkeys(elements.get(name, ()))) for name in ("host", "apart", "with")
    )
    return Placement(hosts=host, apart=apart, together=together)


def apart_from(placements: Mapping[str, Placement], named: Named) -> dict[str, tuple[str, ...]]:
    """Return the tasks that share no host with a task, by its ID. Either of the two may name the other."""
    found: dict[str, dict[str, None]] = {}
    for task, placement in placements.items():
        for other in _others(task, placement.apart, named):
            found.setdefault(task, {})[other] = None
            found.setdefault(other, {})[task] = None
    return {task: tuple(others) for task, others in found.items()}


def together_with(placements: Mapping[str, Placement], named: Named) -> dict[str, tuple[str, ...]]:
    """Return the tasks that run on the same host as a task, by its ID: those that it names, those that name
    it, and those of both.
    """
    groups: dict[str, dict[str, None]] = {}
    for task, placement in placements.items():
        for other in _others(task, placement.together, named):
            one, two = (groups.setdefault(each, {each: None}) for each in (task, other))
            if one is not two:
                one |= two
                groups |= dict.fromkeys(two, one)
    return {task: tuple(each for each in group if each != task) for task, group in groups.items()}


def _others(task: str, names: Iterable[str], named: Named) -> list[str]:
    return [each for name in names for each in named(name) if each != task]
