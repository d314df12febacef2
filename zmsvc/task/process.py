"""Make a forked child a task's process, and ends it: limits, user, daemon, environment, streams.
Nothing of the user's runs here.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import grp
import io
import locale
import logging
import os
import pwd
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

import daemon

from zmsvc.core.errors import LaunchError
from zmsvc.core.owners import numeric_id
from zmsvc.host.kernel import linux, process_marks, programs
from zmsvc.host.python import interpreter
from zmsvc.host.systemd import journal
from zmsvc.host.systemd.stdout_lines import LineWriter
from zmsvc.protocol.launch import LaunchSpec
from zmsvc.task import environment

log = logging.getLogger("task")


_ENCODING = sys.getfilesystemencoding()
_BUFFERED = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
"""Files that may hold what is not written yet."""


class _Descriptor:
    """As much of a file as python-daemon looks at."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


def settle(keep: Iterable[int]) -> None:
    """Be a daemon that has nothing of the keeper but its stdout and stderr, and `keep` of its descriptors:
    what all tasks begin as.

    python-daemon does it. It does not detach: a task has a session of its own from its fork on, so the keeper
    knows its final PID. It closes ranges by close_range(2), so a high limit of open files costs nothing.
    """
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    # Whatever stands for the streams in the keeper, the descriptors are meant.
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        setattr(sys, name, _Descriptor(fd))
    null = os.open(os.devnull, os.O_RDWR)
    # The unit's or the caller's, which the keeper tells because it lets no other user write what it makes
    # itself.
    told = os.environ.get("ZMSVC_UMASK")
    umask = linux.current_umask() if told is None else int(told, 8)
    daemon.DaemonContext(
        detach_process=False,
        umask=umask,
        prevent_core=False,
        signal_map={},
        files_preserve=[*keep],
        stdin=_Descriptor(null),  # its own would be closed by an exec
        stdout=_Descriptor(1),
        stderr=_Descriptor(2),
    ).open()
    if null > 2:
        os.close(null)
    sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
    # The keeper's callbacks, and python-daemon's own close(), which would have nothing to do.
    atexit._clear()
    soft = os.environ.get("ZMSVC_NOFILE")
    if soft is not None:
        # The daemon raised its own soft limit; select() in a task would not survive descriptors above 1023.
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(soft), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for name in list(os.environ):
        if environment.inherited(name):
            # Anew, since a task uses the memory of the old one for something else.
            os.environ[name] = os.environ[name]
        else:
            del os.environ[name]
    # Found here once, for all tasks.
    interpreter.environment()


def become(spec: LaunchSpec, output: int | None = None) -> None:
    """Be this task's process from here on. `output` is the pipe that its streams become, which stays open.
    Raises LaunchError.
    """
    parent = os.getppid()
    if spec.mark:
        process_marks.put_on(spec.mark)
    if spec.rlimits or spec.nice is not None:
        _limit(spec)
    if spec.pidfile:
        _write_pid(spec.pidfile)
    stream = (
        journal.stream(spec.instance, spec.log, seen=spec.service_type == "Command")
        if output is None
        else output
    )
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    if output is None and stream > 2:
        os.close(stream)
    if spec.user is not None or spec.group is not None:
        entry = None if spec.user is None else _entry(spec.user)
        # As the user database says now: the supervisor may have asked when it, which may be on another
        # machine, did not answer.
        if entry is not None and entry.pw_uid != os.geteuid():
            if spec.own_environment:
                _forget_the_callers()
            os.environ.pop(environment.OF_THE_UNIT, None)
        _change_owner(entry, spec.user, spec.group)
        linux.die_with_parent(parent)  # which the change has revoked
    if spec.drop_capabilities:
        _drop_capabilities()
    if spec.no_new_privileges:
        linux.forbid_new_privileges()
    _tell(spec)


def _drop_capabilities() -> None:
    try:
        linux.drop_capabilities()
    except OSError as error:
        raise LaunchError(
            f"cannot drop the daemon's capabilities: {error.strerror} (SystemCallFilter=capset lets it)"
        ) from error


def _limit(spec: LaunchSpec) -> None:
    for name, value in spec.rlimits.items():
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (value, value))
        except (AttributeError, OSError, OverflowError, TypeError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise LaunchError(f"cannot limit {name} to {value}: {why}") from error
    if spec.nice is not None:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, spec.nice)
        except OSError as error:
            raise LaunchError(f"cannot set nice to {spec.nice}: {error.strerror}") from error


def _write_pid(path: str) -> None:
    """The PID is final since the fork. Written before the user changes, who may have no right to the
    directory; the keeper removes it.
    """
    try:
        fd = os.open(
            f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
        )
        try:
            os.write(fd, b"%d\n" % os.getpid())
        finally:
            os.close(fd)
        os.rename(f"{path}.new", path)
    except OSError as error:
        raise LaunchError(f"cannot write PID file {path}: {error.strerror}") from error


def _forget_the_callers() -> None:
    """Drop the variables of the person who started zmsvcd, as su(1) does."""
    for name in list(os.environ):
        if not environment.neutral(name):
            del os.environ[name]


