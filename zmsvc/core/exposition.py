"""Metrics as text, in the two formats that Prometheus and compatible programs read: the text format 0.0.4 of
Prometheus, which promtool and the textfile collector of node_exporter take, and OpenMetrics 1.0. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum

from zmsvc.core.frozen import frozen


class Kind(StrEnum):
    """The kind of the values of a family."""

    GAUGE = "gauge"
    COUNTER = "counter"
    """It only rises. The name of each sample ends with `_total`."""


class Format(StrEnum):
    """A text format."""

    PROMETHEUS = "prometheus"
    OPENMETRICS = "openmetrics"


CONTENT_TYPE: Mapping[Format, str] = {
    Format.PROMETHEUS: "text/plain; version=0.0.4; charset=utf-8",
    Format.OPENMETRICS: "application/openmetrics-text; version=1.0.0; charset=utf-8",
}
"""The values of the HTTP header Content-Type."""
_TOTAL = "_total"


@frozen
class Sample:
    """One value, with the labels that tell it from others of its family."""

    labels: Mapping[str, str]
    value: float


@frozen
class Family:
    """All samples of one name. `help` is a sentence."""

    name: str
    kind: Kind
    help: str
    samples: tuple[Sample, ...]


def text(families: Iterable[Family], form: Format = Format.PROMETHEUS) -> str:
    """Return the families as text. A family without samples is left out."""
    lines = [line for family in families if family.samples for line in _family(family, form)]
    return "".join(f"{line}\n" for line in (*lines, *(("# EOF",) if form is Format.OPENMETRICS else ())))


def _family(family: Family, form: Format) -> Iterator[str]:
    # OpenMetrics describes a counter by its name without the suffix, which its samples have in both formats.
    name = family.name.removesuffix(_TOTAL) if form is Format.OPENMETRICS else family.name
    yield f"# HELP {name} {_escaped(family.help, form)}"
    yield f"# TYPE {name} {family.kind}"
    for sample in family.samples:
        labels = ",".join(f'{name}="{_escaped_label(value)}"' for name, value in sample.labels.items())
        yield f"{family.name}{f'{{{labels}}}' if labels else ''} {_number(sample.value)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(round(value, 6))


def _escaped_label(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _escaped(value: str, form: Format) -> str:
    if form is Format.OPENMETRICS:
        return _escaped_label(value)
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def accepted(accept: str) -> Format:
    """Return the format for the HTTP header Accept of a client: OpenMetrics if the client names it with a
    quality that is not lower than that of plain text.
    """
    openmetrics = max(
        (_quality(each) for each in _matching(accept, "application/openmetrics-text")), default=0
    )
    plain = max((_quality(each) for each in _matching(accept, "text/plain")), default=0)
    return Format.OPENMETRICS if openmetrics > 0 and openmetrics >= plain else Format.PROMETHEUS


def _matching(accept: str, media: str) -> Iterator[str]:
    return (each for each in accept.split(",") if each.split(";")[0].strip().lower() == media)


def _quality(entry: str) -> float:
    found = re.search(r";\s*q=([01](?:\.\d{0,3})?)\s*(?:;|$)", entry)
    return float(found[1]) if found else 1.0
