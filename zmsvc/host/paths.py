"""Compute the paths of contexts: those of root, of a user, of a unit of systemd, and those of the variables
ZMSVC_*_DIR. This module creates no directory but the private root in /tmp.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from zmsvc.core.errors import PlaceError, UsageError

CONTEXT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}")
"""The pattern of a context's name, which becomes a directory, a unit's instance and a journal field."""


class Places:
    """The paths of one context. Not a dataclass: importing `dataclasses` takes as long as all the rest of
    `zmsvcctl status`.
    """

    __slots__ = ("config_file", "name", "notify_socket", "runtime", "state")

    def __init__(self, *, name: str, config_file: Path, runtime: Path, state: Path) -> None:
        self.name = name
        self.config_file = config_file
        self.runtime = runtime
        self.state = state
        self.notify_socket = runtime / "notify.sock"

    @property
    def control_socket(self) -> Path:
        return self.runtime / "control.sock"

    @property
    def context_mark(self) -> bytes:
        """The variable by which the processes of this context are known: all of them have it in their
        environment, and no others.
        """
        return b"NOTIFY_SOCKET=" + os.fsencode(self.notify_socket)

    @property
    def subscribe_socket(self) -> Path:
        """The socket at which tasks of the context subscribe. If the context file has no endpoints, all
        clients do.
        """
        return self.runtime / "sub"

    @property
    def publish_socket(self) -> Path:
        """The socket at which tasks of the context publish. If the context file has no endpoints, all clients
        do.
        """
        return self.runtime / "pub"

    @property
    def members_file(self) -> Path:
        """The file of the users that may connect to the bus by tcp without keys. The supervisor writes it for
        the device.
        """
        return self.runtime / "bus.members"

    @property
    def lock_file(self) -> Path:
        return self.runtime / "zmsvcd.lock"

    @property
    def pid_file(self) -> Path:
        return self.runtime / "zmsvcd.pid"

    @property
    def keys(self) -> Path:
        """The directory of the context's keys. It depends on the name alone, so every client that knows the
        name finds it.
        """
        return keys_dir(self.name)

    @property
    def state_file(self) -> Path:
        return self.state / "state.db"

    @property
    def record(self) -> Path:
        """The directory of the record, if the context file has `<record>`."""
        return self.state / "record"

    @property
    def log_file(self) -> Path:
        return self.state / "zmsvcd.log"


def _base(override: str, system: str, xdg: str, home: str) -> Path:
    if given := os.environ.get(override):
        return Path(given).absolute()
    if os.geteuid() == 0:
        return Path(system)
    base = os.environ.get(xdg)
    return (Path(base) if base else Path(os.path.expanduser(home))) / "zmsvc"


def config_dir() -> Path:
    """Return the directory of `Context-NAME.xml` files."""
    return _base("ZMSVC_CONFIG_DIR", "/etc/zmsvc", "XDG_CONFIG_HOME", "~/.config")


def keys_dir(name: str) -> Path:
    """Return the directory of a context's CURVE keys, if it has any."""
    return config_dir() / "keys" / name


def runtime_root() -> Path:
    """Return the parent of every context's runtime directory. For a user without XDG_RUNTIME_DIR it is
    `/tmp/zmsvc-UID`, mode 0700.

    Raises PlaceError if another user created that directory, or may read or change it. The same applies if
    another user may change XDG_RUNTIME_DIR.
    """
    private = _private_root()
    if private is None:
        _check_given()
        return _base("ZMSVC_RUNTIME_DIR", "/run/zmsvc", "XDG_RUNTIME_DIR", "")
    try:
        about = private.lstat()
    except FileNotFoundError:
        return private
    if not stat.S_ISDIR(about.st_mode) or (about.st_uid, stat.S_IMODE(about.st_mode)) != (
        os.geteuid(),
        0o700,
    ):
        kind = (
            "a directory"
            if stat.S_ISDIR(about.st_mode)
            else "a link"
            if stat.S_ISLNK(about.st_mode)
            else "a file"
        )
        raise PlaceError(
            f"cannot use {private}: it is {kind} of uid {about.st_uid} with mode "
            f"{stat.S_IMODE(about.st_mode):04o}, expected a directory "
            f"of uid {os.geteuid()} with mode 0700: set XDG_RUNTIME_DIR to a directory that only you can use",
            owner=about.st_uid,
        )
    return private


def _check_given() -> None:
    """Check XDG_RUNTIME_DIR if it is used. For root any owner is permitted: `su` without `-` leaves the
    variable set.
    """
    given = os.environ.get("XDG_RUNTIME_DIR")
    if not given or os.environ.get("ZMSVC_RUNTIME_DIR") or not os.geteuid():
        return
    try:
        link, about = os.lstat(given), os.stat(given)
    except OSError:
        return
    if {link.st_uid, about.st_uid} - {0, os.geteuid()} or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PlaceError(
            f"cannot use XDG_RUNTIME_DIR={given}: it is a directory of uid {about.st_uid} with mode "
            f"{stat.S_IMODE(about.st_mode):04o}, "
            f"expected one of uid {os.geteuid()} that only you can change",
            owner=about.st_uid,
        )


