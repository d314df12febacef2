"""A verb of zmsvcctl is declared in two tables: core/access.py has the users and sockets that may order it,
ctl/verb_table.py its arguments. The parser, the manual and the completion are made of these. CONTRIBUTING.md
says how to add one.
"""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any, cast

import pytest

from zmsvc.core import access, requests
from zmsvc.core.access import CONTROL, OrderRule, Verb, Who
from zmsvc.ctl import verb_table
from zmsvc.ctl.__main__ import parse
from zmsvc.ctl.verb_table import VERBS, Argument
from zmsvc.supervisor.control_requests import Requests
from zmsvc.supervisor.loop import Loop

ROOT = Path(__file__).parents[2]
PAUSE = verb_table.VerbEntry(
    "pause",
    "verbs.orders.order",
    "pause tasks until they are resumed",
    *verb_table.SELECTION,
    Argument("--deep", action="store_true", help="pause what tasks have started, too"),
    group=verb_table.ORDERS,
    manual="Pause tasks with the *freezer* of their cgroup, see **cgroups**(7).",
)
WITHOUT_A_VERB = {"restart-device", "reload-dry-run", "reload-tasks", "quarantine-drop", "drain", "undrain"}
"""`quarantine drop`, `keys revoke --now`, `reload --dry-run`, `reload TASK` and `cluster drain` send them."""


def script(name: str) -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / name), run_name="script")


def test_a_new_verb_is_in_the_parser_the_manual_and_the_completion(
    capsys: pytest.CaptureFixture[str],
) -> None:
    verbs = (*VERBS, PAUSE)
    verb, args = parse(["--json", "pause", "--deep", "ts_1"], verbs)
    assert (verb, args.deep, args.tasks, args.json) == (PAUSE, True, ["ts_1"], True)
    with pytest.raises(SystemExit):
        parse(["--help"], verbs)
    assert "pause         pause tasks until they are resumed" in capsys.readouterr().out

    manual = script("manual.py")
    assert (
        ".TP\n\\fBpause\\fR [\\fB\\-\\-transaction\\fR \\fIID\\fR] [\\fB\\-\\-task\\fR \\fITASK_ID\\fR]... "
        "[\\fB\\-\\-deep\\fR] [\\fITASK_ID\\fR]...\n"
        "Pause tasks with the \\fIfreezer\\fR of their cgroup, see \\fBcgroups\\fR(7).\n"
    ) in manual["verbs_section"](verbs)
    assert ".TP\n\\fB\\-\\-deep\\fR\nPause what tasks have started, too.\n" in manual["options_section"](
        verbs
    )

    for name, make in script("completion.py")["FILES"].items():
        assert {"pause", "deep"} <= set(re.findall(r"\w+", make(verbs))), name


def test_a_new_order_has_users_and_a_place_in_the_manual_but_no_way_over_the_bus() -> None:
    orders = (*access.ORDERS, OrderRule("pause", control=Who.GROUP))
    assert access.control(orders)["pause"] is Who.GROUP
    assert access.bus(orders) == access.BUS
    (members,) = re.findall(rf"^\.B {Who.GROUP}\n(.*)$", script("manual.py")["who_section"](orders), re.M)
    assert members.split(", ")[-1] == "pause"


def test_each_order_of_the_control_socket_has_a_verb_of_zmsvcctl() -> None:
    assert set(CONTROL) - {verb.name for verb in VERBS} == WITHOUT_A_VERB


def test_each_order_of_zmsvcctl_has_its_users_in_the_table_of_access() -> None:
    assert {verb.name for verb in VERBS if verb.group == verb_table.ORDERS} - set(CONTROL) == set()


def test_the_supervisor_answers_what_the_table_of_access_has_and_nothing_else() -> None:
    assert Requests(cast(Loop, None), {}).table().keys() == CONTROL.keys()
    assert {*requests.HANDLERS, Verb.RELOAD} == set(Verb)


def test_the_manual_is_made_of_the_tables() -> None:
    manual = script("manual.py")
    text = manual["PAGE"].read_text()
    assert manual["page"](text) == text, "make manual"


def test_contributing_names_the_files_that_a_new_verb_touches() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paragraph = re.split(r"^#+ ", text.partition("## A verb\n")[2], flags=re.M)[0]
    files = re.findall(r"`(zmsvc/[\w/.]+\.py)`", paragraph)
    assert len(set(files)) <= 5
    assert [file for file in files if not (ROOT / file).exists()] == []
