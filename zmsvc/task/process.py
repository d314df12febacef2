"""Set up a forked process for a task, and end it: limits, user, environment, streams. In this module no code
of the user runs except exit handlers.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import grp
import io
import logging
import os
import pwd
import resource
import signal
import sys
import threading
import time
from collections.abc import Container, Iterable, Mapping
from typing import Any

import daemon

from zmsvc.core.errors import LaunchError
from zmsvc.core.owners import numeric_id
from zmsvc.core.values import optional_path
from zmsvc.host import environment_file
from zmsvc.host.kernel import linux, process_marks, programs, signals
from zmsvc.host.python import interpreter
from zmsvc.host.systemd import journal
from zmsvc.host.systemd.stdout_lines import LineWriter
from zmsvc.protocol.launch import LaunchSpec
from zmsvc.task import environment

log = logging.getLogger("task")


_ENCODING = sys.getfilesystemencoding()
_BUFFERED = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
"""Types of files that may have unwritten data."""


class _Descriptor:
    """The part of a file that python-daemon uses."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


def become_daemon(keep: Iterable[int]) -> None:
    """Make this process a daemon that keeps only stdout, stderr and the descriptors `keep`: the initial state
    of every task.

    python-daemon does this. It does not detach, since a task has its own session from its fork on and the
    keeper has to know its final PID. It closes descriptors by close_range(2), so a high limit of open files
    costs nothing.
    """
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    # python-daemon must use the descriptors, since the keeper may have replaced the streams.
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        setattr(sys, name, _Descriptor(fd))
    null = os.open(os.devnull, os.O_RDWR)
    # The umask of the unit or of the caller. The keeper passes it on, since it has a stricter one itself.
    configured = os.environ.get("ZMSVC_UMASK")
    umask = linux.current_umask() if configured is None else int(configured, 8)
    daemon.DaemonContext(
        detach_process=False,
        umask=umask,
        prevent_core=False,
        signal_map={},
        files_preserve=[*keep],
        stdin=_Descriptor(null),  # that of python-daemon has close-on-exec
        stdout=_Descriptor(1),
        stderr=_Descriptor(2),
    ).open()
    if null > 2:
        os.close(null)
    sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
    # Drop the keeper's callbacks and python-daemon's close(), which has nothing to do in a task.
    atexit._clear()
    soft = os.environ.get("ZMSVC_NOFILE")
    if soft is not None:
        # The daemon has raised its own soft limit. A task gets back the former one, because its select()
        # fails for descriptors above 1023.
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(soft), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for name in list(os.environ):
        if environment.inherited(name):
            # Copied, because `show_environment` of a task overwrites the memory of the original.
            os.environ[name] = os.environ[name]
        else:
            del os.environ[name]
    # The lookup is cached here once for all tasks.
    interpreter.environment()


def become(spec: LaunchSpec, output: int | None = None) -> None:
    """Set this process up for a task. `output` is the pipe that replaces stdout and stderr; it stays open.
    Raises LaunchError.
    """
    parent = os.getppid()
    if spec.mark:
        process_marks.set_limit(spec.mark)
    if spec.rlimits or spec.nice is not None or spec.oom_score_adjust is not None:
        _limit(spec)
    for each in spec.unset_limits:
        log.warning("Cannot set %s", each)
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
    # The task looks this up itself: the user database may be on another machine, and may not have answered
    # the supervisor.
    entry = None if spec.user is None else _entry(spec.user)
    other_user = entry is not None and entry.pw_uid != os.geteuid()
    files = _EnvironmentFiles(spec.environment_file)
    files.read(for_other_user=other_user)
    if spec.user is not None or spec.group is not None:
        if other_user:
            if spec.own_environment:
                _drop_caller_variables(spec.pass_environment)
            if environment.CREDENTIALS not in spec.pass_environment:
                os.environ.pop(environment.CREDENTIALS, None)
        _change_owner(entry, spec.user, spec.group)
        linux.die_with_parent(parent)  # the change of user has cleared it
        files.read_rest()
    if spec.drop_capabilities:
        _drop_capabilities()
    if spec.no_new_privileges:
        linux.forbid_new_privileges()
    if spec.working_directory is not None:
        _change_directory(spec.working_directory)
    if spec.umask is not None:
        os.umask(spec.umask)
    _set_environment(spec, files.variables(), to_journal=spec.log == "journal" and output is None)


def _drop_capabilities() -> None:
    try:
        linux.drop_capabilities()
    except OSError as error:
        raise LaunchError(
            f"cannot drop the daemon's capabilities: {error.strerror} (SystemCallFilter=capset permits it)"
        ) from error


