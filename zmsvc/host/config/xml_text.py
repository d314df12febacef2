"""Parse XML safely, find the lines of elements, and convert elements to JSON as zmicroservices did.

Entities, DTDs and the network are off. Text that is not XML is a ConfigError that says how to mend it.
"""

from __future__ import annotations

import re
import xml.parsers.expat
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zmsvc.core.errors import ConfigError
from zmsvc.core.settings import TEXT_KEY
from zmsvc.core.values import WHITE

if TYPE_CHECKING:
    from lxml import etree

_SPACE = "{http://www.w3.org/XML/1998/namespace}space"
"""The attribute of XML 1.0, section 2.10: `preserve` on an element, or on one around it, means that white
space belongs to its text.
"""

TRIMMED = (
    'without the white space at its ends (xml:space="preserve" keeps it, xml:space="default" says that it '
    "is not meant)"
)
"""The end of a warning about an element for which `loses` is true."""

_PROLOG = re.compile(r"(?>\s+|<\?.*?\?>|<!--.*?-->)*+<!DOCTYPE", re.DOTALL)
"""A DOCTYPE and the text before it. The quantifiers are possessive, so that `re` does not split a prolog of a
thousand comments in all possible ways.
"""

_WORDS: tuple[tuple[str, str], ...] = (
    (r"Document is empty", "the file is empty, expected <Context>"),
    (r"Start tag expected, '<' not found", "this is not XML, expected <Context>"),
    (
        r"Opening and ending tag mismatch: (\S+) line (\d+) and (\S+)",
        "<{0}> of line {1} is closed by </{2}>, expected </{0}>",
    ),
    (
        r"Premature end of data in tag (\S+) line (\d+)",
        "the file ends inside <{0}> of line {1}, expected </{0}>",
    ),
    (r"Couldn't find end of Start Tag (\S+)(?: line (\d+))?", "the tag <{0} is not finished, expected >"),
    (r"Attribute (\S+) redefined", "the attribute {0} is there twice, expected once"),
    (r"AttValue: \" or ' expected", 'an attribute\'s value has no quotes, expected name="value"'),
    (
        r"Specification mandates? value for attribute (\S+)",
        'the attribute {0} has no value, expected {0}="..."',
    ),
    (
        r"Unescaped '<' not allowed in attributes values",
        "a < in an attribute's value, expected &lt; or a closing quote before it",
    ),
    (
        r"Entity '(\S+)' not defined",
        "the entity &{0}; is not known, expected a plain text (a & is written &amp;)",
    ),
    (r"xmlParseEntityRef: no name", "a bare &, expected &amp;"),
    (r"EntityRef: expecting ';'", "a & that starts no entity, expected &amp;"),
    (
        r"xmlParse\w*CharRef: invalid|CharRef: invalid",
        "a number that is not a character, expected one like &#65;",
    ),
    (
        (
            r"Input is not proper UTF-8|Invalid bytes in character encoding|[Ee]ncoder error|input "
            r"conversion "
            r"failed"
        ),
        "bytes that are not of the file's encoding, expected UTF-8 or the encoding that the first line names",
    ),
    (r"Unsupported encoding:? (\S+)", "the encoding {0} is not known, expected UTF-8"),
    (
        r"Extra content at the end of the document",
        "something follows the end of the root element, expected one <Context>",
    ),
    (
        r"Excessive depth in document|xmlParseElementStart: maximum depth",
        "elements lie too deep, expected 255 levels at most",
    ),
    (
        r"Text node too long|Comment too big|too long|Resource limit exceeded|[Hh]uge",
        "a text is too long, expected 10 MB at most",
    ),
    (
        r"XML declaration allowed only at the start",
        "<?xml ...?> is not at the start of the file, expected nothing before it",
    ),
    (
        r"Namespace prefix (\S+)(?: for (\S+))? on (\S+) is not defined|Namespace prefix (\S+)",
        "the prefix of a name is not declared, expected a name without a colon",
    ),
    (
        r"(?:PCDATA )?invalid Char(?:acter)? value (\d+)|Char (0x\w+) out of allowed range",
        "a control character, expected text",
    ),
    (r"Comment not terminated", "a comment is not finished, expected -->"),
    (
        r"Double hyphen within comment|Comment must not contain '--'",
        "a comment with -- inside, expected none before its -->",
    ),
    (r"expected '>'", "a tag is not finished, expected >"),
    (r"CData section not finished", "a CDATA section is not finished, expected ]]>"),
    (r"Sequence ']]>' not allowed in content", "a bare ]]>, expected ]]&gt;"),
    (
        (
            r"error parsing attribute name|attributes construct error|StartTag: invalid element "
            r"name|xmlParseStartTag"
        ),
        "the text after < is not a tag, expected a name (a plain < is written &lt;)",
    ),
)
"""Messages of libxml2, from 2.9 to 2.14, and the text that zmsvc reports in their place."""


def tree(text: bytes, path: str) -> etree._Element:
    """Return the root element of a file, without comments and processing instructions. Raises ConfigError."""
    line = _doctype(text)
    if line:
        raise ConfigError(
            [f"{path}:{line}: a DOCTYPE is not allowed, expected a file without DTD and entities"]
        )
    # Only here: the supervisor has these modules without lxml, see separate_reader.py.
    from lxml import etree

    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(text, parser)
    except etree.XMLSyntaxError as error:
        raise ConfigError([_sentence(parser, error, path)]) from error
    info = root.getroottree().docinfo
    # An encoding such as UTF-7 hides the DOCTYPE from the search above, but not from the parser.
    if info.internalDTD is not None or info.doctype:
        raise ConfigError([f"{path}:1: a DOCTYPE is not allowed, expected a file without DTD and entities"])
    return root


