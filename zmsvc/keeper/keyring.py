"""The CURVE keys that a context uses as long as its keeper lives: opened once, so that files which are
replaced meanwhile, or gone, matter at the next start only. The device's secret is never read here, because
every task is a fork of this process.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from zmsvc.host.bus import curve_keys
from zmsvc.protocol.launch import Descriptors, LaunchSpec


class Keyring:
    """The keys in a directory. Raises ConfigError."""

    def __init__(self, directory: Path) -> None:
        self.allow = curve_keys.clients(directory)
        self.client = tuple(curve_keys.words(curve_keys.load_client(directory)))
        """What supervisor and tasks connect with; it goes to them over private lines alone."""
        self.server = curve_keys.open_secret(directory / f"{curve_keys.SERVER}{curve_keys.SECRET}")

    def hand_to(self, spec: LaunchSpec) -> tuple[LaunchSpec, Descriptors]:
        """Return a launch with what its task needs: a program needs nothing, for it could not be told in
        secret.
        """
        if spec.service_type == "Command":
            return spec, Descriptors()
        if not spec.serves:
            return replace(spec, curve=self.client), Descriptors()
        return replace(spec, curve=self.client, allow=str(self.allow)), Descriptors(curve_server=self.server)


def keyring(directory: Path) -> Keyring | None:
    """The keys of a context, None when it has none.

    Raises ConfigError when they cannot be used, PlaceError when another user could change them.
    """
    if not curve_keys.in_use(directory):
        return None
    curve_keys.check_place(directory)
    return Keyring(directory)
