"""What a context would meet on this machine now, as warnings for `check`: endpoints in use, services that
are missing.
"""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path

from zmsvc.core import foreground, shell
from zmsvc.core.checks import ConfigWarning
from zmsvc.core.errors import ConfigError, ZmsvcError
from zmsvc.core.model import Context, TaskService
from zmsvc.core.service_options import ServiceType
from zmsvc.host.bus import endpoints, members
from zmsvc.host.config import exposed_binds
from zmsvc.host.kernel import programs
from zmsvc.host.paths import control_socket, service_path

_MAX_MODULES = 100
"""How many modules of a service are compiled; more take longer than who asks wants to wait."""
_MAX_MODULE = 1 << 20
"""Bytes; a larger module is data."""


def check_binds(context: Context, *, curve: bool) -> list[ConfigWarning]:
    """What could not be bound for want of CURVE keys, or would not be found where the file says, with its
    line.
    """
    found = [] if curve else [*exposed_binds.refused(context), *exposed_binds.refused_to_monitors(context)]
    return [
        ConfigWarning(line=line, text=words)
        for line, words in [*found, *exposed_binds.unreachable(context, curve=curve)]
    ]


def check_ports(context: Context) -> list[ConfigWarning]:
    """Which of the two places that the device binds could not be bound now, and why; what only keys are
    missing for is left out.
    """
    ends = context.endpoints
    found: list[ConfigWarning] = []
    for name, place in (("FrontBind", ends.front_bind), ("BackendBind", ends.backend_bind)):
        why = _ipc(place.removeprefix("ipc://"), context.name) if place.startswith("ipc://") else _tcp(place)
        if why:
            found.append(ConfigWarning(element=name, text=f"{name} {place}: {why}"))
    return found


def _tcp(place: str) -> str:
    try:
        place = endpoints.safe_bind(place, curve=False)
    except ConfigError:
        return ""
    try:
        endpoints.listen(place).close()
    except ZmsvcError as error:
        return str(error)
    return ""


def _ipc(path: str, name: str) -> str:
    """By connecting: to bind would leave a file behind, or take one away."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        # zmsvcd makes the runtime directory of the context at its start.
        return (
            ""
            if Path(folder) == control_socket(name).parent
            else f"the directory {folder} does not exist now"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return ""
        except BlockingIOError:
            pass  # Its backlog is full, so somebody does listen.
        except OSError as error:
            return f"cannot be looked at ({(error.strerror or str(error)).lower()})"
    return "in use now: somebody listens there"


def check_services(context: Context) -> list[ConfigWarning]:
    """Which tasks could not be launched now: no code, no program, no right to become their user."""
    return [
        ConfigWarning(task=task.id, text=f"{task.id}: {text}")
        for task in context.tasks.values()
        for text in _missing(task)
    ]


def _missing(task: TaskService) -> Iterator[str]:
    if os.geteuid() and (task.user or task.group):
        yield "it wants another user or group, which only root can give it"
    if task.user and members.number(task.user) is None:
        yield f"its <user> {task.user} is unknown on this machine, so that the task cannot be started here"
    if task.group and members.group_number(task.group) is None:
        yield f"its <group> {task.group} is unknown on this machine, so that the task cannot be started here"
    if task.service_type is ServiceType.COMMAND:
        yield from _program(task)
        yield from foreground.warnings(task.command, _text)
        return
    places = [Path(task.location)] if task.location else service_path()
    file = f"{task.instance}/Service{task.instance}.py"
    if task.instance == "Monitor":
        return  # It comes with zmsvc.
    found = next((place / file for place in places if (place / file).is_file()), None)
    if found is None:
        yield f"there is no {file} in {':'.join(map(str, places))}"
    else:
        yield from _uncompilable(found.parent)


def _uncompilable(service: Path) -> Iterator[str]:
    """Compile the modules of a service, and run none: `check` may be asked by another user than the one
    whose code it is.
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


def _program(task: TaskService) -> Iterator[str]:
    """Look for the program where the task will: in its own PATH, from its own working directory."""
    program = task.command[0]
    if shell.assigned(program) or shell.builtin(program):
        # The file is warned of it, whatever the machine has.
        return
    found = programs.find(program, task.environment.get("PATH", os.environ.get("PATH", os.defpath)))
    if not found:
        where = ""
        if "/" in program and not os.path.isabs(program):
            where = (
                f": a relative path leads from {programs.WORKING_DIRECTORY}, the working directory of each "
                f"task"
            )
        elif "PATH" in task.environment and "/" not in program:
            where = " in the PATH of its <environment>"
        yield f"its program {program} is not found, or may not be executed{where}"
    elif why := programs.missing_interpreter(found):
        yield f"its program {program} cannot be executed: {why}"


def _text(path: str) -> str:
    """Return the beginning of a configuration file; empty when it cannot be read, or is no file."""
    try:
        if not os.path.isfile(path):
            return ""
        with open(path, errors="replace") as file:
            return file.read(1 << 20)
    except (OSError, ValueError):
        return ""