def _limit(spec: LaunchSpec) -> None:
    for name, value in spec.rlimits.items():
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (value, value))
        except (AttributeError, OSError, OverflowError, TypeError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            unit = f" (Limit{name.upper()}= of the unit permits more)"
            hint = unit if isinstance(error, ValueError | OSError) else ""
            raise LaunchError(f"cannot limit {name} to {value}: {why}{hint}") from error
    if spec.nice is not None:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, spec.nice)
        except OSError as error:
            hint = (
                " (LimitNICE= of the unit permits lower values)" if isinstance(error, PermissionError) else ""
            )
            raise LaunchError(f"cannot set nice to {spec.nice}: {error.strerror}{hint}") from error
    if spec.oom_score_adjust is not None:
        try:
            # Write this before the user changes: a lower value needs CAP_SYS_RESOURCE.
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write(str(spec.oom_score_adjust))
        except OSError as error:
            log.warning(
                "Cannot set oom_score_adjust to %d: %s (OOMScoreAdjust= of the unit permits lower values)",
                spec.oom_score_adjust,
                error.strerror,
            )


def _change_directory(text: str) -> None:
    """Change to the working directory. This is done as the user of the task, since a network file system may
    give access to that user alone.
    """
    path, optional = optional_path(text)
    path = _home() if path == "~" else path
    try:
        os.chdir(path)
    except OSError as error:
        if not optional:
            way = f"the user of the task, uid {os.geteuid()}, has to reach it"
            if isinstance(error, FileNotFoundError):
                way = "make it, or change <working_directory>"
            raise LaunchError(f"cannot change to the directory {path}: {error.strerror} ({way})") from error


def _home() -> str:
    """Return the home directory of the user of this process. A user without a name has /."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"


def _write_pid(path: str) -> None:
    """Write the PID file. This happens before the user changes, because the task's user may have no access to
    the directory. The keeper removes the file.
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


class _EnvironmentFiles:
    """The environment files of a task."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._found: list[tuple[str, str, Mapping[str, str]]] = [(text, "", {}) for text in texts]
        """For each file the text of its element, the reason why it has not been read yet, and its
        variables.
        """

    def read(self, *, for_other_user: bool) -> None:
        """Read the files before the user changes, since only the daemon may be able to read them. Leave out
        those that the user of the task could have replaced. Raises LaunchError.
        """
        self._found = [
            (text, why, {} if why else _read_file(text))
            for text, _, _ in self._found
            for why in (environment_file.replaceable(text) if for_other_user else "",)
        ]

    def read_rest(self) -> None:
        """Read the other files, as the user of the task. Raises LaunchError."""
        self._found = [
            (text, "", _read_file(text, f" (read as the user of the task: {why})") if why else variables)
            for text, why, variables in self._found
        ]

    def variables(self) -> Mapping[str, str]:
        """Return the variables of all files; a later file counts more."""
        return {name: value for _, _, variables in self._found for name, value in variables.items()}


def _read_file(text: str, hint: str = "") -> Mapping[str, str]:
    try:
        return environment_file.read(text)
    except ValueError as error:
        raise LaunchError(f"cannot read the environment: {error}{hint}") from None


def _drop_caller_variables(passed: Container[str]) -> None:
    """Remove the variables of the person who started zmsvcd, as su(1) does, except those of these names."""
    for name in list(os.environ):
        if not environment.neutral(name) and name not in passed:
            del os.environ[name]


def _change_owner(entry: pwd.struct_passwd | None, user: str | None, group: str | None) -> None:
    """Change to the task's user and group, with all groups of that user in the user database."""
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
            _setenv({"HOME": entry.pw_dir, "USER": name, "LOGNAME": name, "SHELL": entry.pw_shell})
    except OSError as error:
        who = " and ".join(
            f"{kind} {name}" for kind, name in (("user", user), ("group", group)) if name is not None
        )
        # systemd 254 and newer remove CAP_SETUID from a unit with User=root unless it is an ambient
        # capability.
        hint = " (the unit needs the drop-in task-users.conf)" if isinstance(error, PermissionError) else ""
        raise LaunchError(f"cannot run as {who}: {error.strerror}{hint}") from error


