"""Guard: bounds what peers can make the device hold: bytes that wait for those who do not read, halves of
messages, subscriptions.

libzmq bounds queues in messages, halves of messages by one frame, and subscriptions not at all. So the guard
looks at the memory of this process, after each piece of CPU time (ITIMER_PROF: an idle device has none and so
does not wake up), and ends the connections that fill it. Where it finds none to blame it gives up, and the
keeper starts the next device on the same sockets.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable

from zmsvc.core.errors import ZmsvcError
from zmsvc.device.admission import Admission, ours
from zmsvc.device.peers import PeerConnection, Peers
from zmsvc.host.kernel import linux

MAX_MEMORY = 512 << 20
"""Bytes; the full queue of one slow subscriber has 150 MB of messages of 1.5 kB. Twice of it is never
waited for.
"""
MAX_SUBSCRIPTIONS = 20_000
"""Different prefixes. 5,000 tasks that each subscribe to some of their own have 15,000."""
MAX_SUBSCRIBED = 1 << 20
"""Bytes of them. Each costs 70 to 200 here, where libzmq keeps three trees of them, and a third of it in
every process that publishes.
"""
CHURN = 30_000
"""Subscriptions that begin or end within CHURN_S before the busiest subscriber is let go."""
CHURN_S = 5.0
BEHIND = 20
"""Batches of 1,000 subscriptions in a row after which the guard ends the connection that still sends more,
whatever the total is.
"""
_CPU_S = 0.01
"""CPU time between two looks at memory, which take 10 microseconds: at 5 GB/s it grows by 50 MB meanwhile."""
_PAUSE_S = 0.005
"""Least time between two looks at all connections."""
_PATIENCE = 3
"""Looks in a row after which a subscriber that does not read is one that will not."""
_SUSPECT = 3
"""Looks that find something unread of a peer after which it may be the one that floods; of several it is
the one with most.
"""
BAR_S = 10.0
"""Seconds for which another user, or a host, that has flooded cannot connect."""
_HOPELESS = 100
"""Looks in a row without anybody to blame."""
_TRIM_ABOVE = 48 << 20
"""Bytes from which free memory is given back to the system when a peer has left."""
_TRIM_S = 1.0
_TRIM_EVERY_S = 0.2
"""The same while memory is too much."""
_NAMED = 5


class Guard:
    """Watches the peers of both sides. `report` takes a line about those who were let go."""

    def __init__(
        self, admission: Admission, front: Peers, back: Peers, limit: int, report: Callable[[str], None]
    ) -> None:
        self.dropped: Counter[str] = Counter()
        """What was refused or ended, by reason."""
        self._admission, self._front, self._back = admission, front, back
        self._limit = limit
        self._report = report
        self._memory = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._subscriptions = self._subscribed = 0
        self._churn, self._churn_since = 0, 0.0
        self._behind = 0
        self._fewest = 0
        self._next_look = self._trimmed = 0.0
        self._hopeless = 0
        self._suspicious = False
        self._trim_at: float | None = None

    def start(self) -> None:
        """Have SIGPROF come after each piece of CPU time; `look` is to be called then."""
        signal.setitimer(signal.ITIMER_PROF, _CPU_S, _CPU_S)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)

    # --- what happens

    def told(self, changes: int, subscriptions: int, size: int, *, more: bool) -> None:
        """So many subscriptions began or ended, which makes so many more prefixes and bytes of them;
        `more`: others wait.
        """
        self._churn += changes
        # The proxy reads subscriptions faster than this thread counts them. A peer that reconnected after it
        # was cut off had sent 160,000 before this thread had counted the ends of its first 60,000.
        self._behind = self._behind + 1 if more else 0
        # In a flood some are not told. To count too few is harmless; with too many the next device takes over
        # in the end.
        self._subscriptions = max(0, self._subscriptions + subscriptions)
        self._subscribed = max(0, self._subscribed + size)

    def left(self) -> None:
        """A peer is gone."""
        if self._trim_at is None and self._used() > _TRIM_ABOVE:
            self._trim_at = time.monotonic() + _TRIM_S

    def timeout_ms(self) -> int | None:
        return None if self._trim_at is None else max(0, round((self._trim_at - time.monotonic()) * 1000)) + 1

    def give_back(self) -> None:
        """Give free memory back when a peer has left that may have filled it."""
        if self._trim_at is not None and time.monotonic() >= self._trim_at:
            self._trim_at = None
            linux.trim_heap()

    # --- what is done about it

    def look(self) -> None:
        """Look at memory and subscriptions, and end connections when it is too much. Raises ZmsvcError
        when that does not help.
        """
        now, used = time.monotonic(), self._used()
        subscribed = self._too_many(now)
        if used < self._limit // 2 and self._churn < CHURN // 10 and not subscribed:
            self._calm()
            return
        if used >= 2 * self._limit:
            raise self._give_up(used)
        if now < self._next_look:
            return
        self._suspicious = True
        self._front.look()
        self._back.look()
        # A look at thousands of connections takes milliseconds, and no more than a tenth of the time is for
        # looks.
        ended = time.monotonic()
        self._next_look = ended + max(_PAUSE_S, 10 * (ended - now))
        if used >= self._limit:
            self._free(now, f"{used >> 20} MiB of memory are in use")
        elif subscribed and not self._blame([*self._back.all()], now, subscribed) and self._stays():
            self._despair(used)

    def _calm(self) -> None:
        if self._suspicious:
            self._suspicious, self._hopeless = False, 0
            self._forget_looks()

    def _forget_looks(self) -> None:
        self._front.forget_looks()
        self._back.forget_looks()

    def _too_many(self, now: float) -> str:
        """Tell what is too much about subscriptions; empty when nothing is."""
        if self._over():
            return f"{self._subscriptions} subscriptions of {self._subscribed} bytes"
        if self._behind >= BEHIND:
            return f"more than {self._behind * 1000} subscriptions begin or end at once"
        if now - self._churn_since > CHURN_S:
            self._churn, self._churn_since = 0, now
        return (
            f"{self._churn} subscriptions begun or ended within {CHURN_S:g} s" if self._churn > CHURN else ""
        )

    def _over(self) -> bool:
        return self._subscriptions > MAX_SUBSCRIPTIONS or self._subscribed > MAX_SUBSCRIBED

    def _stays(self) -> bool:
        """Tell whether there are too many subscriptions and their number does not fall, as it does while
        libzmq removes those of a peer.
        """
        fewest, self._fewest = self._fewest, self._subscriptions
        return self._over() and not self._behind and self._subscriptions >= fewest

    def _free(self, now: float, what: str) -> None:
        # What ended connections held is free already, but malloc keeps it.
        if now - self._trimmed > _TRIM_EVERY_S:
            self._trimmed = now
            linux.trim_heap()
            if self._used() < self._limit:
                return
        slow = [each for each in self._back.all() if each.behind >= _PATIENCE]
        if slow:
            self._cut(slow, "slow_subscribers", f"{what}, and it does not read", now)
        elif self._used() < self._limit * 5 // 4 and any(each.behind for each in self._back.all()):
            return  # A publisher that has much to say is not to blame for a subscriber that may not read.
        elif not self._blame([*self._front.all(), *self._back.all()], now, what):
            self._despair(self._used())

    def _blame(self, suspects: list[PeerConnection], now: float, what: str) -> bool:
        """End the connection of the peer that always sends more, one of another user first; False when
        there is none.
        """
        # While memory grows fast there is no time for many looks.
        least = 1 if self._used() >= self._limit * 5 // 4 else _SUSPECT
        busy = [each for each in suspects if each.heard >= least]
        if not busy:
            return False
        worst = max(busy, key=lambda each: (not ours(each.owner), each.heard))
        self._cut([worst], "flooding_peers", f"{what}, and it sends more", now)
        self._admission.bar(worst.owner, now + BAR_S)
        return True

    def _cut(self, connections: list[PeerConnection], reason: str, why: str, now: float) -> None:
        peers = [each.peer() for each in connections]
        for each in connections:
            each.cut()
        named = ", ".join(peer.name for peer in peers[:_NAMED]) + (", ..." if len(peers) > _NAMED else "")
        before = self.dropped[reason]
        self.dropped[reason] += len(peers)
        # As a tally does: a flood is a line now and then.
        if before.bit_length() != self.dropped[reason].bit_length():
            self._report(
                f"{named}: the connection is ended: {why} ({self.dropped[reason]} "
                f"{reason.replace('_', ' ')} so far)"
            )
        # What they held is freed soon; the next to blame is one that goes on from here.
        self._forget_looks()
        self._hopeless = self._churn = 0
        self._trim_at = now + _TRIM_S

    def _despair(self, used: int) -> None:
        self._hopeless += 1
        if self._hopeless >= _HOPELESS:
            raise self._give_up(used)

    def _give_up(self, used: int) -> ZmsvcError:
        return ZmsvcError(
            f"cannot go on with {used >> 20} MiB of memory and {self._subscriptions} subscriptions: no "
            f"peer is found to blame, "
            "so the next device takes over"
        )

    def _used(self) -> int:
        """Bytes of this process alone that are in memory."""
        words = os.pread(self._memory, 128, 0).split()
        return (int(words[1]) - int(words[2])) * self._page
