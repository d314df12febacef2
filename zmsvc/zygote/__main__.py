"""The program of the zygote. The keeper executes it; it is not meant to be started by hand.

Its options are `--line FD`, the socket to the keeper; `--gate FD`, the pipe at which a task waits until the
keeper knows its PID; `--keeper PID`; `--protocol N`, the protocol that the keeper speaks; and `--cgroups`, if
each task starts in a control group of its own.
"""

from __future__ import annotations

import socket
import sys
from typing import NoReturn

from zmsvc.host.python import withheld_hooks

with withheld_hooks.during_imports():
    from zmsvc import __version__
    from zmsvc.host.complain import complain
    from zmsvc.protocol import forking
    from zmsvc.zygote import zygote


def main() -> NoReturn:
    line, gate, keeper, protocol = (_number(name) for name in ("--line", "--gate", "--keeper", "--protocol"))
    if not protocol >= forking.OLDEST:
        complain(
            f"zmsvcd: cannot fork tasks: the keeper speaks protocol {protocol}, the installed zmsvc "
            f"{__version__} speaks "
            f"{forking.OLDEST} to {forking.PROTOCOL}; restart the context"
        )
        sys.exit(1)
    zygote.run(socket.socket(fileno=line), gate, keeper, cgroups="--cgroups" in sys.argv)


def _number(option: str) -> int:
    """Return the value of an option. This is done without argparse, which would stay in the memory of each
    task, and would load libraries for compression.
    """
    return int(sys.argv[sys.argv.index(option) + 1])


if __name__ == "__main__":
    main()
