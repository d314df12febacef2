"""Give a task a new interpreter: the fork executes one, which runs zmsvc.task.new_interpreter_main.
`<python>` names its program; with `<fresh>yes</fresh>` alone it is that of the fork.
"""

from __future__ import annotations

import os
import sys

from zmsvc.core.errors import CANNOT_EXECUTE
from zmsvc.host.kernel import programs
from zmsvc.protocol.forking import encode_launch
from zmsvc.protocol.launch import Descriptors, LaunchSpec
from zmsvc.task import passed_descriptors

BEGIN = f"""
import os, socket, sys
# The working directory is not a place for modules. -P is unknown to earlier releases of Python.
if sys.path[:1] == [""]:
    del sys.path[0]
try:
    from zmsvc.task import new_interpreter_main
except BaseException as error:
    why = "cannot run the task in %s (Python %s): %s: %s (zmsvc has to be installed for this interpreter)" % (
        sys.executable, sys.version.split()[0], type(error).__name__, error)
    sys.stderr.write(why + "\\n")
    sys.stderr.flush()
    try:
        path = os.environ["NOTIFY_SOCKET"]
        name = "\\0" + path[1:] if path[:1] == "@" else path
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(("STATUS=" + why).encode(), name)
    finally:
        os._exit({CANNOT_EXECUTE})
os._exit(new_interpreter_main.main())
"""
"""The first code of the new interpreter. It has no syntax that an earlier Python does not know, because it
reports that the interpreter cannot run the task.
"""


def execute(spec: LaunchSpec, fds: Descriptors) -> str:
    """Execute a new interpreter in this process. Return only on failure, with the reason."""
    program = spec.python or sys.executable
    try:
        memory = os.memfd_create("zmsvc-launch", 0)
        os.write(memory, encode_launch(spec))
        wanted = {
            "memory": memory,
            "curve_server": fds.curve_server,
            "output": fds.output,
            "barrier": fds.barrier,
        }
        passed = {name: fd for name, fd in wanted.items() if fd is not None}
        for fd in passed.values():
            os.set_inheritable(fd, True)
        passed_descriptors.pass_on(fds)
        words = [f"{name}={fd}" for name, fd in passed.items()]
        os.execv(program, [program, "-c", BEGIN, *words])
    except OSError as error:
        return f"cannot execute {program}: {programs.obstacle(program, error.errno) or error.strerror}"
