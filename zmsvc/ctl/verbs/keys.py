"""The verb keys: makes and shows the CURVE keys of a context, and decides which clients may connect. All
state is in the files.

`join` makes the keys of a machine that only connects: its own pair, together with the public key of the
device of the context.

Directories and public keys belong to the user who runs this verb. Secret files belong to the user of the
context, and only that user can read them.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from zmsvc.core.errors import ConfigError, PlaceError, reason
from zmsvc.ctl import terminal
from zmsvc.ctl.client import Client, CtlError, listens
from zmsvc.ctl.select_context import choose
from zmsvc.ctl.status_reply import ContextStatus
from zmsvc.host import directories, paths
from zmsvc.host.bus import curve_keys
from zmsvc.host.paths import Places

USER = "zmsvc"
"""The user of the unit."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:-]{0,63}")

Owner = tuple[int, int]


def run(args: argparse.Namespace) -> int:
    """keys: list, make, join, allow or revoke keys."""
    if args.now and args.action != "revoke":
        raise CtlError(2, "cannot understand the command: --now is for keys revoke")
    if (
        bool(args.what) != (args.action in ("join", "allow", "revoke"))
        and args.action != "make"
        and not args.now
    ):
        raise CtlError(
            2,
            f"cannot understand the command: keys {args.action} {'needs' if not args.what else 'takes no'} "
            f"FILE or CLIENT",
        )
    places = _selected_context(args)
    try:
        if args.action != "list":
            curve_keys.check_place(places.keys)
        _perform(args, places)
        _show(places, as_json=args.json)
    except (ConfigError, PlaceError) as error:
        raise CtlError(1, str(error)) from None
    except OSError as error:
        way = " (are you root?)" if isinstance(error, PermissionError) else ""
        raise CtlError(1, f"cannot {args.action} keys: {reason(error)}{way}") from None
    return 0


def _selected_context(args: argparse.Namespace) -> Places:
    """Return the selected context. A machine that only connects has no files of the context
    except its keys.
    """
    if args.action == "join" and args.context is None:
        raise CtlError(2, f"cannot join a context: name it (zmsvcctl -c NAME keys join {args.what})")
    if args.context is not None:
        places = paths.places(args.context)
        if args.action == "join" or curve_keys.of_client(places.keys):
            return places
    return choose(args.context)


def _perform(args: argparse.Namespace, places: Places) -> None:
    if args.action == "join":
        _join(places, Path(args.what))
        return
    if curve_keys.of_client(places.keys) and args.action != "list":
        raise CtlError(
            1,
            f"cannot {args.action} keys: {places.keys} has the keys of a client of {places.name}; type this "
            f"where {places.name} runs",
        )
    if args.action == "list" and curve_keys.of_client(places.keys):
        return
    if args.action != "make" and not curve_keys.in_use(places.keys):
        raise CtlError(
            1,
            f"cannot {args.action} keys: {places.name} has none in {places.keys} (zmsvcctl -c "
            f"{places.name} keys make)",
        )
    match args.action:
        case "make":
            _make_client(places, Path(args.what)) if args.what else _make(places)
        case "allow":
            _allow(places, Path(args.what))
        case "revoke":
            _revoke(places, args)


# --- what there is


def _show(places: Places, *, as_json: bool) -> None:
    """Print the device's public key, and those of the clients by name."""
    if curve_keys.of_client(places.keys):
        _show_client(places, as_json=as_json)
        return
    server, known = (
        curve_keys.load_trusted(places.keys / f"{curve_keys.SERVER}{curve_keys.PUBLIC}"),
        _clients(places),
    )
    if as_json:
        names = {name: key.decode() for name, key in known.items()}
        terminal.out(
            json.dumps({"directory": str(places.keys), "server": server.decode(), "clients": names}) + "\n"
        )
        return
    width = max(map(len, known), default=0)
    terminal.out(
        f"keys of {places.name} in {places.keys}\nserver: {server.decode()}\nclients that may connect:\n"
    )
    for name, key in known.items():
        terminal.out(f"  {name:<{width}}  {key.decode()}\n")


def _show_client(places: Places, *, as_json: bool) -> None:
    """Print the device's public key, and that of this machine's client."""
    own = curve_keys.load_client(places.keys)
    assert own.server_public is not None
    if as_json:
        shown = {
            "directory": str(places.keys),
            "server": own.server_public.decode(),
            "client": own.public.decode(),
        }
        terminal.out(json.dumps(shown) + "\n")
        return
    terminal.out(f"keys of a client of {places.name} in {places.keys}\n")
    terminal.out(f"server: {own.server_public.decode()}\nclient: {own.public.decode()}\n")