def _doctype(text: bytes) -> int:
    """Return the line of the DOCTYPE, or 0 if there is none. This is called before parsing, so that the
    parser never reads a DTD.
    """
    wide = text[:2] in (b"\xff\xfe", b"\xfe\xff")
    head = text.decode("utf-16" if wide else "latin-1", "replace")
    head = head.removeprefix("\xef\xbb\xbf")
    match = _PROLOG.match(head)
    return head.count("\n", 0, match.end()) + 1 if match else 0


def _sentence(parser: etree.XMLParser, error: etree.XMLSyntaxError, path: str) -> str:
    # Most later errors follow from the first one.
    first = next(iter(parser.error_log), None)
    words = first.message if first is not None else str(error)
    line = max(1, first.line if first is not None else error.lineno or 1)
    return f"{path}:{line}: {_human(words.strip())}"


def _human(words: str) -> str:
    for pattern, form in _WORDS:
        if match := re.search(pattern, words):
            return form.format(*match.groups())
    return f"{words[:1].lower()}{words[1:]}, expected well-formed XML"


def lines(text: bytes, root: etree._Element) -> Mapping[etree._Element, int]:
    """Return the line on which the tag of each element begins."""
    return lines_of(text, list(root.iter()))


def lines_of(text: bytes, elements: Sequence[etree._Element]) -> Mapping[etree._Element, int]:
    """Return the line on which the tag of each element begins. `elements` are all those of the file, in its
    order, wherever they are now.

    libxml2 knows only the line on which a tag ends, and no exact line beyond 65,535. So expat parses the file
    again, which only files with faults or warnings need.
    """
    starts: list[int] = []
    parser = xml.parsers.expat.ParserCreate()
    parser.StartElementHandler = lambda _name, _attributes: starts.append(parser.CurrentLineNumber)
    try:
        parser.Parse(text, True)
    except (xml.parsers.expat.ExpatError, ValueError, LookupError):
        starts = []  # expat does not know the encoding.
    if len(starts) != len(elements):
        return {element: _sourceline(element) for element in elements}
    return dict(zip(elements, starts, strict=True))


def _sourceline(element: etree._Element) -> int:
    line: Any = element.sourceline
    return line or 1


def text_of(element: etree._Element | None) -> str:
    """Return the text of an element; empty if there is no such element."""
    return "" if element is None else leaf(element)


def leaf(element: etree._Element) -> str:
    """Return the element's own text without the white space around it."""
    own = (element.text or "").strip(WHITE)
    if not len(element):
        return own
    pieces = (own, *((child.tail or "").strip(WHITE) for child in element))
    return " ".join(piece for piece in pieces if piece)


def kept(element: etree._Element) -> bool:
    """Return True if the white space around the text of an element belongs to it."""
    return _kept(element) is True


def loses(element: etree._Element) -> bool:
    """Return True if the reader removes white space that may be intended, and no `xml:space` decides about
    it. Blanks beside a text on the same line may be intended, and so may the final line end of a text of
    several lines. Line ends around a single line are only the layout of the file.
    """
    text = element.text or ""
    own = text.strip(WHITE)
    if not own or own == text or len(element) or _kept(element) is not None:
        return False
    before, _, after = text.partition(own)
    return "\n" in own or any(side and "\n" not in side for side in (before, after))


def _kept(element: etree._Element) -> bool | None:
    for each in (element, *element.iterancestors()):
        mode = str(each.get(_SPACE, "")).strip(WHITE)
        if mode in ("default", "preserve"):
            return mode == "preserve"
    return None


def value(element: etree._Element) -> str:
    """Return the element's own text, with the white space around it if `xml:space="preserve"` keeps it."""
    return element.text or "" if not len(element) and kept(element) else leaf(element)


def to_json(element: etree._Element, *, keep: bool = False) -> Any:
    """Return an element as JSON, in the form of zmicroservices: attributes become keys, repeated children
    lists, and leaves strings ("" if empty).

    `keep` is True if an element around it has `xml:space="preserve"`; that attribute is not in the JSON.
    zmicroservices had no form for two cases: an attribute and a child of the same name make a list with the
    attribute first, and text beside attributes or children has the key `#text`.
    """
    attributes = element.items()
    if attributes and element.get(_SPACE) is not None:
        keep = kept(element)
        attributes = [each for each in attributes if each[0] != _SPACE]
    text = element.text or "" if keep and not len(element) else leaf(element)
    if not attributes and not len(element):
        return text
    result: dict[str, Any] = {str(name): str(value) for name, value in attributes}
    many: set[str] = set()
    for child in element:
        key, value = str(child.tag), to_json(child, keep=keep)
        if key not in result:
            result[key] = value
        elif key in many:
            result[key].append(value)
        else:
            result[key] = [result[key], value]
            many.add(key)
    if text:
        result[TEXT_KEY] = text
    return result


def shared(value: Any) -> Any:
    """Return JSON in which equal parts are one object, which nothing may change. In a context of 1,000 tasks
    it takes 1 MB instead of 5.
    """
    return _shared(value, {})


def _shared(value: Any, known: dict[Any, Any]) -> Any:
    if isinstance(value, dict):
        made = {known.setdefault(key, key): _shared(each, known) for key, each in value.items()}
        # The parts of an equal object are the same ones, and `known` keeps them alive.
        return known.setdefault(("{", *((key, id(each)) for key, each in made.items())), made)
    if isinstance(value, list):
        found = [_shared(each, known) for each in value]
        return known.setdefault(("[", *map(id, found)), found)
    return known.setdefault(value, value)
