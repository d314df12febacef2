#!/usr/bin/env python3
"""Write the options of `<service>` into the schema and into the manual of context files: `make options`.

tests/house/test_service_options.py fails if the files differ from zmsvc/core/service_options.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from zmsvc.core.option_kinds import (
    Attributes,
    Elements,
    Fields,
    Kind,
    Several,
    Value,
    Variables,
    Words,
    any_of,
)
from zmsvc.core.service_options import EVERY_TYPE, OPTIONS, Option, types_of

DATA = Path(__file__).parents[1] / "zmsvc" / "data"
SCHEMA = DATA / "context.rng"
MANUAL = DATA / "man" / "zmsvc.xml.5"


def expected(option: Option) -> str:
    """Return a sentence with the values that an option takes, and its default."""
    default = option.default_words
    if not default and isinstance(option.kind, Value) and option.default is not None:
        default = option.kind.show(option.default)
    return f"Value: {option.kind.words}." + (f" Default: {default}." if default else "")


def types(option: Option) -> str:
    """Return a sentence with the types of service that may have an option, if not all may."""
    if set(option.types) == {*EVERY_TYPE}:
        return ""
    return f"Only for {types_of(option)}."


def in_place(option: Option) -> str:
    """Return a sentence about a reload that changes the option, if some tasks go on."""
    if not option.in_place:
        return ""
    who = "the task" if set(option.in_place) == {*EVERY_TYPE} else f"a {any_of(option.in_place)}"
    return f"A reload applies a change of it without a restart of {who}."


# --- the schema


def schema_part(options: Iterable[Option]) -> str:
    """Return the definition of `<service>` in RELAX NG, with the documentation of each option."""
    lines = ['<define name="service">', '  <element name="service">', "    <interleave>"]
    for option in options:
        lines += [f"      {line}" for line in _element(option)]
    lines += ["    </interleave>", "  </element>", "</define>"]
    return "".join(f"  {line}\n" for line in lines)


def _element(option: Option) -> Iterator[str]:
    text = " ".join(filter(None, (option.summary, expected(option), types(option))))
    times = "zeroOrMore" if isinstance(option.kind, Several) else "optional"
    yield f"<{times}>"
    yield f'  <element name="{option.name}">'
    yield f"    <a:documentation>{escape(text)}</a:documentation>"
    for line in _content(option.kind):
        yield f"    {line}"
    yield "  </element>"
    yield f"</{times}>"


def _content(kind: Kind) -> Iterator[str]:
    match kind:
        case Value():
            yield kind.schema
        case Several(value=value, separated=separated, attributes=attributes):
            for name, each in attributes.items():
                yield f'<optional><attribute name="{name}">{each.schema}</attribute></optional>'
            if value is None:
                yield "<empty/>"
            else:
                yield f"<list><oneOrMore>{value.schema}</oneOrMore></list>" if separated else value.schema
        case Attributes():
            for name, each in kind.values.items():
                yield f'<optional><attribute name="{name}">{each.schema}</attribute></optional>'
            yield "<empty/>"
        case Fields():
            yield "<interleave>"
            for name in kind.names:
                yield f'  <optional><element name="{name}">{kind.value.schema}</element></optional>'
            yield "</interleave>"
        case Elements():
            yield "<interleave>"
            for name, each in kind.values.items():
                words = f"<list><oneOrMore>{each.schema}</oneOrMore></list>"
                yield f'  <zeroOrMore><element name="{name}">{words}</element></zeroOrMore>'
            yield "</interleave>"
        case Variables():
            yield '<ref name="space"/>'
            yield '<zeroOrMore><element><anyName/><ref name="space"/><text/></element></zeroOrMore>'
        case Words():
            yield '<ref name="space"/>'
            yield "<choice>"
            yield "  <text/>"
            yield '  <oneOrMore><element name="arg"><ref name="space"/><text/></element></oneOrMore>'
            yield "</choice>"


# --- the manual


def manual_part(options: Iterable[Option]) -> str:
    """Return the list of options in mdoc."""
    lines = [".Bl -tag -width Ds"]
    for option in options:
        lines.append(f".It {option.name}")
        for text in (option.summary, expected(option), types(option)):
            lines += _sentences(text)
        lines += [line.strip() for line in option.manual.strip().splitlines()]
        lines += _sentences(in_place(option))
    return "".join(f"{line}\n" for line in [*lines, ".El"])


def _sentences(text: str) -> list[str]:
    """Return a plain text with one sentence on each line, as mdoc has it."""
    text = text.replace("\\", r"\e")
    return [re.sub(r"^(?=[.'])", r"\\&", line) for line in re.split(r"(?<=\.) (?=[A-Z0-9])", text) if line]


# --- the files


def between_marks(text: str, part: str) -> str:
    """Return the text of a file with the part between its two marks."""
    before, mark, rest = re.split(r"^(.*options: made by.*\n)", text, maxsplit=1, flags=re.MULTILINE)
    _, end, after = re.split(r"^(.*end of options.*\n)", rest, maxsplit=1, flags=re.MULTILINE)
    return f"{before}{mark}{part}{end}{after}"


FILES = {
    SCHEMA: between_marks(SCHEMA.read_text(), schema_part(OPTIONS)),
    MANUAL: between_marks(MANUAL.read_text(), manual_part(OPTIONS)),
}

if __name__ == "__main__":
    for file, text in FILES.items():
        file.write_text(text)
