"""What a freshly forked child of the keeper does until its end: becomes the task's process and lives the
task's life there.

Everything that a task needs is imported here, once, in the keeper; nothing is made, no ZMQ context above all.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import sys
from collections.abc import Iterable
from dataclasses import replace

from zmsvc.core.errors import CANNOT_EXECUTE
from zmsvc.host.bus.curve_keys import of_words
from zmsvc.host.kernel import linux, signals
from zmsvc.host.systemd import journal
from zmsvc.host.systemd.notify import Notifier
from zmsvc.protocol.launch import Descriptors, LaunchSpec
from zmsvc.task import loader, process, renew, threads
from zmsvc.task.bus import Bus
from zmsvc.task.runtime import TaskRuntime, headline
from zmsvc.task.stop import SignalStop

log = logging.getLogger("task")


def settle(keep: Iterable[int]) -> None:
    """Be what all tasks have in common, once, in the process out of which they are forked; its descriptors
    but `keep` are closed.
    """
    process.settle(keep)


def run(spec: LaunchSpec, fds: Descriptors, stop: type[SignalStop] = SignalStop) -> int:
    """Be the task's process, forked from one that has settled, and give its exit status, for os._exit():
    everything is flushed.

    0: it ended by itself or was told to; 1: an exception, logged and told; 203: it could not be started,
    logged and told.
    """
    if spec.service_type == "Thread":
        # What the process itself says, or a program that it runs, is nobody's in particular.
        spec = replace(spec, instance=spec.context)
    _show(spec)
    sink = _log_to(spec, fds)
    # Connected before the user changes, who may have no right to the socket; the kernel tells who sends at
    # each datagram.
    notifier = Notifier(spec.notify, spec.task if spec.service_type == "Thread" else "")
    # A broad except: a limit may let anything fail, and whatever does, the task has not been started.
    try:
        process.become(spec, fds.output)
    except Exception as error:
        return _not_started(notifier, fds, headline(error))
    if spec.service_type == "Command":
        return _not_started(notifier, fds, process.execute(list(spec.command)))
    if spec.fresh:
        reason = renew.execute(spec, fds).strerror
        return _not_started(notifier, fds, f"cannot execute {sys.executable}: {reason}")
    return _live(spec, fds, notifier, sink, stop)


def live(spec: LaunchSpec, fds: Descriptors) -> int:
    """Live the task's life in an interpreter that took the place of its fork, and give its exit status."""
    _show(spec)
    sink = _log_to(spec, fds)
    return _live(spec, fds, Notifier(spec.notify), sink, SignalStop)


def _live(
    spec: LaunchSpec, fds: Descriptors, notifier: Notifier, sink: logging.Handler, stop: type[SignalStop]
) -> int:
    process.take_streams(sink)
    channel = Bus(spec.backend, spec.frontend, of_words(spec.curve))
    if spec.service_type == "Thread":
        assert fds.shared_line is not None
        status = threads.live(socket.socket(fileno=fds.shared_line), channel)
    else:
        wish = stop()
        if spec.stop_signal != "SIGTERM":
            wish.also(signals.number(spec.stop_signal))
        life = TaskRuntime(
            spec, fds, voice=notifier, channel=channel, stop=wish, log=logging.getLogger(spec.instance)
        )
        status = life.live(lambda: loader.load(spec.instance, spec.search))
        if stop.last:
            process.join()
    process.finish()
    channel.close()
    notifier.close()
    return status


def _show(spec: LaunchSpec) -> None:
    """Let `ps` and `systemctl status` show which task this process is. A Command brings its own words."""
    shared = spec.service_type == "Thread"
    linux.set_process_name(f"{spec.context}-threads" if shared else spec.task)
    of = f"{spec.context}/{spec.transaction}"
    linux.set_process_title(
        f"zmsvc: threads of {of}" if shared else f"zmsvc: {spec.task} ({spec.instance}) of {of}"
    )


def _log_to(spec: LaunchSpec, fds: Descriptors) -> journal.Sink:
    level = journal.level_of(spec.log_level)
    return journal.configure(
        identifier=spec.instance, fields=_fields(spec), target=spec.log, level=level, pipe=fds.output
    )


def _fields(spec: LaunchSpec) -> dict[str, str]:
    shared = {"ZMSVC_CONTEXT": spec.context, "ZMSVC_TRANSACTION": spec.transaction}
    return (
        shared
        if spec.service_type == "Thread"
        else shared | {"ZMSVC_TASK": spec.task, "ZMSVC_INSTANCE": spec.instance}
    )


def _not_started(notifier: Notifier, fds: Descriptors, why: str) -> int:
    log.error("%s", why)
    notifier.status(why)
    notifier.close()
    tell_keeper(fds, why)
    return CANNOT_EXECUTE


def tell_keeper(fds: Descriptors, why: str) -> None:
    """Say that the program of a Command was not executed: the pipe to the keeper closes by itself when it
    was.
    """
    if fds.exec_gate is not None:
        os.write(fds.exec_gate, why.encode(errors="replace")[: select.PIPE_BUF])
