"""XML files that `create` reads, with the line of each element. host/config/xml_text.py has the
safe parser.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lxml import etree

from zmsvc.core.errors import ConfigError, UsageError
from zmsvc.core.frozen import frozen
from zmsvc.host.config import xml_text


@frozen
class Document:
    """A parsed file. `lines` has the first line of each element."""

    path: str
    root: etree._Element
    lines: Mapping[etree._Element, int]

    def at(self, element: etree._Element) -> str:
        """Return `FILE:LINE` of an element."""
        return f"{self.path}:{self.lines[element]}"


def read(path: str | Path) -> bytes:
    """Return the bytes of a file. Raises UsageError if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {path}: {why.lower()}") from error


def parse(data: bytes, path: str | Path, tag: str) -> Document:
    """Parse a document with the root element `tag`. Raises ConfigError with the line and the reason."""
    try:
        root = xml_text.tree(data, str(path))
    except ConfigError as error:
        raise ConfigError([fault.replace("<Context>", f"<{tag}>") for fault in error.faults]) from error
    document = Document(path=str(path), root=root, lines=xml_text.lines(data, root))
    if root.tag != tag:
        raise ConfigError([f"{document.at(root)}: the root element is <{root.tag}>, expected <{tag}>"])
    return document
