#!/usr/bin/env python3
"""Write the schema of context files in RELAX NG's compact syntax, for Emacs and others: `make options`.

It converts those parts of the XML syntax that context.rng has. tests/house/test_service_options.py fails if
context.rnc differs from it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

from lxml import etree

DATA = Path(__file__).parents[1] / "zmsvc" / "data"
SCHEMA = DATA / "context.rng"
COMPACT = DATA / "context.rnc"
WIDTH = 110

_RNG = "{http://relaxng.org/ns/structure/1.0}"
_DOCUMENTATION = "{http://relaxng.org/ns/compatibility/annotations/1.0}documentation"
_JOINED = {"interleave": " &", "choice": " |", "group": ","}
_SUFFIX = {"optional": "?", "zeroOrMore": "*", "oneOrMore": "+"}
_HEAD = """\
# The schema of context files in the compact syntax: made by `make options` from context.rng.
datatypes xsd = "http://www.w3.org/2001/XMLSchema-datatypes"
"""


def compact(schema: etree._Element) -> str:
    """Return a grammar in the compact syntax."""
    parts = [_HEAD]
    for each in _children(schema):
        name = "start" if _kind(each) == "start" else each.get("name")
        parts.append(f"{name} =\n{_indented(_sequence(each))}")
    return "\n".join(f"{part}\n" for part in parts).rstrip("\n") + "\n"


def _kind(element: etree._Element) -> str:
    return str(element.tag).removeprefix(_RNG)


def _children(element: etree._Element) -> list[etree._Element]:
    """Return the child elements without comments and documentation."""
    return [each for each in element if isinstance(each.tag, str) and each.tag.startswith(_RNG)]


def _indented(text: str) -> str:
    return textwrap.indent(text, "  ")


def _sequence(element: etree._Element, without: int = 0) -> str:
    """Return the content of an element: its children from the number `without` on, one after the other."""
    children = _children(element)[without:]
    return _joined(children, ",") if children else "empty"


def _joined(children: list[etree._Element], separator: str) -> str:
    return f"{separator}\n".join(map(_pattern, children))


def _pattern(element: etree._Element) -> str:
    kind = _kind(element)
    match kind:
        case "element" | "attribute":
            return _named(element, kind)
        case "optional" | "zeroOrMore" | "oneOrMore":
            return f"{_parenthesized(_children(element), ',')}{_SUFFIX[kind]}"
        case "interleave" | "choice" | "group":
            return _parenthesized(_children(element), _JOINED[kind])
        case "list" | "mixed":
            return _braces(kind, _sequence(element))
        case "text" | "empty":
            return kind
        case "ref":
            return str(element.get("name"))
        case "value":
            return f"xsd:{element.get('type')} {_literal(element.text or '')}"
        case "data":
            params = " ".join(
                f"{each.get('name')} = {_literal(each.text or '')}" for each in _children(element)
            )
            return f"xsd:{element.get('type')}{f' {{ {params} }}' if params else ''}"
    raise ValueError(f"line {element.sourceline}: the compact syntax of {kind} is not known here")


def _parenthesized(children: list[etree._Element], separator: str) -> str:
    text = _joined(children, separator)
    if len(children) == 1:
        return text if _kind(children[0]) not in _SUFFIX else f"({text})"
    flat = text.replace("\n", " ")
    if len(flat) <= WIDTH // 2 and "##" not in text:
        return f"({flat})"
    return f"(\n{_indented(text)}\n)"


def _named(element: etree._Element, kind: str) -> str:
    name = element.get("name")
    text = _sequence(element, without=0 if name else 1)
    if name is None:
        name = _name_class(_children(element)[0])
    if kind == "attribute" and text == "empty":
        text = "text"
    return "".join(_documentation(element)) + _braces(f"{kind} {name}", text)


def _name_class(element: etree._Element) -> str:
    """Return the names of an element that may have any name but some."""
    excepted = [str(each.text) for each in element.iter(f"{_RNG}name")]
    return f"* - ({' | '.join(excepted)})" if excepted else "*"


def _braces(head: str, text: str) -> str:
    flat = f"{head} {{ {text} }}"
    return flat if "\n" not in text and len(flat) <= WIDTH else f"{head} {{\n{_indented(text)}\n}}"


def _documentation(element: etree._Element) -> Iterator[str]:
    for each in element.findall(_DOCUMENTATION):
        for line in textwrap.wrap(" ".join((each.text or "").split()), WIDTH - 20):
            yield f"## {line}\n"


def _literal(text: str) -> str:
    """Return a quoted string. Only the quote itself is special in one."""
    quote = next(each for each in ('"', "'", '"""') if each not in text)
    return f"{quote}{text}{quote}"


FILES = {COMPACT: compact(etree.parse(str(SCHEMA)).getroot())}

if __name__ == "__main__":
    for file, text in FILES.items():
        file.write_text(text)
