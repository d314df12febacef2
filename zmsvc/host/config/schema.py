"""The structure of a context file as a table. With it a fault is explained in words; the published schema,
`data/context.rng`, can only refuse the file. A test compares the two.

The table has only the allowed places of elements and attributes. The other modules of this package judge
values.

zmicroservices looked up the elements that it knew and ignored all others. In the same places zmsvc passes
over unknown ones with a warning. Inside `<service>`, which zmicroservices did not have, an unknown element is
a fault.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

from zmsvc.core.frozen import frozen
from zmsvc.core.model import TRIGGERS_OF_TASK
from zmsvc.core.option_kinds import Attributes, Elements, Fields, Kind, Several, Value, Variables, Words
from zmsvc.core.service_options import OPTIONS, Option, ServiceType
from zmsvc.core.similar import similar
from zmsvc.core.values import WHITE, quote
from zmsvc.host.config.faults import Note

if TYPE_CHECKING:
    from lxml import etree


@frozen
class Schema:
    """The allowed contents of an element. The key of a child ends with `?`, `*` or `+` as in a regular
    expression; without one of them the child is there once.
    """

    children: Mapping[str, Schema] = field(default_factory=dict)
    attributes: Collection[str] = ()
    needed: Collection[str] = ()
    """The required attributes."""
    foreign: bool = False
    """True if attributes of other namespaces, which editors write, are allowed."""
    tolerant: bool = False
    """True if unknown children and attributes are passed over. One that would take the place of a known one
    in the JSON is a fault nevertheless.
    """
    text: bool = False
    ignored: Collection[str] = ()
    """Names of children that are passed over without a warning."""
    others: Schema | None = None
    """The schema of children that are not listed. None if no others are allowed."""


MOST_PLACES = 2
"""The number of places that a warning names. An element such as <action> has one in each rule."""

FREE = Schema()
"""Any contents. zmsvc does not look at them."""

HEADER_FIELDS = ("service_id", "service_transaction")
"""The fields of a header on the bus that a `<header>` may have as well: zmicroservices wrote its messages
like this. zmsvc fills them in.
"""
XML = "{http://www.w3.org/XML/1998/namespace}"
"""The namespace of `xml:space` and `xml:lang`, which have the same meaning in every document."""
TEXT = Schema(text=True)
_VALUE = Schema(text=True, attributes=(f"{XML}space",))
_RULE = Schema(children={"action?": TEXT, "call?": TEXT}, attributes=("when", "after"), tolerant=True)


def service_schema(options: Iterable[Option]) -> Schema:
    """Return the schema of a `<service>` with these options."""
    return Schema(
        children={
            f"{option.name}{'*' if isinstance(option.kind, Several) else '?'}": _option(option.kind)
            for option in options
        }
    )


def _option(kind: Kind) -> Schema:
    match kind:
        case Several(attributes=attributes) if attributes:
            return Schema(text=True, attributes=tuple(attributes))
        case Attributes():
            return Schema(attributes=tuple(kind.values))
        case Value() | Several():
            return TEXT
        case Elements():
            return Schema(children={f"{name}*": TEXT for name in kind.values})
        case Fields():
            return Schema(children={f"{name}?": TEXT for name in kind.names})
        case Variables():
            return Schema(others=_VALUE, attributes=_VALUE.attributes)
        case Words():
            return Schema(text=True, children={"arg*": _VALUE}, attributes=_VALUE.attributes)


_TASK = Schema(
    children={
        "description?": TEXT,
        "message": Schema(
            children={
                "header": Schema(
                    children={"action?": TEXT, "service_name": TEXT}, ignored=HEADER_FIELDS, tolerant=True
                ),
                "content": Schema(children={"configuration": FREE}, tolerant=True),
            },
            tolerant=True,
        ),
        "state": Schema(
            children={f"{trigger}*": _RULE for trigger in TRIGGERS_OF_TASK},
            attributes=("type",),
            tolerant=True,
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
        "record?": TEXT,
        "hosts?": Schema(text=True, attributes=("endpoint", "bind"), needed=("endpoint",)),
        "on_any_fail*": _RULE,
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

NEW = frozenset(
    {
        "after",
        "bus_access",
        "hosts",
        "max_transactions",
        "on_any_fail",
        "on_recover",
        "record",
        "service",
        "when",
    }
)
"""Names that zmsvc has added in places where it passes over unknown names. A misspelled one of these is a
fault, because no file of zmicroservices has it.
"""

OF_CONFIGURATION = {
    ServiceType.PROCESS: ("location", "device_action", "interval", "subscribe"),
    ServiceType.THREAD: ("location", "device_action", "interval", "subscribe"),
    ServiceType.COMMAND: ("command", "notify", "device_action", "subscribe"),
}
"""The elements of a `<configuration>` that zmsvc itself reads, by the type of service. All others are for the
task.
"""


def explain(root: etree._Element) -> Iterator[Note]:
    """Yield each element, attribute or text that is not allowed in its place, or is missing."""
    if root.tag != "Context":
        hint = " (it describes services that are to be made)" if root.tag == "MetaServiceConf" else ""
        yield root, f"the root element is <{root.tag}>, expected <Context>{hint}"
        return
    yield from _inside(root, CONTEXT)


def passed_over(root: etree._Element) -> tuple[list[Note], list[Note]]:
    """Return warnings about unknown names that are passed over, and faults about misspelled `NEW` names."""
    warnings: list[Note] = []
    faults: list[Note] = []
    for path, schema in _tolerant("/Context", CONTEXT):
        names = [*_names(schema), *schema.ignored]
        found: list[tuple[etree._Element, str, str, Collection[str]]] = []
        if schema.others is None:
            found += [
                (each, str(each.tag), "element <{}>", names)
                for each in _unknown(root, f"{path}/*", "self::", names)
            ]
        for each in _unknown(root, f"{path}/@*", "name()=", [*schema.attributes, *names]):
            found.append((each.getparent(), str(each.attrname), "attribute {}", schema.attributes))
        for element, name, kind, known in found:
            if kind.startswith("attribute") and name.startswith("{" if schema.foreign else XML):
                continue
            parent = path.rpartition("/")[2]
            what = f"unknown {kind.format(name)} in <{parent}>"
            if hint := similar(name, NEW.intersection(known), cutoff=0.85):
                faults.append((element, f"{what}, expected another name{hint}"))
            else:
                warnings.append((element, f"{what} is passed over{_suggestion(name, known, 0.8)}"))
    return warnings, faults


def _names(schema: Schema) -> list[str]:
    return [key.rstrip("?*+") for key in schema.children]


def _suggestion(name: str, known: Collection[str], cutoff: float = 0.7) -> str:
    """Return a known name that is similar to an unknown one, or else the element in which an element of this
    name has its place.
    """
    if hint := similar(name, known, cutoff=cutoff):
        return hint
    parents = _parents().get(name, ())
    return f" (its place is in {_listed(parents, '<{}>')})" if 0 < len(parents) <= MOST_PLACES else ""


@functools.cache
def _parents() -> Mapping[str, Sequence[str]]:
    """Return the elements in which an element of each name is allowed."""
    found: dict[str, list[str]] = {}
    for parent, schema in _elements("Context", CONTEXT):
        for name in _names(schema):
            found.setdefault(name, []).append(parent)
    for name in itertools.chain.from_iterable(OF_CONFIGURATION.values()):
        found[name] = ["configuration"]
    return found


def _elements(name: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    yield name, schema
    for key, child in schema.children.items():
        yield from _elements(key.rstrip("?*+"), child)


def _tolerant(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield the XPath and the schema of each element in which unknown names are passed over. XPath is fast:
    libxml2 searches a large file in a moment.
    """
    if schema.tolerant:
        yield path, schema
    for key, child in schema.children.items():
        yield from _tolerant(f"{path}/{key.rstrip('?*+')}", child)


