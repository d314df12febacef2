"""The CURVE keys of a context. The keeper reads them once, so a key file that is replaced or removed has its
effect at the next start of the context. The keeper opens the device's secret key but never reads it: it
passes the descriptor on, and only the processes that serve clients have the key in memory.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from zmsvc.core.errors import ConfigError
from zmsvc.host.bus import curve_keys
from zmsvc.protocol.launch import Descriptors, LaunchSpec


class Keyring:
    """The CURVE keys of a directory. Raises ConfigError."""

    def __init__(self, directory: Path) -> None:
        self.allow = curve_keys.clients(directory)
        self.client = tuple(curve_keys.words(curve_keys.load_client(directory)))
        """The key pair with which the supervisor and the tasks connect. They get it only over private
        channels.
        """
        self.server = (
            curve_keys.open_secret(directory / f"{curve_keys.SERVER}{curve_keys.SECRET}")
            if curve_keys.in_use(directory)
            else None
        )
        """The device's secret key; None on a host that only runs tasks."""

    def keys_for(self, spec: LaunchSpec) -> tuple[LaunchSpec, Descriptors]:
        """Return the launch with the keys that its task needs, and their descriptors. A Command gets none,
        because its program could not receive them privately.

        Raises ConfigError for a task that serves clients on a host without the key for it.
        """
        if spec.service_type == "Command":
            return spec, Descriptors()
        if not spec.serves:
            return replace(spec, curve=self.client), Descriptors()
        if self.server is None:
            raise ConfigError([f"{spec.task} serves clients, and this host has no secret server key"])
        return replace(spec, curve=self.client, allow=str(self.allow)), Descriptors(curve_server=self.server)


def keyring(directory: Path, *, of_client: bool = False) -> Keyring | None:
    """Return the keys of a context, or None if it has none. `of_client` says that those of a client are
    enough: on a host that only runs tasks.

    Raises ConfigError if they are not usable, and PlaceError if another user could change them.
    """
    if curve_keys.of_client(directory) and of_client:
        curve_keys.check_client_place(directory)
        return Keyring(directory)
    if not curve_keys.in_use(directory):
        return None
    curve_keys.check_place(directory)
    return Keyring(directory)
