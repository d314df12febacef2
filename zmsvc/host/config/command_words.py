"""Read a program and its arguments: the element `<command>`, and options of `<service>` that are written
like it. This module does not search for the program.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from zmsvc.core.values import quote
from zmsvc.host.config.faults import FaultList
from zmsvc.host.config.xml_text import TRIMMED, leaf, loses, value

if TYPE_CHECKING:
    from lxml import etree


def read(element: etree._Element, notes: FaultList) -> tuple[str, ...]:
    """Return the words of an element with a text, which is split as sh does, or with an `<arg>` for each
    word. They are empty after a fault.
    """
    name = element.tag
    arguments = element.findall("arg")
    if len(arguments) != len(element) or (arguments and leaf(element)):
        notes.fault(element, f"<{name!s}> has more than <arg> elements, expected them alone, or a text alone")
    for argument in filter(loses, arguments):
        notes.warn(argument, f"an <arg> is read {TRIMMED}")
    words = [value(argument) for argument in arguments] or notes.value(element, _split, ["?"])
    if not words or not words[0]:
        notes.fault(element, f"<{name!s}> is empty, expected a program and its arguments")
        return ()
    return tuple(words)


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(
            f"{quote(text)} cannot be split ({str(error).lower()}), expected words quoted as in sh"
        ) from error
