"""Check what `zmsvcctl --json` prints against docs/zmsvcctl.schema.json, more strictly than the schema itself:
an object has no field that its schema does not name. Only the words of JSON Schema that the file uses are known.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from zmsvc.ctl.__main__ import parse

SCHEMA = Path(__file__).parents[1] / "docs" / "zmsvcctl.schema.json"
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_WORDS = {
    "type",
    "description",
    "format",
    "enum",
    "anyOf",
    "$ref",
    "items",
    "properties",
    "required",
    "additionalProperties",
}


@functools.cache
def definitions() -> dict[str, Any]:
    found = json.loads(SCHEMA.read_text())["$defs"]
    assert isinstance(found, dict)
    return found


def check_output(arguments: Sequence[str], status: int, output: str) -> None:
    """Check the output of `zmsvcctl ARGUMENT...` if that has --json. Raises AssertionError."""
    if "--json" not in arguments:
        return
    verb, args = parse(list(arguments))
    lines = output.splitlines()
    if not verb.json_lines:
        assert len(lines) <= 1, f"{verb.name}: more than one line: {output}"
    for line in lines:
        document = json.loads(line)
        if not args.host:
            check_document(verb.name, status, document)
            continue
        faults = problems(document, definitions()["host_line" if verb.json_lines else "hosts"], "-H")
        assert not faults, "\n".join(faults)
        for each in [document] if verb.json_lines else document["hosts"]:
            if each["answer"] is not None:
                check_document(verb.name, each.get("code", 0), each["answer"])


def check_document(verb: str, status: int, document: dict[str, Any]) -> None:
    """Check one document of a verb. Raises AssertionError."""
    # A verb that has failed has the fields of its document as far as it knows them.
    failed = status != 0 and "error" in document
    faults = problems(document, definitions()["failure" if failed else verb], verb, open_=failed)
    assert not faults, "\n".join(faults)


def problems(value: Any, schema: dict[str, Any], place: str, *, open_: bool = False) -> list[str]:
    """Return what is wrong with a value, with its place. With `open_` it may have more fields."""
    assert schema.keys() <= _WORDS, schema.keys() - _WORDS
    if "$ref" in schema:
        return problems(value, definitions()[schema["$ref"].removeprefix("#/$defs/")], place)
    if "anyOf" in schema:
        tried = [problems(value, each, place) for each in schema["anyOf"]]
        return (
            [] if [] in tried else [f"{place}: none of", *(f"  {line}" for lines in tried for line in lines)]
        )
    if "type" not in schema:
        return []  # Any value.
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(_is(value, kind) for kind in kinds):
        return [f"{place}: {value!r} is not {' or '.join(kinds)}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{place}: {value!r} is none of {schema['enum']}"]
    if schema.get("format") == "date-time" and isinstance(value, str):
        assert datetime.fromisoformat(value).tzinfo is not None, f"{place}: {value}"
    if isinstance(value, list) and "items" in schema:
        return [
            line
            for at, each in enumerate(value)
            for line in problems(each, schema["items"], f"{place}[{at}]")
        ]
    return _of_object(value, schema, place, open_=open_) if isinstance(value, dict) else []


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _of_object(value: dict[str, Any], schema: dict[str, Any], place: str, *, open_: bool) -> list[str]:
    known, others = schema.get("properties"), schema.get("additionalProperties")
    found = [f"{place}: there is no {name}" for name in schema.get("required", ()) if name not in value]
    for name, each in value.items():
        inside = (known or {}).get(name, others)
        if inside is not None:
            found += problems(each, inside, f"{place}.{name}")
        elif known is not None and not open_:
            found.append(f"{place}: {name} ({each!r}) is not in the schema")
    return found
