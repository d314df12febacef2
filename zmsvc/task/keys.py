"""The keys of a task: its CURVE keys, some of them from files that the task itself could not open, and the
members file.
"""

from __future__ import annotations

import os
from pathlib import Path

from zmsvc.core.frozen import frozen
from zmsvc.host.bus import curve_keys
from zmsvc.host.bus.curve_keys import Curve
from zmsvc.protocol.launch import Descriptors, LaunchSpec


@frozen
class TaskKeys:
    """The keys to connect to the bus (`client`), and access control for a service that binds an endpoint of
    its own.

    With CURVE, `server` is that endpoint's key pair and `allow` the directory of the public keys that may
    connect. Without CURVE, `members` is the file of the users that may connect by tcp.
    """

    client: Curve | None = None
    server: Curve | None = None
    allow: Path | None = None
    members: Path | None = None


def task_keys(spec: LaunchSpec, fds: Descriptors) -> TaskKeys:
    """Return the keys of a launch, and close the descriptor of the device's secret key. Raises
    ConfigError.
    """
    client = curve_keys.of_words(spec.curve)
    if fds.curve_server is None or spec.allow is None:
        return TaskKeys(client=client, members=Path(spec.members) if spec.members else None)
    try:
        return TaskKeys(client=client, server=curve_keys.load_open(fds.curve_server), allow=Path(spec.allow))
    finally:
        os.close(fds.curve_server)
