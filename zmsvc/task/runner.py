"""Runs one task service in a freshly forked child of the keeper, from its spec to its exit status.

It is imported in the keeper before the first fork, with everything it needs: what is imported here costs a task nothing.
The spec is made by zmsvc.supervisor.spec; see there for its keys.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from zmsvc.host.notify import Notifier
from zmsvc.task import loader, process
from zmsvc.task.life import Life

CANNOT_EXECUTE = 203

log = logging.getLogger("task")


def run(spec: Mapping[str, Any]) -> int:
    """Be the task's process, and give its exit status. 0: it ended by itself or was told to; 1: an exception, logged and told."""
    process.become(spec)
    notifier = Notifier()
    if spec["service_type"] == "Command":
        return _execute(spec, notifier)
    process.take_streams(spec)
    # A broad except: whatever the user's code raises is this task's failure, and must be told as such.
    try:
        service_class = loader.load(spec["instance"], spec["search"])
        life = Life(notifier, spec["watchdog"])
        service = service_class(spec, life)
        life.connect(spec, service)
        life.live(service.task)
        assert life.bus is not None
        life.bus.close()
    except BaseException as error:
        return _failed(notifier, error)
    finally:
        sys.stdout.close()
        sys.stderr.close()
    return 0


def _failed(notifier: Notifier, error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return _status(error.code)
    log.error("Failed: %s", last_line(error), exc_info=error)
    notifier.status(last_line(error))
    return 1


def _status(code: Any) -> int:
    """What Python itself makes of sys.exit(code)."""
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    log.error("%s", code)
    return 1


def last_line(error: BaseException) -> str:
    """The last line of an exception's own text, as a traceback ends with it."""
    return "".join(traceback.format_exception_only(error)).strip().rpartition("\n")[2]


def _execute(spec: Mapping[str, Any], notifier: Notifier) -> int:
    """Let the program take this process's place. The pipe to the keeper closes then; a word in it says that it did not."""
    os.set_inheritable(spec["exec_fd"], False)
    try:
        os.execvp(spec["command"][0], spec["command"])
    except OSError as error:
        notifier.status(f"cannot execute {spec['command'][0]}: {error.strerror}")
        os.write(spec["exec_fd"], b"x")
    return CANNOT_EXECUTE
