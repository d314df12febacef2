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
    """Create a directory and those above it, if they are missing, and check it. Nothing is created below a
    directory that another user could change. Raises PlaceError for a wrong owner or mode, OSError.
    """
    paths.make_private_root(directory)
    _, fd = _walk(directory.absolute(), _trusted(), mode)
    try:
        _check_own(directory, os.fstat(fd))
    finally:
        os.close(fd)


def check(directory: Path) -> None:
    """Raise PlaceError unless the directory belongs to this user, and no one but this user and root can make
    its path lead elsewhere.
    """
    _, fd = _walk(directory, _trusted())
    try:
        _check_own(directory, os.fstat(fd))
    finally:
        os.close(fd)


def _check_own(directory: Path, about: os.stat_result) -> None:
    if not stat.S_ISDIR(about.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
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
    resolved, fd = _walk(path, trusted)
    os.close(fd)
    return resolved


def _walk(
    path: Path, trusted: set[int], mode: int | None = None, *, foreign: bool = False
) -> tuple[str, int]:
    """Resolve a path as `_resolve` does. Return it with a descriptor of the file to which it leads (O_PATH).

    With `mode`, create the missing directories, the last one with this mode. Each step is taken from the
    descriptor of a checked directory, so that a user who replaces a part of the path meanwhile can neither
    redirect a step nor have a directory created elsewhere. With `foreign`, directories may belong to any
    user, and only those with a link are checked.
    """
    resolved, pending, links = "/", _parts(path), 0
    fd = _open_step("/", None)
    try:
        while pending:
            about = os.fstat(fd)
            if not stat.S_ISDIR(about.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), resolved)
            if not foreign:
                _check_step(about, resolved, path, trusted)
            name = pending.pop()
            step = os.path.join(resolved, name)
            if mode is not None:
                _make(name, step, fd, 0o755 if pending else mode)
            found = _open_step(name, fd, step)
            about = os.fstat(found)
            if not stat.S_ISLNK(about.st_mode):
                os.close(fd)
                fd, resolved = found, os.path.dirname(resolved) if name == ".." else step
                continue
            target = os.readlink("", dir_fd=found)
            os.close(found)
            links += 1
            if foreign:
                _check_step(os.fstat(fd), resolved, path, trusted)
            if about.st_uid not in trusted or links > _MAX_LINKS:
                raise PlaceError(
                    f"{path} leads through the link {step} of {user(about.st_uid)}", owner=about.st_uid
                )
            if target.startswith("/"):
                os.close(fd)
                fd, resolved = -1, "/"
                fd = _open_step("/", None)
            pending += _parts(target)
    except BaseException:
        if fd >= 0:
            os.close(fd)
        raise
    return resolved, fd


def _open_step(name: str, directory: int | None, shown: str = "/") -> int:
    try:
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        error.filename = shown
        raise


def _make(name: str, step: str, directory: int, mode: int) -> None:
    try:
        os.mkdir(name, mode, dir_fd=directory)
    except FileExistsError:
        pass
    except OSError as error:
        error.filename = step
        # A directory that exists may be on a file system that is read-only, or in one of another user.
        try:
            os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            raise error from None


def _parts(path: str | Path) -> list[str]:
    """Return the names in a path, the last one first."""
    return [name for name in os.fspath(path).split("/") if name not in ("", ".")][::-1]


def _check_step(about: os.stat_result, directory: str, path: Path, trusted: set[int]) -> None:
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


def make(directory: Path, mode: int) -> int:
    """Create a directory and those above it, if they are missing, and return a descriptor as `hold` does. The
    directory gets this mode whatever the umask is, also if it exists. Nothing is created below a directory
    that another user could change. Raises PlaceError, OSError.
    """
    fd = _hold(directory, _trusted(), mode)
    try:
        os.fchmod(fd, mode)
    except OSError as error:
        os.close(fd)
        error.filename = str(directory)
        raise
    return fd


def check_read(directory: Path) -> None:
    """Raise PlaceError if another user could change the files in a directory. The directory may belong to the
    user who ran `sudo`.

    Raises OSError.
    """
    os.close(_hold(directory, _trusted() | _typed()))


def _hold(directory: Path, trusted: set[int], mode: int | None = None) -> int:
    _, found = _walk(directory.absolute(), trusted, mode)
    try:
        fd = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        error.filename = str(directory)
        raise
    finally:
        os.close(found)
    about = os.fstat(fd)
    others = writers(about)
    if about.st_uid in trusted and not others:
        return fd
    os.close(fd)
    why = f"may be changed by {others}" if others else f"belongs to {user(about.st_uid)}"
    raise PlaceError(f"{directory} {why}", owner=about.st_uid)


def enter(directory: Path) -> int:
    """Return a descriptor (O_PATH) of a directory, which may belong to another user, as may those above it.
    Raises PlaceError for a link on the way that a user other than root, this user, and the user who ran
    `sudo` could have made, OSError.
    """
    _, fd = _walk(directory.absolute(), _trusted() | _typed(), foreign=True)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))


def check_way(directory: Path) -> None:
    """Raise PlaceError if another user could replace a file that this user creates in a directory.

    In a sticky directory, such as /tmp, other users cannot. Raises OSError if the directory does not exist.
    """
    trusted = _trusted()
    _check_way(directory, trusted)


def _check_way(directory: Path, trusted: set[int]) -> None:
    resolved, fd = _walk(directory, trusted)
    try:
        _check_step(os.fstat(fd), resolved, directory, trusted)
    finally:
        os.close(fd)


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
        _check_way(there, trusted)
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
