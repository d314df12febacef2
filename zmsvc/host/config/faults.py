"""The faults of one file while it is read: noted with their element, so that one pass finds them all.
Their lines come at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from lxml import etree

from zmsvc.host.config.xml_text import leaf

Value = TypeVar("Value")

Note = tuple[etree._Element, str]
"""What is wrong, and at which element."""


@dataclass(slots=True)
class FaultList:
    """The faults of one file, as they are found."""

    found: list[Note] = field(default_factory=list)
    warnings: list[Note] = field(default_factory=list)
    """What is no fault, and probably not meant."""

    def fault(self, element: etree._Element, text: str) -> None:
        self.found.append((element, text))

    def odd(self, element: etree._Element, text: str) -> None:
        self.warnings.append((element, text))

    def value(self, element: etree._Element, read: Callable[[str], Value], default: Value) -> Value:
        """The value of a leaf; a bad one is noted and the default goes on in its place."""
        try:
            return read(leaf(element))
        except ValueError as error:
            self.fault(element, f"<{element.tag}> {error}")
            return default
