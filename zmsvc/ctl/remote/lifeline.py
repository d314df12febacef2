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
"""Seconds from Ctrl-C to SIGKILL."""


def hold() -> None:
    """Fork a process that ends this one when standard input ends, and make standard input empty here."""
    del os.environ[VARIABLE]
    # Of this process itself, so that the fork cannot watch another one that has its PID later.
    pidfd = os.pidfd_open(os.getpid())
    if os.fork():
        os.close(pidfd)
        _replace(0)
        return
    try:
        # sshd waits until every process has closed the output.
        _replace(1, 2)
        _watch(pidfd)
    finally:
        # No buffer has text, and no function of the exit may run twice.
        os._exit(0)


def _replace(*descriptors: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for each in descriptors:
        os.dup2(null, each)
    os.close(null)


def _watch(pidfd: int) -> None:
    """Wait for the end of the process or of standard input. In the second case end the process as Ctrl-C
    does, and kill it if it does not end.
    """
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(0, select.POLLIN)
    while pidfd not in (ready := dict(poll.poll())):
        if 0 not in ready or _has_data():
            continue
        poll.unregister(0)
        for number, patience in ((signal.SIGINT, PATIENCE), (signal.SIGKILL, 0.0)):
            try:
                signal.pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                return
            if poll.poll(patience * 1000):
                return
        return


def _has_data() -> bool:
    try:
        return bool(os.read(0, 4096))
    except OSError:
        return False
