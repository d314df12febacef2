"""The faults of one file. The reader notes them with their elements while it reads, so that one pass finds
them all. It looks up their lines at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from zmsvc.core.values import FaultsError
from zmsvc.host.config.xml_text import leaf

if TYPE_CHECKING:
    from lxml import etree

Value = TypeVar("Value")

Note: TypeAlias = "tuple[etree._Element, str]"
"""An element, and a text that says what is wrong with it."""


@dataclass(slots=True)
class FaultList:
    """The faults of one file, in the order in which the reader finds them."""

    found: list[Note] = field(default_factory=list)
    warnings: list[Note] = field(default_factory=list)
    """Notes about legal parts of the file that are probably mistakes."""

    def fault(self, element: etree._Element, text: str) -> None:
        self.found.append((element, text))

    def warn(self, element: etree._Element, text: str) -> None:
        self.warnings.append((element, text))

    def value(self, element: etree._Element, read: Callable[[str], Value], default: Value) -> Value:
        """Return the value of a leaf. Note each fault of a bad value, and return the default in its place."""
        try:
            return read(leaf(element))
        except ValueError as error:
            for text in error.faults if isinstance(error, FaultsError) else (error,):
                self.fault(element, f"<{element.tag}> {text}")
            return default
