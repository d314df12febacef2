"""The keeper's client of the fdstore process, which holds the stored descriptors of tasks. The keeper itself
never has such a descriptor, because the call that closes it may hang.

The keeper starts the process with the first task that may store descriptors. If the process dies, its
descriptors are lost, and the next one begins with empty stores.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zmsvc.host import seqpacket
from zmsvc.host.complain import complain
from zmsvc.host.kernel import free_descriptors
from zmsvc.host.paths import Places
from zmsvc.keeper.connected_process import ConnectedProcess
from zmsvc.keeper.dispatcher import READ, WRITE, Dispatcher
from zmsvc.keeper.listeners import Listeners
from zmsvc.keeper.machine import KeeperMachine
from zmsvc.protocol import fdstore as protocol
from zmsvc.protocol.launch import LaunchSpec
from zmsvc.protocol.supervision import StoreContents

END_TIMEOUT = 2.5
"""Seconds after which the keeper no longer waits for the end of the killed process: the kernel may be closing
a descriptor of a task.
"""


class FdstoreProcess(ConnectedProcess):
    """The fdstore process and the channel to it. `report` is called when the contents of the stores have
    changed, and with True if the supervisor has to get the channel as well.
    """

    def __init__(
        self,
        machine: KeeperMachine,
        places: Places,
        listeners: Listeners,
        cgroup: Path | None,
        dispatcher: Dispatcher,
        report: Callable[[bool], None],
    ) -> None:
        super().__init__(machine, places, listeners, cgroup, dispatcher)
        self.contents = StoreContents()
        self._report_change = report
        self._limits: Mapping[str, Any] = {}
        self._limits_sent = True
        self._killed_at: float | None = None

    # --- the process

    def start(self) -> None:
        """Start the process. After a failure the keeper tries again later."""
        arguments = ["--keeper", str(os.getpid())]
        if not self._spawn_connected("fdstore", arguments):
            return
        self._limits_sent = False
        self._flush()
        self._report_change(True)

    def ended(self) -> None:
        """Schedule the next start. All stored descriptors are lost."""
        if self._killed_at is None:
            complain(
                "zmsvcd: the fdstore process ended, and with it all stored descriptors of tasks; starting "
                "the next one"
            )
        self._disconnect()
        super().ended()

    def due(self) -> float | None:
        """Return the time of the next start; None while the process runs or if no next one is wanted."""
        wanted = self._limits and self.pid is None and self._killed_at is None
        return super().due() if wanted else None

    def kill(self) -> None:
        """Kill the process: the context ends."""
        self._killed_at = self.machine.now()
        self.signal(signal.SIGKILL)

    def is_over(self) -> bool:
        """Return True if the killed process has ended, or the keeper need not wait for it any more."""
        return (
            self.pid is None or self._killed_at is None or self.machine.now() >= self._killed_at + END_TIMEOUT
        )

    def _disconnect(self) -> None:
        if self.channel is not None:
            super()._disconnect()
            self.contents = StoreContents()
            self._report_change(False)

    # --- orders

    def hold(self, limits: Mapping[str, Any]) -> None:
        """Hold the stores of these tasks, and empty every other one."""
        self._limits, self._limits_sent = limits, False
        if self.pid is None and limits and super().due() is None:
            self.start()
        else:
            self._flush()
            self._report_change(True)

    def connection(self, spec: LaunchSpec) -> int | None:
        """Return the descriptor by which the process of a launch gets what is in its store, for the caller to
        close. None if the task has no store. Raises OSError.
        """
        if not spec.file_descriptor_store_max or self.channel is None:
            return None
        task_end, store_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            free_descriptors.leave_room(max(task_end.fileno(), store_end.fileno()))
            order = protocol.Serve(task=f"{spec.transaction}:{spec.task}")
            seqpacket.send(self.channel, protocol.ORDERS.encode(order), {"to": store_end.fileno()})
        except (BlockingIOError, ConnectionError):
            complain(
                f"zmsvcd: the fdstore process does not answer: {order.task} starts without its descriptors"
            )
            task_end.close()
            return None
        except OSError:
            task_end.close()
            raise
        finally:
            store_end.close()
        return task_end.detach()

    def _flush(self) -> None:
        """Send the limits, if the process does not have them. They go before an order to serve a launch."""
        if self.channel is None or self._limits_sent:
            return
        try:
            seqpacket.send(self.channel, protocol.ORDERS.encode(protocol.Hold(limits=self._limits)))
            self._limits_sent = True
        except BlockingIOError:
            pass
        except OSError:
            # The process has ended, or the kernel has no memory. The next process gets the limits.
            self.signal(signal.SIGKILL)
        self._dispatcher.expect(self.channel.fileno(), READ if self._limits_sent else READ | WRITE)

    def _on_channel(self) -> None:
        for report in self._reports("fdstore", protocol.REPORTS):
            self.contents = StoreContents(
                stored=report.stored, refused=report.refused, closing=report.closing
            )
            self._report_change(False)
