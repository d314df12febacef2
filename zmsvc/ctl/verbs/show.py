"""The verb `show`: the properties of a task or of the context as lines of `NAME=VALUE`, for scripts. The
names are systemd's, where systemd has the property.
"""

from __future__ import annotations

import argparse
import json

from zmsvc.ctl import render, status_source, terminal
from zmsvc.ctl.client import CtlError
from zmsvc.ctl.file_change import needs_reload
from zmsvc.ctl.select_context import choose
from zmsvc.ctl.status_reply import ContextStatus, objects, unit_file_state

TYPE_CHECKING = False  # As in client: an import of typing is too slow.
if TYPE_CHECKING:
    from typing import Any

    from zmsvc.ctl.client import Json

OF_TASK = {
    "Id": "id",
    "Transaction": "transaction",
    "Description": "description",
    "Instance": "instance",
    "ServiceName": "name",
    "ActiveState": "state",
    "SubState": "sub",
    "StateChangeTimestamp": "since",
    "MainPID": "pid",
    "Host": "host",
    "NRestarts": "restarts",
    "StatusText": "status",
    "Action": "action",
    "Result": "result",
    "ExecMainCode": "main_code",
    "ExecMainStatus": "main_status",
    "ExecMainExitTimestamp": "exit.at",
    "ExitReason": "exit.reason",
    "ExitCode": "exit.code",
    "ExitSignal": "exit.signal",
    "CauseBy": "cause.by",
    "CauseUID": "cause.uid",
    "Entry": "entry",
    "Health": "health",
    "HealthText": "health_text",
    "Held": "held",
    "UnitFileState": "enabled",
    "DroppedUpdates": "dropped",
    "MissedMessages": "missed",
    "PoisonMessages": "poisoned",
    "NFileDescriptorStore": "stored_descriptors",
    "User": "user",
    "ControlGroup": "cgroup",
}
"""The properties of a task, with their places in the answer to `status`."""
OF_CONTEXT = {
    "Id": "name",
    "ContextId": "id",
    "ActiveState": "state",
    "FragmentPath": "file",
    "NeedDaemonReload": "need_reload",
    "Transactions": "open",
    "MainPID": "keeper_pid",
    "SupervisorPID": "pid",
    "DevicePID": "device_pid",
    "NRestarts": "restarts",
    "DeviceNRestarts": "device_restarts",
    "FrontEndEndpoint": "frontend",
    "BackendEndpoint": "backend",
    "Curve": "curve",
    "Log": "log",
    "Unsaved": "unsaved",
    "KeeperVersion": "keeper_version",
    "SupervisorVersion": "supervisor_version",
    "ZygoteVersion": "zygote_version",
}
"""The properties of the context, in the same way."""
_TIMES = frozenset({"StateChangeTimestamp", "ExecMainExitTimestamp"})
"""Properties that are printed in the form of systemctl. With --json they are RFC 3339."""
_RESULTS = {
    "": "success",
    "exited": "success",
    "requested": "success",
    "not-ready": "protocol",
    "cannot-launch": "resources",
    "start-limit": "start-limit-hit",
    "lost": "resources",
}
"""The words of systemd's Result= for the reasons of an end, where they differ."""
_CLD_EXITED, _CLD_KILLED = 1, 2
_NUMBERS = frozenset(
    {
        "MainPID",
        "NRestarts",
        "DroppedUpdates",
        "NFileDescriptorStore",
        "SupervisorPID",
        "DevicePID",
        "DeviceNRestarts",
        "ExecMainCode",
        "ExecMainStatus",
    }
)
"""Properties that are 0 where the answer has no value, as MainPID of systemd is."""


def show(args: argparse.Namespace) -> int:
    """show: print the properties. Returns 0 also for a task that does not run, as systemctl does."""
    table = OF_TASK if args.tasks else OF_CONTEXT
    names = _selected(args, table)
    places = choose(args.context, args.transaction)
    data = status_source.current(args, places)
    if args.tasks:
        shown = [
            {
                **task,
                "transaction": each.get("id"),
                "enabled": unit_file_state(task.get("disabled") is True, task.get("entry") is True),
                **_main_process(task),
            }
            for each in objects(data.get("transactions"))
            for task in objects(each.get("tasks"))
        ]
        if not shown:
            raise CtlError(
                4, f"cannot show {args.tasks[0]}: no transaction has it (zmsvcctl -c {places.name} status)"
            )
    else:
        transactions = ContextStatus(data).transactions
        # If the context does not run, these are the transactions that its next start resumes.
        opened = [each.id for each in transactions if each.open or each.resumes]
        shown = [data | {"open": opened, "need_reload": needs_reload(ContextStatus(data), places)}]
    found = [{name: _value(each, name, table[name]) for name in names} for each in shown]
    if args.json:
        terminal.out(json.dumps({"properties": found}) + "\n")
        return 0
    blocks = (
        "".join(
            terminal.clean(_line(name, _shown(name, value), args.value)) + "\n"
            for name, value in each.items()
        )
        for each in found
    )
    terminal.out("\n".join(blocks))
    return 0


def _main_process(task: Json) -> Json:
    """Return the result and the status of the last main process, in the words of systemd. While a process
    runs, they do not show the end of the previous one.
    """
    end = task.get("exit")
    if not isinstance(end, dict) or task.get("pid") is not None:
        return {"result": "success", "main_code": 0, "main_status": 0}
    reason, name = str(end.get("reason") or ""), end.get("signal")
    timed_out = reason == "not-ready" and name is not None
    code = end.get("code")
    return {
        "result": "timeout" if timed_out else _RESULTS.get(reason, reason),
        "main_code": _CLD_KILLED if name else _CLD_EXITED if code is not None else 0,
        "main_status": _signal_number(name) if name else code or 0,
    }


def _signal_number(name: object) -> int:
    # Imported here for start-up time: few tasks are ended by a signal.
    import signal

    found = getattr(signal.Signals, str(name), None)
    if found is not None:
        return int(found)
    number = str(name).removeprefix("SIG")
    return int(number) if number.isascii() and number.isdigit() else 0


def _selected(args: argparse.Namespace, table: dict[str, str]) -> list[str]:
    """Return the names that -p selects, each once and in their order; without -p all of them. Raises CtlError
    2 for an unknown name.
    """
    names = [name for words in args.property for name in words.split(",") if name]
    what = "a task" if table is OF_TASK else "a context"
    for name in names:
        if name not in table:
            raise CtlError(2, f"cannot show {name}: {what} has no such property{_similar(name, table)}")
    return [*dict.fromkeys(names)] or [*table]


def _similar(name: str, table: dict[str, str]) -> str:
    # Imported here for start-up time: most of the time the name is right.
    from zmsvc.core.similar import similar

    return similar(name, table, 0.6) or " (zmsvcctl show lists them)"


def _value(data: Json, name: str, place: str) -> Any:
    value: Any = data
    for part in place.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return 0 if value is None and name in _NUMBERS else value


def _shown(name: str, value: Any) -> Any:
    moment = render.epoch(value) if name in _TIMES and isinstance(value, str) else None
    return value if moment is None else render.moment(moment)


def _line(name: str, value: Any, only_value: bool) -> str:
    match value:
        case None:
            text = ""
        case bool():
            text = "yes" if value else "no"
        case list():
            text = " ".join(map(str, value))
        case _:
            text = str(value)
    return text if only_value else f"{name}={text}"
