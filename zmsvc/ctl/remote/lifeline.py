"""The other end of `zmsvcctl -H`: this zmsvcctl ends when the one that has ordered it over ssh has gone.

Without a terminal, sshd sends no signal to a program whose client has gone, and `events -f` would notice it
only at its next line. Its standard input ends at once. A fork watches that, rather than a thread, because
`logs` executes journalctl in its own place.
"""

from __future__ import annotations

import os
import select
import signal

VARIABLE = "ZMSVC_LIFELINE"
"""If set to `stdin`, zmsvcctl ends with its standard input."""
PATIENCE = 2.0
"""Seconds after Ctrl-C in which the processes have to end."""


def hold() -> None:
    """Go on in a child process, which gets SIGINT when standard input ends. The caller's process waits for
    it, ends as it does, and does not return.
    """
    del os.environ[VARIABLE]
    watched = os.dup(0)
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        os.close(watched)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        return
    status = _watch(child, watched)
    # Nothing is left to do for this process: no buffer has text, and no exit function may run twice.
    os._exit(status)


def _watch(child: int, watched: int) -> int:
    """Wait for the child, and return its exit status, or 128 and the number of the signal that ended it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The child is in a group of its own, which no signal for this one reaches.
        signal.signal(number, lambda number, _: os.killpg(child, number))
    # The child makes its group itself as well, so that there is one whichever of the two is first.
    try:
        os.setpgid(child, child)
    except (PermissionError, ProcessLookupError):
        pass  # It has done so, and perhaps has already ended.
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(watched, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if ended in ready:
            break
        if not _is_open(watched):
            poll.unregister(watched)
            _end(child, poll)
            break
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else 128 - status


def _is_open(watched: int) -> bool:
    try:
        return bool(os.read(watched, 4096))
    except OSError:
        return False


def _end(child: int, poll: select.poll) -> None:
    """End the group of the child, as Ctrl-C does; kill it if it does not end. The child is not reaped yet, so
    its number is still its own.
    """
    os.killpg(child, signal.SIGINT)
    if not poll.poll(PATIENCE * 1000):
        os.killpg(child, signal.SIGKILL)
