"""The CURVE keys that a context uses as long as its keeper lives: opened once, so that files which are replaced meanwhile, or gone, matter
at the next start only. The device's secret is never read here, because every task is a fork of this process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zmsvc.host import keys

SERVING = "server_fd"
"""Where the descriptor of the device's secret is told to a task that serves strangers itself, in its spec."""


class Keyring:
    """The keys in a directory. Raises ConfigError."""

    def __init__(self, directory: Path) -> None:
        self.allow = keys.clients(directory)
        self.client = keys.words(keys.load_client(directory))
        """What supervisor and tasks connect with; it goes to them over private lines alone."""
        self.server = keys.open_secret(directory / f"{keys.SERVER}{keys.SECRET}")

    def hand_to(self, spec: dict[str, Any]) -> None:
        """Add to a launch what its task needs: a program needs nothing, for it could not be told in secret."""
        if spec["service_type"] != "Command":
            spec["curve"] = self.client
            if spec["serves"]:
                spec["allow"] = str(self.allow)
                spec["fds"][SERVING] = self.server


def keyring(directory: Path) -> Keyring | None:
    """The keys of a context, None when it has none. Raises ConfigError when they cannot be used."""
    return Keyring(directory) if keys.in_use(directory) else None
