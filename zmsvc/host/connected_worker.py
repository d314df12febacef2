"""The start of a worker that serves the keeper over a channel and needs nothing else of the machine: the
fdstore process and the watcher process.
"""

from __future__ import annotations

import os
import socket

from zmsvc.host import arguments
from zmsvc.host.kernel import linux, signals


def begin(name: str, description: str) -> socket.socket:
    """Read the arguments that the keeper gives, and give up what this process does not need. It ends when the
    keeper does. Return the channel to the keeper. `name` is that of the process in `ps`.
    """
    parser = arguments.parser(name.replace("-", "."), description)
    parser.add_argument("--line", type=int, required=True, help="descriptor of the socket to the keeper")
    parser.add_argument("--keeper", type=int, required=True, help="PID of the keeper")
    args = parser.parse_args()
    linux.set_process_name(name)
    linux.die_with_parent(args.keeper)
    signals.leave_to_keeper()
    channel = socket.socket(fileno=args.line)
    channel.set_inheritable(False)
    os.chdir("/")
    linux.drop_capabilities()
    linux.forbid_new_privileges()
    return channel
