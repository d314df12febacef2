"""An option of `<service>` is declared once: the reader, the schema, the manual and CONTRIBUTING follow the
declaration.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import runpy
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from zmsvc.core import option_kinds as kinds
from zmsvc.core import probing
from zmsvc.core.frozen import frozen
from zmsvc.core.placement import Placement
from zmsvc.core.probing import Probe
from zmsvc.core.service_options import (
    EVERY_TYPE,
    OPTIONS,
    Limits,
    Option,
    ServiceOptions,
    ServiceType,
    option,
    options_of,
    without_in_place,
)
from zmsvc.host.config import schema
from zmsvc.host.config.faults import FaultList
from zmsvc.host.config.service_options import read_options
from zmsvc.protocol.launch import LaunchSpec

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "service_options.py"), run_name="service_options")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


class Policy(StrEnum):
    NONE = "none"
    REBOOT = "reboot"


@frozen
class More(ServiceOptions):
    """The options of a later release: one of each kind."""

    ready_after: float = option(kinds.TIME_LIMIT, 0.25, summary="A limit.")
    pause: float = option(kinds.TIME_SPAN, 5.0, summary="A time.")
    chatty: bool = option(kinds.YES_NO, True, summary="A question.")
    runner: str | None = option(kinds.OWNER, None, summary="An owner.", default_words="the daemon")
    freeze_signal: str = option(kinds.SIGNAL, "SIGHUP", summary="A signal.", in_place=EVERY_TYPE)
    level: int = option(kinds.LOG_LEVEL, 6, summary="A level.", in_place=(ServiceType.COMMAND,))
    stack_size: int = option(kinds.SIZE, -1, summary="A size.")
    memory_low: int | str = option(kinds.MEMORY, -1, summary="Memory.")
    tasks_low: int | str = option(kinds.TASKS, "5%", summary="Tasks.")
    start_quota: int = option(kinds.CPU_QUOTA, 2050, summary="A quota.")
    start_weight: int = option(kinds.CPU_WEIGHT, 100, summary="A weight.")
    root_directory: str = option(kinds.PATH, "/", summary="A path. 'quoted' \\ .")
    state_directory: str = option(kinds.DIRECTORY, "~", summary="A directory.")
    directory_mode: int = option(kinds.MODE, 0o22, summary="A mode.")
    priority: int = option(kinds.whole_number(1, 10_000), 100, summary="A number.")
    start_limit_action: Policy = option(
        kinds.choice(Policy, "is not an action"), Policy.NONE, summary="A word."
    )
    pids: tuple[int, ...] = option(
        kinds.list_of(kinds.whole_number(1, 9), "numbers"), (1, 2), summary="A list."
    )
    status: int | str = option(kinds.EXIT_STATUS, 0, summary="A status.")
    statuses: tuple[int | str, ...] = option(
        kinds.Several(value=kinds.EXIT_STATUS, separated=True), (), summary="Statuses."
    )
    credential: str = option(kinds.OPTIONAL_FILE, "-/etc/key", summary="A file.")
    address: str = option(kinds.ADDRESS, "tcp://*:80", summary="An address.")
    socket_name: str = option(kinds.SOCKET_NAME, "web", summary="A name.")
    alarms: str = option(kinds.TOPIC, "alarm", summary="A topic.")
    unset: str = option(kinds.VARIABLE, "LANG", summary="A variable.")
    successor: str = option(kinds.TASK, "ts_1", summary="A task.")
    machine: str = option(kinds.HOST, "h1", summary="A host.")
    nodes: Placement | None = option(kinds.PLACEMENT, None, summary="Elements.")
    places: tuple[str, ...] = option(kinds.Several(value=kinds.PATH), (), summary="Places.")
    sizes: dict[str, int] = option(
        kinds.Fields(names=("low", "high"), value=kinds.SIZE), factory=dict, name="memory", summary="Fields."
    )
    alive: Probe | None = option(kinds.HEALTH, None, summary="Attributes.")
    labels: dict[str, str] = option(kinds.Variables(), factory=dict, summary="Variables.")
    thaw_command: tuple[str, ...] = option(kinds.WORDS, (), summary="A command.")


GOOD: dict[str, tuple[str, Any]] = {
    "ready_after": ("infinity", 0.0),
    "pause": ("1min 30s", 90.0),
    "chatty": ("No", False),
    "runner": ("033", "33"),
    "freeze_signal": ("usr1", "SIGUSR1"),
    "level": ("debug", 7),
    "stack_size": ("2G", 2 << 30),
    "memory_low": (" 2.5G", 5 << 29),
    "tasks_low": ("12.50 %", "12.5%"),
    "start_quota": ("150%", 15_000),
    "start_weight": (" idle", 0),
    "root_directory": ("/srv/a b", "/srv/a b"),
    "state_directory": ("\n-/srv/a b", "-/srv/a b"),
    "directory_mode": ("0750", 0o750),
    "priority": ("10000", 10_000),
    "start_limit_action": (" reboot ", Policy.REBOOT),
    "pids": (" 3\n4 ", (3, 4)),
    "status": ("kill", "SIGKILL"),
    "statuses": (" 3\n9 RTMIN+3</statuses><statuses>75", (3, 9, "SIG37", 75)),
    "places": ("/srv/a b</places><places>\n/opt", ("/srv/a b", "/opt")),
    "credential": (" -/etc/a b", "-/etc/a b"),
    "address": (" 127.0.0.1:80", "tcp://127.0.0.1:80"),
    "socket_name": (" web-1 ", "web-1"),
    "alarms": (" a b ", "a b"),
    "unset": (" _A1", "_A1"),
    "successor": ("\nts_1.A-b ", "ts_1.A-b"),
    "machine": (" h-1.example ", "h-1.example"),
    "nodes": (
        "<host>h2 h3</host><with>a</with><host>h4</host>",
        Placement(hosts=("h2", "h3", "h4"), together=("a",)),
    ),
    "sizes": ("<high>1K</high>", {"high": 1024}),
    "labels": ("<A.B>x</A.B>", {"A.B": "x"}),
    "thaw_command": ("<arg>a</arg><arg>b c</arg>", ("a", "b c")),
    "alive": (" exec='true' retries='9' ", probing.health(exec=("true",), retries=9)),
}
BAD = {
    "ready_after": "never",
    "pause": "infinity",
    "chatty": "perhaps",
    "runner": "a:b",
    "freeze_signal": "two words",
    "level": "very loud",
    "stack_size": "-1",
    "memory_low": "-1",
    "tasks_low": "1K",
    "start_quota": "20",
    "start_weight": "none",
    "root_directory": "srv",
    "state_directory": "~root",
    "directory_mode": "0800",
    "priority": "0",
    "start_limit_action": "halt",
    "pids": "3 x",
    "status": "256",
    "statuses": "3 </statuses><statuses> 1 NOSUCH",
    "places": "/srv</places><places>opt",
    "credential": "~/key",
    "address": "localhost:80",
    "socket_name": "a:b",
    "alarms": "a @@@ b",
    "unset": "A-B",
    "successor": "a/b",
    "machine": "-h1",
    "nodes": "<host>h2 h/3</host>",
    "sizes": "<high>much</high>",
    "labels": "<A-B/>",
    "thaw_command": "a 'b",
    "alive": "tcp='80' retries='0'",
}
NEW = [each for each in options_of(More) if each.field in GOOD]
BEYOND_A_SCHEMA = {"labels", "status", "statuses", "thaw_command"}
DEFAULTS = {
    "ready_after": "250ms",
    "pause": "5s",
    "chatty": "yes",
    "runner": "the daemon",
    "freeze_signal": "SIGHUP",
    "state_directory": "~",
    "directory_mode": "0022",
    "stack_size": "infinity",
    "memory_low": "infinity",
    "tasks_low": "5%",
    "start_quota": "20.5%",
    "pids": "1 2",
}

by_field = pytest.mark.parametrize("added", NEW, ids=lambda each: each.field)


def element(added: Option, text: str) -> str:
    if isinstance(added.kind, kinds.Attributes):
        return f"<{added.name} {text}/>"
    return f"<{added.name}>{text}</{added.name}>"


def read(added: Option, text: str) -> tuple[dict[str, Any], list[str]]:
    notes = FaultList()
    service = etree.fromstring(f"<service>{element(added, text)}</service>")
    values = read_options(service, options_of(More), notes)
    return values, [words for _, words in notes.found]


def validates(added: Option, text: str) -> bool:
    part = SCRIPT["schema_part"]((*OPTIONS, *NEW))
    grammar = SCRIPT["between_marks"](SCRIPT["SCHEMA"].read_text(), part)
    start = '<start><ref name="service"/></start>'
    root = etree.fromstring(re.sub("<start>.*</start>", start, grammar, flags=re.DOTALL).encode())
    service = etree.fromstring(f"<service>{element(added, text)}</service>")
    return bool(etree.RelaxNG(root).validate(service))


def test_the_schema_and_the_manual_are_made_from_the_declarations() -> None:
    assert [str(file) for file, text in SCRIPT["FILES"].items() if file.read_text() != text] == [], (
        "make options"
    )


def test_there_is_an_added_option_of_each_kind() -> None:
    named = {name for name, each in vars(kinds).items() if isinstance(each, kinds.Value)}
    assert {id(getattr(kinds, name)) for name in named} <= {id(each.kind) for each in NEW}
    assert {type(each.kind) for each in NEW} == set(kinds.Kind.__args__)


@by_field
def test_an_option_that_is_added_is_read(added: Option) -> None:
    text, value = GOOD[added.field]
    values, faults = read(added, text)
    if added.field == "labels":
        assert faults == [
            "the variable 'A.B' cannot be one, expected letters, digits and _, and no digit at the beginning"
        ]
    else:
        assert faults == []
    assert values == {added.field: value}


@by_field
def test_a_bad_value_of_an_option_that_is_added_is_a_fault(added: Option) -> None:
    values, faults = read(added, BAD[added.field])
    assert len(faults) == 1
    assert ", expected " in faults[0]
    if isinstance(added.kind, kinds.Value):
        assert values == {}
        assert faults[0].startswith(f"<{added.name}> ")


@by_field
def test_an_option_that_is_added_is_in_the_schema(added: Option) -> None:
    assert validates(added, GOOD[added.field][0])
    assert validates(added, BAD[added.field]) is (added.field in BEYOND_A_SCHEMA)
    often = "*" if isinstance(added.kind, kinds.Several) else "?"
    assert f"{added.name}{often}" in schema.service_schema(NEW).children
    assert f"<a:documentation>{added.summary}" in SCRIPT["schema_part"](NEW)


@by_field
def test_an_option_that_is_added_is_in_the_manual(added: Option) -> None:
    entry = SCRIPT["manual_part"](NEW).partition(f".It {added.name}\n")[2].partition(".It ")[0]
    assert entry.startswith(added.summary.split(".")[0])
    assert f"Value: {added.kind.words}.\n" in entry
    if added.field in DEFAULTS:
        assert f"Default: {DEFAULTS[added.field]}.\n" in entry
    assert ("without a restart of the task" in entry) is (added.in_place == EVERY_TYPE)
    assert ("without a restart of a Command" in entry) is (added.in_place == (ServiceType.COMMAND,))
    assert not any(line.startswith(("'", "\\ ")) for line in entry.splitlines())


def test_a_reload_restarts_a_task_unless_an_option_that_is_added_says_otherwise() -> None:
    def same(kind: ServiceType, **changes: Any) -> bool:
        return without_in_place(More(**changes), kind) == without_in_place(More(), kind)

    assert not same(ServiceType.PROCESS, priority=5)
    assert same(ServiceType.PROCESS, freeze_signal="SIGUSR1")
    assert (same(ServiceType.COMMAND, level=7), same(ServiceType.PROCESS, level=7)) == (True, False)


def test_a_launch_has_the_same_defaults_as_the_options() -> None:
    """A launch of an earlier release leaves out the options that this one has added."""
    carried = {each.name: each for each in dataclasses.fields(LaunchSpec)}
    for each in (*options_of(Limits), *options_of(ServiceOptions)):
        if each.field in carried:
            field = carried[each.field]
            made = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            assert made == each.default, each.field


def test_no_two_options_have_one_name_and_each_says_what_it_is() -> None:
    assert len({each.name for each in OPTIONS}) == len({each.field for each in OPTIONS}) == len(OPTIONS)
    assert [each.name for each in OPTIONS if not each.summary.endswith(".")] == []


def fields_and_attributes(file: Path) -> set[str]:
    """Return the names of fields that a file declares, or reads from a task or a launch."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("service", "spec", "task"):
            found.add(node.attr)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


def test_an_option_touches_only_the_three_files_that_contributing_names() -> None:
    paragraph = re.search(r"^## An option of `<service>`\n(.*?)(?=^## |\Z)", CONTRIBUTING, re.M | re.S)
    assert paragraph
    named = re.findall(r"^\d\. `(zmsvc/[\w/]+\.py)`", paragraph[1], re.M)
    touched = [
        str(file.relative_to(ROOT))
        for file in (ROOT / "zmsvc").rglob("*.py")
        if "nice" in fields_and_attributes(file)
    ]
    assert len(named) == 3
    assert sorted(touched) == sorted(named)
