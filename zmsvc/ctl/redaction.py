"""Take the values of `<environment>` out of what `report` packs.

Each value is replaced by a text that is the same for the same value, so a replay finds the same differences
in a reload. The key of this function is forgotten, so no reader of the file can find a value by trying.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Iterator
from typing import Any

from lxml import etree

_NAME = "environment"
MIN_LENGTH = 6
"""The shortest value that is looked for in texts. Shorter ones, such as `1`, are in many words."""


class Redaction:
    """The replacement of values. It remembers them, to find them in texts."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._values: set[str] = set()

    def _instead(self, value: str) -> str:
        self._values.add(value)
        digest = hmac.new(self._key, value.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()
        return f"removed-{digest[:12]}"

    def lines(self, data: bytes) -> bytes:
        """Return lines of JSON without the values. A line that is not JSON is left out."""
        return b"".join(self._lines(data.split(b"\n")))

    def _lines(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        for line in lines:
            try:
                body = json.loads(line) if line else None
            except (ValueError, RecursionError):
                continue
            if body is not None:
                yield json.dumps(self.value(body), separators=(",", ":")).encode() + b"\n"

    def value(self, found: Any, *, inside: bool = False) -> Any:
        """Return a JSON value without the values in members named environment."""
        if isinstance(found, dict):
            return {name: self.value(each, inside=inside or name == _NAME) for name, each in found.items()}
        if isinstance(found, list):
            return [self.value(each, inside=inside) for each in found]
        return self._instead(found) if inside and isinstance(found, str) and found else found

    def xml(self, root: etree._Element) -> bytes:
        """Return the text of an XML file without the values in elements and attributes named environment. The
        result has no comments.
        """
        for element in root.iter():
            inside = any(each.tag == _NAME for each in (element, *element.iterancestors()))
            for name, value in element.attrib.items():
                if inside or name == _NAME:
                    element.set(name, self._instead(str(value)))
            if inside and element.text and element.text.strip():
                self._values.add(element.text)
                element.text = self._instead(element.text.strip())
            if inside and element.tag != _NAME and element.tail and element.tail.strip():
                element.tail = self._instead(element.tail.strip())
        return etree.tostring(root, encoding="UTF-8", xml_declaration=True) + b"\n"

    def text(self, text: str) -> str:
        """Return a text without the values that were found so far."""
        for value in sorted(self._values, key=len, reverse=True):
            if len(value) >= MIN_LENGTH:
                for form in {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}:
                    text = text.replace(form, self._instead(value))
        return text
