"""The shape of a context file once more, as a table, to say in words what a schema only refuses;
`data/context.rng` is the published form.

A test holds both against each other. Here is only which element may stand where, with which attributes;
values are config's to judge.

zmicroservices looked up the elements that it knew and never noticed others. Where it did so, others are
passed over here as well, with a warning; but not inside `<service>`, which is new.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lxml import etree

from zmsvc.core.model import Trigger
from zmsvc.core.option_kinds import Fields, Kind, Value, Variables
from zmsvc.core.service_options import OPTIONS, Option
from zmsvc.core.values import WHITE, quote
from zmsvc.host.config.faults import Note


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """What an element may hold. The key of a child ends with `?` or `*` or `+` for how often, without one
    it is once.
    """

    children: Mapping[str, Schema] = field(default_factory=dict)
    attributes: Collection[str] = ()
    needed: Collection[str] = ()
    """The attributes that must be there."""
    foreign: bool = False
    """Whether attributes of other namespaces may stand here, as editors write them."""
    tolerant: bool = False
    """Whether unknown children and attributes are passed over, unless their JSON would take the place of
    what is known.
    """
    text: bool = False
    others: Schema | None = None
    """The shape of children that are not listed; None when there may be none."""


FREE = Schema()
"""Anything at all: never looked into."""

XML = "{http://www.w3.org/XML/1998/namespace}"
"""The namespace of `xml:space` and `xml:lang`, which mean the same in every document."""
TEXT = Schema(text=True)
_VALUE = Schema(text=True, attributes=(f"{XML}space",))
_RULE = Schema(children={"action?": TEXT, "call?": TEXT}, tolerant=True)


def service_schema(options: Iterable[Option]) -> Schema:
    """Return the schema of a `<service>` with these options."""
    return Schema(children={f"{option.name}?": _option(option.kind) for option in options})


def _option(kind: Kind) -> Schema:
    match kind:
        case Value():
            return TEXT
        case Fields():
            return Schema(children={f"{name}?": TEXT for name in kind.names})
        case Variables():
            return Schema(others=_VALUE, attributes=_VALUE.attributes)


_TASK = Schema(
    children={
        "description?": TEXT,
        "message": Schema(
            children={
                "header": Schema(
                    children={"action?": TEXT, "service_name": TEXT}, others=FREE, tolerant=True
                ),
                "content": Schema(children={"configuration": FREE}, others=FREE, tolerant=True),
            },
            tolerant=True,
        ),
        "state": Schema(
            children={f"{trigger}*": _RULE for trigger in Trigger}, attributes=("type",), tolerant=True
        ),
        "service?": service_schema(OPTIONS),
    },
    tolerant=True,
)
CONTEXT = Schema(
    children={
        "FrontEndEndpoint?": TEXT,
        "BackendEndpoint?": TEXT,
        "FrontBind?": TEXT,
        "BackendBind?": TEXT,
        "ContextID?": TEXT,
        "TaskLogName?": TEXT,
        "max_transactions?": TEXT,
        "TaskService+": Schema(
            children={"Task": _TASK},
            attributes=("id", "instance", "topic", "serviceType"),
            needed=("id", "instance"),
            tolerant=True,
        ),
    },
    attributes=("bus_access",),
    foreign=True,
    tolerant=True,
)

NEW = frozenset({"bus_access", "max_transactions", "service"})
"""The names of zmsvc among those beside which others are passed over. A misspelt one of these is a fault:
no old file has it.
"""


def explain(root: etree._Element) -> Iterator[Note]:
    """Everything that stands where it should not, or does not stand where it should."""
    if root.tag != "Context":
        hint = " (it describes services that are to be made)" if root.tag == "MetaServiceConf" else ""
        yield root, f"the root element is <{root.tag}>, expected <Context>{hint}"
        return
    yield from _inside(root, CONTEXT)


def passed_over(root: etree._Element) -> tuple[list[Note], list[Note]]:
    """Return what is in the file and unknown where that is no fault: warnings about it, and faults, where
    a name of ours is misspelt.
    """
    warnings: list[Note] = []
    faults: list[Note] = []
    for path, shape in _tolerant("/Context", CONTEXT):
        names = [key.rstrip("?*+") for key in shape.children]
        found: list[tuple[etree._Element, str, str, Collection[str]]] = []
        if shape.others is None:
            found += [
                (each, str(each.tag), "element <{}>", names)
                for each in _unknown(root, f"{path}/*", "self::", names)
            ]
        for each in _unknown(root, f"{path}/@*", "name()=", [*shape.attributes, *names]):
            found.append((each.getparent(), str(each.attrname), "attribute {}", shape.attributes))
        for element, name, kind, known in found:
            if kind.startswith("attribute") and name.startswith("{" if shape.foreign else XML):
                continue
            parent = path.rpartition("/")[2]
            what = f"unknown {kind.format(name)} in <{parent}>"
            if ours := similar(name, NEW.intersection(known), cutoff=0.85):
                faults.append((element, f"{what}, expected another name{ours}"))
            else:
                warnings.append((element, f"{what} is passed over{similar(name, known, cutoff=0.8)}"))
    return warnings, faults


def _tolerant(path: str, shape: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield the places where unknown names are passed over, as XPath: libxml2 looks through a large file
    in a moment.
    """
    if shape.tolerant:
        yield path, shape
    for key, child in shape.children.items():
        yield from _tolerant(f"{path}/{key.rstrip('?*+')}", child)