def _change_owner(entry: pwd.struct_passwd | None, user: str | None, group: str | None) -> None:
    """Drop to the task's user and group, with all groups that the user database gives this user."""
    try:
        if group is not None:
            gid = _gid(group)
        else:
            assert entry is not None
            gid = entry.pw_gid
        if entry is None or not entry.pw_name:
            os.setgroups([gid])
        else:
            os.initgroups(entry.pw_name, gid)
        os.setgid(gid)
        if entry is not None:
            os.setuid(entry.pw_uid)
            name = entry.pw_name or str(entry.pw_uid)
            _put({"HOME": entry.pw_dir, "USER": name, "LOGNAME": name, "SHELL": entry.pw_shell})
    except OSError as error:
        who = " and ".join(
            f"{kind} {name}" for kind, name in (("user", user), ("group", group)) if name is not None
        )
        # systemd 254 and newer take CAP_SETUID from a unit with User=root, unless it is an ambient
        # capability.
        hint = " (the unit needs the drop-in task-users.conf)" if isinstance(error, PermissionError) else ""
        raise LaunchError(f"cannot run as {who}: {error.strerror}{hint}") from error


def _entry(user: str) -> pwd.struct_passwd:
    """Return what the user database says of a user. Raises LaunchError for a name that it does not know.

    A number that it does not know is a user without a name, of the group of the same number, as containers
    have them. Such a user has no other groups: group 0, which container runtimes give it, is root's on a
    machine that has other users.
    """
    uid = numeric_id(user)
    if uid is None:
        try:
            return pwd.getpwnam(user)
        except KeyError as error:
            raise LaunchError(f"cannot run as user {user}: this machine has no such user") from error
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return pwd.struct_passwd(("", "", uid, uid, "", "/", "/bin/sh"))


def _gid(name: str) -> int:
    gid = numeric_id(name)
    if gid is not None:
        return gid
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise LaunchError(f"cannot run as group {name}: this machine has no such group") from error


def _tell(spec: LaunchSpec) -> None:
    if spec.log == "journal":
        about = os.fstat(2)
        _put({"JOURNAL_STREAM": f"{about.st_dev}:{about.st_ino}"})
    told = environment.told(spec, os.getpid())
    _put(told)
    if spec.environment and spec.service_type != "Command":
        take_effect(spec.environment)
    # What it forks and puts into a session of its own is known by these alone where there is no control
    # group.
    shown = f"NOTIFY_SOCKET={told['NOTIFY_SOCKET']}\0ZMSVC_LAUNCH={told['ZMSVC_LAUNCH']}\0"
    linux.show_environment(shown.encode(_ENCODING, "surrogateescape"))


def take_effect(variables: Mapping[str, str]) -> None:
    """Have variables that an interpreter reads when it begins take their effect in this one, as far as
    that can be done.
    """
    if "TZ" in variables:
        time.tzset()
    # In the place that a new interpreter gives them; what has been imported already stays.
    places = [os.path.abspath(place) for place in variables.get("PYTHONPATH", "").split(os.pathsep) if place]
    sys.path[0:0] = [place for place in places if place not in sys.path]
    if any(name == "LANG" or name.startswith("LC_") for name in variables):
        # An interpreter does no more at its start; one that is not installed is passed over.
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, "")


def _put(variables: Mapping[str, str]) -> None:
    known = interpreter.environment()
    if known is None:
        os.environ.update(variables)
        return
    # The same without the four functions of os.environ for each of them.
    for name, value in variables.items():
        key, text = name.encode(_ENCODING, "surrogateescape"), value.encode(_ENCODING, "surrogateescape")
        os.putenv(key, text)
        known[key] = text


def take_streams(sink: logging.Handler) -> None:
    """From here on every line that Python prints is one entry with the fields of this task, and so is what
    ends a thread.
    """
    sys.stdin = sys.__stdin__ or open(os.devnull)  # noqa: SIM115 - it is the process's own from here on
    sys.stdout = LineWriter(sink, name="stdout", level=logging.INFO, fd=1)
    sys.stderr = LineWriter(sink, name="stderr", level=logging.WARNING, fd=2)
    threading.excepthook = _log_thread
    sys.unraisablehook = _log_unraisable


def _log_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        where = args.thread.name if args.thread else "?"
        log.error("Thread %s ended by an exception", where, exc_info=args.exc_value)


def _log_unraisable(args: Any) -> None:
    log.error("%s: %r", args.err_msg or "Exception ignored in", args.object, exc_info=args.exc_value)


def execute(command: list[str]) -> str:
    """Let a program take this process's place. It comes back only with the reason why that could not be."""
    # Python ignores it; a program expects to be told that a file is too large. SIGPIPE stays ignored, as
    # systemd has it.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        why = programs.obstacle(command[0], error.errno) or error.strerror
    except UnicodeEncodeError as error:
        why = f"{error.object!r} cannot be written in this locale's encoding, {error.encoding}"
    except ValueError as error:
        why = str(error)
    return f"cannot execute {command[0]}: {why}"


def join() -> None:
    """Wait for the user's own threads and for what their executors have to do, as the interpreter does
    before anything else at its end.
    """
    # A broad except: a callback of the user's may raise anything, and the rest shall have its turn.
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # multiprocessing ends its processes by it
    except Exception as error:
        log.error("Failed at the end: %s", error, exc_info=error)


def finish() -> None:
    """Do what the interpreter does at its end, since the keeper's stack lies below ours and we leave by
    os._exit().
    """
    # Broad excepts: these are the user's callbacks and files, and each shall have its turn.
    try:
        atexit._run_exitfuncs()
    except Exception as error:
        log.error("Failed at the end: %s", error, exc_info=error)
    # By type, for a proxy of the user's may do anything when it is asked for its class.
    for each in gc.get_objects():
        if issubclass(type(each), _BUFFERED):
            try:
                each.flush()
            except Exception:
                continue  # closed, or only read
    for written in (sys.stdout, sys.stderr):
        written.close()
