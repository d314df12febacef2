"""The resource agent without a cluster and without systemd: what it takes from others, and what it says. The boot
tests have its actions.
"""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import subprocess
import sys
import threading
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

DATA = Path(__file__).parents[2] / "zmsvc/data"
AGENT = DATA / "ocf/context"


@pytest.fixture(scope="module")
def agent() -> ModuleType:
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        loader = SourceFileLoader("ocf_context", str(AGENT))
        spec = importlib.util.spec_from_loader("ocf_context", loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        return module
    finally:
        sys.dont_write_bytecode = before


def task(name: str, state: str = "active", **more: Any) -> dict[str, Any]:
    return {"id": name, "state": state, **more}


def told(*tasks: dict[str, Any], state: str = "active") -> dict[str, Any]:
    return {"transactions": [{"id": "T1", "state": state, "tasks": list(tasks)}]}


def test_the_agent_needs_only_the_standard_library() -> None:
    # -I: not this tree, and no packages of the user. -S: none of the machine.
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(AGENT), "meta-data"], capture_output=True, text=True, check=True
    )
    assert ElementTree.fromstring(done.stdout).get("name") == "context"


def test_the_manual_has_each_parameter_and_each_action_with_its_timeout(agent: ModuleType) -> None:
    page = (DATA / "man/ocf_zmsvc_context.7").read_text()
    of_parameters, _, page = page.partition(".Sh ACTIONS")
    about = ElementTree.fromstring(agent.meta_data())
    parameters = {each.get("name") for each in about.iter("parameter")}
    assert parameters == set(re.findall(r"^\.It Cm (\w+)$", of_parameters, re.MULTILINE))
    actions = {str(each.get("name")) for each in about.iter("action")}
    assert all(re.search(rf"^\.It Cm .*\b{re.escape(name)}\b", page, re.MULTILINE) for name in actions)
    timeouts = {str(each.get("name")): str(each.get("timeout")) for each in about.iter("action")}
    for name in ("start", "stop", "monitor"):
        assert f"Timeout: {timeouts[name].removesuffix('s')} s" in page


def test_what_operators_have_decided_is_read_from_the_status(agent: ModuleType) -> None:
    data = told(task("a", held=True), task("b", "failed", exit={"reason": "signal", "signal": "SIGKILL"}))
    data["transactions"].append({"id": "T2", "state": "inactive", "tasks": [task("c", disabled=True)]})
    assert agent.decided_by(data) == {"open": ["T1"], "held": [["T1", "a"]], "disabled": ["c"]}
    assert agent.failed_tasks(data) == ["task b failed: signal (SIGKILL)"]


@pytest.mark.parametrize(
    "data",
    [{}, {"transactions": None}, {"transactions": [1]}, {"transactions": [{"id": "T", "state": "active"}]}],
)
def test_an_answer_of_another_form_is_not_a_status(agent: ModuleType, data: dict[str, Any]) -> None:
    with pytest.raises((LookupError, TypeError)):
        agent.checked(data)


def test_a_state_file_of_a_hostile_task_changes_nothing_but_ids(agent: ModuleType) -> None:
    found = {"open": ["T1", "x y", "$(id)", "a\nb"], "held": [["T1", "a"], ["no", "b"]], "disabled": [3]}
    assert agent.decisions(found) == {"open": ["T1"], "held": [["T1", "a"]], "disabled": ["3"]}
    for bad in ({}, {"open": 3}, {"open": [3], "held": [], "disabled": []}, {"open": [], "held": [1]}):
        with pytest.raises(ValueError, match="another form"):
            agent.decisions(bad)


def test_more_than_the_cluster_can_carry_is_told_and_not_written(agent: ModuleType, tmp_path: Path) -> None:
    context = agent.Context({"OCF_RESKEY_context": "Orders"})
    context.saved = tmp_path / "saved"
    opened = [f"{number:020}" for number in range(5000)]
    with pytest.raises(agent.Failure) as failure:
        context._carry({"open": opened, "held": [], "disabled": []})
    assert failure.value.status == agent.DEGRADED
    assert str(failure.value).startswith("5000 open transactions are more than the cluster's configuration")
    assert len(str(failure.value)) <= agent.MAX_REASON
    assert not context.saved.exists()


@pytest.mark.parametrize(
    ("kind", "place", "why"),
    [
        ("ext4", "/var/lib/zmsvc/Orders", None),
        ("xfs", "/var/lib/zmsvc", None),
        ("ext4", "/", "nothing is mounted at"),
        ("ext4", "/var/lib/zmsvc/Other", "nothing is mounted at"),
        ("nfs4", "/var/lib/zmsvc/Orders", "is on nfs4, where the state file cannot be"),
    ],
)
def test_a_shared_state_needs_a_disk_of_its_own(
    agent: ModuleType, kind: str, place: str, why: str | None
) -> None:
    mountinfo = f"36 35 98:0 / {place} rw,noatime master:1 - {kind} /dev/x rw\n"
    directory = Path("/var/lib/zmsvc/Orders")
    if why is None:
        agent.check_shared(directory, mountinfo)
        return
    with pytest.raises(agent.Failure, match=why) as failure:
        agent.check_shared(directory, mountinfo)
    assert failure.value.status == agent.INSTALLED


