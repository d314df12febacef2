"""The CURVE keys of a context. The keeper reads them once, so a key file that is replaced or removed has its
effect at the next start of the context. The keeper opens the device's secret key but never reads it: it
passes the descriptor on, and only the processes that serve clients have the key in memory.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

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
        self.server = curve_keys.open_secret(directory / f"{curve_keys.SERVER}{curve_keys.SECRET}")

    def keys_for(self, spec: LaunchSpec) -> tuple[LaunchSpec, Descriptors]:
        """Return the launch with the keys that its task needs, and their descriptors. A Command gets none,
        because its program could not receive them privately.
        """
        if spec.service_type == "Command":
            return spec, Descriptors()
        if not spec.serves:
            return replace(spec, curve=self.client), Descriptors()
        return replace(spec, curve=self.client, allow=str(self.allow)), Descriptors(curve_server=self.server)


def keyring(directory: Path) -> Keyring | None:
    """Return the keys of a context, or None if it has none.

    Raises ConfigError if they are not usable, and PlaceError if another user could change them.
    """
    if not curve_keys.in_use(directory):
        return None
    curve_keys.check_place(directory)
    return Keyring(directory)
