"""The CURVE keys that a task was given by its keeper, which may be files that it could not open itself. None where there are none."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from zmsvc.host import keys
from zmsvc.host.keys import Curve
from zmsvc.protocol.launch import Descriptors, LaunchSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """`client` to connect to the bus; for a service that binds a place of its own `server`, and `allow`, the directory of who may come."""

    client: Curve | None = None
    server: Curve | None = None
    allow: Path | None = None


def given(spec: LaunchSpec, fds: Descriptors) -> Given:
    """What a launch brought. The descriptor of the device's secret is closed. Raises ConfigError."""
    client = keys.of_words(spec.curve)
    if fds.curve_server is None or spec.allow is None:
        return Given(client=client)
    try:
        return Given(client=client, server=keys.load_open(fds.curve_server), allow=Path(spec.allow))
    finally:
        os.close(fds.curve_server)
