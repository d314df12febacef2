"""The hosts of a context, as its supervisor knows them. Pure; host_facts.py decides what follows from their
changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from zmsvc.core.frozen import frozen

PAST_EPOCHS = 8
"""The number of earlier epochs of a host that are remembered."""


class HostState(StrEnum):
    """The state of a host, as far as it is known."""

    HERE = "here"
    """Its keeper has told what it holds, and takes orders."""
    SILENT = "silent"
    """Nothing is heard from it. Its tasks may run on, so nothing follows from this."""
    OFF = "off"
    """The cluster has made certain that it is off. No process of its last epoch is alive."""


@frozen
class Host:
    """A host on which tasks of the context run, or may run."""

    epoch: str = ""
    """The ID of its keeper; empty if it has told nothing yet. When the ID has changed, no earlier process is
    left.
    """
    greeting: int = 0
    """The number of its last report within this epoch."""
    state: HostState = HostState.SILENT
    drained: bool = False
    """True if an operator keeps tasks away from it."""
    since: float = 0.0
    """The time at which it came into its state."""
    strangers: frozenset[int] = frozenset()
    """The launches that it holds and that this context does not know. They are being killed. Each may be a
    copy of a task.
    """
    past: tuple[str, ...] = ()
    """The epochs that are over. A greeting of one of these comes too late."""
    given_up: bool = False
    """True if it is silent, and the stop of the context does not wait for its tasks any longer."""

    @property
    def is_known(self) -> bool:
        """True if it can hold no process that this context does not know."""
        return not self.strangers and (self.state is not HostState.SILENT or bool(self.epoch))

    def is_news(self, epoch: str, greeting: int) -> bool:
        """Return False if a report of its keeper comes too late: a later one has been taken."""
        return epoch not in self.past and not (epoch == self.epoch and greeting <= self.greeting)


def hosts_to_json(hosts: Mapping[str, Host]) -> dict[str, Any]:
    """Return hosts as plain JSON values."""
    return {
        name: {
            "epoch": host.epoch,
            "greeting": host.greeting,
            "state": host.state.value,
            "drained": host.drained,
            "since": host.since,
            "strangers": sorted(host.strangers),
            "past": list(host.past),
            "given_up": host.given_up,
        }
        for name, host in hosts.items()
    }


def hosts_from_json(saved: Mapping[str, Any]) -> dict[str, Host]:
    """Return the hosts that `hosts_to_json` wrote. Raises KeyError, TypeError or ValueError for others."""
    return {
        str(name): Host(
            epoch=str(each["epoch"]),
            greeting=int(each["greeting"]),
            state=HostState(each["state"]),
            drained=bool(each["drained"]),
            since=float(each["since"]),
            strangers=frozenset(map(int, each["strangers"])),
            past=tuple(map(str, each["past"])),
            given_up=bool(each.get("given_up")),
        )
        for name, each in saved.items()
    }