def _unknown(root: etree._Element, path: str, test: str, known: Collection[str]) -> list[Any]:
    quoted = [f"{test}'{name}'" if test.endswith("=") else f"{test}{name}" for name in known]
    found = root.xpath(f"{path}[not({' or '.join(quoted) or 'false()'})]")
    return found if isinstance(found, list) else []


def similar(word: str, known: Collection[str], cutoff: float = 0.7) -> str:
    """A question whether one of the known words was meant, where one is close; else nothing."""
    folded = {other.lower(): other for other in known}
    close = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=cutoff)
    return f" (did you mean {folded[close[0]]}?)" if close else ""


def _inside(element: etree._Element, shape: Schema) -> Iterator[Note]:
    yield from _attributes(element, shape)
    yield from _text(element, shape)
    slots = {key.rstrip("?*+"): key for key in shape.children}
    seen: set[str] = set()
    for child in element:
        tag = str(child.tag)
        slot = slots.get(tag)
        if slot is None:
            if shape.others is None and (not shape.tolerant or tag in shape.attributes):
                yield child, f"unknown element <{tag}> in <{element.tag}>, expected {_expected(tag, slots)}"
            elif shape.others is not None and shape.others is not FREE:
                yield from _inside(child, shape.others)
            continue
        if tag in seen and slot[-1] not in "*+":
            yield child, f"a second <{tag}> in <{element.tag}>, expected one"
        seen.add(tag)
        if shape.children[slot] is not FREE:
            yield from _inside(child, shape.children[slot])
    for tag, slot in slots.items():
        if tag not in seen and slot[-1] not in "?*":
            often = "at least one" if slot[-1] == "+" else "one"
            yield element, f"<{element.tag}> has no <{tag}>, expected {often}"


def _attributes(element: etree._Element, shape: Schema) -> Iterator[Note]:
    for name in element.attrib:
        text = str(name)
        if text in shape.attributes or (shape.foreign and text.startswith("{")):
            continue
        if not shape.tolerant or text in {key.rstrip("?*+") for key in shape.children}:
            known = [each.replace(XML, "xml:") for each in shape.attributes]
            wanted = _listed(known, "{}") + similar(text, known) if known else "none"
            yield (
                element,
                f"unknown attribute {text.replace(XML, 'xml:')} of <{element.tag}>, expected {wanted}",
            )
    for name in shape.needed:
        if name not in element.attrib:
            yield element, f'<{element.tag}> has no attribute {name}, expected {name}="..."'


def _text(element: etree._Element, shape: Schema) -> Iterator[Note]:
    if shape.text:
        return
    for owner, text in ((element, element.text), *((child, child.tail) for child in element)):
        if text and text.strip(WHITE):
            where = "elements only" if shape.children or shape.others else "nothing"
            yield owner, f"text {quote(text.strip(WHITE))} in <{element.tag}>, expected {where}"


def _expected(tag: str, slots: Collection[str]) -> str:
    return (_listed(slots, "<{}>") + similar(tag, slots)) if slots else "text only"


def _listed(names: Collection[str], form: str) -> str:
    shown = [form.format(name) for name in names]
    return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
