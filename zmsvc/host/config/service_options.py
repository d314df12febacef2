"""The `<service>` element of a task: how it is run and watched. Faults are noted with their element and
never raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lxml import etree

from zmsvc.core.model import KillMode, Limits, NotifyAccess
from zmsvc.core.owners import owner
from zmsvc.core.values import WHITE, amount, boolean, priority, quote, timespan, whole
from zmsvc.host.config.faults import FaultList
from zmsvc.host.config.schema import RLIMITS, SPANS
from zmsvc.host.config.xml_text import TRIMMED, loses, value
from zmsvc.host.kernel import signals

Value = TypeVar("Value")

_NONE_IS_ALLOWED = ("start_timeout", "stop_timeout", "watchdog")
_BURST_MAX = 1_000_000
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """What `<service>` says, with the defaults of what it does not say."""

    limits: Limits = field(default_factory=Limits)
    user: str | None = None
    group: str | None = None
    nice: int | None = None
    kill_mode: KillMode = KillMode.CONTROL_GROUP
    stop_signal: str = "SIGTERM"
    log_level: int | None = None
    fresh: bool = False
    notify_access: NotifyAccess = NotifyAccess.MAIN
    no_new_privileges: bool | None = None
    """None: as `user` has it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    rlimits: Mapping[str, int] = field(default_factory=dict)


def read_settings(service: etree._Element | None, notes: FaultList) -> ServiceOptions:
    """Read a `<service>`; None is one that says nothing."""
    if service is None:
        return ServiceOptions()
    return ServiceOptions(
        limits=_limits(service, notes),
        user=_optional(service, "user", owner, notes),
        group=_optional(service, "group", owner, notes),
        nice=_optional(service, "nice", lambda text: whole(text, -20, 19), notes),
        kill_mode=_optional(service, "kill_mode", _kill_mode, notes) or KillMode.CONTROL_GROUP,
        stop_signal=_optional(service, "stop_signal", signals.name, notes) or "SIGTERM",
        log_level=_optional(service, "log_level", priority, notes),
        fresh=bool(_optional(service, "fresh", boolean, notes)),
        notify_access=_optional(service, "notify_access", _notify_access, notes) or NotifyAccess.MAIN,
        no_new_privileges=_optional(service, "no_new_privileges", boolean, notes),
        environment=_environment(service, notes),
        rlimits=_rlimits(service, notes),
    )


def _optional(
    service: etree._Element, tag: str, read: Callable[[str], Value], notes: FaultList
) -> Value | None:
    element = service.find(tag)
    return None if element is None else notes.value(element, read, None)


def _limits(service: etree._Element, notes: FaultList) -> Limits:
    given: dict[str, Any] = {}
    for name in SPANS:
        seconds = _optional(service, name, timespan if name in _NONE_IS_ALLOWED else _finite, notes)
        if seconds is not None:
            given[name] = seconds
    burst = _optional(service, "start_limit_burst", lambda text: whole(text, 0, _BURST_MAX), notes)
    if burst is not None:
        given["start_limit_burst"] = burst
    return Limits(**_delays(service, given, notes))


def _delays(service: etree._Element, given: dict[str, Any], notes: FaultList) -> dict[str, Any]:
    """Whoever gives only one of the two delays means that one, and the default of the other follows it."""
    least, most = given.get("restart_delay"), given.get("restart_max_delay")
    if least is not None and most is not None and most < least:
        where = service.find("restart_max_delay")
        notes.fault(
            service if where is None else where,
            "<restart_max_delay> is shorter than <restart_delay>, expected a longer one",
        )
    elif least is not None and most is None:
        given["restart_max_delay"] = max(least, Limits().restart_max_delay)
    elif most is not None and least is None:
        given["restart_delay"] = min(most, Limits().restart_delay)
    return given


def _finite(text: str) -> float:
    if text == "infinity":
        raise ValueError("'infinity' is not allowed here, expected a time span such as 500ms or 1min 30s")
    return timespan(text)


def _kill_mode(text: str) -> KillMode:
    word = text.strip(WHITE)
    if word not in [*KillMode]:
        raise ValueError(f"{quote(text)} is no kill mode, expected {' or '.join(KillMode)}")
    return KillMode(word)


def _notify_access(text: str) -> NotifyAccess:
    word = text.strip(WHITE)
    if word not in [*NotifyAccess]:
        raise ValueError(f"{quote(text)} does not say who may notify, expected {', '.join(NotifyAccess)}")
    return NotifyAccess(word)


def _environment(service: etree._Element, notes: FaultList) -> Mapping[str, str]:
    block = service.find("environment")
    result: dict[str, str] = {}
    for child in () if block is None else block:
        name = str(child.tag)
        if not _VARIABLE.fullmatch(name):
            notes.fault(child, f"the variable {quote(name)} cannot be one, expected letters, digits and _")
        elif name in result:
            notes.fault(child, f"a second <{name}> in <environment>, expected one")
        if loses(child):
            notes.odd(child, f"the variable {quote(name)} is read {TRIMMED}")
        result[name] = value(child)
    return result


def _rlimits(service: etree._Element, notes: FaultList) -> Mapping[str, int]:
    block = service.find("limits")
    # A name that is none has been told by the shape.
    known = [child for child in (() if block is None else block) if child.tag in RLIMITS]
    return {str(child.tag): notes.value(child, amount, 0) for child in known}
