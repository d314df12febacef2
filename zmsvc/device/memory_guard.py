"""Bound the memory that peers can make the device use: messages for subscribers that do not read, incomplete
messages, subscriptions.

libzmq bounds queues by the number of messages, and incomplete messages by the size of one frame. It does not
bound subscriptions. So the guard checks the memory of this process after each slice of CPU time, and closes
the connections that fill it. (The timer is ITIMER_PROF: an idle device uses no CPU time, and so does not wake
up.) If the guard finds no such connection it gives up, and the keeper starts the next device on the same
listening sockets.
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
"""Bytes. The full queue of one slow subscriber has 150 MB of messages of 1.5 kB. At twice this limit the
guard gives up at once.
"""
MAX_SUBSCRIPTIONS = 20_000
"""The number of different prefixes. 5,000 tasks with three of their own each have 15,000."""
MAX_SUBSCRIBED = 1 << 20
"""Bytes of all prefixes. Each byte takes 70 to 200 bytes in the device, where libzmq has three trees of them,
and a third of that in every publisher.
"""
CHURN = 30_000
"""The number of subscriptions that may begin or end within CHURN_S. If there are more, the guard closes the
busiest connection.
"""
CHURN_S = 5.0
BEHIND = 20
"""The number of full batches in a row (1,000 subscriptions each) after which the guard closes the connection
that goes on sending, even if the total is low.
"""
_CPU_S = 0.01
"""CPU seconds between two checks of memory, which take 10 microseconds. At 5 GB/s memory grows by 50 MB in
this time.
"""
_PAUSE_S = 0.005
"""The least seconds between two checks of all connections."""
_PATIENCE = 3
"""The number of checks in a row without reading after which the guard assumes that a subscriber will not
read.
"""
_SUSPECT = 3
"""The number of checks with unread data of a peer after which the guard suspects that peer of flooding. Of
several suspects it blames the one with the most such checks.
"""
BAR_S = 10.0
"""Seconds for which a user or host that has flooded the device cannot connect again."""
_HOPELESS = 100
"""Checks in a row without a suspect after which the guard gives up."""
_TRIM_ABOVE = 48 << 20
"""Bytes of memory above which the heap is trimmed after a peer has left."""
_TRIM_S = 1.0
_TRIM_EVERY_S = 0.2
"""The least seconds between two trims while memory is above the limit."""
_NAMED = 5


class MemoryGuard:
    """The guard of both sides of the device. `report` is called with a line about closed connections."""

    def __init__(
        self,
        admission: Admission,
        publishers: Peers,
        subscribers: Peers,
        limit: int,
        report: Callable[[str], None],
    ) -> None:
        self.dropped: Counter[str] = Counter()
        """Number of refused or closed connections, by reason."""
        self._admission, self._publishers, self._subscribers = admission, publishers, subscribers
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
        """Request SIGPROF after each slice of CPU time. The caller then calls `look`."""
        signal.setitimer(signal.ITIMER_PROF, _CPU_S, _CPU_S)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)

    # --- events

    def count_subscriptions(self, changes: int, subscriptions: int, size: int, *, more: bool) -> None:
        """Count `changes` changes of subscriptions. After them there are `subscriptions` more prefixes, with
        `size` more bytes in total; negative numbers are fewer. `more` is True if further changes may wait.
        """
        self._churn += changes
        # Count the calls in a row after which changes still wait: the proxy reads faster than this thread
        # counts. A peer that reconnected after the guard had closed its connection sent 160,000 subscriptions
        # before this thread had counted the ends of its first 60,000.
        self._behind = self._behind + 1 if more else 0
        # In a flood some changes are lost. A count that is too low is harmless; if it is too high, the next
        # device takes over in the end.
        self._subscriptions = max(0, self._subscriptions + subscriptions)
        self._subscribed = max(0, self._subscribed + size)

    def peer_left(self) -> None:
        """Note that a peer has left."""
        if self._trim_at is None and self._used() > _TRIM_ABOVE:
            self._trim_at = time.monotonic() + _TRIM_S

    def timeout_ms(self) -> int | None:
        return None if self._trim_at is None else max(0, round((self._trim_at - time.monotonic()) * 1000)) + 1

    def trim_if_due(self) -> None:
        """Trim the heap if its time has come, shortly after a peer that may have filled it has left."""
        if self._trim_at is not None and time.monotonic() >= self._trim_at:
            self._trim_at = None
            linux.trim_heap()

    # --- checks and actions

    def look(self) -> None:
        """Check memory and subscriptions, and close connections above the limits. Raises ZmsvcError if that
        does not help.
        """
        now, used = time.monotonic(), self._used()
        subscribed = self._too_many(now)
        if used < self._limit // 2 and self._churn < CHURN // 10 and not subscribed:
            self._end_alert()
            return
        if used >= 2 * self._limit:
            raise self._give_up(used)
        if now < self._next_look:
            return
        self._suspicious = True
        self._publishers.look()
        self._subscribers.look()
        # A check of thousands of connections takes milliseconds. At most a tenth of the time goes into
        # checks.
        ended = time.monotonic()
        self._next_look = ended + max(_PAUSE_S, 10 * (ended - now))
        if used >= self._limit:
            self._free(now, f"{used >> 20} MiB of memory are in use")
        elif (
            subscribed
            and not self._blame([*self._subscribers.all()], now, subscribed)
            and self._does_not_fall()
        ):
            self._note_hopeless(used)

    def _end_alert(self) -> None:
        if self._suspicious:
            self._suspicious, self._hopeless = False, 0
            self._reset_counters()

    def _reset_counters(self) -> None:
        self._publishers.reset_counters()
        self._subscribers.reset_counters()

    def _too_many(self, now: float) -> str:
        """Return a description of the limit of subscriptions that is exceeded; empty if none is."""
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

    def _does_not_fall(self) -> bool:
        """Return True if there are too many subscriptions and their number does not fall. It falls while
        libzmq removes those of a closed connection.
        """
        fewest, self._fewest = self._fewest, self._subscriptions
        return self._over() and not self._behind and self._subscriptions >= fewest

    def _free(self, now: float, what: str) -> None:
        # The memory of closed connections is free already, but malloc keeps it.
        if now - self._trimmed > _TRIM_EVERY_S:
            self._trimmed = now
            linux.trim_heap()
            if self._used() < self._limit:
                return
        slow = [each for each in self._subscribers.all() if each.not_reading >= _PATIENCE]
        if slow:
            self._cut(slow, "slow_subscribers", f"{what}, and it does not read", now)
        elif self._used() < self._limit * 5 // 4 and any(
            each.not_reading for each in self._subscribers.all()
        ):
            return  # Perhaps a subscriber has stopped reading. Then no publisher is the cause.
        elif not self._blame([*self._publishers.all(), *self._subscribers.all()], now, what):
            self._note_hopeless(self._used())

    def _blame(self, suspects: list[PeerConnection], now: float, what: str) -> bool:
        """Close the connection of the peer that sends most; those of other users come first. Return False if
        there is no suspect.
        """
        # There is no time for several checks if memory grows fast.
        least = 1 if self._used() >= self._limit * 5 // 4 else _SUSPECT
        busy = [each for each in suspects if each.sending >= least]
        if not busy:
            return False
        worst = max(busy, key=lambda each: (not ours(each.owner), each.sending))
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
        # As in SparseLog, a flood is logged only now and then.
        if before.bit_length() != self.dropped[reason].bit_length():
            self._report(
                f"{named}: the connection is closed: {why} ({self.dropped[reason]} "
                f"{reason.replace('_', ' ')} so far)"
            )
        # libzmq frees the memory of these connections soon. From now on, only a peer that goes on sending can
        # become a suspect.
        self._reset_counters()
        self._hopeless = self._churn = 0
        self._trim_at = now + _TRIM_S

    def _note_hopeless(self, used: int) -> None:
        self._hopeless += 1
        if self._hopeless >= _HOPELESS:
            raise self._give_up(used)

    def _give_up(self, used: int) -> ZmsvcError:
        return ZmsvcError(
            f"cannot go on with {used >> 20} MiB of memory and {self._subscriptions} subscriptions: no "
            f"peer is found to blame, so the next device takes over"
        )

    def _used(self) -> int:
        """Return the resident bytes of this process that it does not share."""
        words = os.pread(self._memory, 128, 0).split()
        return (int(words[1]) - int(words[2])) * self._page
