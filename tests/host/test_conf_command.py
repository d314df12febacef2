"""The commands of the zmicroservices 1.0 manual: their flags, the messages that they send, and the scripts
themselves.
"""

from __future__ import annotations

import argparse
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from zmsvc.core import messages
from zmsvc.core.errors import UsageError
from zmsvc.ctl.compat import conf_command, display
from zmsvc.ctl.create import command
from zmsvc.host.config import reader

ROOT = Path(__file__).parents[2]
STATE_MACHINE = ROOT / "zmsvc/data/examples/Context-StateMachine.xml"
TX = "6FDAHH3WPRVV7FGZCRIN"


def asked(*arguments: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the messages that conf_command.py would send, in the form in which they arrive."""
    args = conf_command.parser().parse_args(arguments)
    context = reader.load(args.context_file) if args.context_file else None
    conf_command.check(args, context)
    return [
        messages.decode(messages.encode(topic, body)) for topic, body in conf_command.bodies(args, context)
    ]


def order(*arguments: str) -> messages.Order:
    """Return the only order that conf_command.py would give, as a supervisor reads it."""
    ((topic, body),) = asked(*arguments)
    return messages.order(topic, body)


CONTEXT = ("--endpoint=tcp://127.0.0.1:5557", "--service_name=context")
FILE = f"--context_file={STATE_MACHINE}"


# --- messages


def test_start_as_in_the_manual_carries_the_whole_context() -> None:
    ((topic, body),) = asked(
        *CONTEXT, FILE, "--service_id=context001", f"--transaction={TX}", "--action=start"
    )
    assert topic == "context"
    assert list(body) == ["header", "content"]
    assert body["header"] == {
        "service_transaction": TX,
        "service_id": "context001",
        "action": "start",
        "service_name": "context",
    }
    assert body["content"]["configuration"] == reader.load(STATE_MACHINE).source
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
    assert (understood.tasks, understood.service_id) == (("ts_9",), "none")


@pytest.mark.parametrize("which", [["--task_id=all"], []])
def test_use_file_sends_all_tasks_of_the_file_under_its_own_context_id(which: list[str]) -> None:
    flags = ("--use_file", FILE, "--service_id=context002", f"--transaction={TX}", *which)
    understood = order(*CONTEXT, *flags, "--action=start")
    assert understood.tasks == ("ts_100", "ts_101", "ts_102", "ts_103")
    assert understood.service_id == "context001"
    assert order(*CONTEXT, *flags, "--action=stop").tasks == ("ts_100", "ts_101", "ts_102", "ts_103")


def test_the_id_of_the_context_means_all_its_tasks() -> None:
    """zmicroservices 1.0 exits by `--use_file --task_id=context001 --action=exit`."""
    flags = ("--use_file", FILE, f"--transaction={TX}", "--task_id=context001")
    assert order(*CONTEXT, *flags, "--action=start").tasks == ("ts_100", "ts_101", "ts_102", "ts_103")
    assert order(*CONTEXT, *flags, "--action=exit").tasks == ()
    assert order(*CONTEXT, "--action=exit", "--task_id=context001").tasks == ()
    with pytest.raises(UsageError, match="cannot start context002: no such task"):
        order(*CONTEXT, "--use_file", FILE, f"--transaction={TX}", "--action=start", "--task_id=context002")


def test_all_tasks_without_a_file_are_those_of_the_context() -> None:
    assert order(*CONTEXT, f"--transaction={TX}", "--action=stop", "--task_id=all").tasks == ()


def test_a_service_id_that_the_file_does_not_have_is_sent_with_a_warning() -> None:
    flags = (*CONTEXT, FILE, "--service_id=context002", f"--transaction={TX}", "--action=start")
    assert order(*flags).service_id == "context002"
    args = conf_command.parser().parse_args(flags)
    (doubt,) = conf_command.warnings(args, reader.load(STATE_MACHINE))
    assert "is context001: its context refuses an order for context002" in doubt


def test_the_name_of_a_service_is_an_order_to_its_task() -> None:
    """As in the usage text of 1.0: --service_name='sniffer' --action='stop' --service_id='ts010'."""
    flags = (
        "--endpoint=ipc:///bus",
        "--service_name=sniffer",
        "--action=stop",
        "--service_id=ts010",
        f"--transaction={TX}",
    )
    understood = order(*flags, "--device_action=sniff")
    assert (understood.topic, understood.tasks, understood.action, understood.service_name) == (
        "process",
        ("ts010",),
        "stop",
        "sniffer",
    )


def test_a_report_of_a_service_can_be_sent_in_its_name() -> None:
    flags = (
        "--endpoint=ipc:///bus",
        "--topic=control",
        "--service_name=sniffer",
        "--action=updated",
        "--service_id=ts010",
    )
    sent = asked(*flags, f"--transaction={TX}", "--device_action=track_found", "--result=failed")
    assert sent == [
        (
            "control",
            {
                "header": {
                    "service_transaction": TX,
                    "service_id": "ts010",
                    "action": "updated",
                    "service_name": "sniffer",
                },
                "content": {"status": {"result": "failed", "device_action": "track_found"}},
            },
        )
    ]


def test_the_service_that_top_was_to_start_is_sent_along_with_a_warning() -> None:
    flags = (
        "--endpoint=ipc:///bus",
        "--service_name=state",
        f"--transaction={TX}",
        "--action=top",
        "--use_service",
    )
    given = ("--service_type=pub", "--service_freq=1", "--service_endpoint=tcp://127.0.0.1:6558")
    ((_, body),) = asked(*flags, *given)
    assert body["content"]["configuration"] == {
        "service": {"type": "pub", "frequency_s": 1.0, "endpoint": "tcp://127.0.0.1:6558"}
    }
    (doubt,) = conf_command.warnings(conf_command.parser().parse_args([*flags, *given]), None)
    assert "--use_service starts no service" in doubt


def test_all_is_an_order_to_the_context_too() -> None:
    understood = order("--endpoint=ipc:///bus", "--service_name=all", "--action=exit")
    assert (understood.topic, understood.action, understood.transaction) == ("context", "exit", "")
    assert (understood.service_id, understood.service_name) == ("none", "all")


def test_process_orders_go_to_each_task() -> None:
    sent = asked(
        "--service_name=process", FILE, f"--transaction={TX}", "--action=restart", "--task_id=ts_100,ts_102"
    )
    orders = [messages.order(topic, body) for topic, body in sent]
    assert [each.tasks for each in orders] == [("ts_100",), ("ts_102",)]
    assert {(each.topic, each.action, each.transaction, each.service_name) for each in orders} == {
        ("process", "restart", TX, "state_update")
    }
    assert all("origin" not in body["header"] for _, body in sent)
    assert sent[1][1]["Task"]["message"]["content"]["configuration"]["device_action"] == "pass_state3"


def test_a_process_order_without_a_file_names_the_task_by_service_id() -> None:
    understood = order(
        "--endpoint=ipc:///bus",
        "--service_name=process",
        "--service_id=ts_5",
        f"--transaction={TX}",
        "--action=stop",
    )
    assert (understood.tasks, understood.action) == (("ts_5",), "stop")


def test_state_requests_are_sent_on_state() -> None:
    manual = ("--endpoint=tcp://127.0.0.1:6557", "--service_name=state", f"--transaction={TX}")
    assert asked(*manual, "--action=request") == [
        (
            "state",
            {
                "header": {
                    "service_transaction": TX,
                    "service_id": "",
                    "action": "request",
                    "service_name": "state",
                },
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
        ([*CONTEXT, "--action=start", "--transaction=a b"], "is not an ID"),
        ([*CONTEXT, "--action=request"], "is not for --service_name context"),
        ([*CONTEXT, "--action=start", "--wait"], "--wait is for questions"),
        ([*CONTEXT, "--action=start", "--use_file"], "--use_file needs"),
        (
            [*CONTEXT, FILE, "--action=start", "--topic=process"],
            "--topic process is not for --service_name context",
        ),
        (
            ["--endpoint=ipc:///bus", "--service_name=sniffer", "--topic=control", "--action=start"],
            "--action start is not for",
        ),
        (
            ["--endpoint=ipc:///bus", "--service_name=sniffer", "--topic=control", "--action=updated"],
            "give --service_id",
        ),
        (
            ["--endpoint=ipc:///bus", "--service_name=sniffer", "--action=request"],
            "--action request is not for",
        ),
        (["--endpoint=ipc:///bus", "--service_name=state", "--action=request", "--wait"], "--wait needs"),
        (
            ["--endpoint=ipc:///bus", "--service_name=process", "--action=stop", "--transaction=T"],
            "give --task_id",
        ),
        (
            ["--endpoint=ipc:///bus", "--service_name=process", "--action=stop", "--task_id=a"],
            "give --transaction",
        ),
        (["--endpoint=ipc:///bus", "--service_name=state", "--action=request"], "give --transaction"),
        (["--endpoint=ipc:///bus", "--service_name=state", "--action=top"], "give --transaction"),
    ],
)
def test_contradictory_flags_are_refused(arguments: list[str], why: str) -> None:
    with pytest.raises(UsageError, match=re.escape(why)):
        asked(*arguments)


def test_conf_command_has_its_exit_statuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nobody = f"--endpoint=ipc://{tmp_path}/nobody"
    assert conf_command.main([*CONTEXT, FILE, f"--transaction={TX}", "--action=stop", "--task_id=ts_9"]) == 4
    assert capsys.readouterr().err == f"conf_command.py: cannot stop ts_9: no such task in {STATE_MACHINE}\n"
    assert conf_command.main([nobody, "--service_name=context", "--action=stop"]) == 2
    (tmp_path / "bad.xml").write_text("<Context>\n<")
    assert (
        conf_command.main(
            [nobody, f"--context_file={tmp_path}/bad.xml", "--service_name=all", "--action=exit"]
        )
        == 2
    )
    assert f"{tmp_path}/bad.xml:2: " in capsys.readouterr().err
    assert conf_command.main([nobody, "--service_name=all", "--action=exit", "--timeout=0.2"]) == 5
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"conf_command.py: cannot reach ipc://{tmp_path}/nobody: ")


# --- what display shows

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def test_a_message_is_shown_with_its_topic() -> None:
    text = display.format_message(
        "control", {"header": {"action": "started"}, "content": {"x": "a\x1b[2J"}}, NOW, verbose=False
    )
    assert "[control]:" in text
    assert json.loads(text.split("]:\n")[1]) == {
        "header": {"action": "started"},
        "content": {"x": "a\x1b[2J"},
    }
    assert "\x1b" not in text


def test_the_long_context_info_is_shown_when_asked_for() -> None:
    head = messages.header(transaction=TX, service_id="c", action="update", service_name="context")
    (frame,) = messages.context_infos([head], {TX: {}})
    _, body = messages.decode(frame)
    assert display.format_message("control", body, NOW, verbose=False).endswith("Message with [context_info]")
    assert TX in display.format_message("control", body, NOW, verbose=True)


def test_a_monitors_message_is_a_table() -> None:
    task = {
        "serviceId": "ts_100",
        "pid": 42,
        "status": "sleeping",
        "rss": 12.3456,
        "children": [1, 2],
        "opened_files": None,
    }
    lines = display.format_message("monitor", {TX: [task], "odd": 1}, NOW, verbose=False).splitlines()[2:]
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
    bodies: dict[str, dict[str, Any]] = {
        "control": {"header": head},
        "process": process,
        "monitor": {"T1": []},
    }
    args = display.parser().parse_args(flags)
    assert " ".join(name for name, body in bodies.items() if display.matches(body, args)) == matches


def test_display_requires_an_endpoint(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        display.main([])
    assert left.value.code == 2
    assert "--endpoint" in capsys.readouterr().err
    assert display.main(["nonsense"]) == 2


def test_display_refuses_a_topic_that_no_subscriber_may_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert display.main(["tcp://127.0.0.1:5556", "--topic", "t" * (messages.MAX_TOPIC + 1)]) == 2
    assert (
        f"it has {messages.MAX_TOPIC + 1} bytes, {messages.MAX_TOPIC} are allowed" in capsys.readouterr().err
    )


# --- flags


def test_every_flag_of_the_manual_is_known() -> None:
    parsers = {"conf": conf_command.parser(), "create": create_parser()}
    manual = {
        "create": "service_path task_service task_file task_class task_desc context_name service_name server_ip "
        "sub_port pub_port task_id"
        " device_action xml_file",
        "conf": "endpoint context_file service_name service_id transaction action use_file task_id "
        "open_connections opened_files"
        " memory_maps",
    }
    for name, flags in manual.items():
        known = parsers[name].format_help()
        assert [flag for flag in flags.split() if f"--{flag}" not in known] == []


def create_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser
