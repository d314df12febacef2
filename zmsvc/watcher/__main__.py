"""Run the watcher process of a context. The keeper executes it with a socket; users do not start it."""

from __future__ import annotations

import os
import socket
from typing import NoReturn

from zmsvc.host import arguments
from zmsvc.host.kernel import linux, signals
from zmsvc.watcher.watcher import Watcher

NAME = "zmsvc-watcher"
"""The name of this process in `ps`."""


def main() -> NoReturn:
    parser = arguments.parser("zmsvc.watcher", "The process that watches topics of Commands, run by zmsvcd.")
    parser.add_argument("--line", type=int, required=True, help="descriptor of the socket to the keeper")
    parser.add_argument("--keeper", type=int, required=True, help="PID of the keeper")
    args = parser.parse_args()
    linux.set_process_name(NAME)
    linux.die_with_parent(args.keeper)
    signals.leave_to_keeper()
    channel = socket.socket(fileno=args.line)
    channel.set_inheritable(False)
    os.chdir("/")
    linux.drop_capabilities()
    linux.forbid_new_privileges()
    Watcher(channel).run()
    # There is nothing to send, so libzmq's threads need not end first.
    os._exit(0)


if __name__ == "__main__":
    main()