def _clients(places: Places) -> Mapping[str, bytes]:
    found = {}
    for file in sorted(curve_keys.clients(places.keys).glob(f"*{curve_keys.PUBLIC}")):
        try:
            found[file.stem] = curve_keys.load_trusted(file)
        except ConfigError as error:
            terminal.complain(str(error))
    return found


# --- make


def _make(places: Places) -> None:
    """Make the device's pair and the context's own client pair."""
    if curve_keys.in_use(places.keys):
        raise CtlError(
            1,
            f"cannot make keys: {places.keys} has them already (to replace all, move it away, make new ones, "
            f"and restart {places.name})",
        )
    owner = _owner(places)
    with (
        _directory(places.keys.parent, make=True),
        _directory(places.keys, make=True) as keys,
        _directory(curve_keys.clients(places.keys), make=True) as clients,
    ):
        own = _write_pair(keys, curve_keys.CLIENT, owner)
        _write_public(clients, curve_keys.OWN, own)
        # This pair comes last, because it marks the keys as complete.
        _write_pair(keys, curve_keys.SERVER, owner)
    if listens(places):
        terminal.complain(
            f"{places.name} is running: its keys are used from its next start on (systemctl restart "
            f"zmsvc@{places.name})"
        )


def _join(places: Places, file: Path) -> None:
    """Make the keys of a machine that only connects, for the device with this public key. The secret key
    never leaves the machine.
    """
    if file.name.endswith(curve_keys.SECRET):
        raise CtlError(
            1,
            f"cannot join {places.name} with {file}: it is a secret key, expected the public one, "
            f"{curve_keys.SERVER}{curve_keys.PUBLIC}",
        )
    if curve_keys.in_use(places.keys) or curve_keys.of_client(places.keys):
        raise CtlError(
            1,
            f"cannot join {places.name}: there are keys in {places.keys} already (move them away to make "
            f"others)",
        )
    server = curve_keys.load_public(file)
    with _directory(places.keys.parent, make=True), _directory(places.keys, make=True) as keys:
        _write_public(keys, curve_keys.SERVER, server)
        _write_pair(keys, curve_keys.CLIENT, None)
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", socket.gethostname().partition(".")[0]) or "client"
    terminal.complain(
        f"where {places.name} runs: copy {places.keys}/{curve_keys.CLIENT}{curve_keys.PUBLIC} there as "
        f"{name}{curve_keys.PUBLIC}, and type "
        f"zmsvcctl -c {places.name} keys allow {name}{curve_keys.PUBLIC}"
    )


def _make_client(places: Places, directory: Path) -> None:
    """Make a directory with the keys for a client on another machine, and allow its key."""
    name = _client_name(directory.absolute().name)
    if not curve_keys.in_use(places.keys):
        _make(places)
    if directory.exists():
        raise CtlError(1, f"cannot make keys in {directory}: it exists, expected the name of a new directory")
    _check_new_name(places, name)
    server = curve_keys.load_public(places.keys / f"{curve_keys.SERVER}{curve_keys.PUBLIC}")
    with _new_directory(directory) as made:
        public = _write_pair(made, curve_keys.CLIENT, None)
        _write_public(made, curve_keys.SERVER, server)
    _add_client(places, name, public)


def _owner(places: Places) -> Owner | None:
    """Return the owner of the secret files that root makes: the owner of the context's state, else the user
    of the unit. None means the current user.
    """
    if os.geteuid():
        return None
    try:
        about = places.state.stat()
        return about.st_uid, about.st_gid
    except OSError:
        pass
    try:
        entry = pwd.getpwnam(USER)
    except KeyError:
        return None
    return entry.pw_uid, entry.pw_gid


def _write_pair(directory: int, name: str, owner: Owner | None) -> bytes:
    """Write a new pair; return the public key."""
    # Imported here for start-up time: only making keys needs ZMQ.
    import zmq

    public, secret = zmq.curve_keypair()
    _write_public(directory, name, public)
    content = curve_keys.text(public, secret)
    _write(directory, f"{name}{curve_keys.SECRET}", content, curve_keys.SECRET_MODE, owner)
    return public


