"""`python -m zmsvc.task.fresh NAME=FD...`: a task in an interpreter of its own, which has taken the place of
the fork.

What the interpreter, libc and the dynamic linker read when a program begins has its effect here: all of the
task's environment. The fork has become the task's process already: its user, limits, streams and PID stay.
"""

from __future__ import annotations

import os
import sys

from zmsvc.protocol.forking import decode_launch
from zmsvc.protocol.launch import Descriptors
from zmsvc.task import runner


def main() -> int:
    given = dict(word.split("=") for word in sys.argv[1:])
    memory = int(given.pop("memory"))
    spec = decode_launch(os.pread(memory, os.fstat(memory).st_size, 0))
    os.close(memory)
    fds = {name: int(number) for name, number in given.items()}
    for fd in fds.values():
        os.set_inheritable(fd, False)
    return runner.live(spec, Descriptors(**fds))


if __name__ == "__main__":
    # As the fork of a zygote does: everything is flushed and joined by then.
    os._exit(main())
