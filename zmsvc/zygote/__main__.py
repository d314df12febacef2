"""The program of the zygote. The keeper executes it with two descriptors; it is not meant to be started by
hand.
"""

from __future__ import annotations

import argparse
import socket
import sys
from typing import NoReturn

from zmsvc import __version__
from zmsvc.host.complain import complain
from zmsvc.protocol import forking
from zmsvc.zygote import zygote


def main() -> NoReturn:
    parser = argparse.ArgumentParser(
        prog="zmsvc.zygote", description="The process that forks the tasks of a context, run by zmsvcd."
    )
    parser.add_argument("--line", type=int, required=True, help="descriptor of the socket to the keeper")
    parser.add_argument(
        "--gate",
        type=int,
        required=True,
        help="descriptor of the pipe at which a task waits until the keeper knows its PID",
    )
    parser.add_argument("--keeper", type=int, required=True, help="PID of the keeper")
    parser.add_argument("--protocol", type=int, required=True, help="protocol that the keeper speaks")
    parser.add_argument(
        "--cgroups", action="store_true", help="each task starts in a control group of its own"
    )
    args = parser.parse_args()
    if not args.protocol >= forking.OLDEST:
        complain(
            f"zmsvcd: cannot fork tasks: the keeper speaks protocol {args.protocol}, the installed zmsvc "
            f"{__version__} speaks "
            f"{forking.OLDEST} to {forking.PROTOCOL}; restart the context"
        )
        sys.exit(1)
    zygote.run(socket.socket(fileno=args.line), args.gate, args.keeper, cgroups=args.cgroups)


if __name__ == "__main__":
    main()
