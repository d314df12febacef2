"""`create`: the files that it makes, that it never removes anything, and that it makes all files or none."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from needs import need_tool
from waiting import wait_for_line

from zmsvc.core.errors import ConfigError, ZmsvcError
from zmsvc.core.model import Action, Rule, Trigger
from zmsvc.ctl.__main__ import main as zmsvcctl
from zmsvc.ctl.create import atomic_write, command, merge, templates
from zmsvc.ctl.create.plan import Plan, Service
from zmsvc.host.config import reader

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "zmsvc/data/examples"

TUTORIAL = {
    "task_service": "EchoAction",
    "task_file": "task_file_name",
    "task_class": "EchoShouting",
    "task_desc": "An echo action is for shouting the time after counting 10s",
    "context_name": "EchoAction",
    "service_name": "echo_action",
    "server_ip": "127.0.0.1",
    "sub_port": "5556",
    "pub_port": "5557",
    "task_id": "ts_100",
    "device_action": "shout",
}
"""The example of the manual of zmicroservices 1.0, flag for flag, except --service_path."""

SECOND = {**TUTORIAL, "task_service": "Second", "task_id": "ts_101"}

STATE = "<state><trigger>{}</trigger><action>{}</action><state_id>{}</state_id></state>"


def flags(values: dict[str, str], home: Path | str) -> list[str]:
    return [f"--{name}={value}" for name, value in {"service_path": str(home), **values}.items()]


def create(values: dict[str, str], home: Path | str, status: int = 0) -> None:
    assert command.main(flags(values, home)) == status


def files(home: Path) -> dict[str, bytes]:
    """Return the contents of all files under a directory; a directory has none."""
    return {
        str(path.relative_to(home)): b"" if path.is_dir() else path.read_bytes()
        for path in sorted(home.rglob("*"))
    }


def context_file(home: Path, name: str = "EchoAction") -> Path:
    return home / "Conf" / f"Context-{name}.xml"


@pytest.fixture
def faults(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """Return a function that returns the lines on stderr since its last call."""
    return lambda: capsys.readouterr().err.splitlines()


def meta(home: Path, *services: str, extra: str = "") -> Path:
    """Write a MetaServiceConf whose Service elements have these contents, each on its own line."""
    file = home / "Services-Meta.xml"
    body = "\n".join(f"<Service>{service}</Service>" for service in services)
    file.write_text(
        "<MetaServiceConf>\n<context_name>Meta</context_name><server_ip>127.0.0.1</server_ip><sub_port>5556</sub_port>"
        f"<pub_port>5557</pub_port><service_path>{home}</service_path>{extra}\n{body}\n</MetaServiceConf>\n"
    )
    return file


def service(name: str, task_id: str, more: str = "") -> str:
    return (
        f"<task_service>{name}</task_service><task_desc>Does "
        f"{name}</task_desc><service_name>{name.lower()}</service_name>"
        f"<task_id>{task_id}</task_id>{more}"
    )


# --- the tutorial


def test_the_tutorial_makes_service_and_context(tmp_path: Path) -> None:
    create(TUTORIAL, tmp_path)
    made = [name for name, data in files(tmp_path).items() if data]
    service_files = [
        f"Services/EchoAction/{name}" for name in ("ServiceEchoAction.py", "__init__.py", "task_file_name.py")
    ]
    assert made == ["Conf/Context-EchoAction.xml", *service_files]
    context = reader.load(context_file(tmp_path))
    assert (context.name, context.id, context.log_name) == ("EchoAction", "context001", "EchoAction")
    ends = context.endpoints
    assert (ends.subscribe_endpoint, ends.publish_endpoint) == (
        "tcp://127.0.0.1:5556",
        "tcp://127.0.0.1:5557",
    )
    assert (ends.publish_bind, ends.subscribe_bind) == (ends.publish_endpoint, ends.subscribe_endpoint)
    task = context.tasks["ts_100"]
    assert (task.instance, task.service_name, task.device_action, task.topic) == (
        "EchoAction",
        "echo_action",
        "shout",
        "process",
    )
    assert (task.description, task.location, task.entry) == (
        TUTORIAL["task_desc"],
        str(tmp_path / "Services"),
        True,
    )
    assert task.rules == ()
    assert reader.check_services(context) == []


def test_zmsvcctl_create_takes_the_same_flags(tmp_path: Path) -> None:
    create(TUTORIAL, tmp_path / "old")
    assert zmsvcctl(["create", *flags(TUTORIAL, tmp_path / "new")]) == 0
    old, new = files(tmp_path / "old"), files(tmp_path / "new")
    assert {name: data.replace(b"/old/", b"/new/") for name, data in old.items()} == new


def test_the_script_runs_from_a_checkout_anywhere(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "scripts/create_service.py"), *flags(TUTORIAL, "here")]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "created   here/Conf/Context-EchoAction.xml"
    # A relative service path is written as an absolute one where it has to be right later.
    assert reader.load(context_file(tmp_path / "here")).tasks["ts_100"].location == str(
        tmp_path / "here" / "Services"
    )


@pytest.mark.parametrize("task_type", ["Looped", "Single", "Simple", "simple", "Async"])
def test_generated_code_is_clean_and_runs(tmp_path: Path, task_type: str) -> None:
    create({**TUTORIAL, "task_type": task_type}, tmp_path)
    need_tool(importlib.util.find_spec("ruff"), "ruff is not installed")
    for check in (["check", "--config", str(ROOT / "ruff.toml")], ["format", "--isolated", "--diff"]):
        command = [sys.executable, "-m", "ruff", *check, "--no-cache", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    command = [
        sys.executable,
        "-m",
        "zmsvc.task",
        str(tmp_path / "Services/EchoAction"),
        "seconds=0",
        "interval=0.05",
    ]
    with subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        # Its first result.
        wait_for_line(process.stdout, '"shout"')
        if task_type == "Looped":
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize(
    "device_action", ["", "class", "pid", "result", "two words", "ünïcode", "a-b", "steps"]
)
def test_a_device_action_that_cannot_name_a_result_still_makes_code(
    tmp_path: Path, device_action: str
) -> None:
    create({**TUTORIAL, "device_action": device_action}, tmp_path)
    code = (tmp_path / "Services/EchoAction/task_file_name.py").read_text()
    assert "self.update(at=time.ctime(), steps=self.steps)" in code
    assert reader.load(context_file(tmp_path)).tasks["ts_100"].device_action == device_action


def test_omitted_names_default_to_the_services_name(tmp_path: Path) -> None:
    create(
        {
            name: text
            for name, text in TUTORIAL.items()
            if name not in ("task_file", "task_class", "device_action")
        },
        tmp_path,
    )
    tree = ast.parse((tmp_path / "Services/EchoAction/EchoAction.py").read_text())
    assert [node.name for node in tree.body if isinstance(node, ast.ClassDef)] == ["EchoAction"]


# --- run again


def test_a_second_create_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create(TUTORIAL, tmp_path)
    before = files(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    capsys.readouterr()
    create(TUTORIAL, tmp_path)
    assert files(tmp_path) == before
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["unchanged"] * 4


def test_edited_files_are_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create(TUTORIAL, tmp_path)
    task = tmp_path / "Services/EchoAction/task_file_name.py"
    task.write_text("# mine\n")
    (tmp_path / "Services/EchoAction/__init__.py").unlink()
    # A task that a person has edited is still the same task.
    file = context_file(tmp_path)
    text = file.read_text().replace(
        "<on_fail><action></action><call></call>", "<on_fail><action>restart</action><call>ts_100</call>"
    )
    text = text.replace("</device_action>", "</device_action>\n<interval>3</interval>").replace(
        'type="on_start"', 'type="start_now"'
    )
    file.write_text(text)
    capsys.readouterr()
    create(TUTORIAL, tmp_path)
    assert task.read_text() == "# mine\n"
    assert file.read_text() == text
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "created",
        "unchanged",
        "kept",
        "unchanged",
    ]


def test_create_reports_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create(TUTORIAL, tmp_path)
    capsys.readouterr()
    assert zmsvcctl(["--json", "create", *flags(SECOND, tmp_path)]) == 0
    report = json.loads(capsys.readouterr().out)["files"]
    assert report[-1] == {"path": str(context_file(tmp_path)), "outcome": "changed", "added": ["ts_101"]}


# --- a context file that is there


def test_services_created_one_by_one_or_at_once_are_the_same(tmp_path: Path) -> None:
    create(TUTORIAL, tmp_path)
    create(SECOND, tmp_path)
    context = reader.load(context_file(tmp_path))
    assert list(context.tasks) == ["ts_100", "ts_101"]
    by_one = context_file(tmp_path).read_text()
    plan = Plan(
        context_name="EchoAction",
        context_id=None,
        host="127.0.0.1",
        sub_port=5556,
        pub_port=5557,
        services_dir=tmp_path,
        context_file=tmp_path,
        services=tuple(
            _service(task.description, id=task.id, name=task.instance, location=str(task.location))
            for task in context.tasks.values()
        ),
    )
    assert templates.context_text(plan) == by_one


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1"])
@pytest.mark.parametrize(
    "end", ["</Context>\n<!-- </Context> -->\n", "  </Context>", "<!-- </Context> --></Context>"]
)
def test_merging_keeps_every_byte(tmp_path: Path, newline: str, encoding: str, end: str) -> None:
    create(TUTORIAL, tmp_path)
    file = context_file(tmp_path)
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n<!-- Meine Dienste: schön -->\n' + file.read_text()
    text = text.replace("<ContextID>", "<!--\tkeep  me -->   <ContextID >").replace("</Context>\n", end)
    before = text.replace("\n", newline).encode(encoding)
    file.write_bytes(before)
    file.chmod(0o640)
    create({**SECOND, "task_desc": "über & <unter> ☕"}, tmp_path)
    after = file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    size = len(after) - len(before)
    cuts = [at for at in range(len(before) + 1) if after[:at] + after[at + size :] == before]
    assert any(after[at : at + size].lstrip().startswith(b'<TaskService id="ts_101"') for at in cuts)
    assert after.count(b"\n") == after.count(newline.encode())
    assert reader.load(file).tasks["ts_101"].description == "über & <unter> ☕"
    create({**SECOND, "task_desc": "über & <unter> ☕"}, tmp_path)
    assert file.read_bytes() == after


def test_a_linked_context_file_stays_a_link(tmp_path: Path) -> None:
    create(TUTORIAL, tmp_path)
    real = tmp_path / "elsewhere.xml"
    context_file(tmp_path).rename(real)
    context_file(tmp_path).symlink_to(real)
    create(SECOND, tmp_path)
    assert context_file(tmp_path).is_symlink()
    assert b"ts_101" in real.read_bytes()


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"task_service": "Other"}, "instance"),
        ({"task_desc": "Something else"}, "description"),
        ({"service_name": "other"}, "service_name"),
        ({"device_action": "other"}, "device_action"),
        ({"task_topic": "other"}, "topic"),
        ({"location": "/"}, "location"),
        ({"entry_action": "on_exit"}, "state type"),
        ({"sub_port": "6556"}, "FrontEndEndpoint"),
        ({"pub_port": "6557", "task_id": "ts_101", "task_service": "Other"}, "BackendEndpoint"),
        ({"server_ip": "::1"}, "BackendEndpoint"),
        ({"context_id": "context002"}, "ContextID"),
    ],
)
def test_flags_that_contradict_the_context_file_are_refused(
    tmp_path: Path, faults: Callable[[], list[str]], changed: dict[str, str], word: str
) -> None:
    create(TUTORIAL, tmp_path)
    before = files(tmp_path)
    faults()
    create({**TUTORIAL, **changed}, tmp_path, status=2)
    assert any(f"{context_file(tmp_path)}:" in line and word in line for line in faults())
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "broken",
    ["<Context>\n<", "", "<Other/>", "<Context/>", '<!DOCTYPE Context [<!ENTITY a "b">]>\n<Context/>'],
)
def test_a_broken_context_file_is_refused(
    tmp_path: Path, faults: Callable[[], list[str]], broken: str
) -> None:
    context_file(tmp_path).parent.mkdir()
    context_file(tmp_path).write_text(broken)
    before = files(tmp_path)
    create(TUTORIAL, tmp_path, status=2)
    assert all(line.startswith(f"{context_file(tmp_path)}:") for line in faults())
    assert files(tmp_path) == before


def test_a_context_without_closing_tag_or_in_a_wide_encoding_is_refused(tmp_path: Path) -> None:
    for data, why in ((b"<Context/>", "closing tag"), ("<Context></Context>".encode("utf-16"), "UTF-16")):
        with pytest.raises(ConfigError, match=why):
            merge.merged(data, [], tmp_path)


# --- input that cannot be meant


def test_without_address_and_ports_the_context_file_names_no_endpoints(tmp_path: Path) -> None:
    given = {
        name: value for name, value in TUTORIAL.items() if name not in ("server_ip", "sub_port", "pub_port")
    }
    create(given, tmp_path)
    file = context_file(tmp_path)
    assert "Endpoint>" not in file.read_text()
    assert reader.load(file).endpoints.subscribe_endpoint.startswith("ipc://")
    before = file.read_bytes()
    create(given, tmp_path)
    # To name ports for a file that has none is a fault. To name none means to take those of the file.
    create(TUTORIAL, tmp_path, 2)
    assert file.read_bytes() == before


@pytest.mark.parametrize("given", [("sub_port",), ("server_ip",), ("sub_port", "pub_port")])
def test_address_and_ports_are_given_together_or_not_at_all(
    given: tuple[str, ...], faults: Callable[[], list[str]], tmp_path: Path
) -> None:
    names = ("server_ip", "sub_port", "pub_port")
    create(
        {name: value for name, value in TUTORIAL.items() if name not in names or name in given}, tmp_path, 2
    )
    assert faults()[0].endswith("missing " + " ".join(f"--{name}" for name in names if name not in given))


def test_all_missing_flags_are_listed_at_once(faults: Callable[[], list[str]], tmp_path: Path) -> None:
    assert command.main([f"--service_path={tmp_path}", "--task_id=ts_1"]) == 2
    missing = ("context_name", "task_service", "task_desc", "service_name")
    line = faults()
    assert len(line) == 1
    assert line[0].startswith("create_service.py: cannot create: ")
    assert line[0].endswith("missing " + " ".join(f"--{name}" for name in missing))
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    "bad",
    [
        {"task_service": "../../etc"},
        {"task_service": "1st"},
        {"task_service": "class"},
        {"task_service": "a b"},
        {"task_service": "é"},
        {"task_service": "__init__"},
        {"task_file": "a/b"},
        {"task_file": "ServiceEchoAction"},
        {"task_file": "__init__"},
        {"task_file": "task.py"},
        {"task_class": "LoopedTask"},
        {"task_class": "time"},
        {"task_class": "ServiceEchoAction"},
        {"task_class": "None"},
        {"task_file": "task_file_name\n--task_class=EchoShouting"},
        {"task_desc": "a\x00b"},
        {"task_desc": "\ud800"},
        {"task_desc": "\ufffe"},
        {"service_name": "two\nlines"},
        {"task_id": "ts 100"},
        {"task_id": ".."},
        {"task_id": "x" * 65},
        {"task_topic": "a b"},
        {"entry_action": "sometimes"},
        {"task_type": "Double"},
        {"sub_port": "0"},
        {"sub_port": "65536"},
        {"sub_port": "-1"},
        {"sub_port": "٣"},
        {"sub_port": "tcp"},
        {"pub_port": "5556"},
        {"server_ip": "0.0.0.0"},
        {"server_ip": "*"},
        {"server_ip": "somewhere"},
        {"context_name": "../x"},
        {"context_name": "a b"},
        {"context_id": "a/b"},
        {"location": "a\nb"},
    ],
    ids=repr,
)
def test_bad_flags_are_named_and_nothing_is_made(
    tmp_path: Path, faults: Callable[[], list[str]], bad: dict[str, str]
) -> None:
    create({**TUTORIAL, **bad}, tmp_path / "new", status=2)
    (line,) = faults()
    assert line.startswith(f"create_service.py: cannot create: --{next(iter(bad))} ")
    assert files(tmp_path) == {}


def test_a_directory_that_cannot_be_written_is_an_error_in_one_line(
    tmp_path: Path, faults: Callable[[], list[str]]
) -> None:
    (tmp_path / "Services").write_text("in the way")
    create(TUTORIAL, tmp_path, status=1)
    (line,) = faults()
    assert "Services" in line
    assert files(tmp_path) == {"Services": b"in the way"}


def test_locations_that_may_not_work_yet_are_reported(
    tmp_path: Path, faults: Callable[[], list[str]]
) -> None:
    create({**TUTORIAL, "location": str(tmp_path / "nowhere"), "server_ip": "192.0.2.1"}, tmp_path)
    assert [line.split()[0] for line in faults()] == ["warning:", "warning:"]
    create(TUTORIAL | {"location": str(tmp_path)}, tmp_path / "two")
    assert "but they were made in" in faults()[0]


# --- many at once


def test_the_state_machine_of_the_manual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert zmsvcctl(["create", "--from", str(EXAMPLES / "Services-StateMachine.xml")]) == 0
    made = reader.load(context_file(tmp_path, "StateMachine"))
    assert [task.instance for task in made.tasks.values()] == ["Stand", "Walk", "DrinkCoffee", "Run"]
    assert [task.entry for task in made.tasks.values()] == [True, False, False, False]
    calls = ["ts_101", "ts_102", "ts_103", "ts_100"]
    expected = [(Rule(trigger=Trigger.ON_EXIT, action=Action.START, call=call),) for call in calls]
    assert [task.rules for task in made.tasks.values()] == expected
    assert reader.check_services(made) == []
    before = files(tmp_path)
    assert zmsvcctl(["create", "--from", str(EXAMPLES / "Services-StateMachine.xml")]) == 0
    assert files(tmp_path) == before


def test_the_state_machine_that_is_shipped_is_what_create_makes(tmp_path: Path) -> None:
    assert (
        command.main([f"--xml_file={EXAMPLES / 'Services-StateMachine.xml'}", f"--service_path={tmp_path}"])
        == 0
    )
    shipped = (EXAMPLES / "Context-StateMachine.xml").read_text()
    made = [
        line
        for line in context_file(tmp_path, "StateMachine").read_text().splitlines(keepends=True)
        if "<location>" not in line
    ]
    comment = shipped[shipped.index("  <!-- The output of") : shipped.index("  <!-- No endpoints")]
    assert shipped.replace(comment, "") == "".join(made)
    context = reader.load(EXAMPLES / "Context-StateMachine.xml")
    for task in context.tasks.values():
        assert (EXAMPLES / "Services" / task.instance / f"Service{task.instance}.py").is_file()
    ours = {
        path.relative_to(EXAMPLES)
        for path in (EXAMPLES / "Services").rglob("*.py")
        if "EchoAction" not in path.parts
    }
    assert ours == {path.relative_to(tmp_path) for path in tmp_path.rglob("*.py")}


def test_the_manuals_own_sample_is_refused_for_its_stray_tag(
    tmp_path: Path, faults: Callable[[], list[str]]
) -> None:
    file = meta(tmp_path, service("Stand", "ts_100"), service("Walk", "ts_101") + "</Service>")
    before = files(tmp_path)
    assert command.main([f"--xml_file={file}"]) == 2
    assert faults() == [
        f"{file}:4: <MetaServiceConf> of line 1 is closed by </Service>, expected </MetaServiceConf>"
    ]
    assert files(tmp_path) == before


def test_a_metafile_has_defaults(tmp_path: Path) -> None:
    assert command.main([f"--xml_file={meta(tmp_path, service('Stand', 'ts_100'))}"]) == 0
    context = reader.load(context_file(tmp_path, "Meta"))
    task = context.tasks["ts_100"]
    assert (context.id, task.entry, task.rules, task.device_action) == ("context001", True, (), "")
    assert task.location == str(tmp_path / "Services")
    assert "class Stand(LoopedTask):" in (tmp_path / "Services/Stand/Stand.py").read_text()


@pytest.mark.parametrize("word", ["Single", "Simple", "single"])
def test_a_single_task_by_attribute_or_child(tmp_path: Path, word: str) -> None:
    child = service("Child", "ts_100", f"<task_type>{word}</task_type>")
    file = meta(tmp_path, child, service("Attribute", "ts_101"))
    file.write_text(
        file.read_text().replace(
            "<Service><task_service>Attribute", f"<Service task_type='{word}'><task_service>Attribute"
        )
    )
    assert command.main([f"--xml_file={file}"]) == 0
    for name in ("Child", "Attribute"):
        assert f"class {name}(SingleTask):" in (tmp_path / f"Services/{name}/{name}.py").read_text()


def test_all_faults_of_a_metafile_come_in_one_pass(tmp_path: Path, faults: Callable[[], list[str]]) -> None:
    file = meta(
        tmp_path,
        "<task_desc>no name</task_desc><task_id>ts_100</task_id>",
        service("Walk", "ts_100") + "\n<task_class>1st</task_class><task_class>Second</task_class>",
        service(
            "Run", "ts_102", STATE.format("on_exit", "start", "ts_999") + STATE.format("on_exit", "", "")
        ),
        service(
            "Run", "ts_103", "<task_class>Other</task_class>" + STATE.format("on_monday", "start", "ts_100")
        ),
        service(
            "Rest",
            "ts_104",
            STATE.format("on_fail", "explode", "ts_100") + STATE.format("on_exit", "", "ts_100"),
        ),
        extra="<log_on>perhaps</log_on>",
    )
    before = files(tmp_path)
    assert command.main([f"--xml_file={file}", "--task_id=ts_1", "--sub_port=x"]) == 2
    lines = faults()
    assert files(tmp_path) == before
    assert all(line.startswith((f"{file}:", "create_service.py: cannot create: --")) for line in lines)
    words = (
        "--task_id cannot be used",
        "5: task_class is there twice",
        "6: state: there is a second one",
        "--sub_port 'x' is not a port",
        "2: log_on 'perhaps'",
        "3: <Service> lacks <task_service> <service_name>",
        "5: task_class '1st'",
        "4: task_id 'ts_100' is another",
        "7: task_service 'Run' is described twice",
        "6: state: the state_id 'ts_999'",
        "7: state: 'on_monday'",
        "8: state: 'explode'",
        "8: state: the action is missing",
    )
    missing = [word for word in words if not any(word in line for line in lines)]
    assert (missing, len(lines)) == ([], len(words)), "\n".join(lines)


def test_a_metafile_adds_to_an_existing_context(tmp_path: Path, faults: Callable[[], list[str]]) -> None:
    assert command.main([f"--xml_file={meta(tmp_path, service('Stand', 'ts_100'))}"]) == 0
    # The rule calls a task of the existing file.
    file = meta(tmp_path, service("Walk", "ts_101", STATE.format("on_exit", "start", "ts_100")))
    assert command.main([f"--xml_file={file}"]) == 0
    assert list(reader.load(context_file(tmp_path, "Meta")).tasks) == ["ts_100", "ts_101"]
    assert faults() == []


def test_unknown_elements_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = meta(tmp_path, service("Stand", "ts_100", "<author>me</author>"), extra="<log_on>0</log_on>")
    assert command.main([f"--xml_file={file}"]) == 0
    captured = capsys.readouterr()
    assert (
        captured.err == f"warning: {file}:3: <Service> has a author, which is not known and has no effect\n"
    )
    assert captured.out == ""


def test_home_path_holds_the_context_file(tmp_path: Path) -> None:
    file = meta(tmp_path, service("Stand", "ts_100"), extra=f"<home_path>{tmp_path}/home</home_path>")
    assert command.main([f"--xml_file={file}"]) == 0
    assert context_file(tmp_path / "home", "Meta").is_file()
    assert (tmp_path / "Services/Stand/Stand.py").is_file()


@pytest.mark.parametrize(
    "text", ["<Other/>", "<MetaServiceConf/>", "", "<!DOCTYPE a [<!ENTITY b 'c'>]><MetaServiceConf/>"]
)
def test_a_file_that_is_not_a_metafile_is_refused(
    tmp_path: Path, faults: Callable[[], list[str]], text: str
) -> None:
    file = tmp_path / "other.xml"
    file.write_text(text)
    assert command.main([f"--xml_file={file}"]) == 2
    assert all(line.startswith(f"{file}:1: ") for line in faults())
    assert command.main([f"--xml_file={tmp_path}/none.xml"]) == 2
    assert faults() == [f"create_service.py: cannot read {tmp_path}/none.xml: no such file or directory"]


# --- all or nothing

KILLED = """
import os, signal, sys
from zmsvc.ctl.create import command
left = [{count}]
def killing(real):
    def call(*args, **kwargs):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
