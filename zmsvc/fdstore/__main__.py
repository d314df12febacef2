"""Run the fdstore process of a context. The keeper executes it with a socket; users do not start it."""

from __future__ import annotations

import os
import resource
import socket
from typing import NoReturn

from zmsvc.fdstore.fdstore import DescriptorStores
from zmsvc.host import arguments
from zmsvc.host.kernel import linux, signals

NAME = "zmsvc-fdstore"
"""The name of this process in `ps`."""
MOST = 4096
"""The most descriptors of all tasks."""
RESERVED = 512
"""The number of descriptors that are not used for stores: they are for connections to tasks, and for
descriptors that come with orders and are refused.
"""


def main() -> NoReturn:
    parser = arguments.parser("zmsvc.fdstore", "The process that holds descriptors of tasks, run by zmsvcd.")
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
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED
    DescriptorStores(channel, max(0, min(MOST, room))).run()
    # A thread may wait in close(2).
    os._exit(0)


if __name__ == "__main__":
    main()
