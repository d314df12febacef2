"""Check the versions of the libraries that zmsvc needs, before they are imported. This module imports next to
nothing, because zmsvcctl calls it each time.

A version is read from the name of a distribution's metadata, such as `pyzmq-24.0.1.dist-info`. This takes 0.4
ms for all; importing importlib.metadata alone takes 40 ms.
"""

from __future__ import annotations

import os
import sys

from zmsvc.core.errors import RequirementError

LOWEST = {"pyzmq": "24", "psutil": "5.9", "lxml": "4.9", "sdnotify": "0.3.1", "python-daemon": "2.3"}
"""The lowest versions, as in setup.cfg; a test compares them."""

_MODULES = {"pyzmq": "zmq", "python-daemon": "daemon"}
_DEBIAN = {"pyzmq": "python3-zmq", "python-daemon": "python3-daemon"}


def check() -> None:
    """Raise RequirementError for the first library that is not installed or too old."""
    found = _installed()
    for name, lowest in LOWEST.items():
        version = found.get(name) or _version_by_metadata(name)
        if version is None:
            raise RequirementError(
                f"cannot run: {name} is not installed for {sys.executable} ({_way_out(name)})"
            )
        if version and _numbers(version) < _numbers(lowest):
            raise RequirementError(f"cannot run: {name} {version} is older than {lowest} ({_way_out(name)})")


def _installed() -> dict[str, str]:
    """Return the versions of our libraries. The first directory of the module search path counts, and within
    a directory the higher version.
    """
    found: dict[str, str] = {}
    for directory in sys.path:
        try:
            entries = os.listdir(directory or ".")
        except OSError:
            continue
        here: dict[str, str] = {}
        for entry in entries:
            if entry.endswith("-info"):
                # NAME-VERSION.dist-info; NAME-VERSION[-py3.N].egg-info
                name, _, rest = entry.rpartition(".")[0].partition("-")
                name, version = name.lower().replace("_", "-"), rest.partition("-")[0]
                if name in LOWEST and _numbers(version) >= _numbers(here.get(name, "")):
                    here[name] = version
        found = here | found
    return found


def _version_by_metadata(name: str) -> str | None:
    """Return the version of a library by importlib.metadata; "" for an unknown version; None without such a
    library.
    """
    # Imported here because it takes 40 ms and is hardly ever needed.
    from importlib import metadata, util

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "" if util.find_spec(_MODULES.get(name, name)) else None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the release part of a version: (25, 1) for 25.1rc2."""
    numbers = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


def _way_out(name: str) -> str:
    return f"apt-get install {_DEBIAN.get(name, f'python3-{name}')}, or pip install '{name}>={LOWEST[name]}'"
