"""Find the binds of a context that zmsvc refuses because there are no CURVE keys, and those at another
address than the one to which clients connect. Each is found with its line in the file.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import TYPE_CHECKING

from zmsvc.core.checks import ConfigWarning
from zmsvc.core.errors import ConfigError
from zmsvc.core.model import Context
from zmsvc.core.values import Endpoint, endpoint
from zmsvc.host.bus.endpoints import safe_bind
from zmsvc.host.config.xml_text import leaf, lines, tree

if TYPE_CHECKING:
    from lxml import etree

_ELEMENTS = (("FrontBind", "BackendEndpoint"), ("BackendBind", "FrontEndEndpoint"))
"""For each bind of the device the element that names it, and the element that counts if that one is
missing.
"""


def refused(context: Context) -> list[tuple[int, str]]:
    """Return the binds of the device that need keys: line and `cannot bind ...`."""
    binds = (context.endpoints.publish_bind, context.endpoints.subscribe_bind)
    if not context.listed.names and not any(map(_open_to_others, binds)):
        # Every start comes here, and to parse a file of a thousand tasks again takes time.
        return []
    root = tree(context.text, context.path)
    found = _faults(context, context.text, root, _device(root))
    return sorted([*found, *_hosts(context, root)])


def _hosts(context: Context, root: etree._Element) -> list[tuple[int, str]]:
    """Return the fault of `<hosts>`. A client that poses as a host gets the environments of tasks, and can
    report anything about them; even on loopback it may be a program of another user.
    """
    element = root.find("hosts")
    if element is None:
        return []
    words = (
        f"cannot bind {context.listed.bind} for <hosts> without CURVE keys: any client could pose as a host, "
        f"expected keys (zmsvcctl -c {context.name} keys make)"
    )
    return [(lines(context.text, root)[element], words)]


def refused_to_monitors(context: Context) -> list[ConfigWarning]:
    """Return the binds of Monitor services that need keys. Each of these Monitors would fail by itself."""
    root = tree(context.text, context.path)
    found = [
        ConfigWarning(line=line, text=words)
        for line, words in _faults(context, context.text, root, _monitors(root))
    ]
    for part in context.parts:
        root = tree(part.text, part.path)
        found += [
            ConfigWarning(file=part.path, line=line, text=words)
            for line, words in _faults(context, part.text, root, _monitors(root))
        ]
    return found


def unreachable(context: Context, *, curve: bool) -> list[tuple[int, str]]:
    """Return the binds that a client of the endpoint in the file cannot reach: line and reason.

    A file of zmicroservices has `tcp://*` in its binds and an address of the machine in its endpoints.
    Without keys `*` is loopback. Two different addresses beyond loopback are no fault, since a network may
    translate one to the other. A host name without an address now is not a fault, either.
    """
    ends = context.endpoints
    pairs = (
        ("FrontBind", ends.publish_bind, "BackendEndpoint", ends.publish_endpoint),
        ("BackendBind", ends.subscribe_bind, "FrontEndEndpoint", ends.subscribe_endpoint),
    )
    found = []
    for bind_tag, bound, tag, connected in pairs:
        try:
            actual, wanted = (
                endpoint(safe_bind(bound, curve=curve), bind=True),
                endpoint(connected, bind=False),
            )
        except (ConfigError, ValueError):
            continue  # The reader and `refused` report these.
        if _may_reach(actual, wanted):
            continue
        keys = (
            ""
            if curve or not endpoint(bound, bind=True).wildcard
            else f", or keys (zmsvcctl -c {context.name} keys make)"
        )
        words = (
            f"{tag} {connected} is not where the device listens: {bind_tag} {bound} is bound at {actual}, "
            f"expected {actual}{keys}"
        )
        found.append((bind_tag, tag, words))
    if not found:
        return []
    root = tree(context.text, context.path)
    line = lines(context.text, root)
    elements = [(root.find(tag), root.find(bind_tag), words) for bind_tag, tag, words in found]
    return sorted(
        (line[next(each for each in (one, other, root) if each is not None)], words)
        for one, other, words in elements
    )


def _may_reach(bound: Endpoint, connected: Endpoint) -> bool:
    """Return False if a client of `connected` certainly does not reach the socket bound at `bound`."""
    if bound.scheme != "tcp" or bound.wildcard:
        return True
    bound_addresses, client_addresses = _addresses(bound), _addresses(connected)
    if not bound_addresses or not client_addresses or bound_addresses & client_addresses:
        return True
    return not any(ip_address(each).is_loopback for each in bound_addresses | client_addresses)


def _addresses(named: Endpoint) -> set[str]:
    try:
        return {
            str(info[4][0])
            for info in socket.getaddrinfo(named.host.strip("[]"), named.port, type=socket.SOCK_STREAM)
        }
    except (OSError, UnicodeError):
        return set()


def _device(root: etree._Element) -> Iterator[etree._Element]:
    for tags in _ELEMENTS:
        found = [element for tag in tags if (element := root.find(tag)) is not None and leaf(element)]
        yield from found[:1]


def _monitors(root: etree._Element) -> Iterator[etree._Element]:
    for task in root.findall("TaskService"):
        if str(task.get("instance", "")).strip() == "Monitor":
            for tag in ("service", "publisher"):
                yield from task.findall(f"Task/message/content/configuration/{tag}/endpoint")


def _open_to_others(endpoint: str) -> bool:
    try:
        safe_bind(endpoint, curve=False)
    except ConfigError:
        return True
    return False


def _faults(
    context: Context, text: bytes, root: etree._Element, elements: Iterable[etree._Element]
) -> list[tuple[int, str]]:
    found = [element for element in elements if _open_to_others(leaf(element))]
    # To find lines takes time, and most files have no faults.
    line = lines(text, root) if found else {}
    why = (
        "without CURVE keys: any client that reaches that address could give orders, expected a loopback "
        "address or an ipc:// path, or keys "
        f"(zmsvcctl -c {context.name} keys make)"
    )
    return sorted((line[element], f"cannot bind {leaf(element)} {why}") for element in found)
