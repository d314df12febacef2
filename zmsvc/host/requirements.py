"""Check, before anything is started, the libraries and the kernel features that zmsvc requires."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys

from zmsvc.core.errors import RequirementError
from zmsvc.host.python import libraries


def insist(program: str) -> None:
    """End the program with status 2 and one line on stderr if a requirement is missing."""
    try:
        libraries.check()
        check_kernel()
    except RequirementError as error:
        sys.stderr.write(f"{program}: {error}\n")
        raise SystemExit(error.code) from None


def check_kernel() -> None:
    """Raise RequirementError for the first missing feature. Each feature is tried, since a seccomp filter may
    forbid one that the kernel has.
    """
    for feature, since, works in (
        ("pidfd_open(2) and pidfd_send_signal(2)", "5.3", _has_pidfd),
        ("sealed memory files (memfd_create(2))", "3.17", _has_memfd),
        ("/proc with the children of each thread (CONFIG_PROC_CHILDREN)", "3.5", _has_children),
    ):
        with contextlib.suppress(OSError, AttributeError):
            if works():
                continue
        release = os.uname().release
        raise RequirementError(
            f"cannot run: Linux {release} here lacks {feature}; it needs {since} or newer, and no filter "
            f"that hides it"
        )


def _has_pidfd() -> bool:
    fd = os.pidfd_open(os.getpid())
    try:
        # Signal 0 only checks.
        signal.pidfd_send_signal(fd, 0)
    finally:
        os.close(fd)
    return True


def _has_memfd() -> bool:
    fd = os.memfd_create("zmsvc-probe", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)
    finally:
        os.close(fd)
    return True


def _has_children() -> bool:
    pid = os.getpid()
    return os.access(f"/proc/{pid}/task/{pid}/children", os.R_OK)
