"""`zmsvcd`: arguments, detaching, and the exit status. The process that runs this is the keeper."""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import daemon

from zmsvc import __version__
from zmsvc.core import logline
from zmsvc.core.errors import PlaceError, ZmsvcError, reason
from zmsvc.host import directories, paths
from zmsvc.host.complain import DETACHED, complain
from zmsvc.host.kernel import linux, process_marks
from zmsvc.host.python import interpreter
from zmsvc.keeper.keeper import Keeper
from zmsvc.keeper.keyring import keyring
from zmsvc.keeper.listeners import Listeners

LAST_S = 5.0
"""Seconds that processes of a killed keeper have to end after SIGKILL; one that is stuck in the kernel
does not hold up the start.
"""
_READY = "ready"
"""What the daemon says to the process that it was started from; what follows has failed at once."""


def parser() -> argparse.ArgumentParser:
    """The arguments of zmsvcd; the manual page is tested against them."""
    p = argparse.ArgumentParser(
        prog="zmsvcd", description="Run the task services of a context.", formatter_class=_Help
    )
    mode = p.add_mutually_exclusive_group()
    mode.add_argument("--foreground", action="store_true", help="stay in the foreground (the default)")
    mode.add_argument(
        "--detach", action="store_true", help="become a daemon; return when the context is ready"
    )
    p.add_argument(
        "--no-autostart", action="store_true", help="open no transaction when there is none to resume"
    )
    p.add_argument("--transaction", metavar="ID", help="open this transaction when it is not open already")
    p.add_argument("--version", action="version", version=f"zmsvcd {__version__}")
    p.add_argument("context", metavar="NAME|FILE.xml", help="the context, by name or by its file")
    return p


