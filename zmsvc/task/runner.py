"""What a freshly forked child of the keeper does until its end: becomes the task's process and lives the task's life there.

Everything that a task needs is imported here, once, in the keeper; nothing is made, no ZMQ context above all.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable
from dataclasses import replace

from zmsvc.core.errors import CANNOT_EXECUTE, ZmsvcError
from zmsvc.host import journal, linux
from zmsvc.host.keys import of_words
from zmsvc.host.notify import Notifier
from zmsvc.protocol.launch import Descriptors, LaunchSpec
from zmsvc.task import loader, process, threads
from zmsvc.task.bus import Bus
from zmsvc.task.life import Life, last_line
from zmsvc.task.stop import SignalStop

log = logging.getLogger("task")


def settle(keep: Iterable[int]) -> None:
    """Be what all tasks have in common, once, in the process out of which they are forked; its descriptors but `keep` are closed."""
    process.settle(keep)


def run(spec: LaunchSpec, fds: Descriptors, stop: type[SignalStop] = SignalStop) -> int:
    """Be the task's process, forked from one that has settled, and give its exit status, for os._exit(): everything is flushed.

    0: it ended by itself or was told to; 1: an exception, logged and told; 203: it could not be started, logged and told.
    """
    if spec.service_type == "Thread":
        # What the process itself says, or a program that it runs, is nobody's in particular.
        spec = replace(spec, instance=spec.context)
    linux.set_process_name(spec.task if spec.service_type != "Thread" else f"{spec.context}-threads")
    sink = journal.configure(identifier=spec.instance, fields=_fields(spec), target=spec.log)
    # Connected before the user changes, who may have no right to the socket; the kernel tells who sends at each datagram.
    notifier = Notifier(spec.notify)
    try:
        process.become(spec)
    except (OSError, ZmsvcError) as error:
        return _not_started(notifier, last_line(error))
    if spec.service_type == "Command":
        return _execute(list(spec.command), fds.exec_gate, notifier)
    process.take_streams(sink)
    channel = Bus(spec.backend, spec.frontend, of_words(spec.curve))
    if spec.service_type == "Thread":
        assert fds.shared_line is not None
        status = threads.live(socket.socket(fileno=fds.shared_line), channel)
    else:
        life = Life(spec, fds, voice=notifier, channel=channel, stop=stop(), log=logging.getLogger(spec.instance))
        status = life.live(lambda: loader.load(spec.instance, spec.search))
    process.finish()
    channel.close()
    notifier.close()
    return status


def _fields(spec: LaunchSpec) -> dict[str, str]:
    shared = {"ZMSVC_CONTEXT": spec.context, "ZMSVC_TRANSACTION": spec.transaction}
    return shared if spec.service_type == "Thread" else shared | {"ZMSVC_TASK": spec.task, "ZMSVC_INSTANCE": spec.instance}


def _execute(command: list[str], gate: int | None, notifier: Notifier) -> int:
    """Run a program. The pipe to the keeper closes when it has taken over; a word in it says that it did not."""
    error = process.execute(command)
    status = _not_started(notifier, f"cannot execute {command[0]}: {error.strerror}")
    if gate is not None:
        os.write(gate, b"x")
    return status


def _not_started(notifier: Notifier, why: str) -> int:
    log.error("%s", why)
    notifier.status(why)
    notifier.close()
    return CANNOT_EXECUTE
