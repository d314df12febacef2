"""A worker that has a channel to the keeper: the output process, the fdstore process and the watcher process.
Each of them defines the messages on its channel.
"""

from __future__ import annotations

import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from zmsvc.core.errors import ProtocolError
from zmsvc.host import seqpacket
from zmsvc.host.complain import complain
from zmsvc.host.paths import Places
from zmsvc.host.seqpacket import Decoder, Message
from zmsvc.keeper.dispatcher import Dispatcher
from zmsvc.keeper.listeners import Listeners
from zmsvc.keeper.machine import KeeperMachine
from zmsvc.keeper.restarted_process import WatchedProcess


class ConnectedProcess(WatchedProcess, ABC):
    """A worker and the channel to it."""

    def __init__(
        self,
        machine: KeeperMachine,
        places: Places,
        listeners: Listeners,
        cgroup: Path | None,
        dispatcher: Dispatcher,
    ) -> None:
        super().__init__(machine, places, listeners, cgroup)
        self.channel: socket.socket | None = None
        """The keeper's end; None while no process runs that reads the other one."""
        self._dispatcher = dispatcher

    @abstractmethod
    def _on_channel(self) -> None:
        """Handle an event of the channel."""

    @abstractmethod
    def _flush(self) -> None:
        """Send as much as the socket takes now, and the rest when it becomes writable."""

    def _reports(self, name: str, codec: Decoder[Message]) -> Iterator[Message]:
        """Yield the reports that have arrived. Then send what waits, or disconnect if the process has closed
        the channel.
        """
        while self.channel is not None:
            try:
                report = seqpacket.receive_message(self.channel, codec)
            except BlockingIOError:
                self._flush()
                return
            except ProtocolError as error:
                complain(f"zmsvcd: the {name} process: {error}")
                continue
            if report is None:
                self._disconnect()
                return
            yield report

    def _spawn_connected(self, name: str, arguments: list[str]) -> bool:
        """Execute the module zmsvc.NAME, with `--line` for its end of the channel. After a failure return
        False: the keeper tries again later.
        """
        try:
            ours, theirs = self.machine.channel()
        except OSError as error:
            self._not_started(name, error)
            return False
        try:
            self._dispatcher.watch(ours.fileno(), self._on_channel, drop=self._abandon)
            line = ["--line", str(theirs.fileno())]
            self.spawn(f"zmsvc.{name}", [*line, *arguments], {}, [theirs.fileno()])
        except OSError as error:
            self._dispatcher.unwatch(ours.fileno())
            ours.close()
            self._not_started(name, error)
            return False
        finally:
            theirs.close()
        self.channel = ours
        return True

    def _not_started(self, name: str, error: OSError) -> None:
        complain(f"zmsvcd: cannot start the {name} process: {error.strerror}; trying again")
        self.postpone()

    def _abandon(self) -> None:
        """Disconnect and kill a process that the keeper cannot communicate with."""
        self._disconnect()
        self.signal(signal.SIGKILL)

    def _disconnect(self) -> None:
        if self.channel is not None:
            self._dispatcher.unwatch(self.channel.fileno())
            self.channel.close()
            self.channel = None
