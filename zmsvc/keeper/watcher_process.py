"""The keeper's client of the watcher process, which watches the topics of Commands. The keeper knows what is
to be watched. When the process has died, the keeper tells the next one. It passes the reports on and judges
none.

The keeper starts the process with the first Command that has topics to watch.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection
from pathlib import Path
from typing import assert_never

from zmsvc.host import seqpacket
from zmsvc.host.complain import complain
from zmsvc.host.paths import Places
from zmsvc.keeper.connected_process import ConnectedProcess
from zmsvc.keeper.dispatcher import READ, WRITE, Dispatcher
from zmsvc.keeper.listeners import Listeners
from zmsvc.keeper.machine import KeeperMachine
from zmsvc.protocol import watching as protocol
from zmsvc.protocol.output import Ping, Pong
from zmsvc.protocol.watching import TopicHeard, TopicSilent, WatchTopics

PING_TIMEOUT = 10.0
"""Seconds that an answer to a ping may take. After that the keeper kills the watcher process, because one
that hangs notices no silence.
"""


class WatcherProcess(ConnectedProcess):
    """The watcher process, what it is to watch, and the channel to it. `curve` has the keys of the context as
    a client. `report` gets each report for the supervisor.
    """

    def __init__(
        self,
        machine: KeeperMachine,
        places: Places,
        listeners: Listeners,
        cgroup: Path | None,
        dispatcher: Dispatcher,
        curve: tuple[str, ...] | None,
        report: Callable[[TopicHeard | TopicSilent], None],
    ) -> None:
        super().__init__(machine, places, listeners, cgroup, dispatcher)
        self._curve, self._report = curve, report
        self._watches: dict[int, WatchTopics] = {}
        self._orders: list[protocol.Order] = []
        """Unsent orders other than watches, two at most."""
        self._unsent: dict[int, None] = {}
        """The launches whose watch the process has yet to get, in order."""
        self._ending = False

    # --- the process

    def start(self) -> None:
        """Start the process, and give it every watch. After a failure the keeper tries again later."""
        arguments = ["--keeper", str(os.getpid())]
        if not self._spawn_connected("watcher", arguments):
            return
        self._orders, self._unsent = [protocol.Keys(curve=self._curve)], dict.fromkeys(self._watches)
        self._flush()

    def ended(self) -> None:
        """Schedule the next start."""
        if not self._ending:
            complain("zmsvcd: the watcher process ended, starting the next one")
        self._disconnect()
        super().ended()

    def due(self) -> float | None:
        """Return the time of the next start, or by which the process has to answer; None if neither is
        wanted.
        """
        return super().due() if self._watches and not self._ending else None

    def kill(self) -> None:
        """Kill the process: the context ends."""
        self._ending = True
        self.signal(signal.SIGKILL)

    # --- orders

    def watch(self, order: WatchTopics) -> None:
        """Have the topics of a launch watched, or watched no longer."""
        self._watches.pop(order.launch, None)
        if order.ready or order.expect:
            self._watches[order.launch] = order
        if self.pid is None and self._watches and super().due() is None and not self._ending:
            self.start()
        elif self.channel is not None:
            self._unsent[order.launch] = None
            self._flush()

    def keep(self, launches: Collection[int]) -> None:
        """End the watch of each launch that is not one of these."""
        for launch in self._watches.keys() - {*launches}:
            self.forget(launch)

    def forget(self, launch: int) -> None:
        """Watch a launch no longer."""
        if launch in self._watches:
            self.watch(WatchTopics(launch=launch))

    def check(self) -> None:
        """Send a ping if there is something to watch, and none is on its way."""
        if self.channel is not None and self._deadline.due is None and self._watches:
            self._deadline.begin(self.machine.now(), PING_TIMEOUT)
            self._orders.append(Ping())
            self._flush()

    def abort(self) -> None:
        """Kill a process that has not answered the ping."""
        complain("zmsvcd: the watcher process does not answer, starting the next one")
        self._deadline.clear()
        self.signal(signal.SIGKILL)

    def _flush(self) -> None:
        """Send as much as the socket takes now, and the rest when it becomes writable."""
        channel = self.channel
        if channel is None:
            return
        try:
            while self._orders:
                seqpacket.send(channel, protocol.ORDERS.encode(self._orders[0]))
                self._orders.pop(0)
            while self._unsent:
                launch = next(iter(self._unsent))
                order = self._watches.get(launch, WatchTopics(launch=launch))
                seqpacket.send(channel, protocol.ORDERS.encode(order))
                del self._unsent[launch]
        except BlockingIOError:
            pass
        except OSError:
            # The process has ended, or the kernel has no memory. The next process gets every watch.
            self.signal(signal.SIGKILL)
            return
        waits = self._orders or self._unsent
        self._dispatcher.expect(channel.fileno(), READ | WRITE if waits else READ)

    # --- reports

    def _on_channel(self) -> None:
        for report in self._reports("watcher", protocol.REPORTS):
            match report:
                case TopicHeard() | TopicSilent():
                    self._report(report)
                case Pong():
                    self._deadline.clear()
                case _:
                    assert_never(report)
