"""The program `zmsvcd`: arguments, detaching and exit status. The process that runs `main` becomes the
keeper.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import daemon

from zmsvc import __version__
from zmsvc.core import logline
from zmsvc.core.errors import CarriedError, ConfigError, PlaceError, ZmsvcError, reason
from zmsvc.host import directories, paths
from zmsvc.host.arguments import Help
from zmsvc.host.complain import DETACHED, complain
from zmsvc.host.kernel import cgroups, linux, pidfds, process_marks
from zmsvc.host.python import interpreter
from zmsvc.keeper import spares
from zmsvc.keeper.keeper import Keeper
from zmsvc.keeper.keyring import keyring
from zmsvc.keeper.listeners import Listeners
from zmsvc.keeper.machine import Machine
from zmsvc.keeper.restarted_process import ENVOY, SUPERVISOR

PREVIOUS_END_S = 5.0
"""Seconds in which the processes of a killed keeper have to end after SIGKILL. The start does not wait longer
for a process that is stuck in the kernel.
"""
_READY = "ready"
"""The first word that the daemon writes to the process that started it. The rest of that line names the parts
of the context that failed at once. The second line is a JSON list of messages.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of zmsvcd's arguments. A test compares it with the manual page."""
    p = _Parser(prog="zmsvcd", description="Run the task services of a context.", formatter_class=Help)
    mode = p.add_mutually_exclusive_group()
    mode.add_argument("--foreground", action="store_true", help="stay in the foreground (the default)")
    mode.add_argument(
        "--detach", action="store_true", help="become a daemon; return when the context is ready"
    )
    p.add_argument(
        "--no-autostart", action="store_true", help="open no transaction if there is none to resume"
    )
    p.add_argument("--transaction", metavar="ID", help="open this transaction if it is not open")
    p.add_argument(
        "--resume-from",
        metavar="FILE",
        help="resume what another host has written down, and not what this one knows",
    )
    p.add_argument(
        "--host",
        metavar="HOST",
        help="run the tasks that the context places on this host, for a supervisor on another one",
    )
    p.add_argument("--version", action="version", version=f"zmsvcd {__version__}")
    p.add_argument("context", metavar="NAME|FILE.xml", help="the context, by name or by its file")
    return p


class _Parser(argparse.ArgumentParser):
    """A parser that complains in one line, as zmsvcctl does."""

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ").partition(" ")[0].partition("=")[0]
        if message.startswith("unrecognized") and unknown.startswith("-"):
            # Imported here so that a keeper does not carry this module, which only a wrong option needs.
            from zmsvc.core.similar import similar

            message += similar(unknown, self._option_string_actions)
        complain(f"zmsvcd: cannot understand the command: {message} (see zmsvcd --help)")
        raise SystemExit(2)


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.host and (args.no_autostart or args.transaction or args.resume_from):
        parser().error("--host goes with no other option but --foreground or --detach")
    # Other users must not be able to write the files that zmsvcd creates, even if it inherits a wide umask.
    # (Parent directories are created without an explicit mode.) Tasks get the inherited umask back; see
    # zmsvc.task.process.
    inherited = linux.current_umask()
    os.environ["ZMSVC_UMASK"] = f"{inherited:04o}"
    os.umask(inherited | 0o022)
    try:
        interpreter.disabled()
        places = paths.places_on_host(args.context) if args.host else paths.places(args.context)
        if not places.config_file.is_file():
            raise ZmsvcError(f"cannot start {places.name}: there is no context file {places.config_file}")
        _check_carried(places, args.resume_from)
        program = ENVOY if args.host else SUPERVISOR
        makes_directory = not os.path.lexists(places.runtime)
        _claim_directories(places)
        # A daemon changes its directory to /, so a relative path would lead elsewhere.
        target = (
            str(places.config_file) if args.context.endswith(".xml") or "/" in args.context else args.context
        )
        arguments = ["--no-autostart"] * args.no_autostart
        arguments += ["--transaction", args.transaction] if args.transaction else []
        arguments += ["--host", args.host] if args.host else []
        if args.detach:
            return _detach(places, [*arguments, target], owns_directory=makes_directory, program=program)
        os.environ.pop(DETACHED, None)
        os.environ.setdefault("ZMSVC_LOG", _log_target(places, detached=False))
        return _keep(places, [*arguments, target], owns_directory=makes_directory, program=program)
    except PlaceError as error:
        complain(f"zmsvcd: {error}")
        return 1
    except ZmsvcError as error:
        complain(f"zmsvcd: {error}")
        return 2
    except OSError as error:
        complain(f"zmsvcd: cannot start {args.context}: {reason(error)}")
        return 1