def _private_root() -> Path | None:
    """Return the directory in /tmp, whose name any user could take; None if another directory is used."""
    if os.environ.get("ZMSVC_RUNTIME_DIR") or os.environ.get("XDG_RUNTIME_DIR") or not os.geteuid():
        return None
    return Path(f"/tmp/zmsvc-{os.geteuid()}")


def make_private_root(below: Path) -> None:
    """Create /tmp/zmsvc-UID with mode 0700 if `below` lies in it; `mkdir(parents=True)` would use the default
    mode. Raises PlaceError, OSError.
    """
    private = _private_root()
    if private is not None and private in below.parents:
        try:
            os.mkdir(private, 0o700)
        except FileExistsError:
            pass
        runtime_root()


def state_root() -> Path:
    """Return the parent of every context's state directory."""
    return _base("ZMSVC_STATE_DIR", "/var/lib/zmsvc", "XDG_STATE_HOME", "~/.local/state")


def service_path() -> list[Path]:
    """Return the directories to search, in order, for services without a `location` in the context file."""
    if given := os.environ.get("ZMSVC_SERVICE_PATH"):
        return [Path(part).absolute() for part in given.split(":") if part]
    system = [
        Path("/etc/zmsvc/services"),
        Path("/usr/local/lib/zmsvc/services"),
        Path("/usr/lib/zmsvc/services"),
    ]
    if os.geteuid():
        data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
        system.insert(0, Path(data) / "zmsvc" / "services")
    return [*system, Path(__file__).parent.parent / "data" / "examples" / "Services"]


def directory_of(location: str | None, instance: str) -> Path | None:
    """Return the directory in which a task will find its service; None if there is none. The services of
    zmsvc itself are in no directory.
    """
    searched = [Path(location)] if location else service_path()
    file = f"{instance}/Service{instance}.py"
    return next((each for each in searched if (each / file).is_file()), None)


def places(target: str) -> Places:
    """Return the paths of a context, given as NAME or as FILE.xml. `Context-NAME.xml` means NAME, any other
    file its stem.

    Raises UsageError for an invalid name.
    """
    if target.endswith(".xml") or "/" in target:
        config_file = Path(target).absolute()
        name = config_file.stem.removeprefix("Context-")
    else:
        name, config_file = target, config_dir() / f"Context-{target}.xml"
    if not CONTEXT_NAME.fullmatch(name):
        raise UsageError(
            f"cannot use {name!r} as the name of a context: letters, digits and _ . : - are allowed"
        )
    return Places(
        name=name,
        config_file=config_file,
        runtime=_of_unit("RUNTIME_DIRECTORY", "ZMSVC_RUNTIME_DIR", name) or runtime_root() / name,
        state=_of_unit("STATE_DIRECTORY", "ZMSVC_STATE_DIR", name) or state_root() / name,
    )


HOSTS = ".hosts"
"""The directory, beside those of contexts, for a host that runs tasks of a context whose supervisor may be on
another one. No context has such a name.
"""


def places_on_host(target: str) -> Places:
    """Return the paths of a context on a host that runs tasks for it. The supervisor may be on the same
    machine, so they differ from those of the supervisor. Raises UsageError.
    """
    own = places(target)
    return Places(
        name=own.name,
        config_file=own.config_file,
        runtime=runtime_root() / HOSTS / own.name,
        state=state_root() / HOSTS / own.name,
    )


def _of_unit(variable: str, override: str, name: str) -> Path | None:
    """Return the directory that systemd has created for this unit, if that is the unit of this context. An
    explicit override takes precedence.
    """
    given = os.environ.get(variable, "").split(":")[0]
    if not given or os.environ.get(override) or Path(given).name != name:
        return None
    return Path(given)


def known_contexts() -> dict[str, Path]:
    """Return every context with a file in the configuration directory, by name."""
    files = sorted(_found(config_dir(), "Context-*.xml"))
    return {file.stem.removeprefix("Context-"): file for file in files}


def past_contexts() -> list[str]:
    """Return the names of contexts with a state file: they have run before, wherever their context files
    are.
    """
    return sorted(
        path.parent.name
        for path in _found(state_root(), "*/state.db")
        if CONTEXT_NAME.fullmatch(path.parent.name)
    )


def control_socket(name: str) -> Path:
    """Return the path of the control socket of a context: in the directory of this unit, or that of this
    user, or else that of the system.
    """
    if (own := _of_unit("RUNTIME_DIRECTORY", "ZMSVC_RUNTIME_DIR", name)) is not None:
        return own / "control.sock"
    found = [path for path in _control_sockets() if path.parent.name == name]
    return found[0] if found else runtime_root() / name / "control.sock"


def running_contexts() -> list[str]:
    """Return the names of contexts with a control socket. The caller has to find out if a supervisor
    answers.
    """
    return sorted({path.parent.name for path in _control_sockets()})


def _control_sockets() -> list[Path]:
    """Return all control sockets, those of this user first. Those of the system are open to the group of
    their daemon.
    """
    roots = [runtime_root()]
    if not os.environ.get("ZMSVC_RUNTIME_DIR"):
        roots.append(Path("/run/zmsvc"))
    return [path for root in roots for path in _found(root, "*/control.sock")]


def _found(directory: Path, pattern: str) -> list[Path]:
    """Return the matching files in a directory; none if we may not read it, for example that of root after
    `su` without `-`.
    """
    try:
        return list(directory.glob(pattern))
    except PermissionError:
        return []
