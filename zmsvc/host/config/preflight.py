"""Warnings of `zmsvcctl check` about a context on this machine now: endpoints in use, services that are
missing.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import pwd
import socket
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from zmsvc.core import foreground, resource_limits, shell
from zmsvc.core.checks import ConfigWarning, variable_warnings
from zmsvc.core.errors import ConfigError, ZmsvcError
from zmsvc.core.listening import ListenSocket
from zmsvc.core.model import Context, TaskDefinition
from zmsvc.core.probing import probe_of
from zmsvc.core.service_options import ServiceType
from zmsvc.core.similar import similar
from zmsvc.core.values import Endpoint, optional_path
from zmsvc.host import environment_file, user_ids
from zmsvc.host.bus import endpoints
from zmsvc.host.config import exposed_binds
from zmsvc.host.kernel import cgroups, programs
from zmsvc.host.paths import control_socket, service_path

_MAX_MODULES = 100
"""The most modules of a service that are compiled. More would make the operator wait."""
_MAX_MODULE = 1 << 20
"""Bytes. A larger module is taken for data."""


def check_binds(context: Context, *, curve: bool) -> list[ConfigWarning]:
    """Return the binds that need CURVE keys, and those that clients of the endpoints in the file would not
    reach, with their lines.
    """
    device = [] if curve else exposed_binds.refused(context)
    return [
        *(ConfigWarning(line=line, text=words) for line, words in device),
        *([] if curve else exposed_binds.refused_to_monitors(context)),
        *(
            ConfigWarning(line=line, text=words)
            for line, words in exposed_binds.unreachable(context, curve=curve)
        ),
    ]


def check_ports(context: Context) -> list[ConfigWarning]:
    """Return the binds of the device, and the sockets of tasks, that would fail now, with the reason. Binds
    that only need keys are left out.
    """
    found: list[ConfigWarning] = []
    for name, bind in _binds(context):
        why = _ipc(bind.removeprefix("ipc://"), context.name) if bind.startswith("ipc://") else _tcp(bind)
        if why:
            element = context.element_of_bind(name)
            shown = f"{'the bus' if element == 'Context' else element} {bind}"
            found.append(ConfigWarning(element=element, text=f"{shown}: {why}"))
    return [*found, *_sockets(context)]


def _sockets(context: Context) -> Iterator[ConfigWarning]:
    """Yield the sockets of tasks that could not be opened now, with the reason."""
    for task in context.as_written.values():
        for each in task.listen:
            if each.path is not None:
                why = _owners(each) or _unix(each.path)
            else:
                why = "" if each.endpoint.scheme == "ipc" else _port(each.endpoint)
            if why:
                yield ConfigWarning(task=task.id, text=f"{task.id}: <listen> {each.address}: {why}")


def _owners(each: ListenSocket) -> str:
    if each.user is not None and user_ids.number(each.user) is None:
        return f"this machine has no user {each.user}"
    if each.group is not None and user_ids.group_number(each.group) is None:
        return f"this machine has no group {each.group}"
    return ""


def _unix(path: str) -> str:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return "there is a file, and not a socket"
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"cannot be looked at ({(error.strerror or str(error)).lower()})"
    return _unix_in_use(path)


def _port(place: Endpoint) -> str:
    family = socket.AF_INET6 if place.host.startswith("[") else socket.AF_INET
    host = "0.0.0.0" if place.host == "*" else place.host.strip("[]")
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, place.port))
            probe.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "in use now: another process listens there (ss -ltnp shows which)"
        if error.errno == errno.EACCES:
            return "a port below 1024 needs root or CAP_NET_BIND_SERVICE"
        return f"cannot be used now ({(error.strerror or str(error)).lower()})"
    return ""


def failed_bind(context: Context, problem: str) -> ConfigWarning | None:
    """Return the problem of a device that cannot bind, with its element; None for any other problem."""
    for name, bind in _binds(context):
        bound = {bind}
        with contextlib.suppress(ConfigError):
            bound.add(endpoints.safe_bind(bind, curve=False))
        if problem.startswith(tuple(f"cannot bind {each}: " for each in bound)):
            return ConfigWarning(element=context.element_of_bind(name), text=problem)
    return None


def _binds(context: Context) -> tuple[tuple[str, str], ...]:
    ends = context.endpoints
    return ("FrontBind", ends.publish_bind), ("BackendBind", ends.subscribe_bind)


def _tcp(bind: str) -> str:
    try:
        allowed = endpoints.safe_bind(bind, curve=False)
    except ConfigError:
        return ""
    try:
        endpoints.listen(allowed).close()
    except ZmsvcError as error:
        # The caller names the endpoint already.
        return str(error).removeprefix(f"cannot bind {allowed}: ")
    return ""


def _ipc(path: str, name: str) -> str:
    """Return the reason why a path cannot be bound. This connects to find out, because a bind would leave a
    file, or remove one.
    """
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        # zmsvcd makes the runtime directory of the context when it starts.
        return (
            ""
            if Path(folder) == control_socket(name).parent
            else f"the directory {folder} does not exist now"
        )
    return _unix_in_use(path)


def _unix_in_use(path: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return ""
        except BlockingIOError:
            pass  # The backlog is full, so a process listens.
        except OSError as error:
            return f"cannot be looked at ({(error.strerror or str(error)).lower()})"
    return "in use now: another process listens there"


def check_services(context: Context) -> list[ConfigWarning]:
    """Return the tasks whose launch would fail now: no code, no program, no right to change to their user."""
    return [
        ConfigWarning(task=task.id, text=f"{task.id}: {text}")
        for task in context.as_written.values()
        for text in _missing(task)
    ]


def _missing(task: TaskDefinition) -> Iterator[str]:
    if os.geteuid() and (task.user or task.group):
        yield "it has another user or group, which only root can give it"
    if task.user and user_ids.number(task.user) is None:
        yield f"its <user> {task.user} is unknown on this machine, so that the task cannot be started here"
    if task.group and user_ids.group_number(task.group) is None:
        yield f"its <group> {task.group} is unknown on this machine, so that the task cannot be started here"
    for option in resource_limits.named(task):
        controller = resource_limits.CONTROLLERS[option]
        if controller not in cgroups.machine_controllers():
            yield (
                f"its <{option}> has no effect here: this machine has no {controller} controller in cgroup v2"
            )
    directory = _working_directory(task)
    if directory and not optional_path(task.working_directory or "")[1] and not os.path.isdir(directory):
        what = "is not a directory" if os.path.exists(directory) else "does not exist"
        yield f"its <working_directory> {directory} {what}, so that the task cannot be started here"
    variables = dict(task.environment)
    for file in task.environment_file:
        try:
            of_file = environment_file.read(file)
        except ValueError as error:
            yield f"its <environment_file> cannot be read here: {error}"
        else:
            variables |= of_file
            yield from variable_warnings(task, of_file, f"its <environment_file> {optional_path(file)[0]}")
    commands = {"reload_command": task.reload_command}
    commands |= {
        name: probe.command
        for name, probe in (("health", task.health), ("ready", probe_of(task.ready)))
        if probe
    }
    for name, command in commands.items():
        for text in _program(task, command[0], variables) if command else ():
            yield f"{text} (of its <{name}>)"
    if task.service_type is ServiceType.COMMAND:
        yield from _program(task, task.command[0], variables)
        yield from foreground.warnings(task.command, _text)
        return
    if task.python is not None and not programs.find(task.python, ""):
        yield (
            f"its <python> {task.python} is not found, or may not be executed, so that the task cannot be "
            f"started here"
        )
    places = [Path(task.location)] if task.location else service_path()
    file = f"{task.instance}/Service{task.instance}.py"
    if task.instance == "Monitor" or task.retains:
        return  # The service is part of zmsvc.
    found = next((place / file for place in places if (place / file).is_file()), None)
    if found is None:
        yield f"there is no {file} in {':'.join(map(str, places))}{_similar_service(task.instance, places)}"
    else:
        yield from _uncompilable(found.parent)


def _similar_service(instance: str, places: Iterable[Path]) -> str:
    found = itertools.chain.from_iterable(place.glob("*/Service*.py") for place in places)
    return similar(instance, (each.parent.name for each in found))


def _working_directory(task: TaskDefinition) -> str:
    """Return the directory in which a task begins; empty if the file names none, or the home directory of an
    unknown user.
    """
    path, optional = optional_path(task.working_directory or "")
    if path == "~":
        uid = os.geteuid() if task.user is None else user_ids.number(task.user)
        try:
            path = "" if uid is None else pwd.getpwuid(uid).pw_dir
        except KeyError:
            path = programs.WORKING_DIRECTORY
    return programs.WORKING_DIRECTORY if optional and not os.path.isdir(path) else path


def _uncompilable(service: Path) -> Iterator[str]:
    """Compile the modules of a service, and run none of them, because the code may belong to another user
    than the one who runs `check`.
    """
    for file in sorted(service.glob("*.py"))[:_MAX_MODULES]:
        try:
            if not file.is_file() or file.stat().st_size > _MAX_MODULE:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compile(file.read_bytes(), file, "exec", dont_inherit=True)
        except SyntaxError as error:
            yield (
                f"{file}:{error.lineno or 1}: {type(error).__name__}: {error.msg}: a task that imports it "
                f"cannot start"
            )
        except (OSError, ValueError, RecursionError, MemoryError) as error:
            yield f"{file}: {type(error).__name__}: {error}: a task that imports it cannot start"


def _program(task: TaskDefinition, program: str, variables: Mapping[str, str]) -> Iterator[str]:
    """Look for the program as the task will: in the PATH and from the working directory of the task."""
    if shell.assigned(program) or shell.builtin(program):
        # core/checks.py warns of these, on every machine.
        return
    place = _working_directory(task) or programs.WORKING_DIRECTORY
    found = programs.find(program, variables.get("PATH", os.environ.get("PATH", os.defpath)), place)
    if not found:
        where = ""
        if "/" in program and not os.path.isabs(program):
            of = "each task" if task.working_directory is None else "this task"
            where = f": a relative path leads from {place}, the working directory of {of}"
        elif "PATH" in variables and "/" not in program:
            where = " in the PATH of its <environment>"
        yield f"its program {program} is not found, or may not be executed{where}"
    elif why := programs.missing_interpreter(found, place):
        yield f"its program {program} cannot be executed: {why}"


def _text(path: str) -> str:
    """Return the beginning of a configuration file. Empty if it cannot be read, or is not a file."""
    try:
        if not os.path.isfile(path):
            return ""
        with open(path, errors="replace") as file:
            return file.read(1 << 20)
    except (OSError, ValueError):
        return ""