def _unknown(root: etree._Element, path: str, test: str, known: Collection[str]) -> list[Any]:
    quoted = [f"{test}'{name}'" if test.endswith("=") else f"{test}{name}" for name in known]
    found = root.xpath(f"{path}[not({' or '.join(quoted) or 'false()'})]")
    return found if isinstance(found, list) else []


def _inside(element: etree._Element, schema: Schema) -> Iterator[Note]:
    yield from _attributes(element, schema)
    yield from _text(element, schema)
    keys = {key.rstrip("?*+"): key for key in schema.children}
    seen: set[str] = set()
    for child in element:
        tag = str(child.tag)
        key = keys.get(tag)
        if key is None:
            if schema.others is None and (not schema.tolerant or tag in schema.attributes):
                yield child, f"unknown element <{tag}> in <{element.tag}>, expected {_expected(tag, keys)}"
            elif schema.others is not None and schema.others is not FREE:
                yield from _inside(child, schema.others)
            continue
        if tag in seen and key[-1] not in "*+":
            yield child, f"a second <{tag}> in <{element.tag}>, expected one"
        seen.add(tag)
        if schema.children[key] is not FREE:
            yield from _inside(child, schema.children[key])
    for tag, key in keys.items():
        if tag not in seen and key[-1] not in "?*":
            often = "at least one" if key[-1] == "+" else "one"
            yield element, f"<{element.tag}> has no <{tag}>, expected {often}"


def _attributes(element: etree._Element, schema: Schema) -> Iterator[Note]:
    for name in element.attrib:
        text = str(name)
        if text in schema.attributes or (schema.foreign and text.startswith("{")):
            continue
        if not schema.tolerant or text in _names(schema):
            known = [each.replace(XML, "xml:") for each in schema.attributes]
            wanted = _listed(known, "{}") + similar(text, known) if known else "none"
            yield (
                element,
                f"unknown attribute {text.replace(XML, 'xml:')} of <{element.tag}>, expected {wanted}",
            )
    for name in schema.needed:
        if name not in element.attrib:
            yield element, f'<{element.tag}> has no attribute {name}, expected {name}="..."'


def _text(element: etree._Element, schema: Schema) -> Iterator[Note]:
    if schema.text:
        return
    for owner, text in ((element, element.text), *((child, child.tail) for child in element)):
        if text and text.strip(WHITE):
            where = "elements only" if schema.children or schema.others else "nothing"
            yield owner, f"text {quote(text.strip(WHITE))} in <{element.tag}>, expected {where}"


def _expected(tag: str, keys: Collection[str]) -> str:
    return (_listed(keys, "<{}>") + _suggestion(tag, keys)) if keys else "text only"


def _listed(names: Collection[str], form: str) -> str:
    shown = [form.format(name) for name in names]
    return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
