"""Decide which variables a task inherits, and make those that are added. The caller reads and sets the
environment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from zmsvc.core import replicas
from zmsvc.protocol.launch import LaunchSpec

_NOT_INHERITED = frozenset(
    {"NOTIFY_SOCKET", "JOURNAL_STREAM", "INVOCATION_ID", "MAINPID", "MANAGERPID", "SYSTEMD_EXEC_PID"}
)
"""Variables that systemd has set for the daemon. A task must not take them for its own."""
_NOT_INHERITED_PREFIXES = ("WATCHDOG_", "LISTEN_", "ZMSVC_")
_DIRECTORIES = frozenset({"ZMSVC_CONFIG_DIR", "ZMSVC_RUNTIME_DIR", "ZMSVC_STATE_DIR", "ZMSVC_SERVICE_PATH"})
"""By these variables `zmsvcctl` finds the context of a task that runs it."""
CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""The directory of the unit's LoadCredential= secrets. A task of another user does not inherit it."""
_NEUTRAL = frozenset({"PATH", "LANG", "TZ", "HOME", "USER", "LOGNAME", "SHELL", "NOTIFY_SOCKET"})
"""HOME, USER, LOGNAME, SHELL and NOTIFY_SOCKET are here because the task sets them afterwards to values of
its own.
"""


def inherited(name: str) -> bool:
    """Return True if a task inherits this variable from the daemon."""
    return name in _DIRECTORIES or not (name in _NOT_INHERITED or name.startswith(_NOT_INHERITED_PREFIXES))


def neutral(name: str) -> bool:
    """Return True if a task of another user may keep this variable when a person has started the daemon: its
    value says nothing about that person, or the task replaces it.
    """
    return name in _NEUTRAL or name.startswith(("LC_", "ZMSVC_"))


def variables(spec: LaunchSpec, pid: int) -> dict[str, str]:
    """Return the variables set in addition to the inherited ones. The context file's <environment> overrides
    them.
    """
    result = {
        "NOTIFY_SOCKET": spec.notify,
        "ZMSVC_CONTEXT": spec.context,
        "ZMSVC_TRANSACTION": spec.transaction,
        # The keeper finds processes that a task has left behind by this variable.
        "ZMSVC_LAUNCH": str(spec.launch),
        "ZMSVC_FRONTEND": spec.frontend,
        "ZMSVC_BACKEND": spec.backend,
    }
    if spec.keys is not None:
        result["ZMSVC_KEYS"] = spec.keys
    # A shared process has none of these, since they differ between its tasks.
    if spec.service_type != "Thread":
        result |= {"ZMSVC_TASK": spec.task, "ZMSVC_INSTANCE": spec.instance, **cause_variables(spec.cause)}
        if (replica := replicas.number(spec.task)) is not None:
            result["ZMSVC_REPLICA"] = str(replica)
        if spec.listen_names:
            names = ":".join(spec.listen_names)
            result |= {
                "LISTEN_FDS": str(len(spec.listen_names)),
                "LISTEN_PID": str(pid),
                "LISTEN_FDNAMES": names,
            }
            if spec.stored:
                result["ZMSVC_STORED_FDS"] = str(spec.stored)
        if spec.watchdog:
            result |= {"WATCHDOG_USEC": str(int(spec.watchdog * 1e6)), "WATCHDOG_PID": str(pid)}
    for name, value in spec.environment.items():
        result[name] = str(value)
    return result


def cause_variables(cause: Mapping[str, Any]) -> dict[str, str]:
    """Return the cause of the start as variables. The last source has variables of its own; all sources are
    in ZMSVC_CAUSE_SOURCES.
    """
    result = {"ZMSVC_CAUSE_BY": str(cause.get("by") or ""), "ZMSVC_CAUSE_DEPTH": str(cause.get("depth", 0))}
    if cause.get("uid") is not None:
        result["ZMSVC_CAUSE_UID"] = str(cause["uid"])
    sources = cause.get("sources") or []
    if not sources:
        return result
    last = sources[-1]
    result |= {
        f"ZMSVC_CAUSE_{name.upper()}": str(last[name])
        for name in ("task", "trigger", "rule")
        if last.get(name)
    }
    for name in ("code", "signal", "reason"):
        value = (last.get("exit") or {}).get(name)
        if value is not None:
            result[f"ZMSVC_CAUSE_EXIT_{name.upper()}"] = str(value)
    if last.get("update") is not None:
        result["ZMSVC_CAUSE_UPDATE"] = json.dumps(last["update"])
    return result | {"ZMSVC_CAUSE_SOURCES": json.dumps(sources)}
