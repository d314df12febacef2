"""What a context is: the frozen picture of one context file. Made by host/config, read by everyone,
changed by nobody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from zmsvc.core.service_options import ServiceOptions, ServiceType

TRANSACTION_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""What a transaction may be called (match with `fullmatch`); a generated one is 20 of A-Z0-9."""


class Action(StrEnum):
    """What a rule or an order asks of a task."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"


class Trigger(StrEnum):
    """What just happened to a task."""

    ON_START = "on_start"
    ON_UPDATE = "on_update"
    ON_FAIL = "on_fail"
    ON_EXIT = "on_exit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When `trigger` happens to the task that holds the rule, `action` is done to the task `call`."""

    trigger: Trigger
    action: Action
    call: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskService(ServiceOptions):
    """One task service as the file describes it, with its options.

    `source` is the TaskService element as JSON: attributes are keys, repeated children are lists. It goes on
    the wire, so it is without the environment of the task, which may hold secrets.
    """

    id: str
    instance: str
    topic: str = "process"
    service_type: ServiceType = ServiceType.PROCESS
    description: str = ""
    service_name: str = ""
    device_action: str = ""
    location: str | None = None
    """An absolute directory that holds `INSTANCE/ServiceINSTANCE.py`, or None: the service path is
    searched.
    """
    entry: bool = True
    """Whether it runs when its transaction starts (state type on_start or start_now); else it waits for a
    rule.
    """
    rules: tuple[Rule, ...] = ()
    command: tuple[str, ...] = ()
    """For `Command`: the program and its arguments."""
    notify: bool = False
    """For `Command`: the program says READY=1 itself, so that its exec alone is no start yet."""
    configuration: Mapping[str, Any] = field(default_factory=dict)
    """The task's own `<configuration>`; strings, lists and dicts of them."""
    source: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where the device is. Everyone publishes to `backend` (bound by the device as `front_bind`) and
    subscribes at `frontend`.
    """

    frontend: str
    """Task services connect a SUB here (the manual's sub_port)."""
    backend: str
    """Everyone connects a PUB here (the manual's pub_port)."""
    front_bind: str
    """The device's ingress (XSUB) binds this."""
    backend_bind: str
    """The device's egress (XPUB) binds this."""


class BusAccess(StrEnum):
    """Which users of this machine may connect to the bus over loopback tcp without CURVE keys."""

    MEMBERS = "members"
    ANYONE = "anyone"


MAX_TRANSACTIONS = 1000
"""Transactions that may be open at once, where the file does not say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One context file."""

    name: str
    id: str
    log_name: str
    endpoints: Endpoints
    tasks: Mapping[str, TaskService]
    """By task id, in the file's order."""
    path: str = ""
    bus_access: BusAccess = BusAccess.MEMBERS
    max_transactions: int = MAX_TRANSACTIONS
    source: Mapping[str, Any] = field(default_factory=dict)
    """The whole Context element as JSON."""
    passed_over: tuple[tuple[int, str], ...] = ()
    """What is in the file and not known, or not read, where that is no fault: a line each."""
    text: bytes = field(default=b"", repr=False)
    """The file itself, as it was read: a supervisor that takes over runs with the same, whatever the file
    says by then.
    """
