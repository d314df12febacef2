"""The placement of a task: the hosts on which it may run. Pure; host_choice.py chooses one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from zmsvc.core.frozen import frozen

Named = Callable[[str], tuple[str, ...]]
"""A function that returns the IDs of the tasks that a name of the file means."""


@frozen
class Placement:
    """The hosts on which a task may run. A task without a placement runs on the host of its supervisor."""

    hosts: tuple[str, ...] = ()
    """The hosts in the order in which they are tried; empty: those that the placements of the context name,
    the one with the fewest tasks first.
    """
    apart: tuple[str, ...] = ()
    """Tasks on whose hosts this one does not run."""
    together: tuple[str, ...] = ()
    """Tasks on whose host this one runs (`<with>`)."""


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
