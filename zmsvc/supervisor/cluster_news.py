"""Ask the cluster (Pacemaker) whether silent hosts are off for certain. Only that ends their tasks here.

The answer is the state of the cluster and no event, so none can be missed. It is asked only while a host is
silent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from zmsvc.core.facts import Fact, HostLost
from zmsvc.core.hosts import Host
from zmsvc.core.world import World

OFTEN = 1.0
"""Seconds between two questions while a host has been silent for less than LONG. To fence a host takes 4 s or
more, and a question 20 ms.
"""
LONG = 60.0
SELDOM = 10.0
"""Seconds between two questions later."""
PATIENCE = 10.0
"""Seconds in which crm_mon has to answer."""
COMMAND = ("crm_mon", "--output-as=xml", "-1")
MAX_ANSWER = 16 << 20

log = logging.getLogger(__name__)


class FactTaker(Protocol):
    """The part of the supervisor that decides: loop.py."""

    @property
    def world(self) -> World: ...

    def take(self, *facts: Fact) -> None: ...


class ClusterNews:
    """The questions of one supervisor. `silent` returns the hosts that are asked for. The cluster has
    `patience` seconds to answer.
    """

    def __init__(
        self, supervisor: FactTaker, silent: Callable[[], list[str]], patience: float = PATIENCE
    ) -> None:
        self._supervisor, self._silent, self._patience = supervisor, silent, patience
        self._loop = asyncio.get_running_loop()
        self._work: asyncio.Task[None] | None = None
        self._asked_at = -SELDOM
        self._since: float | None = None
        """The time at which a host has fallen silent."""
        self._known: list[str] = []
        self._problem = ""

    def close(self) -> None:
        if self._work is not None:
            self._work.cancel()

    def follow(self) -> None:
        """Ask, if it is time for it. The caller calls this each second."""
        now, found = self._loop.time(), self._silent()
        if not found:
            self._since, self._known = None, []
            return
        if set(found) - set(self._known):
            self._since = now
        self._known = found
        pause = OFTEN if self._since is not None and now - self._since < LONG else SELDOM
        if (self._work is None or self._work.done()) and now - self._asked_at >= pause - 0.1:
            self._asked_at = now
            # Use the world of this moment: a host that joins while the cluster is asked will have another
            # epoch.
            epochs = {name: self._supervisor.world.hosts.get(name, Host()).epoch for name in found}
            self._work = self._loop.create_task(self._ask(epochs))

    async def _ask(self, epochs: dict[str, str]) -> None:
        try:
            off = await _hosts_that_are_off(self._patience)
        except (OSError, ValueError, TimeoutError) as error:
            problem = str(error) or f"{COMMAND[0]} takes longer than {self._patience:g} s"
            if problem != self._problem:
                log.warning(
                    "Cannot ask the cluster whether %s is off: %s; its tasks stay as they are",
                    ", ".join(epochs),
                    problem,
                )
            self._problem = problem
            return
        self._problem = ""
        lost = [name for name in epochs if name in off]
        for name in lost:
            log.warning("The cluster says that %s is off", name)
        self._supervisor.take(*(HostLost(host=name, epoch=epochs[name]) for name in lost))


async def _hosts_that_are_off(patience: float) -> set[str]:
    """Return the members of the cluster that are off for certain. Raises OSError, ValueError,
    TimeoutError.
    """
    try:
        asked = await asyncio.create_subprocess_exec(
            *COMMAND,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise OSError(f"{COMMAND[0]} is not installed") from None
    try:
        async with asyncio.timeout(patience):
            answer, _ = await asked.communicate()
    finally:
        if asked.returncode is None:
            asked.kill()
            await asked.wait()
    if asked.returncode or len(answer) > MAX_ANSWER:
        raise ValueError(f"{COMMAND[0]} has ended with status {asked.returncode}")
    return set(_off(answer))


def _off(answer: bytes) -> list[str]:
    # Imported here for start-up time: a cluster is asked only while one of its hosts is silent.
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(answer)
    except ElementTree.ParseError as error:
        raise ValueError(f"{COMMAND[0]} does not answer with XML: {error}") from None
    return [
        node.get("name", "")
        for node in root.findall("nodes/node")
        if node.get("online") == "false" and node.get("unclean") == "false"
    ]
