"""Run the watcher process of a context. The keeper executes it with a socket; users do not start it."""

from __future__ import annotations

import os
from typing import NoReturn

from zmsvc.host.connected_worker import begin
from zmsvc.watcher.watcher import Watcher


def main() -> NoReturn:
    channel = begin("zmsvc-watcher", "The process that watches topics of Commands, run by zmsvcd.")
    Watcher(channel).run()
    # There is nothing to send, so libzmq's threads need not end first.
    os._exit(0)


if __name__ == "__main__":
    main()