for name in ("link", "replace", "fsync", "open"):
    setattr(os, name, killing(getattr(os, name)))
sys.exit(command.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("count", range(1, 18, 2))
def test_a_kill_leaves_nothing_half_written(tmp_path: Path, count: int) -> None:
    for home in ("whole", "killed"):
        create(TUTORIAL, tmp_path / home)
    create(SECOND, tmp_path / "whole")
    before, whole = files(tmp_path / "killed"), files(tmp_path / "whole")
    whole = {name: data.replace(b"/whole/", b"/killed/") for name, data in whole.items()}
    program = [sys.executable, "-c", KILLED.format(count=count), *flags(SECOND, tmp_path / "killed")]
    assert subprocess.run(program, check=False, stdout=subprocess.DEVNULL).returncode in (-signal.SIGKILL, 0)
    for name, data in files(tmp_path / "killed").items():
        assert data in (before.get(name), whole.get(name)) or Path(name).name.startswith("."), name
    create(SECOND, tmp_path / "killed")
    # A temporary file may be left whose target was complete already.
    assert {
        name: data for name, data in files(tmp_path / "killed").items() if not Path(name).name.startswith(".")
    } == whole


@pytest.mark.parametrize("count", range(1, 5))
def test_when_one_file_cannot_be_written_none_is(
    tmp_path: Path, faults: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    create(TUTORIAL, tmp_path)
    before = files(tmp_path)
    left = [count]

    def failing(real: Callable[..., None]) -> Callable[..., None]:
        def call(source: Path, target: Path) -> None:
            left[0] -= 1
            if not left[0]:
                raise OSError(28, "No space left on device", str(target))
            real(source, target)

        return call

    monkeypatch.setattr(os, "link", failing(os.link))
    monkeypatch.setattr(os, "replace", failing(os.replace))
    create(SECOND, tmp_path, status=1)
    assert "no space left on device" in faults()[0]
    assert files(tmp_path) == before


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("theirs")
    for before in (None, b"ours"):
        changed = atomic_write.Change(path=file, data=b"new", before=before)
        with pytest.raises(atomic_write.Changed):
            atomic_write.write([changed, atomic_write.Change(path=tmp_path / "a", data=b"")])
        assert files(tmp_path) == {"file": b"theirs"}


def test_an_error_of_the_machine_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ZmsvcError, match=r"cannot write .*/file"):
        atomic_write.write([atomic_write.Change(path=tmp_path / "file" / "below", data=b"")])


def test_creates_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    script = str(ROOT / "scripts/create_service.py")
    each = [{**TUTORIAL, "task_service": f"Service{n}", "task_id": f"ts_{n}"} for n in range(8)]
    processes = [
        subprocess.Popen(
            [sys.executable, script, *flags(values, tmp_path)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for values in each
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert reader.load(context_file(tmp_path)).tasks.keys() == {f"ts_{n}" for n in range(8)}
    assert not [name for name in files(tmp_path) if Path(name).name.startswith(".")]


# --- any text


def _service(
    description: str, *, id: str = "ts_100", name: str = "EchoAction", location: str = "/srv/Services"
) -> Service:
    return Service(
        task_service=name,
        task_file="task_file_name",
        task_class="EchoShouting",
        task_desc=description,
        service_name="echo_action",
        task_id=id,
        task_topic="process",
        device_action="shout",
        entry_action=None,
        location=location,
        kind="looped",
    )


specials = "\"'\\&<>]${}%#"
anything = st.one_of(
    st.sampled_from(specials + "\n\r\t "),
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\ufffe\uffff"),
)
nasty = st.text(anything, min_size=1).map(lambda text: text.strip(" \t\r\n") or "-")
"""Texts that XML can hold, and Python source can break on."""
visible = st.one_of(st.sampled_from(specials), st.characters(whitelist_categories=["L", "N", "P", "S"]))
names = st.text(visible, min_size=1, max_size=128)


@given(nasty, names)
def test_any_description_makes_valid_python_and_xml(description: str, name: str) -> None:
    values = {**TUTORIAL, "task_desc": description, "service_name": name, "service_path": "/nowhere"}
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    plan, _ = command.plan(parser.parse_args([f"--{key}={value}" for key, value in values.items()]))
    for file in templates.service_files(plan):
        module = ast.parse(file.text)
        # Nothing of the text has become code.
        assert len(module.body) <= 4
        compile(module, str(file.path), "exec")
        for node in ast.walk(module):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "service_name":
                assert isinstance(node.value, ast.Constant)
                assert node.value.value == name
    element = ElementTree.fromstring(templates.context_text(plan))
    assert element.findtext("TaskService/Task/description") == description
    assert element.findtext("TaskService/Task/message/header/service_name") == name
    before = templates.context_text(plan).encode()
    other = merge.merged(before, [_service(description, id="ts_101")], Path("file"))
    assert [
        task.findtext("Task/description") for task in ElementTree.fromstring(other).iter("TaskService")
    ] == [description] * 2


def test_docstrings_are_wrapped_and_closed() -> None:
    plan = Plan(
        context_name="C",
        context_id=None,
        host="127.0.0.1",
        sub_port=1,
        pub_port=2,
        services_dir=Path("s"),
        context_file=Path("c"),
        services=(
            _service(
                textwrap.dedent(
                    """\
            He said "so" and "that", \\n and \""" too. """
                    + "word " * 60
                    + 'in the "end"'
                )
            ),
        ),
    )
    for file in templates.service_files(plan):
        assert max(map(len, file.text.splitlines())) <= 140
        assert "in the" in (ast.get_docstring(ast.parse(file.text)) or "") + file.text
