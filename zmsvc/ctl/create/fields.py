"""The checks of single fields of `create`. Pure; plan.py checks the fields together."""

from __future__ import annotations

import keyword
import re
import shlex
from collections.abc import Callable, Collection, Iterable
from ipaddress import ip_address

from zmsvc.core.values import TASK_ID
from zmsvc.host.paths import CONTEXT_NAME

CONTEXT_ID = "context001"
ENTRY_ACTIONS = ("on_start", "start_now", "on_update", "on_fail", "on_exit")
TASK_TYPES = {"single": "single", "simple": "single", "looped": "looped", "async": "async"}
"""The words for the types of a task, in lower case, and the names of their templates. `Simple` is in the
manual of zmicroservices.
"""
SWITCH = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}

_PYTHON_NAME = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]{0,63}")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_IMPORTED = ("TaskService", "LoopedTask", "SingleTask", "time")
"""Names that the generated modules import."""

Check = Callable[[str], str | None]
"""A function that returns why a text is not valid, with a valid alternative; or None."""


def not_xml(text: str) -> str | None:
    """Return why a text cannot be written into an XML file, or None."""
    if bad := _NOT_XML.search(text):
        return f"has the character U+{ord(bad[0]):04X}, which no XML file can hold: leave it out"
    return None


def either(words: Iterable[str]) -> str:
    """Format `a, b or c`."""
    *some, last = words
    return f"{', '.join(some)} or {last}" if some else last


def _python_name(text: str) -> str | None:
    if "--" in text and "=" in text:
        return "holds another flag: a closing quote is missing"
    if not _PYTHON_NAME.fullmatch(text):
        return "is not a Python name: use letters, digits and _, no digit first, no __ in front, at most 64"
    if keyword.iskeyword(text):
        return "is a keyword of Python: take another name"
    return None


def _class_name(text: str) -> str | None:
    if text in _IMPORTED:
        return "is a name that the generated module imports: take another"
    return _python_name(text)


def _identity(text: str) -> str | None:
    return None if TASK_ID.fullmatch(text) else "is not an id: use 1 to 64 letters, digits and _ . -"


def _context_name(text: str) -> str | None:
    if CONTEXT_NAME.fullmatch(text):
        return None
    return "cannot name a context: use 1 to 64 letters, digits and _ . : -, with a letter, digit or _ first"


def port(text: str) -> str | None:
    """Return why a text is not a port, or None."""
    digits = text.isascii() and text.isdigit() and len(text) <= 5
    return None if digits and 1 <= int(text) <= 65535 else "is not a port: use a number from 1 to 65535"


def _one_line(text: str) -> str | None:
    return (
        None
        if text.isprintable() and len(text) <= 128
        else "is not a name: use one line of at most 128 characters"
    )


def _any_text(text: str) -> str | None:
    return None


def _path(text: str) -> str | None:
    return (
        "has a line break, which the path of services cannot have: take another"
        if len(text.splitlines()) > 1
        else None
    )


def _ip(text: str) -> str | None:
    if text == "localhost":
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return "is not an IP address: use 127.0.0.1, or the address of the machine that runs the context"
    if address.is_unspecified or address.is_multicast:
        return "is not an address that services can connect to: use 127.0.0.1, or the machine's own address"
    return None


def _one_of(words: Collection[str]) -> Check:
    def check(text: str) -> str | None:
        return None if text in words else f"is not known: use {either(words)}"

    return check


def _task_type(text: str) -> str | None:
    return (
        None
        if text.lower() in TASK_TYPES
        else "is not a type of task: use Single (or Simple), Looped or Async"
    )


def _switch(text: str) -> str | None:
    return None if text.lower() in SWITCH else "is not a switch: use 1 or 0"


CONTEXT_REQUIRED = ("service_path", "context_name")
ENDPOINT_FIELDS = ("server_ip", "sub_port", "pub_port")
"""Fields of which all or none are given. Without them the bus is at sockets in the runtime directory of the
context.
"""
CONTEXT_CHECKS: dict[str, Check] = {
    "context_name": _context_name,
    "context_id": _identity,
    "server_ip": _ip,
    "sub_port": port,
    "pub_port": port,
    "service_path": _path,
    "home_path": _path,
    "location": _path,
    "log_on": _switch,
}
SERVICE_REQUIRED = ("task_service", "task_desc", "service_name", "task_id")
SERVICE_CHECKS: dict[str, Check] = {
    "task_service": _class_name,
    "task_file": _python_name,
    "task_class": _class_name,
    "task_desc": _any_text,
    "task_type": _task_type,
    "service_name": _one_line,
    "task_id": _identity,
    "task_topic": _identity,
    "device_action": _one_line,
    "entry_action": _one_of(ENTRY_ACTIONS),
    "location": _path,
}
RESTARTS = ("no", "on-failure", "always")
"""The ends after which `create` lets a task start again, in the words of the option `restart`."""


def _command(text: str) -> str | None:
    try:
        return None if "".join(shlex.split(text)[:1]) else "has no program: give one and its arguments"
    except ValueError as error:
        return f"cannot be split ({str(error).lower()}): quote words as in sh"


RESTART_CHECKS: dict[str, Check] = {"restart": _one_of(RESTARTS)}
COMMAND_CHECKS: dict[str, Check] = {
    **{name: SERVICE_CHECKS[name] for name in ("task_desc", "service_name", "task_id", "task_topic")},
    "task_service": _identity,
    "device_action": _one_line,
    "entry_action": SERVICE_CHECKS["entry_action"],
    "command": _command,
}
"""The checks of a program, whose name no Python module has."""
