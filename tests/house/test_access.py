"""The table of who may give which order is the same in the code, the README and the manual."""

from __future__ import annotations

import re
from pathlib import Path

from zmsvc.core.access import ANYONE, BUS, CONTROL, MAY_CONNECT, ORDERS, Who
from zmsvc.core.events import Verb
from zmsvc.core.messages import TOPICS

ROOT = Path(__file__).parents[2]


def flat(text: str) -> str:
    return " ".join(text.split())


def test_the_readme_has_the_table() -> None:
    rows = re.findall(r"^\| (\S+) \| (.*?) ?\| (.*?) ?\|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    shown = {verb: (control, bus) for verb, control, bus in rows if verb in {order.verb for order in ORDERS}}
    for order in ORDERS:
        bus = f"who may connect, as {' or '.join(f'`{topic}`' for topic in order.bus)}" if order.bus else ""
        assert shown[order.verb] == (str(order.control or ""), bus), order.verb


def test_the_manual_has_the_table() -> None:
    text = (ROOT / "zmsvc/data/man/zmsvcctl.1").read_text().replace("\\-", "-")
    section = text[text.index('.SH "WHO MAY DO WHAT"') : text.index('.SH "WHY A TASK ENDED"')]
    found = {head: words.split(", ") for head, words in re.findall(r"^\.TP\n\.B (.*)\n(.*)$", section, re.MULTILINE)}
    assert found == {
        **{str(who): [verb for verb, may in CONTROL.items() if may is who] for who in Who},
        **{topic: list(verbs) for topic, verbs in BUS.items()},
    }


def test_all_documents_say_alike_who_may_connect() -> None:
    for name in ("README.md", "zmsvc/data/man/zmsvcctl.1", "zmsvc/data/man/zmsvc.xml.5"):
        text = flat((ROOT / name).read_text())
        assert MAY_CONNECT in text, name
        assert ANYONE in text, name


def test_the_bus_knows_no_order_that_the_core_does_not() -> None:
    assert set(BUS) == set(TOPICS)
    assert {*BUS["context"], *BUS["process"]} <= set(Verb)
    assert "reset-failed" not in {verb for verbs in BUS.values() for verb in verbs}
