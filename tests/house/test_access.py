"""The table of who may give which order is the same in the code, docs/access.md and the manual."""

from __future__ import annotations

import re
from pathlib import Path

from zmsvc.core.access import ANYONE, BUS, CONTROL, MAY_CONNECT, ORDERS, TOPICS, Verb, Who

ROOT = Path(__file__).parents[2]


def flat(text: str) -> str:
    return " ".join(text.split())


def test_the_page_has_the_table() -> None:
    rows = re.findall(
        r"^\| (\S+) \| (.*?) ?\| (.*?) ?\|$", (ROOT / "docs/access.md").read_text(), re.MULTILINE
    )
    shown = {verb: (control, bus) for verb, control, bus in rows if verb in {order.verb for order in ORDERS}}
    for order in ORDERS:
        topics = " or ".join(f"`{topic}`" for topic in order.bus)
        bus = f"each client that may connect, on topic {topics}" if order.bus else ""
        assert shown[order.verb] == (str(order.control or ""), bus), order.verb


def test_the_manual_has_the_table() -> None:
    text = (ROOT / "zmsvc/data/man/zmsvcctl.1").read_text().replace("\\-", "-")
    section = text[text.index('.SH "WHO MAY DO WHAT"') : text.index('.SH "WHY A TASK ENDED"')]
    found = {
        head: words.split(", ")
        for head, words in re.findall(r"^\.TP\n\.B (.*)\n(.*)$", section, re.MULTILINE)
    }
    assert found == {
        **{str(who): [verb for verb, may in CONTROL.items() if may is who] for who in Who},
        **{topic: list(verbs) for topic, verbs in BUS.items()},
    }


def test_all_documents_say_alike_who_may_connect() -> None:
    for name in ("docs/access.md", "zmsvc/data/man/zmsvcctl.1", "zmsvc/data/man/zmsvc.xml.5"):
        text = flat((ROOT / name).read_text())
        assert MAY_CONNECT in text, name
        assert ANYONE in text, name


def test_the_bus_knows_no_order_that_the_core_does_not() -> None:
    assert set(BUS) == set(TOPICS)
    assert {*BUS["context"], *BUS["process"]} <= set(Verb)
    assert "reset-failed" not in {verb for verbs in BUS.values() for verb in verbs}


def test_documents_tell_root_to_keep_python_from_modules_of_the_working_directory() -> None:
    """`python -m` searches the working directory first, which may belong to another user."""
    files = [
        ROOT / "docs/installation.md",
        ROOT / "SECURITY.md",
        ROOT / "scripts/venv.sh",
        *(ROOT / "zmsvc/data/man").iterdir(),
    ]
    found = [
        words
        for file in files
        for words in re.findall(r"\S+ -m (?:compileall|pip|venv|ensurepip)\b", file.read_text())
    ]
    assert len(found) >= 3
    assert [words for words in found if not words.startswith("-I ")] == []
    recipes = (ROOT / "Makefile").read_text().partition("# --- for machines")[2]
    assert set(re.findall(r"/python'(.*?) -m (?:pip|compileall)", recipes)) == {" -I"}


def test_every_drop_in_is_in_the_documents_and_none_is_named_that_is_not_there() -> None:
    drop_ins = {file.name for file in (ROOT / "units/drop-ins").iterdir()}
    names = {
        name: set(re.findall(r"\b([a-z]+-?[a-z]*\.conf)\b", (ROOT / name).read_text()))
        for name in ("docs/access.md", "SECURITY.md")
    }
    assert names["docs/access.md"] == drop_ins
    assert names["SECURITY.md"] <= drop_ins
    manual = (ROOT / "zmsvc/data/man/zmsvcd.8").read_text()
    assert [name for name in drop_ins if name not in manual] == []
