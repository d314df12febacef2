"""Find the program of a Command, and explain why the kernel does not execute it. Every fork of the zygote
loads this module, so it stays small.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence

LONGEST_WORD = 32 * os.sysconf("SC_PAGE_SIZE") - 1
"""Bytes of one argument, or of one variable with its name: MAX_ARG_STRLEN of execve(2), without the NUL."""
WORKING_DIRECTORY = "/"
"""The working directory of a task whose file names no other one."""


def find(program: str, path: str, directory: str = WORKING_DIRECTORY) -> str:
    """Return the file that a task with this PATH and working directory would execute; empty if there is no
    executable one.
    """
    if "/" in program:
        places = [os.path.join(directory, program)]
    else:
        # An empty part of PATH is the working directory.
        places = (
            [os.path.join(directory, folder, program) for folder in path.split(os.pathsep)] if program else []
        )
    return next((place for place in places if os.path.isfile(place) and os.access(place, os.X_OK)), "")


def obstacle(program: str, number: int | None, arguments: Sequence[str] = ()) -> str:
    """Return a more exact reason for an error of execve(), such as a missing interpreter. Return "" if the
    kernel's message is exact enough.

    `program` is a path, or a name that is looked up in this process's PATH. It was executed with this
    process's environment.
    """
    if number == errno.E2BIG:
        return too_long(arguments, os.environb.items())
    path = program if "/" in program else find(program, os.environ.get("PATH", os.defpath), os.curdir)
    if not path or not os.path.isfile(path):
        return ""
    if number == errno.EACCES and os.statvfs(path).f_flag & os.ST_NOEXEC:
        return "its file system is mounted noexec"
    if number not in (errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ELOOP):
        return ""
    interpreter = interpreter_of(path)
    if interpreter is not None:
        return f"{_line(interpreter)}: {os.strerror(number)}"
    return "the loader that it names is missing" if number == errno.ENOENT else ""


def too_long(arguments: Sequence[str], environment: Iterable[tuple[bytes, bytes]]) -> str:
    """Return what is too long for execve(2), with its size, the limit and the way out."""
    sizes = {f"argument {number}": len(os.fsencode(each)) for number, each in enumerate(arguments)}
    for name, value in environment:
        sizes[f"the variable {os.fsdecode(name[:64])}"] = len(name) + 1 + len(value)
    longest = max(sizes, key=sizes.__getitem__, default="")
    if longest and sizes[longest] > LONGEST_WORD:
        found = f"{longest} has {sizes[longest]} bytes, and the kernel takes {LONGEST_WORD}"
    else:
        # The kernel counts a NUL and a pointer of 8 bytes for each.
        size = sum(sizes.values()) + 9 * len(sizes)
        found = (
            f"{len(sizes)} arguments and variables have {size} bytes, and the kernel takes about "
            f"{os.sysconf('SC_ARG_MAX')}"
        )
    return f"{found} (let the program read a file)"


def missing_interpreter(path: str, directory: str = WORKING_DIRECTORY) -> str:
    """Return the fault of a script whose #! line names no executable program. Empty for any other file."""
    interpreter = interpreter_of(path)
    if interpreter is None:
        return ""
    # Like execve(2), resolve a relative interpreter from the task's working directory.
    place = os.path.join(directory, interpreter)
    return (
        ""
        if os.path.isfile(place) and os.access(place, os.X_OK)
        else f"{_line(interpreter)}: {os.strerror(errno.ENOENT)}"
    )


def interpreter_of(path: str) -> str | None:
    """Return the program in the #! line of a file; None if it has no such line or cannot be read."""
    try:
        with open(path, "rb") as file:
            line = file.readline(256)
    except OSError:
        return None
    if not line.startswith(b"#!"):
        return None
    # As in the kernel, a carriage return is part of the name.
    return os.fsdecode(line[2:].strip(b" \t\n").replace(b"\t", b" ").partition(b" ")[0])


def _line(interpreter: str) -> str:
    shown = repr(interpreter.encode(errors="backslashreplace").decode())
    ends = (
        " (its lines end with CR LF; sed -i 's/\\r$//' makes them LF)" if interpreter.endswith("\r") else ""
    )
    return f"its interpreter {shown} cannot be executed, which its #! line names{ends}"
