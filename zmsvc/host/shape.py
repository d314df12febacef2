"""The shape of a context file once more, as a table, to say in words what a schema only refuses; `data/context.rng` is the published form.

A test holds both against each other. Here is only which element may stand where, with which attributes; values are config's to judge.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from lxml import etree

from zmsvc.core.model import Trigger
from zmsvc.core.values import WHITE, quote
from zmsvc.host.faults import Note

RLIMITS = (
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice",
    "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip
"""The resource limits of setrlimit(2) that Python's `resource` has."""

SPANS = ("start_timeout", "stop_timeout", "watchdog", "restart_delay", "restart_max_delay", "start_limit_interval")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What an element may hold. The key of a child ends with `?` or `*` or `+` for how often, without one it is once."""

    children: Mapping[str, Shape] = field(default_factory=dict)
    attributes: Collection[str] = ()
    needed: Collection[str] = ()
    """The attributes that must be there."""
    foreign: bool = False
    """Whether attributes of other namespaces may stand here, as editors write them."""
    text: bool = False
    others: Shape | None = None
    """The shape of children that are not listed; None when there may be none."""


FREE = Shape()
"""Anything at all: never looked into."""

TEXT = Shape(text=True)
_RULE = Shape(children={"action?": TEXT, "call?": TEXT})
_OPTIONS = ("start_limit_burst", "user", "group", "nice", "kill_mode", "stop_signal", "no_new_privileges")
_SERVICE = Shape(
    children=dict.fromkeys((f"{name}?" for name in (*SPANS, *_OPTIONS)), TEXT)
    | {"environment?": Shape(others=TEXT), "limits?": Shape(children={f"{name}?": TEXT for name in RLIMITS})}
)
_TASK = Shape(
    children={
        "description?": TEXT,
        "message": Shape(
            children={
                "header": Shape(children={"action?": TEXT, "service_name": TEXT}, others=FREE),
                "content": Shape(children={"configuration": FREE}, others=FREE),
            }
        ),
        "state": Shape(children={f"{trigger}*": _RULE for trigger in Trigger}, attributes=("type",)),
        "service?": _SERVICE,
    }
)
CONTEXT = Shape(
    children={
        "FrontEndEndpoint?": TEXT,
        "BackendEndpoint?": TEXT,
        "FrontBind?": TEXT,
        "BackendBind?": TEXT,
        "ContextID?": TEXT,
        "TaskLogName?": TEXT,
        "max_transactions?": TEXT,
        "TaskService+": Shape(
            children={"Task": _TASK},
            attributes=("id", "instance", "topic", "serviceType"),
            needed=("id", "instance"),
        ),
    },
    attributes=("bus_access",),
    foreign=True,
)


def explain(root: etree._Element) -> Iterator[Note]:
    """Everything that stands where it should not, or does not stand where it should."""
    if root.tag != "Context":
        hint = " (it describes services that are to be made)" if root.tag == "MetaServiceConf" else ""
        yield root, f"the root element is <{root.tag}>, expected <Context>{hint}"
        return
    yield from _inside(root, CONTEXT)


def similar(word: str, known: Collection[str]) -> str:
    """A question whether one of the known words was meant, where one is close; else nothing."""
    folded = {other.lower(): other for other in known}
    close = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.7)
    return f" (did you mean {folded[close[0]]}?)" if close else ""


def _inside(element: etree._Element, shape: Shape) -> Iterator[Note]:
    yield from _attributes(element, shape)
    yield from _text(element, shape)
    slots = {key.rstrip("?*+"): key for key in shape.children}
    seen: set[str] = set()
    for child in element:
        tag = str(child.tag)
        slot = slots.get(tag)
        if slot is None:
            if shape.others is None:
                yield child, f"unknown element <{tag}> in <{element.tag}>, expected {_expected(tag, slots)}"
            elif shape.others is not FREE:
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


def _attributes(element: etree._Element, shape: Shape) -> Iterator[Note]:
    for name in element.attrib:
        text = str(name)
        if text not in shape.attributes and not (shape.foreign and text.startswith("{")):
            wanted = _listed(shape.attributes, "{}") + similar(text, shape.attributes) if shape.attributes else "none"
            yield element, f"unknown attribute {text} of <{element.tag}>, expected {wanted}"
    for name in shape.needed:
        if name not in element.attrib:
            yield element, f'<{element.tag}> has no attribute {name}, expected {name}="..."'


def _text(element: etree._Element, shape: Shape) -> Iterator[Note]:
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