class _Help(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        # With a width it does not ask the terminal, for which it would import compression libraries into all
        # our forks.
        super().__init__(prog, width=100)


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    # Whatever we were started with, nothing that we make may be written by others; directories that have to
    # be made on the way to ours have no mode of their own. Tasks get the umask that was given, see
    # zmsvc.task.process.
    given = linux.current_umask()
    os.environ["ZMSVC_UMASK"] = f"{given:04o}"
    os.umask(given | 0o022)
    try:
        interpreter.disabled()
        places = paths.places(args.context)
        if not places.config_file.is_file():
            raise ZmsvcError(f"cannot start {places.name}: there is no context file {places.config_file}")
        _claim(places)
        # A relative path means nothing after the daemon has gone to /.
        target = (
            str(places.config_file) if args.context.endswith(".xml") or "/" in args.context else args.context
        )
        arguments = ["--no-autostart"] * args.no_autostart
        arguments += ["--transaction", args.transaction] if args.transaction else []
        if args.detach:
            return _detach(places, [*arguments, target])
        os.environ.pop(DETACHED, None)
        os.environ.setdefault("ZMSVC_LOG", _log_target(places, detached=False))
        return _keep(places, [*arguments, target])
    except PlaceError as error:
        complain(f"zmsvcd: {error}")
        return 1
    except ZmsvcError as error:
        complain(f"zmsvcd: {error}")
        return 2
    except OSError as error:
        complain(f"zmsvcd: cannot start {args.context}: {reason(error)}")
        return 1


def _claim(places: paths.Places) -> None:
    """Make the context's directories and check them. Raises PlaceError, which says how a context of
    another user is started.
    """
    for directory, mode, kind in ((places.state, 0o750, "STATE"), (places.runtime, 0o755, "RUNTIME")):
        try:
            directories.claim(directory, mode)
        except PlaceError as error:
            raise PlaceError(
                f"cannot start {places.name}: {error}{_way_out(places, error.owner)}", owner=error.owner
            ) from error
        except OSError as error:
            by = (
                f"HOME, XDG_{kind}_HOME or ZMSVC_{kind}_DIR"
                if kind == "STATE"
                else f"XDG_{kind}_DIR or ZMSVC_{kind}_DIR"
            )
            way = f"ZMSVC_{kind}_DIR" if not os.geteuid() else by
            raise PlaceError(
                f"cannot start {places.name}: cannot make the directory {directory}: {reason(error)} (set "
                f"{way} to another place)"
            ) from error


def _way_out(places: paths.Places, owner: int | None) -> str:
    """What root types for a context that belongs to another user, whose files root must not use: they may
    be links to root's own.
    """
    if os.geteuid() or owner in (None, 0):
        return ""
    name = directories.user(owner).rpartition(" ")[2]
    given = {
        "CONFIG": places.config_file.parent,
        "RUNTIME": places.runtime.parent,
        "STATE": places.state.parent,
    }
    environment = " ".join(f"ZMSVC_{key}_DIR={value}" for key, value in given.items())
    unit = f"systemctl start zmsvc@{places.name}, or " if os.path.isdir("/run/systemd/system") else ""
    return (
        f"; type {unit}in the foreground: setpriv --reuid={name} --regid={name} --init-groups env "
        f"{environment} zmsvcd {places.name} "
        f"(after: install -d -o {name} -g {name} {places.runtime})"
    )


def _log_target(places: paths.Places, *, detached: bool) -> str:
    """Where the context's log goes: to journald when systemd runs us or nobody looks; else to the terminal
    and a file.
    """
    if os.environ.get("JOURNAL_STREAM") or (detached and os.path.exists("/run/systemd/journal/socket")):
        return "journal"
    return str(places.log_file) if detached else f"{places.log_file}+stderr"


def _detach(places: paths.Places, arguments: list[str]) -> int:
    """Become a classic daemon. The process that was started waits until the context is ready, or has failed
    and said why.

    No process of the daemon keeps a stream of whoever started it: a pipe that is never closed would hold him
    for ever.
    """
    reader, writer = os.pipe()
    said = places.log_file.lstat().st_size if places.log_file.is_file() else 0
    if os.fork():
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            told = pipe.read().decode(errors="replace")
        if told.startswith(_READY):
            # The context runs and goes on to manage it, as after `systemctl start`: that is no failure of the
            # daemon.
            if error := told.removeprefix(_READY):
                complain(f"zmsvcd: {error} (see zmsvcctl -c {places.name} status)")
            return 0
        _show_complaints(places.log_file, said)
        return int(told) if told.isdecimal() else 1
    os.close(reader)
    os.environ["ZMSVC_LOG"] = _log_target(places, detached=True)
    with open(places.log_file, "a", opener=_for_owner_and_group) as log:
        files = [writer, log]
        umask = linux.current_umask()
        with daemon.DaemonContext(
            umask=umask, signal_map={}, prevent_core=False, files_preserve=files, stdout=log, stderr=log
        ):
            os.environ[DETACHED] = "1"
            log.close()  # It is standard error from here on, and would stay open when that is something else.
            waiting = [writer]
            status = _keep(places, arguments, ready=lambda error: _report(waiting.pop(), error))
            if waiting:
                # It ended before it was ready, as the one who waits is to end, too.
                os.write(writer, b"%d" % status)
            return status


def _for_owner_and_group(path: str, flags: int) -> int:
    return directories.open_file(Path(path), flags, 0o640)


def _report(writer: int, error: str) -> None:
    os.write(writer, f"{_READY}{error}".encode())
    os.close(writer)


def _show_complaints(log: Path, after: int) -> None:
    """What the daemon has said since then belongs on the terminal that it was started from: it did not
    become one.
    """
    told: list[str] = []
    with contextlib.suppress(OSError, PlaceError), open(log, "rb", opener=_for_owner_and_group) as file:
        file.seek(after)
        told = file.read().decode(errors="replace").splitlines()
    lines = [line[head.size :] if (head := logline.head(line)) else line for line in told]
    if lines:
        complain("\n".join(lines))


def _keep(places: paths.Places, arguments: list[str], ready: Callable[[str], None] | None = None) -> int:
    """Be the keeper of this context until it ends."""
    _raise_file_limit()
    keys = keyring(places.keys)
    doors = Listeners(places)
    try:
        keeper = Keeper(places, doors, arguments, _delegated_cgroup(), keys)
        if ready is not None:
            keeper.ready = ready
        _end_the_last(places, doors)
        return keeper.run()
    finally:
        doors.close()


def _end_the_last(places: paths.Places, doors: Listeners) -> None:
    """End what a keeper that was killed has left. It is gone before anything starts: two copies of a task
    must never be.

    Its supervisor and device die with it, which takes them a moment, and until then they listen where ours is
    to listen.
    """
    found = process_marks.belonging((), places.mark) + process_marks.belonging(
        (), b"NOTIFY_SOCKET=" + os.fsencode(doors.keeper_path)
    )
    linux.kill_each(found)
    until = time.monotonic() + LAST_S
    for pid in found:
        linux.wait_for_end(pid, max(0.0, until - time.monotonic()))


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        os.environ.setdefault("ZMSVC_NOFILE", str(soft))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))


def _delegated_cgroup() -> Path | None:
    """Our part of the cgroup tree, when systemd has given it to us (Delegate=yes): the keeper moves into a
    leaf of it.
    """
    if not os.environ.get("NOTIFY_SOCKET"):
        return None
    base = linux.own_cgroup()
    if base is None:
        return None
    # DelegateSubgroup=keeper (systemd 254) has put us there already.
    base = base.parent if base.name == "keeper" else base
    if not linux.is_delegated(base):
        return None
    with contextlib.suppress(OSError):
        for name in ("keeper", "supervisor", "device", "tasks"):
            (base / name).mkdir(exist_ok=True)
        linux.enter_cgroup(base / "keeper")
        return base
    return None


if __name__ == "__main__":
    sys.exit(main())
