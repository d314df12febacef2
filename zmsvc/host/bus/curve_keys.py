"""Read and write CURVE keys and their files, in ZeroMQ's usual form (ZPL, as in `zmq.auth`). This module
creates no sockets.

The directory of a context's keys has `server.key` and `client.key`, each with its `.key_secret`, and
`clients/` with the public keys that may connect. A machine that runs only clients has a directory of the same
form, with the public key of the server and its own client pair. So neither secret key leaves its machine.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from zmsvc.core.errors import ConfigError, PlaceError
from zmsvc.core.frozen import frozen
from zmsvc.host import directories

SERVER = "server"
CLIENT = "client"
OWN = "context"
"""The name, in `clients/`, of the context's own key, with which supervisor, tasks and zmsvcctl connect."""
PUBLIC = ".key"
SECRET = ".key_secret"
PUBLIC_MODE = 0o644
SECRET_MODE = 0o600

_ENTRY = re.compile(r"^[ \t]+(public|secret)-key[ \t]*=[ \t]*[\"']?([!-~]{40})[\"']?[ \t]*$", re.MULTILINE)
_MAX = 65536


@frozen
class Curve:
    """CURVE keys as 40 bytes of Z85: our own pair and, for a client, the public key of the device."""

    public: bytes
    secret: bytes
    server_public: bytes | None = None

    def __repr__(self) -> str:
        """Omit the secret key: the text may go to a log."""
        return f"Curve(public={self.public!r})"


def load_curve(file: Path, server: Path | None = None) -> Curve:
    """Read our pair from `file` (public-key and secret-key), and the device's public key from `server`.
    Raises ConfigError.
    """
    return _pair(_read(file), file, load_trusted(server) if server else None)


def load_public(file: Path) -> bytes:
    """Return the public key of a file. Raises ConfigError."""
    return _parsed(_read(file), file)[0]


def load_trusted(file: Path) -> bytes:
    """Return the public key of a file that decides which peers we trust. Raises ConfigError, also if other
    users may write the file.
    """
    return _parsed(_read(file, kept=True), file)[0]


def load_open(fd: int) -> Curve:
    """Return a pair from an open file, for a process that may not open it itself. Raises ConfigError."""
    return _pair(os.pread(fd, _MAX, 0).decode("utf-8", "replace"), Path(f"descriptor {fd}"))


def words(curve: Curve) -> list[str]:
    """Return a client's keys as JSON. Send them only over a private channel."""
    return [key.decode("ascii") for key in (curve.public, curve.secret, curve.server_public or b"")]


def of_words(words: Sequence[str] | None) -> Curve | None:
    """Return the keys that `words` has encoded; None for None."""
    if words is None:
        return None
    public, secret, server = (key.encode("ascii") for key in words)
    return Curve(public=public, secret=secret, server_public=server or None)


def in_use(directory: Path) -> bool:
    """Return True if there are keys, so that the context uses CURVE. An unreadable file counts, since
    otherwise the context would silently run without CURVE.
    """
    return os.path.lexists(directory / f"{SERVER}{SECRET}")


def of_client(directory: Path) -> bool:
    """Return True if the directory is that of a machine that runs only clients."""
    return not in_use(directory) and os.path.lexists(directory / f"{CLIENT}{SECRET}")


def clients(directory: Path) -> Path:
    """Return the directory of the public keys that may connect."""
    return directory / "clients"


def check_place(directory: Path) -> None:
    """Raise PlaceError if another user could change which clients may connect, or redirect what we write
    here.
    """
    for place in (directory.parent, directory, clients(directory)):
        if os.path.lexists(place):
            try:
                os.close(directories.hold(place, os.geteuid()))
            except PlaceError as error:
                raise PlaceError(f"cannot use CURVE keys: {error}", owner=error.owner) from error


def check_client_place(directory: Path) -> None:
    """Raise ConfigError if another user could replace the device's public key that a client trusts."""
    try:
        directories.check_read(directory)
    except PlaceError as error:
        raise ConfigError([f"cannot use CURVE keys: {error}"]) from error
    except OSError as error:
        raise ConfigError([_unreadable(directory, error)]) from error


def load_client(directory: Path) -> Curve:
    """Return the keys of a client: its own pair and the device's public key. Raises ConfigError."""
    return load_curve(directory / f"{CLIENT}{SECRET}", directory / f"{SERVER}{PUBLIC}")


def open_secret(file: Path) -> int:
    """Return a descriptor of a secret file. Raises ConfigError, also if other users may read the file."""
    fd = _open(file)
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if mode & 0o077:
        os.close(fd)
        raise ConfigError(
            [f"cannot use CURVE key {file}: others may read it (mode {mode:04o}; chmod 600 {file})"]
        )
    return fd


def _open(file: Path) -> int:
    # O_NONBLOCK: a FIFO in its place must not block this process.
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError([_unreadable(file, error)]) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ConfigError([f"cannot read CURVE keys: {file} is not a regular file (replace it by a copy)"])
    return fd


def _read(file: Path, *, kept: bool = False) -> str:
    fd = open_secret(file) if file.name.endswith(SECRET) else _open(file)
    try:
        about = os.fstat(fd)
        if kept and (others := directories.writers(about)):
            mode = stat.S_IMODE(about.st_mode)
            raise ConfigError(
                [
                    f"cannot use CURVE key {file}: it may be changed by {others} (mode {mode:04o}; chmod "
                    f"go-w {file})"
                ]
            )
        return os.pread(fd, _MAX, 0).decode("utf-8", "replace")
    except OSError as error:
        raise ConfigError([_unreadable(file, error)]) from error
    finally:
        os.close(fd)


def _unreadable(file: Path, error: OSError) -> str:
    why = (error.strerror or str(error)).lower()
    if isinstance(error, PermissionError):
        try:
            why += f"; it belongs to uid {file.stat().st_uid}, and this is uid {os.geteuid()}"
        except OSError:
            pass
    way = " (zmsvcctl keys make, or keys join for a client)" if isinstance(error, FileNotFoundError) else ""
    return f"cannot read CURVE keys: {file}: {why}{way}"


def _pair(text: str, file: Path, server_public: bytes | None = None) -> Curve:
    public, secret = _parsed(text, file)
    if secret is None:
        raise ConfigError(
            [f"cannot read CURVE keys: {file} has no secret-key (is it a copy of the {PUBLIC} file?)"]
        )
    return Curve(public=public, secret=secret, server_public=server_public)


def _parsed(text: str, file: Path) -> tuple[bytes, bytes | None]:
    """Return the public and the secret key from the section `curve`. The text before that section is a
    comment.
    """
    _, _, section = f"\n{text}".partition("\ncurve")
    found = {kind: key.encode("ascii") for kind, key in _ENTRY.findall(section)}
    if "public" not in found:
        raise ConfigError(
            [
                f"cannot read CURVE keys: {file} has no public-key of 40 characters (copy it again, or "
                f"make new keys)"
            ]
        )
    return found["public"], found.get("secret")


def text(public: bytes, secret: bytes | None = None) -> str:
    """Return the content of a key file, as `zmq.auth` writes it."""
    kind = "secret key, for its owner alone" if secret else "public key, for everybody"
    entries = [f'    public-key = "{public.decode()}"']
    entries += [f'    secret-key = "{secret.decode()}"'] if secret else []
    return f"#   A CURVE {kind}\n\nmetadata\ncurve\n" + "\n".join(entries) + "\n"
