"""The facts that the supervisor has not saved yet, in their order. Pure.

While the connection is cut, tasks go on and send notifications, and the keeper reports ends. The ends are as
many as there are launches. The facts of tasks are bounded: the newest status replaces the previous one, and
results beyond the limit are dropped and counted.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from zmsvc.core import facts as ft
from zmsvc.protocol import hosts

MOST = 20_000
"""Facts of tasks that are kept."""
MOST_BYTES = 32 << 20
"""Bytes of results and of reports about messages that are kept."""

_REPLACED = ft.TaskSaid | ft.MessagesMissed | ft.HealthReported
"""Facts of which only the last one of a launch counts."""
_PASSING = ft.WatchdogFed | ft.TimeoutExtended
"""Facts that mean nothing later: the deadlines of tasks rest while nothing is heard from their host."""
_ALWAYS = (
    ft.TaskLaunched
    | ft.LaunchFailed
    | ft.TaskExecuted
    | ft.ReadyLineSeen
    | ft.MainChanged
    | ft.TaskExited
    | ft.TaskGone
)
"""Reports of the keeper. There are a few of each launch, and no launches while the connection is cut."""


class UnsavedFacts:
    """The facts, and the messages that carry them. `numbered` is the number of the last message. `most` and
    `most_bytes` are the limits of what tasks say.
    """

    def __init__(self, *, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._facts: deque[ft.TaskFact] = deque()
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._sent: deque[tuple[int, int]] = deque()
        """The messages on their way: the number of each, and how many facts it has."""
        self.numbered = 0
        self.dropped = 0
        """The number of facts that were dropped because there were too many."""

    def __len__(self) -> int:
        return len(self._facts)

    @property
    def on_their_way(self) -> bool:
        """True while the supervisor has not confirmed what was sent."""
        return bool(self._sent)

    def add(self, facts: list[ft.TaskFact], *, cut: bool) -> None:
        """Keep facts. `cut` says that nothing can be sent now."""
        for fact in facts:
            size = hosts.size_of(fact)
            if cut and not self._is_wanted(fact, size):
                continue
            self._append(fact, size)

    def _append(self, fact: ft.TaskFact, size: int) -> None:
        self._facts.append(fact)
        self._sizes.append(size)
        self._bytes += size

    def _is_wanted(self, fact: ft.TaskFact, size: int) -> bool:
        if isinstance(fact, _PASSING):
            return False
        if isinstance(fact, _REPLACED):
            self._remove_last(type(fact), fact.launch)
        elif isinstance(fact, _ALWAYS):
            return True
        if len(self._facts) >= self._most or self._bytes + size > self._most_bytes:
            self.dropped += 1
            return False
        return True

    def _remove_last(self, kind: type[ft.TaskFact], launch: int) -> None:
        for at, fact in enumerate(self._facts):
            if type(fact) is kind and fact.launch == launch:
                del self._facts[at]
                self._bytes -= self._sizes[at]
                del self._sizes[at]
                return

    def messages(self) -> list[tuple[int, tuple[ft.TaskFact, ...]]]:
        """Return all facts that are not on their way as messages, each with its number."""
        start = sum(count for _, count in self._sent)
        rest = list(islice(zip(self._facts, self._sizes, strict=True), start, None))
        made: list[tuple[int, tuple[ft.TaskFact, ...]]] = []
        while rest:
            count, size = 0, 0
            while count < len(rest) and (not count or size + rest[count][1] <= hosts.FULL):
                size += rest[count][1]
                count += 1
            self.numbered += 1
            self._sent.append((self.numbered, count))
            made.append((self.numbered, tuple(fact for fact, _ in rest[:count])))
            rest = rest[count:]
        return made

    def confirm(self, number: int) -> None:
        """Forget the facts of all messages up to this one."""
        while self._sent and self._sent[0][0] <= number:
            _, count = self._sent.popleft()
            for _ in range(count):
                self._facts.popleft()
                self._bytes -= self._sizes.popleft()

    def begin_again(self) -> None:
        """Number the messages from 1 again: what was on its way may not have arrived."""
        self._sent.clear()
        self.numbered = 0

    def has_end(self, launch: int) -> bool:
        """Return True if the end of this launch is among the facts."""
        return any(isinstance(fact, ft.TaskExited) and fact.launch == launch for fact in self._facts)

    def put_first(self, facts: list[ft.TaskFact]) -> None:
        """Put facts before all others."""
        for fact in reversed(facts):
            self._facts.appendleft(fact)
            self._sizes.appendleft(hosts.size_of(fact))
            self._bytes += self._sizes[0]
