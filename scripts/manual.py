#!/usr/bin/env python3
"""Write the sections VERBS and OPTIONS of zmsvcctl(1) and its lists of orders from the tables of verbs:
`make manual`.

The tables are zmsvc/ctl/verb_table.py and zmsvc/core/access.py. tests/house/test_verbs.py fails if the page
differs from them.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

from zmsvc.core import access, metrics
from zmsvc.core.access import Who
from zmsvc.ctl.verb_table import GLOBAL, HELP, VERBS, VERSION, Argument, VerbEntry

PAGE = Path(__file__).parents[1] / "zmsvc" / "data" / "man" / "zmsvcctl.1"
BEGIN = '.\\" --- {name}: made by `make manual` from the tables of verbs'
END = '.\\" --- end of {name}'
WIDTH = 140


def verbs_section(verbs: Iterable[VerbEntry] = VERBS) -> str:
    groups: dict[str, list[VerbEntry]] = {}
    for verb in verbs:
        groups.setdefault(verb.group, []).append(verb)
    return "".join(
        f'.SS "{group}"\n' + "".join(f".TP\n{_synopsis(verb)}\n{_prose(verb.manual)}" for verb in members)
        for group, members in groups.items()
    )


def options_section(verbs: Iterable[VerbEntry] = VERBS) -> str:
    """Return an entry for each option. Verbs that share a flag share its meaning, so the first one counts."""
    options = {each.flags: each for verb in verbs for each in reversed((*GLOBAL, *verb.options))}
    ordered = dict.fromkeys(
        each.flags
        for each in (*GLOBAL, *(each for verb in verbs for each in verb.options))
        if not each.positional
    )
    return "".join(
        f".TP\n{_flags(each)}\n{_prose(each.manual)}"
        for each in (*map(options.__getitem__, ordered), HELP, VERSION)
    )


def who_section(orders: Iterable[access.OrderRule] = access.ORDERS) -> str:
    control = access.control(orders)
    return "".join(
        f".TP\n.B {who}\n{_escaped(', '.join(verb for verb, may in control.items() if may is who))}\n"
        for who in Who
    )


def topics_section(orders: Iterable[access.OrderRule] = access.ORDERS) -> str:
    return "".join(f".TP\n.B {topic}\n{', '.join(verbs)}\n" for topic, verbs in access.bus(orders).items())


def metrics_section(definitions: Iterable[metrics.Definition] = metrics.DEFINITIONS) -> str:
    return "".join(
        f".TP\n{_bold(each.name)} ({each.kind}{'; ' if each.labels else ''}"
        f"{', '.join(map(_italic, each.labels))})\n{_prose(each.help)}"
        for each in definitions
    )


# --- markup

_ESCAPES = str.maketrans({"\\": "\\e", "-": "\\-", "'": "\\(aq", "“": "\\(lq", "”": "\\(rq", "~": "\\(ti"})


def _escaped(text: str) -> str:
    for sign, escape in (
        ("\\", "\\e"),
        ("-", "\\-"),
        ("'", "\\(aq"),
        ("“", "\\(lq"),
        ("”", "\\(rq"),
        ("~", "\\(ti"),
    ):
        text = text.replace(sign, escape)
    return text


def _bold(text: str) -> str:
    return f"\\fB{_escaped(text)}\\fR"


def _italic(text: str) -> str:
    return f"\\fI{_escaped(text)}\\fR"


def _prose(text: str) -> str:
    """Return paragraphs with **bold** and *italic* words as roff."""
    return ".IP\n".join(map(_paragraph, text.split("\n\n")))


def _paragraph(text: str) -> str:
    # Only words in another face keep their hyphens. A formatter may break the others there.
    words = re.sub(r"\*\*(.+?)\*\*|\*(.+?)\*|([^*]+)", _marked, " ".join(text.split()))
    lines = textwrap.wrap(words, WIDTH, break_long_words=False, break_on_hyphens=False)
    return "".join(f"\\&{line}\n" if line.startswith((".", "'")) else f"{line}\n" for line in lines)


def _marked(found: re.Match[str]) -> str:
    bold, italic, plain = found.groups()
    if bold is not None:
        return _bold(bold)
    return (
        _italic(italic) if italic is not None else _escaped(plain).replace("\\-", "-").replace(" -", " \\-")
    )


def _flags(option: Argument) -> str:
    value = f" {_value(option)}" if option.takes_value else ""
    return ", ".join(map(_bold, option.flags)) + value


def _value(option: Argument) -> str:
    metavar = option.settings.get("metavar")
    if metavar is None:
        return "|".join(map(_bold, option.settings["choices"]))
    words = (
        _bold(word) if word.islower() else _italic(word) if word.isidentifier() else _escaped(word)
        for word in metavar.split("|")
    )
    return "|".join(words)


def _synopsis(verb: VerbEntry) -> str:
    words = [_bold(verb.name), *_arguments(verb), *(["..."] if verb.own_arguments else [])]
    return " ".join(words)


def _arguments(verb: VerbEntry) -> Iterator[str]:
    for option in sorted(verb.options, key=lambda each: each.positional):
        several = "..." if option.settings.get("action") == "append" else ""
        if option.positional:
            count = option.settings.get("nargs")
            value = f"[{_value(option)}]" if count in ("?", "*") else _value(option)
            yield value + ("..." if count in ("*", "+") else "")
        elif option.takes_value:
            yield f"[{_bold(option.flags[0])} {_value(option)}]{several}"
        else:
            yield f"[{_bold(option.flags[0])}]"


SECTIONS = {
    "verbs": verbs_section,
    "who": who_section,
    "topics": topics_section,
    "metrics": metrics_section,
    "options": options_section,
}


def page(text: str) -> str:
    """Return the page with its generated sections renewed."""
    for name, make in SECTIONS.items():
        begin, end = BEGIN.format(name=name), END.format(name=name)
        before, _, rest = text.partition(begin + "\n")
        text = before + begin + "\n" + make() + end + rest.partition(end)[2]
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
    sys.exit()
