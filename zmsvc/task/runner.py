"""Run a task in a freshly forked process: set the process up, run the task, and return its exit status.

The zygote imports this module, and with it everything that a task needs, once before its forks. The import
creates no objects that a fork could not use, above all no ZMQ context.
"""

from __future__ import annotations

import logging
import os
import select
import socket
from collections.abc import Iterable
from dataclasses import replace

from zmsvc.core.errors import CANNOT_EXECUTE
from zmsvc.host.bus.curve_keys import of_words
from zmsvc.host.kernel import linux, signals
from zmsvc.host.systemd import journal
from zmsvc.host.systemd.notify import Notifier
from zmsvc.protocol.launch import Descriptors, LaunchSpec
from zmsvc.task import loader, new_interpreter, passed_descriptors, probes, process, stored, threads
from zmsvc.task.bus import TaskBus
from zmsvc.task.headline import headline
from zmsvc.task.runtime import TaskRuntime
from zmsvc.task.stop import SignalStop

log = logging.getLogger("task")


def prepare_zygote(keep: Iterable[int]) -> None:
    """Set up once, in the process that forks tasks, the state with which all tasks begin. Close its
    descriptors except `keep`.
    """
    process.become_daemon(keep)
    # Tasks inherit this with its memory, 10 pages. A program that they execute does not.
    process.write_stacks_on_signals()


def run(spec: LaunchSpec, fds: Descriptors, stop: type[SignalStop] = SignalStop) -> int:
    """Run the task in this fork of the zygote. Return its exit status for os._exit(): everything is
    flushed.

    0: the task ended by itself or by a stop request. 1: an exception, which is logged and reported. 203: the
    task could not be started, which is logged and reported.
    """
    if fds.store is not None:
        spec, fds = stored.fetch(spec, fds)
    if fds.listen:
        # The zygote has closed these two, and their numbers may be those of the sockets.
        fds = passed_descriptors.place(replace(fds, cgroup=None, gate=None))
    if spec.service_type == "Thread":
        # The output of the process itself, and of programs that it runs, belongs to no single task.
        spec = replace(spec, instance=spec.context)
    _set_title(spec)
    sink = _log_to(spec, fds)
    # Connect before the user changes, because the user of the task may have no access to the socket. The
    # kernel adds the credentials of the sender to each datagram.
    notifier = Notifier(spec.notify, spec.task if spec.service_type == "Thread" else "")
    # A broad except: a resource limit may make any call fail, and then the task has not been started.
    try:
        process.become(spec, fds.output)
    except Exception as error:
        return _report_failed_start(notifier, fds, headline(error))
    if spec.probe:
        return probes.run(spec, notifier)
    if spec.service_type == "Command":
        passed_descriptors.pass_on(fds)
        return _report_failed_start(notifier, fds, process.execute(list(spec.command)))
    if spec.fresh:
        return _report_failed_start(notifier, fds, new_interpreter.execute(spec, fds))
    return _run_service(spec, fds, notifier, sink, stop)


def run_in_new_interpreter(spec: LaunchSpec, fds: Descriptors) -> int:
    """Run the task in the interpreter that its fork has executed. Return its exit status."""
    _set_title(spec)
    sink = _log_to(spec, fds)
    process.write_stacks_on_signals()
    return _run_service(spec, fds, Notifier(spec.notify), sink, SignalStop)


def _run_service(
    spec: LaunchSpec, fds: Descriptors, notifier: Notifier, sink: logging.Handler, stop: type[SignalStop]
) -> int:
    process.take_streams(sink)
    bus = TaskBus(spec.backend, spec.frontend, of_words(spec.curve))
    if spec.service_type == "Thread":
        assert fds.shared_line is not None
        status = threads.run(socket.socket(fileno=fds.shared_line), bus)
    else:
        stop_request = stop()
        if spec.stop_signal != "SIGTERM":
            stop_request.add_signal(signals.number(spec.stop_signal))
        runtime = TaskRuntime(
            spec, fds, status_sink=notifier, bus=bus, stop=stop_request, log=logging.getLogger(spec.instance)
        )
        status = runtime.run(lambda: loader.load(spec.instance, spec.search))
        if stop.ends_process:
            process.join()
    process.finish()
    bus.close()
    notifier.close()
    return status


def _set_title(spec: LaunchSpec) -> None:
    """Make `ps` and `systemctl status` show which task this process is. A Command shows its own command
    line.
    """
    if spec.auxiliary:
        linux.set_process_name(f"{spec.task}-{spec.auxiliary}")
        linux.set_process_title(
            f"zmsvc: {spec.auxiliary} of {spec.task} of {spec.context}/{spec.transaction}"
        )
        return
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


def _report_failed_start(notifier: Notifier, fds: Descriptors, why: str) -> int:
    log.error("%s", why)
    notifier.status(why)
    notifier.close()
    report_to_keeper(fds, why)
    return CANNOT_EXECUTE


def report_to_keeper(fds: Descriptors, why: str) -> None:
    """Report to the keeper that the program of a Command was not executed. A successful exec closes the
    pipe.
    """
    if fds.exec_gate is not None:
        os.write(fds.exec_gate, why.encode(errors="replace")[: select.PIPE_BUF])
