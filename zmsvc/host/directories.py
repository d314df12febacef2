"""Create directories that only this user can change, check each step of a path from the root, and open files
without following links.

This prevents two attacks: another user creates a directory in /tmp first, and a task of another user leaves
links in a directory that root uses later. `paths` has the names of the directories.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from pathlib import Path

from zmsvc.core.errors import PlaceError
from zmsvc.host import paths

_MAX_LINKS = 40
"""The number of links that the kernel follows in one path."""


def claim(directory: Path, mode: int) -> None:
    """Create a directory if it is missing, and check it. Raises PlaceError for a wrong owner or mode,
    OSError.
    """
    paths.make_private_root(directory)
    directory.mkdir(parents=True, exist_ok=True, mode=mode)
    check(directory)


def check(directory: Path) -> None:
    """Raise PlaceError unless the directory belongs to this user, and no one but this user and root can make
    its path lead elsewhere.
    """
    about = os.lstat(_resolve(directory, _trusted()))
    if about.st_uid != os.geteuid():
        raise PlaceError(
            f"{directory} belongs to {user(about.st_uid)}, and this is {user(os.geteuid())}",
            owner=about.st_uid,
        )
    if others := writers(about):
        raise PlaceError(
            f"{directory} may be changed by {others} (mode {stat.S_IMODE(about.st_mode):04o}; chmod go-w "
            f"{directory})"
        )


def check_file(path: str | Path, about: os.stat_result) -> None:
    """Raise PlaceError if a user other than root and this one could change or replace the file.

    The file may belong to the user who ran `sudo`, and to the owner of this program, who could change the
    program as well.
    """
    trusted = _trusted_with_files()
    if about.st_uid not in trusted:
        raise PlaceError(f"it belongs to {user(about.st_uid)}", owner=about.st_uid)
    if others := writers(about):
        raise PlaceError(
            f"it may be changed by {others} (mode {stat.S_IMODE(about.st_mode):04o}; chmod go-w {path})"
        )
    _resolve(Path(path).absolute(), trusted)


def check_directory_of_files(directory: Path) -> None:
    """Raise PlaceError if a user whose files `check_file` refuses could add a file to a directory. Raises
    OSError.
    """
    os.close(_hold(directory, _trusted_with_files()))


def _trusted_with_files() -> set[int]:
    return _trusted() | _typed() | {os.stat(__file__).st_uid}


def _resolve(path: Path, trusted: set[int]) -> str:
    """Resolve a path, and check each directory and link on the way. Links of root are permitted:
    DynamicUser= creates some.
    """
    resolved, pending, links = "/", _parts(path), 0
    while pending:
        _check_step(resolved, path, trusted)
        name = pending.pop()
        if name == "..":
            resolved = os.path.dirname(resolved)
            continue
        step = os.path.join(resolved, name)
        about = os.lstat(step)
        if not stat.S_ISLNK(about.st_mode):
            resolved = step
            continue
        links += 1
        if about.st_uid not in trusted or links > _MAX_LINKS:
            raise PlaceError(
                f"{path} leads through the link {step} of {user(about.st_uid)}", owner=about.st_uid
            )
        target = os.readlink(step)
        resolved = "/" if target.startswith("/") else resolved
        pending += _parts(target)
    return resolved


def _parts(path: str | Path) -> list[str]:
    """Return the names in a path, the last one first."""
    return [name for name in os.fspath(path).split("/") if name not in ("", ".")][::-1]


def _check_step(directory: str, path: Path, trusted: set[int]) -> None:
    about = os.lstat(directory)
    if about.st_uid not in trusted:
        raise PlaceError(
            f"{path} is below {directory}, which belongs to {user(about.st_uid)}", owner=about.st_uid
        )
    # In a sticky directory, such as /tmp, a user cannot replace files of another user.
    if not about.st_mode & stat.S_ISVTX and (others := writers(about)):
        raise PlaceError(
            f"{path} is below {directory}, which may be changed by {others} (mode "
            f"{stat.S_IMODE(about.st_mode):04o})"
        )


def _trusted() -> set[int]:
    """Return root, this user, and the owner of the root directory, which may be another one in a user
    namespace.
    """
    return {0, os.geteuid(), os.stat("/").st_uid}


def _typed() -> set[int]:
    """Return the user who ran `sudo`, if any."""
    typed = os.environ.get("SUDO_UID", "")
    return {int(typed)} if typed.isdecimal() else set()


def writers(about: os.stat_result) -> str:
    """Return a description of the users other than the owner who may write; empty if there are none."""
    if about.st_mode & stat.S_IWOTH:
        return "everybody"
    if about.st_mode & stat.S_IWGRP and not _private(about.st_gid):
        return f"group {group(about.st_gid)}"
    return ""


def _private(gid: int) -> bool:
    """Return True if this user is the only member of a group: many systems give each user a group of the same
    name, and umask 002.
    """
    if gid == 0:
        return True
    try:
        own, entry = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return own.pw_gid == gid and entry.gr_name == own.pw_name and set(entry.gr_mem) <= {own.pw_name}


def user(uid: int) -> str:
    """Return a user's description: `user NAME`, or `uid NUMBER` without a name."""
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"uid {uid}"