def _check_carried(places: paths.Places, given: str | None) -> None:
    """Check the file of --resume-from or $ZMSVC_RESUME, which the supervisor reads again. Raises
    ZmsvcError.
    """
    path = given or os.environ.get("ZMSVC_RESUME")
    if not path:
        return
    # Imported here so that a keeper does not carry these modules: most contexts stay on their host.
    from zmsvc.host import carried_file

    # In the environment, because a supervisor of an earlier release refuses arguments that it does not know.
    # Absolute, because a daemon changes its directory to /.
    os.environ[carried_file.VARIABLE] = os.path.abspath(path)
    try:
        carried_file.read(path)
    except CarriedError as error:
        raise ZmsvcError(f"cannot start {places.name}: {error}") from None


def _claim_directories(places: paths.Places) -> None:
    """Create and check the context's directories. Raises PlaceError, whose message says how to start a
    context of another user.
    """
    for directory, mode, kind in ((places.state, 0o750, "STATE"), (places.runtime, 0o755, "RUNTIME")):
        try:
            directories.claim(directory, mode)
        except PlaceError as error:
            raise PlaceError(
                f"cannot start {places.name}: {error}{_command_for_root(places, error.owner)}",
                owner=error.owner,
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


def _command_for_root(places: paths.Places, owner: int | None) -> str:
    """Return the command by which root starts a context of another user as that user. Root itself must not
    use files of the user, which may be links to files of root.
    """
    if os.geteuid() or owner in (None, 0):
        return ""
    name = directories.user(owner).rpartition(" ")[2]
    directory_of = {
        "CONFIG": places.config_file.parent,
        "RUNTIME": places.runtime.parent,
        "STATE": places.state.parent,
    }
    environment = " ".join(f"ZMSVC_{key}_DIR={value}" for key, value in directory_of.items())
    unit = f"systemctl start zmsvc@{places.name}, or " if os.path.isdir("/run/systemd/system") else ""
    return (
        f"; type {unit}in the foreground: setpriv --reuid={name} --regid={name} --init-groups env "
        f"{environment} zmsvcd {places.name} "
        f"(after: install -d -o {name} -g {name} {places.runtime})"
    )


def _log_target(places: paths.Places, *, detached: bool) -> str:
    """Return the target of the context's log: the journal under systemd or when detached, otherwise the
    terminal and a file.
    """
    if os.environ.get("JOURNAL_STREAM") or (detached and os.path.exists("/run/systemd/journal/socket")):
        return "journal"
    return str(places.log_file) if detached else f"{places.log_file}+stderr"


def _detach(places: paths.Places, arguments: list[str], *, owns_directory: bool, program: str) -> int:
    """Become a classic daemon. The process that the user started waits until the daemon reports that the
    context is ready, or has ended.

    No process of the daemon keeps an inherited standard stream open. Otherwise the program that the user
    called could wait for ever for the end of its pipe.
    """
    reader, writer = os.pipe()
    log_size = places.log_file.lstat().st_size if places.log_file.is_file() else 0
    if os.fork():
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.read().decode(errors="replace")
        if answer.startswith(_READY):
            # The context runs and goes on managing the failed task, as after `systemctl start`. So the daemon
            # has not failed.
            error, _, notes = answer.removeprefix(_READY).partition("\n")
            for note in json.loads(notes or "[]"):
                complain(note)
            if error:
                complain(f"zmsvcd: {error} (see zmsvcctl -c {places.name} status)")
            return 0
        _print_log_since(places.log_file, log_size)
        return int(answer) if answer.isdecimal() else 1
    os.close(reader)
    os.environ["ZMSVC_LOG"] = _log_target(places, detached=True)
    with open(places.log_file, "a", opener=_for_owner_and_group) as log:
        files = [writer, log]
        umask = linux.current_umask()
        with daemon.DaemonContext(
            umask=umask, signal_map={}, prevent_core=False, files_preserve=files, stdout=log, stderr=log
        ):
            os.environ[DETACHED] = "1"
            # Standard error is a copy of this descriptor, which would stay open when standard error is
            # replaced.
            log.close()
            unanswered = [writer]
            status = _keep(
                places,
                arguments,
                owns_directory=owns_directory,
                program=program,
                ready=partial(_report_ready, unanswered),
            )
            if unanswered:
                # The keeper ended before the context was ready. The waiting process exits with the same
                # status.
                os.write(writer, b"%d" % status)
            return status


def _for_owner_and_group(path: str, flags: int) -> int:
    return directories.open_file(Path(path), flags, 0o640)


def _report_ready(writers: list[int], error: str, notes: str) -> None:
    """Write to the pipe of the waiting process, and remove the pipe from `writers`."""
    with os.fdopen(writers.pop(), "wb") as pipe:
        pipe.write(f"{_READY}{error}\n{notes}".encode())


def _print_log_since(log: Path, offset: int) -> None:
    """Print on the terminal what the daemon has logged since this offset: the start failed."""
    logged: list[str] = []
    with contextlib.suppress(OSError, PlaceError), open(log, "rb", opener=_for_owner_and_group) as file:
        file.seek(offset)
        logged = file.read().decode(errors="replace").splitlines()
    lines = [line[head.size :] if (head := logline.head(line)) else line for line in logged]
    if lines:
        complain("\n".join(lines))


def _keep(
    places: paths.Places,
    arguments: list[str],
    *,
    owns_directory: bool,
    program: str,
    ready: Callable[[str, str], None] | None = None,
) -> int:
    """Run as the keeper of this context until the context ends. Return the exit status."""
    _raise_file_limit()
    # As in the supervisor: a full collection would visit all objects of the imports for 8 to 12 ms.
    interpreter.freeze()
    cgroup = _delegated_cgroup()
    # This comes before the keys are read, because the output process must not have them, and after the move
    # to the keeper's cgroup.
    machine = Machine(spares.fork() if program == SUPERVISOR else {})
    keys = keyring(places.keys, of_client=program == ENVOY)
    if program == ENVOY and keys is None:
        raise ConfigError([_no_keys(places)])
    listeners = Listeners(places, owns_directory=owns_directory)
    try:
        keeper = Keeper(places, listeners, arguments, cgroup, keys, machine, program)
        if ready is not None:
            keeper.ready = ready
        _end_previous(places, listeners)
        return keeper.run()
    finally:
        listeners.close()


def _no_keys(places: paths.Places) -> str:
    return (
        f"cannot serve {places.name} on this host: it needs the CURVE keys of a client in {places.keys} "
        f"(zmsvcctl -c {places.name} keys make DIRECTORY makes some, on the host of the supervisor)"
    )


def _end_previous(places: paths.Places, listeners: Listeners) -> None:
    """Kill the processes that a killed keeper left, and wait until they are gone. There must never be two
    copies of a task. The old supervisor and device end a moment after their keeper. Until then they occupy
    the addresses that the new ones bind.
    """
    leftovers = process_marks.belonging((), places.context_mark) + process_marks.belonging(
        (), b"NOTIFY_SOCKET=" + os.fsencode(listeners.keeper_path)
    )
    pidfds.kill_each(leftovers)
    until = time.monotonic() + PREVIOUS_END_S
    for pid in leftovers:
        pidfds.wait_for_end(pid, max(0.0, until - time.monotonic()))


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        os.environ.setdefault("ZMSVC_NOFILE", str(soft))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))


def _delegated_cgroup() -> Path | None:
    """Return the cgroup that systemd has delegated to this unit (Delegate=yes), or None. The keeper moves
    into a leaf of it.
    """
    if not os.environ.get("NOTIFY_SOCKET"):
        return None
    base = cgroups.own()
    if base is None:
        return None
    # With DelegateSubgroup=keeper (systemd 254 and later) the keeper starts in that leaf.
    base = base.parent if base.name == "keeper" else base
    if not cgroups.is_delegated(base):
        return None
    with contextlib.suppress(OSError):
        for name in ("keeper", "supervisor", "device", "tasks"):
            (base / name).mkdir(exist_ok=True)
        cgroups.enter(base / "keeper")
        return base
    return None


if __name__ == "__main__":
    sys.exit(main())
