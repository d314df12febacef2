"""What a task was given to decide who may connect: CURVE keys, which may be files that it could not open
itself, and the members file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from zmsvc.host.bus import curve_keys
from zmsvc.host.bus.curve_keys import Curve
from zmsvc.protocol.launch import Descriptors, LaunchSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskKeys:
    """`client` to connect to the bus; the rest is for a service that binds a place of its own.

    With keys that are `server`, and `allow`, the directory of who may come; without them `members`, the file
    of who may come by tcp.
    """

    client: Curve | None = None
    server: Curve | None = None
    allow: Path | None = None
    members: Path | None = None


def given(spec: LaunchSpec, fds: Descriptors) -> TaskKeys:
    """What a launch brought. The descriptor of the device's secret is closed. Raises ConfigError."""
    client = curve_keys.of_words(spec.curve)
    if fds.curve_server is None or spec.allow is None:
        return TaskKeys(client=client, members=Path(spec.members) if spec.members else None)
    try:
        return TaskKeys(client=client, server=curve_keys.load_open(fds.curve_server), allow=Path(spec.allow))
    finally:
        os.close(fds.curve_server)