def group(gid: int) -> str:
    """Return the name of a group, or its number."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def hold(directory: Path, owner: int) -> int:
    """Return a descriptor of a directory that only `owner`, this user and root can change. Raises PlaceError,
    OSError.

    A file opened relative to the descriptor is in that directory, even if the path changes in the meantime.
    """
    return _hold(directory, _trusted() | {owner})


def check_read(directory: Path) -> None:
    """Raise PlaceError if another user could change the files in a directory. The directory may belong to the
    user who ran `sudo`.

    Raises OSError.
    """
    os.close(_hold(directory, _trusted() | _typed()))


def _hold(directory: Path, trusted: set[int]) -> int:
    _resolve(directory.absolute(), trusted)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    about = os.fstat(fd)
    others = writers(about)
    if about.st_uid in trusted and not others:
        return fd
    os.close(fd)
    why = f"may be changed by {others}" if others else f"belongs to {user(about.st_uid)}"
    raise PlaceError(f"{directory} {why}", owner=about.st_uid)


def check_way(directory: Path) -> None:
    """Raise PlaceError if another user could replace a file that this user creates in a directory.

    In a sticky directory, such as /tmp, other users cannot. Raises OSError if the directory does not exist.
    """
    trusted = _trusted()
    _check_step(_resolve(directory, trusted), directory, trusted)


def check_source(file: Path) -> None:
    """Raise PlaceError if another user could make a path lead to a different file, for example to one that
    only this user may read. A user who can only change the text of the file is permitted. Raises OSError.

    Links and directories on the way may belong to the user who ran `sudo`.
    """
    trusted = _trusted() | _typed()
    found = _resolve(file.absolute(), trusted)
    # In a sticky directory the owner of a file can replace it.
    about, directory = os.lstat(found), os.lstat(os.path.dirname(found))
    if about.st_uid not in trusted and writers(directory):
        raise PlaceError(f"{file} belongs to {user(about.st_uid)}", owner=about.st_uid)


def check_target(file: Path) -> None:
    """Raise PlaceError if another user could redirect a write to this path. The directory may be missing.
    Users other than root may work in a directory to which others can write, but not through links of other
    users.
    """
    trusted = _trusted() | _typed()
    there = next(parent for parent in file.parents if os.path.lexists(parent))
    if os.geteuid() == 0:
        _check_step(_resolve(there, trusted), there, trusted)
    for step in (file, *file.parents):
        if step.is_symlink() and (owner := step.lstat().st_uid) not in trusted:
            raise PlaceError(f"{file} leads through the link {step} of {user(owner)}", owner=owner)


def open_file(path: Path, flags: int, mode: int = 0o600, *, dir_fd: int | None = None) -> int:
    """Open a file in a checked directory. Raises PlaceError for anything but a regular file, such as a link,
    OSError.
    """
    try:
        fd = os.open(
            path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK, mode, dir_fd=dir_fd
        )
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise PlaceError(f"{path} is a symbolic link") from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise PlaceError(f"{path} is not a regular file")
    return fd


def write_new(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file with this text, and rename it to `path`, which it replaces. Raises OSError."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(fd, "w") as file:
        file.write(text)
    fresh.rename(path)


def chmod_socket(path: str | Path, mode: int) -> None:
    """Set the mode of a socket's file. A link in its place is not followed. Raises OSError."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise OSError(errno.EEXIST, "another file is in the place of the socket", str(path))
        os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)
