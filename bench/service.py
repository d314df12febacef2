"""The service that contenders run which execute programs: `service.py NAME RECEIVER`. It has imported pyzmq,
reports that it runs, and waits. s6 passes BENCH_READY_FD, at which the service reports that it is ready.

It makes no ZMQ context and connects to nothing, although zmsvc's tasks do: the difference is an advantage of
the other contenders.
"""

import os
import signal
import socket
import sys
import time

import zmq  # noqa: F401 - what a service that talks over ZeroMQ has to import before it can do anything


def main() -> None:
    name, receiver = sys.argv[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
        speaker.sendto(b"%s %d" % (name.encode(), time.monotonic_ns()), receiver)
    if "BENCH_READY_FD" in os.environ:
        os.write(int(os.environ["BENCH_READY_FD"]), b"\n")
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
