"""The commands of the zmicroservices 1.0 manual: their flags, the messages that they send, and the scripts themselves."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for_line

from zmsvc.core import messages
from zmsvc.core.errors import UsageError
from zmsvc.ctl import display, legacy, scaffold
from zmsvc.host import config

ROOT = Path(__file__).parents[2]
STATE_MACHINE = ROOT / "zmsvc/data/examples/Context-StateMachine.xml"
TX = "6FDAHH3WPRVV7FGZCRIN"


def asked(*arguments: str) -> list[tuple[str, dict[str, Any]]]:
    """The messages that conf_command.py would send, as they come out of the wire."""
    args = legacy.parser().parse_args(arguments)
    context = config.load(args.context_file) if args.context_file else None
    legacy.check(args, context)
    return [messages.decode(messages.encode(topic, body)) for topic, body in legacy.bodies(args, context)]


def order(*arguments: str) -> messages.Order:
    """The only order that conf_command.py would give, as a supervisor understands it."""
    ((topic, body),) = asked(*arguments)
    return messages.order(topic, body)


CONTEXT = ("--endpoint=tcp://127.0.0.1:5557", "--service_name=context")
FILE = f"--context_file={STATE_MACHINE}"


# --- messages


def test_start_as_in_the_manual_carries_the_whole_context() -> None:
    ((topic, body),) = asked(*CONTEXT, FILE, "--service_id=context001", f"--transaction={TX}", "--action=start")
    assert topic == "context"
    assert list(body) == ["header", "content"]
    assert body["header"] == {"service_transaction": TX, "service_id": "context001", "action": "start", "service_name": "context"}
    assert body["content"]["configuration"] == config.load(STATE_MACHINE).source
    understood = messages.order(topic, body)
    assert understood.tasks == ("ts_100", "ts_101", "ts_102", "ts_103")
    assert understood.configurations["ts_101"]["instance"] == "Walk"


@pytest.mark.parametrize("action", ["stop", "restart", "exit"])
def test_other_orders_name_no_tasks_and_so_mean_all(action: str) -> None:
    understood = order(*CONTEXT, FILE, f"--transaction={TX}", f"--action={action}")
    assert (understood.tasks, understood.action, understood.transaction) == ((), action, TX)
    assert (understood.service_id, understood.service_name) == ("context001", "context")


@pytest.mark.parametrize("action", ["start", "stop", "restart"])
@pytest.mark.parametrize("use_file", [[], ["--use_file"]])
@pytest.mark.parametrize("ids", [["--task_id=ts_103,ts_101"], ["--task_id", "ts_103", "--task_id", "ts_101"]])
def test_task_ids_restrict_what_is_sent(action: str, use_file: list[str], ids: list[str]) -> None:
    understood = order(*CONTEXT, FILE, f"--transaction={TX}", f"--action={action}", *ids, *use_file)
    assert understood.tasks == ("ts_103", "ts_101")
    assert understood.configurations["ts_103"]["instance"] == "Run"


def test_without_a_file_tasks_go_by_their_ids() -> None:
    understood = order(*CONTEXT, f"--transaction={TX}", "--action=stop", "--task_id=ts_9")
    assert (understood.tasks, understood.service_id) == (("ts_9",), "context001")


def test_all_is_an_order_to_the_context_too() -> None:
    understood = order("--endpoint=ipc:///bus", "--service_name=all", "--action=exit")
    assert (understood.topic, understood.action, understood.transaction) == ("context", "exit", "")
    assert (understood.service_id, understood.service_name) == ("context001", "all")


def test_process_orders_go_to_each_task() -> None:
    sent = asked("--service_name=process", FILE, f"--transaction={TX}", "--action=restart", "--task_id=ts_100,ts_102")
    orders = [messages.order(topic, body) for topic, body in sent]
    assert [each.tasks for each in orders] == [("ts_100",), ("ts_102",)]
    assert {(each.topic, each.action, each.transaction, each.service_name) for each in orders} == {
        ("process", "restart", TX, "state_update")
    }
    assert all("origin" not in body["header"] for _, body in sent)
    assert sent[1][1]["Task"]["message"]["content"]["configuration"]["device_action"] == "pass_state3"


def test_a_process_order_without_a_file_names_the_task_by_service_id() -> None:
    understood = order("--endpoint=ipc:///bus", "--service_name=process", "--service_id=ts_5", f"--transaction={TX}", "--action=stop")
    assert (understood.tasks, understood.action) == (("ts_5",), "stop")


def test_questions_about_the_state() -> None:
    manual = ("--endpoint=tcp://127.0.0.1:6557", "--service_name=state", f"--transaction={TX}")
    assert asked(*manual, "--action=request") == [
        (
            "state",
            {
                "header": {"service_transaction": TX, "service_id": "", "action": "request", "service_name": "state"},
                "content": {"configuration": {}},
            },
        )
    ]
    ((_, body),) = asked(*manual, "--action=top", "--open_connections", "--memory_maps")
    assert body["content"]["configuration"] == {"open_connections": 1, "memory_maps": 1}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--service_name=context", "--action=start"], "give --endpoint"),
        ([*CONTEXT, "--action=stop"], "give --transaction"),
        ([*CONTEXT, "--action=start", "--transaction=a b"], "is no ID"),
        ([*CONTEXT, "--action=request"], "is not for --service_name context"),
        ([*CONTEXT, "--action=start", "--wait"], "--wait is for questions"),
        ([*CONTEXT, "--action=start", "--use_file"], "--use_file needs"),
        ([*CONTEXT, "--action=start", "--use_file", FILE], "--use_file needs"),
        (["--endpoint=ipc:///bus", "--service_name=state", "--action=request", "--wait"], "--wait needs"),
        (["--endpoint=ipc:///bus", "--service_name=process", "--action=stop", "--transaction=T"], "give --task_id"),
        (["--endpoint=ipc:///bus", "--service_name=process", "--action=stop", "--task_id=a"], "give --transaction"),
    ],
)
def test_flags_that_cannot_be_meant(arguments: list[str], why: str) -> None:
    with pytest.raises(UsageError, match=re.escape(why)):
        asked(*arguments)


def test_exit_statuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nobody = f"--endpoint=ipc://{tmp_path}/nobody"
    assert legacy.main([*CONTEXT, FILE, f"--transaction={TX}", "--action=stop", "--task_id=ts_9"]) == 4
    assert capsys.readouterr().err == f"conf_command.py: cannot stop ts_9: no such task in {STATE_MACHINE}\n"
    assert legacy.main([nobody, "--service_name=context", "--action=stop"]) == 2
    (tmp_path / "bad.xml").write_text("<Context>\n<")
    assert legacy.main([nobody, f"--context_file={tmp_path}/bad.xml", "--service_name=all", "--action=exit"]) == 2
    assert f"{tmp_path}/bad.xml:2: " in capsys.readouterr().err
    assert legacy.main([nobody, "--service_name=all", "--action=exit", "--timeout=0.2"]) == 5
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"conf_command.py: cannot reach ipc://{tmp_path}/nobody: ")


# --- what display shows

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def test_a_message_is_shown_with_its_topic() -> None:
    text = display.shown("control", {"header": {"action": "started"}, "content": {"x": "a\x1b[2J"}}, NOW, verbose=False)
    assert "[control]:" in text
    assert json.loads(text.split("]:\n")[1]) == {"header": {"action": "started"}, "content": {"x": "a\x1b[2J"}}
    assert "\x1b" not in text


def test_the_long_context_info_is_shown_when_asked_for() -> None:
    body = messages.context_info(messages.header(transaction=TX, service_id="c", action="update", service_name="context"), [{TX: {}}])
    assert display.shown("control", body, NOW, verbose=False).endswith("Message with [context_info]")
    assert TX in display.shown("control", body, NOW, verbose=True)


def test_a_monitors_message_is_a_table() -> None:
    task = {"serviceId": "ts_100", "pid": 42, "status": "sleeping", "rss": 12.3456, "children": [1, 2], "opened_files": None}
    lines = display.shown("monitor", {TX: [task], "odd": 1}, NOW, verbose=False).splitlines()[2:]
    assert lines[0] == f"transaction {TX}"
    assert lines[1].split()[:3] == ["TASK", "PID", "STATUS"]
    assert lines[2].split() == ["ts_100", "42", "sleeping", "12.35", "-", "-", "-", "2", "-", "-", "-", "-"]
    assert lines[3] == "odd: 1"


@pytest.mark.parametrize(
    ("flags", "matches"),
    [
        ([], "control process monitor"),
        (["--transaction=T1"], "control process monitor"),
        (["--transaction=T2"], ""),
        (["--service_id=ts_1"], "control process monitor"),
        (["--service_id=ts_2"], "monitor"),
        (["--service_name=echo", "--action=started"], "control monitor"),
    ],
)
def test_messages_are_chosen_by_their_headers(flags: list[str], matches: str) -> None:
    head = messages.header(transaction="T1", service_id="ts_1", action="started", service_name="echo")
    inner = {"action": "start", "service_id": "ts_1", "service_name": "echo", "transaction": "T1"}
    process = {"Task": {"message": {"header": inner}}}
    bodies: dict[str, dict[str, Any]] = {"control": {"header": head}, "process": process, "monitor": {"T1": []}}
    args = display.parser().parse_args(flags)
    assert " ".join(name for name, body in bodies.items() if display.matches(body, args)) == matches


def test_display_wants_an_endpoint(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        display.main([])
    assert left.value.code == 2
    assert "--endpoint" in capsys.readouterr().err
    assert display.main(["nonsense"]) == 2


# --- the scripts, with a context that runs


class Tutorial:
    """The manual's tutorial in a directory, with scripts only. It ends whatever it has started."""

    def __init__(self, home: Path) -> None:
        self.home = home
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ZMSVC_", "NOTIFY_", "WATCHDOG_", "JOURNAL_"))}
        places = {f"ZMSVC_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "RUNTIME", "STATE")}
        self.environment = kept | places
        self.running: list[subprocess.Popen[bytes]] = []

    def script(self, name: str, *arguments: str) -> list[str]:
        return [sys.executable, "-P", str(ROOT / "scripts" / name), *arguments]

    def run(self, name: str, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.script(name, *arguments), cwd=self.home, env=self.environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def begin(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with open(self.home / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                self.script(name, *arguments), cwd=self.home, env=self.environment, bufsize=0, stdout=subprocess.PIPE, stderr=log
            )
        self.running.append(process)
        return process

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()


@pytest.fixture
def tutorial() -> Iterator[Tutorial]:
    home = Path(tempfile.mkdtemp(prefix="zm"))
    made = Tutorial(home)
    yield made
    made.close()
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def free_ports() -> Callable[[], tuple[int, int]]:
    def two() -> tuple[int, int]:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            return one.getsockname()[1], other.getsockname()[1]

    return two


def test_the_tutorial_from_create_to_exit(tutorial: Tutorial, free_ports: Callable[[], tuple[int, int]]) -> None:
    sub, pub = free_ports()
    tutorial.run(
        "create_service.py", f"--service_path={tutorial.home}", "--task_service=EchoAction", "--task_file=task_file_name",
        "--task_class=EchoShouting", "--task_desc=An echo action is for shouting the time after counting 10s", "--context_name=EchoAction",
        "--service_name=echo_action", "--server_ip=127.0.0.1", f"--sub_port={sub}", f"--pub_port={pub}", "--task_id=ts_100",
        "--device_action=shout",
    )  # fmt: skip
    file = "Conf/Context-EchoAction.xml"
    context = tutorial.begin("service_context.py", file)
    assert context.stdout is not None
    line = wait_for_line(context.stdout, "conf_command.py")
    assert f"--endpoint='tcp://127.0.0.1:{pub}' --context_file='{file}' --service_name='context' --service_id='context001'" in line

    endpoint = f"--endpoint=tcp://127.0.0.1:{pub}"
    name = ("--service_name=state", f"--transaction={TX}", "--action=request")
    # Nothing runs before it is told to.
    silence = tutorial.run("conf_command.py", endpoint, *name, f"--context_file={file}", "--timeout=2", status=124)
    assert "no reply" in silence.stderr

    shows = tutorial.begin("display.py", f"tcp://127.0.0.1:{sub}", "--topic=control", "--action=updated", "--count=1")
    assert shows.stdout is not None
    wait_for_line(shows.stdout, "Connecting to")

    start = ("--service_name=context", "--service_id=context001", f"--transaction={TX}", "--action=start")
    first, second = tutorial.run("conf_command.py", endpoint, f"--context_file={file}", *start).stdout.splitlines()
    assert first == f"+ Connecting endpoint [tcp://127.0.0.1:{pub}] in topic [context]"
    ((_, body),) = asked(endpoint, f"--context_file={tutorial.home / file}", *start)
    assert second == f"+ Sending message of [{len(messages.encode('context', body))}e] bytes"

    said = tutorial.run("conf_command.py", endpoint, *name, f"--context_file={file}").stdout
    reply = json.loads(said[said.index("\n{") :])
    assert reply["header"]["action"] == "reply_context"
    assert [task["service_id"] for task in reply["content"]["tasks"]] == ["ts_100"]
    # The task's first result, on the bus for everyone.
    wait_for_line(shows.stdout, '"shout":')
    assert shows.wait(15) == 0

    tutorial.run("conf_command.py", endpoint, "--service_name=all", "--service_id=context001", "--action=exit")
    assert context.wait(30) == 0


def test_a_service_context_with_a_broken_file(tutorial: Tutorial) -> None:
    (tutorial.home / "Context-Broken.xml").write_text("<Context>\n<")
    done = tutorial.run("service_context.py", "Context-Broken.xml", status=2)
    assert done.stderr.startswith("Context-Broken.xml:2: ")


@pytest.mark.parametrize("script", ["create_service.py", "service_context.py", "conf_command.py", "display.py"])
def test_scripts_explain_themselves(tutorial: Tutorial, script: str) -> None:
    assert "usage:" in tutorial.run(script, "--help").stdout
    assert len((ROOT / "scripts" / script).read_text().splitlines()) < 35


def test_every_flag_of_the_manual_is_known() -> None:
    parsers = {"conf": legacy.parser(), "create": scaffold_parser()}
    manual = {
        "create": "service_path task_service task_file task_class task_desc context_name service_name server_ip sub_port pub_port task_id"
        " device_action xml_file",
        "conf": "endpoint context_file service_name service_id transaction action use_file task_id open_connections opened_files"
        " memory_maps",
    }
    for name, flags in manual.items():
        known = parsers[name].format_help()
        assert [flag for flag in flags.split() if f"--{flag}" not in known] == []


def scaffold_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    scaffold.add_arguments(parser)
    return parser
