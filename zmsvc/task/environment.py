"""The environment of a task: what it inherits and what it is told. Nothing is read or set here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from zmsvc.protocol.launch import LaunchSpec

_NOT_INHERITED = frozenset(
    {"NOTIFY_SOCKET", "JOURNAL_STREAM", "INVOCATION_ID", "MAINPID", "MANAGERPID", "SYSTEMD_EXEC_PID"}
)
"""What the daemon was told by systemd, and a task must not take for its own."""
_NOT_INHERITED_PREFIXES = ("WATCHDOG_", "LISTEN_", "ZMSVC_")
_PLACES = frozenset({"ZMSVC_CONFIG_DIR", "ZMSVC_RUNTIME_DIR", "ZMSVC_STATE_DIR", "ZMSVC_SERVICE_PATH"})
"""With these a task that runs `zmsvcctl` finds its own context."""
OF_THE_UNIT = "CREDENTIALS_DIRECTORY"
"""Where LoadCredential= of the unit puts secrets: for its own user, and for no task of another one."""
_NEUTRAL = frozenset({"PATH", "LANG", "TZ", "HOME", "USER", "LOGNAME", "SHELL", "NOTIFY_SOCKET"})


def inherited(name: str) -> bool:
    """Whether a task inherits this variable from the daemon."""
    return name in _PLACES or not (name in _NOT_INHERITED or name.startswith(_NOT_INHERITED_PREFIXES))


def neutral(name: str) -> bool:
    """Tell whether this variable says nothing of the person who started the daemon, so that a task of
    another user inherits it, too.
    """
    return name in _NEUTRAL or name.startswith(("LC_", "ZMSVC_"))


def told(spec: LaunchSpec, pid: int) -> dict[str, str]:
    """What a task is told beyond what it inherits. What the context file says wins."""
    made = {
        "NOTIFY_SOCKET": spec.notify,
        "ZMSVC_CONTEXT": spec.context,
        "ZMSVC_TRANSACTION": spec.transaction,
        # The mark by which the keeper finds what a task has left behind.
        "ZMSVC_LAUNCH": str(spec.launch),
    }
    # Tasks that share a process differ in these, so there they are in no environment.
    if spec.service_type != "Thread":
        made |= {"ZMSVC_TASK": spec.task, "ZMSVC_INSTANCE": spec.instance, **cause(spec.cause)}
        if spec.watchdog:
            made |= {"WATCHDOG_USEC": str(int(spec.watchdog * 1e6)), "WATCHDOG_PID": str(pid)}
    for name, value in spec.environment.items():
        made[name] = str(value)
    return made


def cause(given: Mapping[str, Any]) -> dict[str, str]:
    """What started the task, for programs. The last of its sources stands for itself, all of them are in
    ZMSVC_CAUSE_SOURCES.
    """
    made = {"ZMSVC_CAUSE_BY": str(given.get("by") or ""), "ZMSVC_CAUSE_DEPTH": str(given.get("depth", 0))}
    if given.get("uid") is not None:
        made["ZMSVC_CAUSE_UID"] = str(given["uid"])
    sources = given.get("sources") or []
    if not sources:
        return made
    last = sources[-1]
    made |= {
        f"ZMSVC_CAUSE_{name.upper()}": str(last[name])
        for name in ("task", "trigger", "rule")
        if last.get(name)
    }
    for name in ("code", "signal", "reason"):
        value = (last.get("exit") or {}).get(name)
        if value is not None:
            made[f"ZMSVC_CAUSE_EXIT_{name.upper()}"] = str(value)
    if last.get("update") is not None:
        made["ZMSVC_CAUSE_UPDATE"] = json.dumps(last["update"])
    return made | {"ZMSVC_CAUSE_SOURCES": json.dumps(sources)}