def _entry(user: str) -> pwd.struct_passwd:
    """Return a user's entry in the user database. Raises LaunchError for an unknown name.

    An unknown number is a user without a name, as in containers, in the group of the same number and in no
    other groups. Container runtimes would add group 0, but that is the group of root on a machine with other
    users.
    """
    uid = numeric_id(user)
    if uid is None:
        try:
            return pwd.getpwnam(user)
        except KeyError as error:
            raise LaunchError(
                f"cannot run as user {user}: this machine has no such user (add it, or change <user>)"
            ) from error
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
        raise LaunchError(
            f"cannot run as group {name}: this machine has no such group (add it, or change <group>)"
        ) from error


def _set_environment(spec: LaunchSpec, from_files: Mapping[str, str], *, to_journal: bool) -> None:
    if to_journal:
        about = os.fstat(2)
        _setenv({"JOURNAL_STREAM": f"{about.st_dev}:{about.st_ino}"})
    variables = {**environment.variables(spec, os.getpid()), **from_files}
    _setenv(variables)
    if (spec.environment or from_files) and spec.service_type != "Command":
        apply_environment({**spec.environment, **from_files})
    # Without a cgroup only these variables identify the descendants that have a session of their own.
    shown = f"NOTIFY_SOCKET={variables['NOTIFY_SOCKET']}\0ZMSVC_LAUNCH={variables['ZMSVC_LAUNCH']}\0"
    linux.show_environment(shown.encode(_ENCODING, "surrogateescape"))


def apply_environment(variables: Mapping[str, str]) -> None:
    """Apply to this interpreter, which runs already, the variables that an interpreter reads at its start, as
    far as possible.
    """
    if "TZ" in variables:
        time.tzset()
    # First on the path, as in a new interpreter. Modules that are imported already stay.
    places = [os.path.abspath(place) for place in variables.get("PYTHONPATH", "").split(os.pathsep) if place]
    sys.path[0:0] = [place for place in places if place not in sys.path]
    if any(name == "LANG" or name.startswith("LC_") for name in variables):
        # Few tasks have such a variable, and every task would have the tables of this module.
        import locale

        # As an interpreter does at its start, set only LC_CTYPE, and ignore a locale that is not installed.
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, "")


def _setenv(variables: Mapping[str, str]) -> None:
    known = interpreter.environment()
    if known is None:
        os.environ.update(variables)
        return
    # This does what os.environ.update does, without its four function calls for each variable.
    for name, value in variables.items():
        key, text = name.encode(_ENCODING, "surrogateescape"), value.encode(_ENCODING, "surrogateescape")
        linux.put_variable(key, text)
        known[key] = text


def write_stacks_on_signals() -> None:
    """Have this process write the stacks of all its threads to its log on signals.STACKS, and before a signal
    such as SIGABRT or SIGSEGV ends it. This works even while the interpreter hangs.
    """
    faulthandler.enable(file=2)
    faulthandler.register(signals.number(signals.STACKS), file=2)


def take_streams(sink: logging.Handler) -> None:
    """Log every line that Python prints as an entry with the fields of this task. Log uncaught exceptions of
    threads, too.
    """
    sys.stdin = sys.__stdin__ or open(os.devnull)  # noqa: SIM115 - it stays open as long as the process runs
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
    """Execute a program in this process. Return only on failure, with the reason."""
    # Python ignores SIGXFSZ; a program expects its default action. SIGPIPE stays ignored, as systemd has it.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        why = programs.obstacle(command[0], error.errno, command) or error.strerror
    except UnicodeEncodeError as error:
        why = f"{error.object!r} cannot be written in this locale's encoding, {error.encoding}"
    except ValueError as error:
        why = str(error)
    return f"cannot execute {command[0]}: {why}"


def join() -> None:
    """Wait for the user's threads and the work of their executors, as the interpreter does first at its
    end.
    """
    # A broad except: a callback of the user may raise any exception, and the steps after it must still run.
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # multiprocessing's processes call it, too
    except Exception as error:
        log.error("Failed at the end: %s", error, exc_info=error)


def finish() -> None:
    """Do what the interpreter does at its end. This process itself leaves by os._exit(), because the stack
    below is that of the process which forked it.
    """
    # Broad excepts: these are the user's callbacks and files, and all of them must be processed.
    try:
        atexit._run_exitfuncs()
    except Exception as error:
        log.error("Failed at the end: %s", error, exc_info=error)
    # By type(), because a proxy object of the user may run any code when its __class__ is read.
    for each in gc.get_objects():
        if issubclass(type(each), _BUFFERED):
            try:
                each.flush()
            except Exception:
                continue  # closed, or read-only
    for written in (sys.stdout, sys.stderr):
        written.close()