# --- who may connect


def _allow(places: Places, file: Path) -> None:
    name = _client_name(file.name.removesuffix(curve_keys.SECRET).removesuffix(curve_keys.PUBLIC))
    _check_new_name(places, name)
    _add_client(places, name, curve_keys.load_public(file))


def _check_new_name(places: Places, name: str) -> None:
    if (curve_keys.clients(places.keys) / f"{name}{curve_keys.PUBLIC}").exists():
        raise CtlError(
            1,
            f"cannot allow {name}: there is a client of that name (zmsvcctl -c {places.name} keys revoke "
            f"{name})",
        )


def _add_client(places: Places, name: str, public: bytes) -> None:
    # Only the public key is copied; the file may also contain the secret one.
    with _directory(curve_keys.clients(places.keys)) as clients:
        _write_public(clients, name, public)


def _revoke(places: Places, args: argparse.Namespace) -> None:
    if args.what:
        _remove_client(places, args.what)
    if not listens(places):
        return
    if args.now:
        _disconnect_all(Client(places, args.timeout))
        return
    terminal.complain(
        f"{args.what} cannot connect again; an open connection stays until it or {places.name} ends "
        f"(zmsvcctl -c {places.name} keys revoke --now ends all open ones)"
    )


def _remove_client(places: Places, name: str) -> None:
    if name == curve_keys.OWN:
        raise CtlError(
            1,
            f"cannot revoke {name}: it is the context's own key, with which its tasks connect (to replace "
            f"all keys, move {places.keys} away, make new ones, and restart {places.name})",
        )
    file = f"{_client_name(name)}{curve_keys.PUBLIC}"
    try:
        with _directory(curve_keys.clients(places.keys)) as clients:
            os.unlink(file, dir_fd=clients)
            os.fsync(clients)
    except FileNotFoundError:
        raise CtlError(
            1, f"cannot revoke {name}: there is no such client (zmsvcctl -c {places.name} keys)"
        ) from None


def _disconnect_all(client: Client) -> None:
    """End each connection to the bus and to the Monitors. Allowed clients reconnect, as after a crash of the
    device.
    """
    client.ask("restart-device")
    for transaction in ContextStatus(client.ask("status")).transactions:
        tasks = [
            task.id for task in transaction.tasks if task.instance == "Monitor" and task.state == "active"
        ]
        if tasks:
            client.ask("restart", transaction=transaction.id, tasks=tasks, triggers=False)


def _client_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise CtlError(
            2, f"cannot use {name!r} as the name of a client: letters, digits and _ . @ : - are allowed"
        )
    return name


# --- files


@contextmanager
def _directory(path: Path, *, make: bool = False) -> Iterator[int]:
    """Yield a descriptor of a directory that only root and this user can change. What is opened relative to
    it is in that directory, even if another user puts something else at its path meanwhile. With `make`,
    create the directory if it is missing, and let all users enter it: the user of the context needs the
    secret files, and tasks need the public ones. Raises PlaceError, OSError.
    """
    try:
        fd = directories.make(path, 0o755) if make else directories.hold(path, os.geteuid())
    except PlaceError as error:
        raise PlaceError(f"cannot use CURVE keys: {error}", owner=error.owner) from error
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _new_directory(path: Path) -> Iterator[int]:
    """Make a directory for this user alone, wherever the user wants it, and yield a descriptor of it."""
    path.mkdir(mode=0o700)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        about = os.fstat(fd)
        if about.st_uid != os.geteuid() or directories.writers(about):
            raise PlaceError(f"cannot make keys in {path}: another user has replaced the directory")
        yield fd
    finally:
        os.close(fd)


def _write_public(directory: int, name: str, public: bytes) -> None:
    _write(directory, f"{name}{curve_keys.PUBLIC}", curve_keys.text(public), curve_keys.PUBLIC_MODE)


def _write(directory: int, name: str, content: str, mode: int, owner: Owner | None = None) -> None:
    """Write a new file. It gets its name when content, mode and owner are complete. When this returns, it is
    on the disk.
    """
    draft = f".{name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(draft, flags, 0o600, dir_fd=directory)
    try:
        with os.fdopen(fd, "w") as stream:
            stream.write(content)
            stream.flush()
            if owner:
                os.fchown(fd, *owner)
            os.fchmod(fd, mode)
            os.fsync(fd)
        os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=directory)
        raise
    os.fsync(directory)
