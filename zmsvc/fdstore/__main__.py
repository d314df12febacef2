"""Run the fdstore process of a context. The keeper executes it with a socket; users do not start it."""

from __future__ import annotations

import os
import resource
from typing import NoReturn

from zmsvc.fdstore.fdstore import DescriptorStores
from zmsvc.host.connected_worker import begin

MOST = 4096
"""The most descriptors of all tasks."""
RESERVED = 512
"""The number of descriptors that are not used for stores: they are for connections to tasks, and for
descriptors that come with orders and are then refused.
"""


def main() -> NoReturn:
    channel = begin("zmsvc-fdstore", "The process that holds descriptors of tasks, run by zmsvcd.")
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED
    DescriptorStores(channel, max(0, min(MOST, room))).run()
    # A thread may wait in close(2).
    os._exit(0)


if __name__ == "__main__":
    main()
