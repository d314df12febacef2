"""Run a device on listening sockets that the keeper hands over, or on endpoints of its own when it is started by hand."""

from __future__ import annotations

import argparse
import os
import socket
import sys

from zmsvc.core.errors import ZmsvcError
from zmsvc.device.device import Device
from zmsvc.host import linux, sockets
from zmsvc.host.notify import Notifier


def main() -> int:
    parser = argparse.ArgumentParser(prog="zmsvc.device", description="The ZMQ forwarder of a context, run by zmsvcd.")
    parser.add_argument("--front", required=True, metavar="ENDPOINT", help="where publishers connect")
    parser.add_argument("--back", required=True, metavar="ENDPOINT", help="where subscribers connect")
    parser.add_argument("--front-fd", type=int, metavar="N", help="a listening socket for --front")
    parser.add_argument("--back-fd", type=int, metavar="N", help="a listening socket for --back")
    parser.add_argument("--hwm", type=int, default=sockets.DEVICE_HWM, metavar="N", help="messages queued for one peer")
    parser.add_argument("--expect", type=int, default=0, metavar="N", help="subscribers to wait for before publishers are let in")
    args = parser.parse_args()
    if os.environ.get("NOTIFY_SOCKET"):
        linux.die_with_parent(os.getppid())
    try:
        front, back = _listener(args.front, args.front_fd), _listener(args.back, args.back_fd)
        Device(front, back, hwm=args.hwm).run(args.expect, Notifier().ready)
    except ZmsvcError as error:
        print(f"zmsvc.device: {error}", file=sys.stderr)
        return 1
    return 0


def _listener(endpoint: str, fd: int | None) -> socket.socket:
    if fd is None:
        return sockets.listen(endpoint)
    os.set_inheritable(fd, False)
    return socket.socket(fileno=fd)


if __name__ == "__main__":
    sys.exit(main())
