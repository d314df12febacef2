"""Write several files, all or none. Each file is complete before its name appears. A file that another
process has changed meanwhile is not overwritten.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from zmsvc.core.errors import PlaceError, ZmsvcError
from zmsvc.core.frozen import frozen
from zmsvc.host.directories import check_target


class Changed(ZmsvcError):
    """A file has changed since the plan was made: make the plan again."""


@frozen
class Change:
    """A file to be written. `before` is its expected old content; None if it must not exist."""

    path: Path
    data: bytes
    before: bytes | None = None


def write(changes: Sequence[Change]) -> None:
    """Carry out the changes; at most one of them replaces a file.

    Raises Changed, or ZmsvcError if a file cannot be written; then no file has changed. kill -9 leaves only
    complete files, and perhaps hidden temporary ones, which the next run replaces.
    """
    with ExitStack() as undo:
        try:
            for change in changes:
                check_target(change.path.absolute())
            directories = sorted({change.path.parent for change in changes})
            for directory in directories:
                _make_directory(directory, undo)
            # Two runs at the same time must not merge into the same file, nor remove each other's temporary
            # files.
            with _locked(directories):
                _write_locked(changes)
                for directory in directories:
                    _sync(directory)
        except PlaceError as error:
            raise ZmsvcError(
                f"cannot write: {error} (run this as the user who owns the directory)"
            ) from error
        except FileNotFoundError as error:
            raise Changed(
                f"cannot write {error.filename2 or error.filename}: its directory has just gone"
            ) from error
        except OSError as error:
            raise ZmsvcError(
                f"cannot write {error.filename2 or error.filename}: {(error.strerror or str(error)).lower()}"
            ) from error
        # All files are in place: there is nothing to undo.
        undo.pop_all()


def _write_locked(changes: Sequence[Change]) -> None:
    with ExitStack() as undo:
        # The change that replaces a file is last, because this step cannot be undone.
        ordered = sorted(changes, key=lambda change: change.before is not None)
        drafts = [_draft(change, undo) for change in ordered]
        for change, draft in zip(ordered, drafts, strict=True):
            _put_in_place(change, draft, undo)
        undo.pop_all()


def _make_directory(directory: Path, undo: ExitStack) -> None:
    for parent in reversed([directory, *directory.parents]):
        try:
            parent.mkdir()
        except FileExistsError:
            continue
        except OSError:
            if parent.is_dir():  # for example "/" on a read-only system
                continue
            raise
        undo.callback(_undo, parent.rmdir)
    if not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))


@contextmanager
def _locked(directories: Sequence[Path]) -> Iterator[None]:
    with ExitStack() as stack:
        for directory in directories:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _draft(change: Change, undo: ExitStack) -> Path:
    """Write the new content under a temporary name in the same directory. The name is always the same, so
    leftovers do not accumulate.
    """
    # If the path is a symbolic link, its target is replaced and the link stays.
    target = Path(os.path.realpath(change.path))
    draft = target.with_name(f".{target.name}.zmsvc-new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    undo.callback(_undo, draft.unlink)
    with open(descriptor, "wb") as file:
        file.write(change.data)
        if change.before is not None:
            _copy_owner_and_mode(target, file.fileno())
        file.flush()
        os.fsync(file.fileno())
    return draft


def _copy_owner_and_mode(target: Path, descriptor: int) -> None:
    """Give the new file the mode and owner of the file that it will replace."""
    old = os.stat(target)
    try:
        os.fchown(descriptor, old.st_uid, old.st_gid)
    except PermissionError:
        pass  # Only root can change the owner; otherwise the new file is the user's own, as with any editor.
    os.fchmod(descriptor, old.st_mode & 0o7777)


def _put_in_place(change: Change, draft: Path, undo: ExitStack) -> None:
    target = draft.with_name(draft.name.removeprefix(".").removesuffix(".zmsvc-new"))
    if change.before is None:
        try:
            # link never replaces a file, unlike rename.
            os.link(draft, target)
        except FileExistsError as error:
            raise Changed(f"cannot write {change.path}: another process has just created it") from error
        undo.callback(_undo, target.unlink)
        draft.unlink()
    else:
        if read_if_exists(target) != change.before:
            raise Changed(f"cannot write {change.path}: another process has just changed it")
        os.replace(draft, target)


def read_if_exists(target: Path) -> bytes | None:
    try:
        return target.read_bytes()
    except FileNotFoundError:
        return None


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _undo(action: Callable[[], object]) -> None:
    """Undo one step. A failure (the step was not done, or another process uses the file) must not prevent the
    others.
    """
    try:
        action()
    except OSError:
        pass
