"""docs/architecture.md and docs/protocols.md agree with the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from zmsvc import protocol
from zmsvc.core.access import CONTROL
from zmsvc.core.lifecycle import SubState
from zmsvc.host import state_file
from zmsvc.host.systemd import journal, notify
from zmsvc.protocol import fdstore, forking, launch, output, sharing, supervision, watching

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
PROTOCOLS = (ROOT / "docs" / "protocols.md").read_text()
DEBUGGING = (ROOT / "docs" / "debugging.md").read_text()
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
SOURCES = [
    *(ROOT / "zmsvc").rglob("*.py"),
    *(ROOT / "units").glob("*.in"),
    *(ROOT / "tests").rglob("*.py"),
    ROOT / "Makefile",
]
CHANNELS = {
    "supervision orders": supervision.ORDERS,
    "supervision reports": supervision.REPORTS,
    "sharing orders": sharing.ORDERS,
    "sharing reports": sharing.REPORTS,
    "output orders": output.ORDERS,
    "output reports": output.REPORTS,
    "fdstore orders": fdstore.ORDERS,
    "fdstore reports": fdstore.REPORTS,
    "fdstore gifts": fdstore.GIVEN,
    "watching orders": watching.ORDERS,
    "watching reports": watching.REPORTS,
}


def named(text: str) -> set[str]:
    """Return the texts between back quotes."""
    return set(re.findall(r"`([^`\n]+)`", text))


def test_each_room_is_in_the_architecture() -> None:
    rooms = {f"zmsvc/{each.parent.name}" for each in (ROOT / "zmsvc").glob("*/__init__.py")}
    assert rooms <= named(ARCHITECTURE)


def test_the_files_that_the_documents_name_exist() -> None:
    for text in (ARCHITECTURE, PROTOCOLS, DEBUGGING, GLOSSARY):
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (ROOT / "docs" / target).exists(), target
        for name in named(text):
            if re.fullmatch(r"[\w/]+\.(py|rng)", name):
                places = [ROOT / name, ROOT / "zmsvc" / name, *(ROOT / "zmsvc").rglob(name)]
                assert any(each.exists() for each in places), name


def test_the_glossary_is_sorted_and_its_names_are_where_it_says() -> None:
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| .+ \| (.+) \|$", GLOSSARY, re.MULTILINE)
    terms = [re.sub(r"\W+", " ", term.lower()) for term, _ in rows]
    assert terms == sorted(terms)
    for _, place in rows:
        for file, name in re.findall(r"`([\w/]+\.py)`(?: \(`(\w+)`\))?", place):
            text = (ROOT / "zmsvc" / file).read_text()
            assert not name or re.search(rf"^class {name}\b", text, re.MULTILINE), (file, name)


def test_the_theory_of_operation_names_every_sub_state_and_deciding_module() -> None:
    theory = ARCHITECTURE.split("## Theory of operation")[1].split("## Where is")[0]
    assert {each.value for each in SubState} <= set(re.findall(r"[a-z]+(?:-[a-z]+)*", theory))
    source = (ROOT / "zmsvc" / "core" / "engine.py").read_text()
    imported = re.search(r"^from zmsvc\.core import \(\n([a-z_,\s]+)\)$", source, re.MULTILINE)
    assert imported is not None
    assert {f"{name}.py" for name in re.findall("[a-z_]+", imported[1])} <= named(theory)


def test_each_function_on_the_way_from_an_end_to_a_fork_is_where_the_architecture_says() -> None:
    way = ARCHITECTURE.split("#### From the end of a process")[1].split("\nEnd, firing and launch")[0]
    items = re.findall(r"^\d\. (.+(?:\n   .+)*)", way, re.MULTILINE)
    assert len(items) == 8
    for item in items:
        names = named(item)
        files = [name for name in names if name.endswith(".py")]
        source = "\n".join((ROOT / "zmsvc" / file).read_text() for file in files)
        for name in names - {*files, "back-off"}:
            for part in name.split("."):
                assert re.search(rf"^(?: *(?:async )?def|class) {part}\b", source, re.MULTILINE), (
                    name,
                    files,
                )


def test_each_answer_of_where_is_names_what_its_files_define() -> None:
    rows = re.findall(r"^\|.+\|$", ARCHITECTURE.split("## Where is")[1], re.MULTILINE)
    assert len(rows) > 30
    for row in rows:
        files = [name for name in named(row) if name.endswith(".py")]
        places = [each for file in files for each in (ROOT / file, ROOT / "zmsvc" / file) if each.exists()]
        source = "\n".join(place.read_text() for place in places)
        for name in named(row):
            if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?", name) and not name.endswith(".py"):
                missing = [part for part in name.split(".") if not re.search(rf"\b{part}\b", source)]
                assert not missing, (row, name)


def test_each_invariant_of_the_core_names_the_function_that_checks_it() -> None:
    section = ARCHITECTURE.split("### What holds after every step")[1].split("\n### ")[0]
    items = re.findall(r"^\d+\. \*\w+\* \(([^)]+)\)", section, re.MULTILINE)
    assert len(items) == len(re.findall(r"^\d+\. ", section, re.MULTILINE)) == 11
    files = ("simulation.py", "test_engine_properties.py")
    source = "\n".join((ROOT / "tests" / "core" / file).read_text() for file in files)
    checks = set().union(*map(named, items))
    assert {name for name in checks if not re.search(rf"^ *def {name}\(", source, re.MULTILINE)} == set()
    assert set(re.findall(r"^def (check_\w+)\(", source, re.MULTILINE)) <= checks


@pytest.mark.parametrize("channel", CHANNELS)
def test_each_message_between_processes_is_documented(channel: str) -> None:
    assert set(CHANNELS[channel].operations) <= named(PROTOCOLS)


def test_protocol_numbers_are_those_of_the_code() -> None:
    assert f"The channel has a number, {protocol.PROTOCOL} in this release" in PROTOCOLS
    assert f"[forking.py](../zmsvc/protocol/forking.py), protocol {forking.PROTOCOL}." in PROTOCOLS
    assert {*launch.Descriptors.__dataclass_fields__, "spec"} <= named(PROTOCOLS)


def test_each_verb_of_the_control_socket_is_documented() -> None:
    assert set(CONTROL) <= named(PROTOCOLS)


def test_each_environment_variable_is_documented() -> None:
    used = set().union(*(re.findall(r"\b(?:X_)?ZMSVC_[A-Z_]*[A-Z]\b", each.read_text()) for each in SOURCES))
    told = named(PROTOCOLS)
    # Code and tests also look for variables by the beginning of their names.
    assert {each for each in used if not any(name.startswith(each) for name in told)} == set()
    assert notify.DROPPED in named(PROTOCOLS)


def test_each_column_of_the_state_file_is_documented() -> None:
    tables = re.findall(
        r"CREATE TABLE (?:IF NOT EXISTS )?(\w+) \((.*?)\)(?: WITHOUT ROWID)?;",
        state_file._TABLES + state_file._BARRIERS + state_file._TOTALS,
        re.DOTALL,
    )
    assert [name for name, _ in tables] == ["meta", "transactions", "tasks", "events", "barriers", "totals"]
    for name, body in tables:
        columns = set(re.findall(r"(\w+) (?:TEXT|INTEGER|REAL)", body))
        (row,) = [line for line in PROTOCOLS.splitlines() if re.match(rf"\| table `{name}`[ ,]", line)]
        assert columns <= named(row)
    assert f"`user_version` {state_file.SCHEMA}" in PROTOCOLS


def test_each_event_of_a_task_has_a_message_id_and_each_id_is_used() -> None:
    """An event is the second argument of `record` in the core. The end of a task is recorded by its last
    published action.
    """
    recorded = {"stopped", "failed"}
    for file in (ROOT / "zmsvc" / "core").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "attr", "") == "record"
                and len(node.args) > 1
            ):
                recorded |= {each.value for each in ast.walk(node.args[1]) if isinstance(each, ast.Constant)}
    of_the_context = {"requested", "reloaded", "forgotten", "carried", "closed", "drained", "undrained"}
    of_the_context |= {"handed-over"}
    of_the_processes = {"supervisor", "device", "context"}
    assert of_the_context <= recorded
    assert recorded - of_the_context == set(journal.MESSAGE_ID) - of_the_processes
