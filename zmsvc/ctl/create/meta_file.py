"""A reader of MetaServiceConf files, which describe many services: XML -> fields with their places. fields.py
checks the values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from lxml import etree

from zmsvc.core.frozen import frozen
from zmsvc.core.values import WHITE
from zmsvc.ctl.create import xml_file
from zmsvc.ctl.create.fields import CONTEXT_CHECKS, CONTEXT_REQUIRED, SERVICE_CHECKS, SERVICE_REQUIRED
from zmsvc.ctl.create.plan import GivenFields, RuleFields
from zmsvc.host.config import xml_text

_RULE_FIELDS = ("trigger", "action", "state_id")


@frozen
class Meta:
    """The contents of a file, not yet checked. `faults` are those of its form; `warnings` are about unknown
    elements.
    """

    context: GivenFields
    services: tuple[GivenFields, ...]
    faults: tuple[str, ...]
    warnings: tuple[str, ...]


def read(path: str) -> Meta:
    """Read a file. Raises UsageError if it cannot be read, ConfigError if it is not XML or not a
    MetaServiceConf.
    """
    document = xml_file.parse(xml_file.read(path), path, "MetaServiceConf")
    reader, root = _Reader(document), document.root
    context = reader.given(root, CONTEXT_CHECKS, CONTEXT_REQUIRED, also=("Service",))
    services = tuple(reader.service(element) for element in root.iterchildren("Service"))
    if not services:
        reader.faults.append(f"{document.at(root)}: there is no <Service>, expected one or more")
    return Meta(
        context=context, services=services, faults=tuple(reader.faults), warnings=tuple(reader.warnings)
    )


class _Reader:
    """A reader of elements that collects the faults of their form."""

    def __init__(self, document: xml_file.Document) -> None:
        self.document = document
        self.faults: list[str] = []
        self.warnings: list[str] = []

    def given(
        self,
        element: etree._Element,
        known: Collection[str],
        required: Sequence[str],
        also: Collection[str] = (),
    ) -> GivenFields:
        """Return the fields of an element: its attributes and its children, which have the same
        meaning here.
        """
        text: dict[str, str] = {}
        labels: dict[str, str] = {}
        for name, value, place in self._pairs(element):
            label = f"{place}: {name}"
            if name in also:
                continue
            if name not in known:
                self.warnings.append(
                    f"{place}: <{element.tag}> has a {name}, which is not known and has no effect"
                )
            elif name in text:
                self.faults.append(f"{label} is there twice, expected it once in <{element.tag}>")
            else:
                text[name], labels[name] = value, label
        lacks = f"{self.document.at(element)}: <{element.tag}> lacks "
        return GivenFields(text=text, labels=labels, lacks=lacks, required=required)

    def service(self, element: etree._Element) -> GivenFields:
        """Return the fields of a Service element, with its rules."""
        plain = self.given(element, SERVICE_CHECKS, SERVICE_REQUIRED, also=("state",))
        rules: list[RuleFields] = []
        for state in element.iterchildren("state"):
            given = self.given(state, _RULE_FIELDS, ())
            label = f"{self.document.at(state)}: state"
            trigger = given.get("trigger")
            if any(rule.trigger == trigger for rule in rules):
                self.faults.append(
                    f"{label}: there is a second one for {trigger or 'no trigger'}, expected one for each "
                    f"trigger"
                )
            rules.append(
                RuleFields(
                    trigger=trigger, action=given.get("action"), call=given.get("state_id"), label=label
                )
            )
        return replace(plain, rules=tuple(rules))

    def _pairs(self, element: etree._Element) -> Iterator[tuple[str, str, str]]:
        """Yield name, text and place of each attribute and child."""
        for key, value in element.attrib.items():
            yield str(key), str(value).strip(WHITE), self.document.at(element)
        for child in element:
            yield str(child.tag), xml_text.leaf(child), self.document.at(child)
