"""Run a task in a new interpreter, which the fork has executed (new_interpreter.py). The arguments are
NAME=FD...

Here all of the task's environment takes effect, because the interpreter, libc and the dynamic linker read it
when a program starts. The fork has already set up the task's process: its user, limits, streams and PID stay.
"""

from __future__ import annotations

import os
import sys

from zmsvc.protocol.forking import decode_launch
from zmsvc.protocol.launch import Descriptors
from zmsvc.task import passed_descriptors, runner


def main() -> int:
    numbers = dict(word.split("=") for word in sys.argv[1:])
    memory = int(numbers.pop("memory"))
    spec = decode_launch(os.pread(memory, os.fstat(memory).st_size, 0))
    os.close(memory)
    fds = {name: int(number) for name, number in numbers.items()}
    listen = tuple(range(passed_descriptors.FIRST, passed_descriptors.FIRST + len(spec.listen_names)))
    for fd in (*fds.values(), *listen):
        os.set_inheritable(fd, False)
    return runner.run_in_new_interpreter(spec, Descriptors(**fds, listen=listen))


if __name__ == "__main__":
    # As in the fork of a zygote, everything is flushed and joined by then.
    os._exit(main())
