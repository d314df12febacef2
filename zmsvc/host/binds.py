"""Binds: which of the places that a context wants to bind it may not, for want of CURVE keys, each with its line in the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lxml import etree

from zmsvc.core.errors import ConfigError
from zmsvc.core.model import Context
from zmsvc.host.endpoints import safe_bind
from zmsvc.host.markup import leaf, lines, tree

_ELEMENTS = (("FrontBind", "BackendEndpoint"), ("BackendBind", "FrontEndEndpoint"))
"""What says where the device binds, and what says it where that is left out."""


def refused(context: Context) -> list[tuple[int, str]]:
    """What the device could not bind without keys: line and `cannot bind ...`."""
    if not any(_open_to_others(place) for place in (context.endpoints.front_bind, context.endpoints.backend_bind)):
        # Every start comes by here, and a file of a thousand tasks takes its time to be read again.
        return []
    root = tree(context.text, context.path)
    return _faults(context, root, _device(root))


def refused_to_monitors(context: Context) -> list[tuple[int, str]]:
    """The same of Monitor services, of which each would fail by itself."""
    root = tree(context.text, context.path)
    return _faults(context, root, _monitors(root))


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


def _faults(context: Context, root: etree._Element, elements: Iterable[etree._Element]) -> list[tuple[int, str]]:
    found = [element for element in elements if _open_to_others(leaf(element))]
    # Only files with faults pay for the count of lines.
    line = lines(context.text, root) if found else {}
    why = (
        "without CURVE keys: whoever reaches that address could give orders, expected a loopback address or an ipc:// path, or keys "
        f"(zmsvcctl -c {context.name} keys make)"
    )
    return sorted((line[element], f"cannot bind {leaf(element)} {why}") for element in found)
