"""Mutations of valid examples: of bytes, of XML trees and of JSON values. This module does not use zmsvc."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st
from lxml import etree

ODD_TEXTS = st.sampled_from(
    [
        "",
        " ",
        "\n",
        "0",
        "-1",
        "1e9",
        "infinity",
        "nan",
        "9" * 30,
        "ts_100",
        "start",
        "stop",
        "restart",
        "Thread",
        "Command",
        "on_exit",
        "tcp://127.0.0.1:5556",
        "tcp://*:0",
        "ipc:///tmp/x",
        "ipc://@x",
        "../..",
        "/",
        "/etc",
        "a" * 300,
        "\u00a0",
        "é",
        "\U0001f600",
        "{}",
        "%s",
        "$(id)",
        "root",
        "--help",
        "1min 30s",
        "%n",
    ]
) | st.text(
    st.characters(blacklist_categories=["Cc", "Cs"], blacklist_characters="\ufffe\uffff"), max_size=20
)

ODD_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ODD_TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD_TEXTS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def bytes_of(draw: st.DrawFn, examples: list[bytes]) -> bytes:
    """Draw an example with some parts replaced."""
    data = bytearray(draw(st.sampled_from(examples)))
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(data)))
        put = draw(st.binary(max_size=12) | st.sampled_from([b"<", b"&", b"]]>", b'"', b"\0", b"{"]))
        data[start : start + draw(st.integers(0, 30))] = put
    return bytes(data)


@st.composite
def trees_of(draw: st.DrawFn, examples: list[bytes]) -> bytes:
    """Draw an example whose elements are left out, doubled, moved, renamed or have other contents. It is
    still XML, and often still a good file.
    """
    root = etree.fromstring(
        draw(st.sampled_from(examples)), etree.XMLParser(remove_comments=True, remove_pis=True)
    )
    tags = sorted({str(element.tag) for element in root.iter()})
    for _ in range(draw(st.integers(0, 4))):
        elements = list(root.iter())
        chosen = elements[draw(st.integers(0, len(elements) - 1))]
        parent = chosen.getparent()
        match draw(
            st.sampled_from(["text", "attribute", "unset", "rename", "remove", "double", "move", "add"])
        ):
            case "text":
                chosen.text = draw(ODD_TEXTS)
            case "attribute":
                chosen.set(
                    draw(st.sampled_from(["id", "type", "instance", "serviceType", "topic", "x"])),
                    draw(ODD_TEXTS),
                )
            case "unset" if chosen.attrib:
                del chosen.attrib[draw(st.sampled_from(sorted(chosen.attrib)))]
            case "rename":
                chosen.tag = draw(st.sampled_from(tags))
            case "remove" if parent is not None:
                parent.remove(chosen)
            case "double" if parent is not None:
                parent.append(copy.deepcopy(chosen))
            case "move" if parent is not None:
                others = [each for each in elements if each not in set(chosen.iter())]
                others[draw(st.integers(0, len(others) - 1))].append(chosen)
            case "add":
                etree.SubElement(chosen, draw(st.sampled_from(tags))).text = draw(ODD_TEXTS)
    return etree.tostring(root)


@st.composite
def values_of(draw: st.DrawFn, examples: list[Any]) -> Any:
    """Draw an example of JSON with some values or keys changed, left out or added."""
    value = copy.deepcopy(draw(st.sampled_from(examples)))
    for _ in range(draw(st.integers(0, 4))):
        places = [
            (holder, key)
            for holder in _holders(value)
            for key in (holder if isinstance(holder, dict) else range(len(holder)))
        ]
        if not places:
            return value
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        match draw(st.sampled_from(["replace", "remove", "add", "wrap"])):
            case "replace":
                holder[key] = draw(ODD_VALUES)
            case "remove":
                del holder[key]
            case "add" if isinstance(holder, dict):
                holder[draw(ODD_TEXTS)] = draw(ODD_VALUES)
            case _:
                holder[key] = [holder[key]]
    return value


def _holders(value: Any) -> list[Any]:
    if not isinstance(value, dict | list):
        return []
    inner = value.values() if isinstance(value, dict) else value
    return [value, *(found for each in inner for found in _holders(each))]
