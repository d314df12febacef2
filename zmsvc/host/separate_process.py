"""Run a function in a fork of this process that ends afterwards. What the function imports, and what it
leaves in the heap, never belongs to this process.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn, TypeVar

from zmsvc.core.errors import ZmsvcError
from zmsvc.host.kernel import linux

Result = TypeVar("Result")


def call(function: Callable[[], Result], what: str) -> Result:
    """Return what the function returns, or raise what it raises; both are pickled. Wait as long as it takes.

    `what` names the work: in the list of processes, and in the ZmsvcError for a fork that is killed. If the
    kernel refuses a fork, the function runs in this process. It must not use threads, sockets or the event
    loop of this process.
    """
    reader, writer = os.pipe()
    parent = os.getpid()
    # Block signals: one that the fork gets before it has its own handlers would be written to the parent's
    # event loop.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = None
    with contextlib.suppress(OSError):
        pid = os.fork()
    if pid == 0:
        _answer(function, writer, what, parent, mask)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.close(writer)
    if pid is None:
        os.close(reader)
        return function()
    with open(reader, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(pid, 0)
    if status:
        code = os.waitstatus_to_exitcode(status)
        end = f"ended with status {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
        raise ZmsvcError(f"cannot {what}: the process that does this {end}")
    failed, result = pickle.loads(answer)
    if failed:
        raise result
    found: Result = result
    return found


def _answer(
    function: Callable[[], object], writer: int, what: str, parent: int, mask: set[int | signal.Signals]
) -> NoReturn:
    """Run in the fork. It never returns into the code of the parent."""
    try:
        linux.die_with_parent(parent)
        # No collection: it would visit, and so copy, the objects of the parent.
        gc.disable()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        linux.set_process_title(f"zmsvc: {what}")
        with open(writer, "wb") as pipe:
            pipe.write(_outcome(function))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)


def _outcome(function: Callable[[], object]) -> bytes:
    try:
        return pickle.dumps((False, function()), pickle.HIGHEST_PROTOCOL)
    except (ZmsvcError, OSError) as error:
        return pickle.dumps((True, error), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        # The traceback itself cannot be pickled.
        error.add_note("".join(traceback.format_exception(error)))
        return pickle.dumps((True, error), pickle.HIGHEST_PROTOCOL)
