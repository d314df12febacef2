"""The templates in data/templates, and texts in XML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template

_TEMPLATES = Path(__file__).parents[2] / "data" / "templates"


def filled(template: str, values: Mapping[str, str]) -> str:
    """Return a template with these values in it."""
    return Template((_TEMPLATES / f"{template}.tmpl").read_text(encoding="utf-8")).substitute(values)


def xml(text: str) -> str:
    """Return a text as the contents of an element."""
    # An XML parser would read a bare carriage return as a line feed, so it becomes a reference.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")
