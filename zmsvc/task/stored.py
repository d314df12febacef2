"""Get the stored descriptors of a task from the fdstore process, before the task begins."""

from __future__ import annotations

import logging
import socket
from dataclasses import replace

from zmsvc.core.errors import ProtocolError
from zmsvc.host import seqpacket
from zmsvc.protocol import fdstore as protocol
from zmsvc.protocol.launch import Descriptors, LaunchSpec

ANSWER_TIMEOUT = 10.0
"""Seconds that the answer may take. After that the task starts without stored descriptors."""

log = logging.getLogger("task")


def fetch(spec: LaunchSpec, fds: Descriptors) -> tuple[LaunchSpec, Descriptors]:
    """Return the launch and its descriptors with those of the store, which follow those of `<listen>`."""
    if fds.store is None:
        return spec, fds
    names: list[str] = []
    found: list[int] = []
    with socket.socket(fileno=fds.store) as sock:
        sock.settimeout(ANSWER_TIMEOUT)
        try:
            sock.send(protocol.REQUEST)
            while (received := seqpacket.receive(sock)) is not None:
                names += protocol.GIVEN.decode(received[0]).names
                found += received[1].values()
        except ConnectionError:
            pass  # the fdstore process has died, and the descriptors with it
        except (OSError, ProtocolError) as error:
            log.warning("Cannot get all stored descriptors, starting without the others: %s", error)
    count = len(found)
    return (
        replace(spec, listen_names=(*spec.listen_names, *names[:count]), stored=count),
        replace(fds, store=None, listen=(*fds.listen, *found)),
    )