def test_a_reason_is_one_line_without_control_characters(
    agent: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "x\n\x1b[2Jocf-exit-reason:ok" + "y" * 500
    assert agent.main(["context", "monitor"], {"OCF_RESKEY_context": name}) == agent.CONFIGURED
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "\x1b" not in said
    assert len(said) <= agent.MAX_REASON + len("ocf-exit-reason:\n")


def test_the_file_of_the_agent_is_one_that_zmsvcd_reads(agent: ModuleType) -> None:
    from zmsvc.core.carried import parse

    decided = agent.decided_by(told(task("a", held=True), task("b", disabled=True)))
    found = parse(json.dumps({"host": "h1", **decided}).encode())
    assert (found.open, found.held, found.disabled) == (("T1",), (("T1", "a"),), ("b",))


CRM_MON = """#!/bin/sh
echo '<pacemaker-result><resources>{resource}</resources></pacemaker-result>'
"""
ORDERS = '<resource id="orders" resource_agent="ocf:zmsvc:context" role="Started" orphaned="{}" {}/>'


@pytest.mark.parametrize(
    ("resource", "starts_again"),
    [
        (ORDERS.format("false", ""), True),
        (f'<group id="all">{ORDERS.format("false", "")}</group>', True),
        (ORDERS.format("false", 'target_role="Started"'), True),
        (ORDERS.format("false", 'target_role="Stopped"'), False),
        (ORDERS.format("true", ""), False),
        (ORDERS.format("false", 'removed="true"'), False),
        ("", False),
    ],
)
def test_tasks_on_other_hosts_run_on_unless_the_resource_is_disabled_or_deleted(
    agent: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resource: str, starts_again: bool
) -> None:
    program = tmp_path / "crm_mon"
    program.write_text(CRM_MON.format(resource=resource))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    context = agent.Context({"OCF_RESKEY_context": "Orders", "OCF_RESOURCE_INSTANCE": "orders"})
    assert context._starts_again() is starts_again


def active(home: Path) -> str:
    """Return a systemctl for a unit that runs a context with <hosts>, and write the file of the context."""
    (home / "Context-Orders.xml").write_text("<Context><hosts>h2</hosts></Context>")
    shown = f"Environment=ZMSVC_RUNTIME_DIR={home} ZMSVC_CONFIG_DIR={home}"
    return f"#!/bin/sh\necho ActiveState=active\necho {shown}\n"


@pytest.mark.parametrize("program", ["#!/bin/sh\necho no cluster >&2; exit 102\n", None])
def test_a_cluster_that_does_not_answer_hands_nothing_over(
    agent: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    program: str | None,
) -> None:
    programs = {"systemctl": active(tmp_path), "crm_mon": program}
    for name, text in programs.items():
        if text is not None:
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    agent.Context({"OCF_RESKEY_context": "Orders", "OCF_RESOURCE_INSTANCE": "orders"})._hand_over()
    assert "stops the tasks of Orders on other hosts too: " in capsys.readouterr().err


def test_the_supervisor_is_asked_to_leave_the_tasks_on_other_hosts_alone(
    agent: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    programs = {"systemctl": active(tmp_path), "crm_mon": CRM_MON.format(resource=ORDERS.format("false", ""))}
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "Orders").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "Orders/control.sock"))
        listener.listen()
        asked: list[bytes] = []

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                asked.append(client.recv(4096))
                client.sendall(b'{"ok": true, "data": {}}\n')

        supervisor = threading.Thread(target=answer)
        supervisor.start()
        context = agent.Context({"OCF_RESKEY_context": "Orders", "OCF_RESOURCE_INSTANCE": "orders"})
        context._hand_over()
        supervisor.join()
        # A context without other hosts asks neither the cluster nor the supervisor, which would not answer now.
        (tmp_path / "Context-Orders.xml").write_text("<Context/>")
        (tmp_path / "crm_mon").unlink()
        context._hand_over()
    assert capsys.readouterr().err == ""
    assert json.loads(asked[0]) == {"verb": "exit", "home": True, "block": False}


@pytest.mark.parametrize(
    ("told", "own", "moves", "written"),
    [
        (None, False, 0, None),
        ({"host": "h1", "open": ["T1"], "generation": 4}, True, 4, None),
        ({"host": "h1", "open": ["T1"], "generation": 4}, False, 5, 5),
        ({"host": "h2", "open": ["T1"], "generation": 4}, True, 5, 5),
        # An earlier release has not counted.
        ({"host": "h2", "open": ["T1"]}, True, 1, 1),
    ],
)
def test_each_move_from_host_to_host_is_counted_before_the_start(
    agent: ModuleType, tmp_path: Path, told: dict[str, Any] | None, own: bool, moves: int, written: int | None
) -> None:
    context = agent.Context({"OCF_RESKEY_context": "Orders", "OCF_RESKEY_CRM_meta_on_node": "h1"})
    updates: list[dict[str, Any]] = []

    def attribute(*words: str) -> SimpleNamespace:
        if words[0].startswith("--update="):
            updates.append(json.loads(words[0].removeprefix("--update=")))
            return SimpleNamespace(returncode=0)
        return SimpleNamespace(returncode=0 if told else 6, stdout=json.dumps(told))

    context._attribute = attribute
    context._state_directory = lambda _unit: tmp_path
    context.moves, context.saved = tmp_path / "run/moves", tmp_path / "saved"
    if own:
        (tmp_path / "state.db").touch()
    carried = context._taken_over(None)
    assert [each["generation"] for each in updates] == ([] if written is None else [written])
    assert (carried is None) is (written is None)
    if carried is not None:
        assert (carried["open"], carried["generation"], updates[0]["host"]) == (["T1"], written, told["host"])
    context._carry({"open": ["T1"], "held": [], "disabled": []})
    assert (updates[-1]["host"], updates[-1]["generation"]) == ("h1", moves)
