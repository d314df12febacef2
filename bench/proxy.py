"""The bare proxy: libzmq's own loop and nothing else. `python -m bench.proxy FRONT BACK`; publishers connect
to FRONT.
"""

from __future__ import annotations

import resource
import sys

import zmq

HWM = 100_000
"""The same limit as in the device."""


def main() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 4096)
    xsub, xpub = context.socket(zmq.XSUB), context.socket(zmq.XPUB)
    for each in (xsub, xpub):
        each.set_hwm(HWM)
    # There is always a subscriber, as at zmsvc's device, so that a publisher can find out when it is
    # connected.
    xsub.setsockopt(zmq.BACKLOG, 1024)
    xpub.setsockopt(zmq.BACKLOG, 1024)
    xsub.bind(sys.argv[1])
    xpub.bind(sys.argv[2])
    xsub.send(b"\x01\xff\xffnobody")
    zmq.proxy(xsub, xpub)


if __name__ == "__main__":
    main()
