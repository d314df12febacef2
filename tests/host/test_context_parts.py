"""The files of `Context-NAME.d`: they add tasks, each fault names its own file, and nothing else is taken."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from zmsvc.core import checks
from zmsvc.core.errors import ConfigError
from zmsvc.core.model import ContextPart
from zmsvc.ctl.__main__ import main as zmsvcctl
from zmsvc.host.config import context_files, exposed_binds, reader

CALLS = "<on_fail><action>restart</action><call>{}</call></on_fail>"
HEADER = "<header><action>start</action><service_name>x</service_name></header>"


def task(task_id: str, command: str = "sleep 1000", extra: str = "", calls: str = "") -> str:
    return (
        f"<TaskService id='{task_id}' instance='{task_id}' serviceType='Command'><Task><message>{HEADER}<content>"
        f"<configuration><command>{command}</command></configuration></content></message>{extra}"
        f"<state type='on_start'>{CALLS.format(calls) if calls else ''}</state></Task></TaskService>"
    )


def context(*tasks: str) -> str:
    return "<Context>\n" + "\n".join(tasks) + "\n</Context>\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "Context-Web.xml"
    path.write_text(context(task("main", calls="b1")))
    (tmp_path / "Context-Web.d").mkdir()
    return path


def add(file: Path, name: str, text: str) -> Path:
    part = file.with_suffix(".d") / name
    part.write_text(text)
    return part


def faults(file: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        reader.load(file)
    return caught.value.faults


def test_tasks_of_the_directory_follow_those_of_the_file_in_the_order_of_the_names(file: Path) -> None:
    add(file, "b.xml", context(task("b1", calls="main"), task("b2")))
    add(file, "a.xml", context(task("a1")))
    add(file, ".hidden.xml", "no XML")
    add(file, "b.xml~", "no XML")
    loaded = reader.load(file)
    assert list(loaded.tasks) == ["main", "a1", "b1", "b2"]
    assert [each["id"] for each in loaded.source["TaskService"]] == list(loaded.tasks)
    assert [Path(part.path).name for part in loaded.parts] == ["a.xml", "b.xml"]


def test_no_message_has_the_environment_of_a_task_of_the_directory(file: Path) -> None:
    secret = "<service><environment><KEY>secret</KEY></environment></service>"
    add(file, "b.xml", context(task("b1", extra=secret)))
    loaded = reader.load(file)
    assert loaded.tasks["b1"].environment == {"KEY": "secret"}
    assert "secret" not in json.dumps(loaded.source)


def test_replicas_of_a_task_of_the_directory_are_tasks_each(file: Path) -> None:
    file.write_text(context(task("main")))
    add(file, "b.xml", context(task("b1", extra="<service><replicas>2</replicas></service>")))
    assert list(reader.load(file).tasks) == ["main", "b1@1", "b1@2"]


def test_a_context_file_may_leave_all_tasks_to_its_directory(file: Path) -> None:
    file.write_text("<Context><ContextID>context001</ContextID></Context>")
    add(file, "b.xml", context(task("b1")))
    assert list(reader.load(file).tasks) == ["b1"]


def test_an_id_that_occurs_twice_is_a_fault_that_names_both_places(file: Path) -> None:
    file.write_text(context(task("main")))
    part = add(file, "b.xml", context(task("b1"), task("main")))
    assert faults(file) == [
        f"{part}:3: the id 'main' is taken by a task before it, expected one of its own (see {file}:2)"
    ]


def test_each_fault_names_its_own_file_and_line(file: Path) -> None:
    file.write_text(context(task("main", extra="<service><nice>99</nice></service>")))
    first = add(file, "a.xml", context(task("a1"), task("a2", extra="<service>\n<umask>x</umask></service>")))
    second = add(file, "b.xml", context("", task("b1", calls="gone")))
    found = faults(file)
    assert [each.partition(" <")[0] for each in found] == [
        f"{file}:2: main:",
        f"{first}:4: a2:",
        f"{second}:3: b1: on_fail calls 'gone', expected the id of a task of this context",
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("<Context>\n<ContextID>x</ContextID><TaskService/></Context>", 2, "<ContextID> in <Context>"),
        ("<Context>\n<FrontBind>tcp://*:1</FrontBind></Context>", 2, "<FrontBind> in <Context>"),
        ("<Context bus_access='anyone'/>", 1, "the attribute bus_access of <Context>"),
        ("<Context xml:space='preserve'/>", 1, "the attribute space of <Context>"),
        ("<Context>\nwords</Context>", 1, "text 'words' in <Context>"),
        ("<Context/>", 1, "<Context> has no <TaskService>, expected at least one"),
        ("\n<MetaServiceConf/>", 2, "the root element is <MetaServiceConf>, expected <Context>"),
        ("", 1, "the file is empty"),
        ("<Context>\n\n", 3, "the file ends inside <Context>"),
    ],
)
def test_a_file_of_the_directory_has_tasks_alone(file: Path, text: str, line: int, words: str) -> None:
    part = add(file, "b.xml", text)
    assert any(each.startswith(f"{part}:{line}: {words}") for each in faults(file)), faults(file)


def test_warnings_name_their_own_file(file: Path) -> None:
    monitor = (
        "<TaskService id='m' instance='Monitor' mood='good'><Task><message>"
        f"{HEADER}<content><configuration><service><endpoint>tcp://192.0.2.1:7000</endpoint></service></configuration>"
        "</content></message><state/></Task></TaskService>"
    )
    part = add(file, "b.xml", context(task("b1", "sleep 5 &amp;&amp; true"), monitor))
    loaded = reader.load(file)
    assert any(
        line.startswith(f"{part}:3: m: unknown attribute mood")
        for line in checks.logged_warnings(loaded, curve=False)
    )
    (shell,) = [each for each in reader.placed(loaded, checks.config_warnings(loaded)) if each.setting]
    assert (shell.file, shell.line, shell.setting) == (str(part), 2, "command")
    (exposed,) = exposed_binds.refused_to_monitors(loaded)
    assert (exposed.file, exposed.line) == (str(part), 3)


def test_check_of_any_of_the_files_checks_all_of_them(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = add(file, "b.xml", context(task("b1", "no-such-program", calls="main")))
    for each in (file, part):
        assert zmsvcctl(["check", str(each)]) == 0
        out = capsys.readouterr().out
        assert f"{part}:2: warning: b1: its program no-such-program is not found" in out
        assert f"{file}: ok (2 tasks, 2 warnings)" in out


def test_graph_draws_the_tasks_of_all_files(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(file, "b.xml", context(task("b1")))
    assert zmsvcctl(["graph", str(file)]) == 0
    assert "b1" in capsys.readouterr().out


def test_a_fifo_a_dangling_link_and_a_directory_are_faults_and_block_nothing(file: Path) -> None:
    directory = file.with_suffix(".d")
    os.mkfifo(directory / "fifo.xml")
    (directory / "link.xml").symlink_to("nowhere")
    (directory / "sub.xml").mkdir()
    found = faults(file)
    assert [each.partition(": ")[0] for each in found] == [
        f"{directory}/{name}.xml:1" for name in ("fifo", "link", "sub")
    ]


def test_a_directory_that_is_a_file_is_a_fault(file: Path) -> None:
    file.with_suffix(".d").rmdir()
    file.with_suffix(".d").write_text("")
    assert faults(file) == [
        f"{file.with_suffix('.d')}:1: cannot read the directory (not a directory), expected files that add "
        f"tasks"
    ]


def test_all_files_together_are_bounded(file: Path) -> None:
    parts = [
        ContextPart(path=f"{name}.xml", text=b"<Context>" + b" " * (context_files.MAX_SIZE // 2))
        for name in "ab"
    ]
    with pytest.raises(ConfigError, match=r"^b.xml:1: the files of the context are together too large"):
        reader.parse(file.read_bytes(), path=str(file), name="Web", parts=parts)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root refuses the files of other users")
@pytest.mark.parametrize("what", ["directory", "file"])
def test_root_refuses_a_file_that_another_user_may_change(file: Path, what: str) -> None:
    part = add(file, "b.xml", context(task("b1")))
    place = part if what == "file" else part.parent
    place.chmod(0o777)
    assert any(each.startswith(f"{place}:1: root cannot use this {what}: ") for each in faults(file))


def test_create_knows_the_tasks_of_the_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "Conf/Context-Web.xml"
    file.parent.mkdir()
    file.write_text(context(task("main")))
    file.with_suffix(".d").mkdir()
    part = add(file, "b.xml", context(task("b1")))
    words = ["--service_path", str(tmp_path), "--context_name", "Web", "--task_service", "Other"]
    status = zmsvcctl(["create", *words, "--task_desc", "x", "--service_name", "o", "--task_id", "b1"])
    assert status == 2
    assert f"{part}:2: b1 is there" in capsys.readouterr().err
