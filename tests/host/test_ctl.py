"""zmsvcctl against a fake supervisor: its command line, its choice of the context, its orders, and its
errors.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import fake_supervisor as fake
import pytest
from fake_supervisor import HangUp, House, Silence, no, status, transaction, yes
from waiting import wait_for

from zmsvc.ctl import client, status_source, suggestions
from zmsvc.ctl.__main__ import main, parse
from zmsvc.ctl.select_context import choose
from zmsvc.ctl.verb_table import VERBS
from zmsvc.ctl.verbs.events import events
from zmsvc.host import paths
from zmsvc.keeper import keeper

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with fake.house(tmp_path) as made:
        yield made


def complaint(capsys: Capture) -> str:
    """Return the one line that zmsvcctl printed to standard error."""
    said = capsys.readouterr().err
    assert said.startswith("zmsvcctl: ")
    assert said.count("\n") == 1
    assert said.endswith("\n")
    return said


# --- the command line


def test_the_verbs_are_those_of_the_contract() -> None:
    assert [verb.name for verb in VERBS] == [
        "start",
        "stop",
        "restart",
        "signal",
        "status",
        "top",
        "list",
        "is-active",
        "is-failed",
        "is-enabled",
        "show",
        "why",
        "stack",
        "wait",
        "metrics",
        "logs",
        "events",
        "watch",
        "send",
        "publish",
        "update",
        "quarantine",
        "check",
        "graph",
        "wiring",
        "simulate",
        "report",
        "replay",
        "keys",
        "cluster",
        "units",
        "create",
        "import",
        "exit",
        "reload",
        "reset-failed",
        "forget",
        "enable",
        "disable",
        "reexec",
    ]


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_every_verb_has_help(verb: str, capsys: Capture) -> None:
    assert main([verb, "--help"]) == 0
    assert f"zmsvcctl {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verb", "shown", "hidden"),
    [
        ("start", ["--no-block", "--timeout"], ["--no-pager"]),
        ("status", ["--no-pager", "--timeout"], ["--no-block"]),
        ("check", ["--json"], ["--no-block", "--no-pager"]),
    ],
)
def test_the_help_of_a_verb_has_no_option_that_means_nothing_to_it(
    verb: str, shown: list[str], hidden: list[str], capsys: Capture
) -> None:
    assert main([verb, "--help"]) == 0
    told = capsys.readouterr().out
    assert [option for option in shown if option not in told] == []
    assert [option for option in hidden if option in told] == []
    assert main([verb, *hidden, "--help"]) == 0, "they are accepted all the same"


def test_help_names_every_verb(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert [verb.name for verb in VERBS if not re.search(rf"^  {verb.name} ", told, re.M)] == []


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["-c"],
        ["frobnicate"],
        ["--frobnicate"],
        ["status", "--frobnicate"],
        ["--timeout", "soon", "status"],
        ["status", "--timeout", "-1"],
        ["logs", "-n", "many"],
        ["watch", "--count", "0"],
        ["graph", "X", "--format", "png"],
        ["send"],
        ["status", "--trans", "TX"],
    ],
)
def test_a_wrong_command_line_ends_with_2_and_one_line(
    words: list[str], home: House, capsys: Capture
) -> None:
    assert main(words) == 2
    assert re.search(r"\(see zmsvcctl.* --help\)$", complaint(capsys))


@pytest.mark.parametrize(
    ("word", "instead"),
    [
        ("strat", "did you mean start?"),
        ("Status", "did you mean status?"),
        ("evens", "did you mean events?"),
        ("reste-failed", "did you mean reset-failed?"),
        ("unstartup", "zmsvcctl disable TASK_ID"),
        ("tail", "zmsvcctl logs -f"),
        ("kill", "zmsvcctl signal SIGNAL TASK_ID"),
        ("is-running", "zmsvcctl is-active TASK_ID"),
        ("reread", "zmsvcctl reload"),
        ("scale", "another transaction"),
        ("shutdown", "zmsvcctl exit"),
    ],
)
def test_an_unknown_verb_is_answered_with_a_suggestion(
    word: str, instead: str, home: House, capsys: Capture
) -> None:
    assert main([word, "ts_100"]) == 2
    told = complaint(capsys)
    assert told.startswith(f"zmsvcctl: cannot understand the command: there is no verb {word!r}: ")
    assert instead in told


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("start --tsk ts_1", "--task"),
        ("--jsn status", "--json"),
        ("logs --sinze=-2h", "--since"),
        ("logs --nothing-like-it", ""),
    ],
)
def test_an_unknown_option_is_answered_with_a_suggestion(words: str, meant: str, capsys: Capture) -> None:
    assert main(words.split()) == 2
    told = complaint(capsys)
    assert (f": did you mean {meant}?" in told) if meant else ("did you mean" not in told)


def test_every_suggested_verb_exists() -> None:
    verbs = {verb.name for verb in VERBS}
    for instead, words in suggestions._INSTEAD.items():
        assert {*re.findall(r"zmsvcctl ([a-z][a-z-]*)", instead)} <= verbs
        assert not verbs & {*words.split()}, "what there is needs no way out"


def test_common_options_stand_before_or_after_the_verb() -> None:
    for words in (
        ["-c", "status", "--json", "--timeout", "3", "list"],
        ["list", "-c", "status", "--json", "--timeout", "3"],
    ):
        verb, args = parse(words)
        assert (verb.name, args.context, args.json, args.timeout, args.no_pager) == (
            "list",
            "status",
            True,
            3.0,
            False,
        )


def test_an_option_before_the_verb_is_not_undone_after_it() -> None:
    _, args = parse(["--context=A", "--no-block", "stop", "--task", "a", "--task=b", "c"])
    assert (args.context, args.no_block, args.task, args.tasks) == ("A", True, ["a", "b"], ["c"])


# --- which context


def test_check_without_a_file_is_about_the_selected_context(home: House, capsys: Capture) -> None:
    home.file("Other", "<Context>")
    assert main(["check"]) == 2
    assert f"{home.config}/Context-Other.xml:1: " in capsys.readouterr().err
    home.file("Echo", "<Context></Con>")
    assert main(["-c", "Echo", "check"]) == 2
    assert f"{home.config}/Context-Echo.xml:1: " in capsys.readouterr().err


def test_without_a_name_the_only_running_context_is_meant(home: House, capsys: Capture) -> None:
    home.file("Other")
    home.supervisor("Echo")
    assert main(["status"]) == 0
    assert "Echo" in capsys.readouterr().out


def test_without_a_name_several_running_contexts_are_listed(home: House, capsys: Capture) -> None:
    home.supervisor("A")
    home.supervisor("B")
    assert main(["stop"]) == 2
    assert "A, B are running (name one with -c NAME)" in complaint(capsys)


def test_a_transaction_finds_its_context(home: House) -> None:
    home.supervisor("A", status=no(4, "cannot show TX: no such transaction"))
    other = home.supervisor("B", stop=yes())
    assert main(["stop", "--transaction", "TX"]) == 0
    assert other.asked("stop")[0]["transaction"] == "TX"


def test_an_unknown_transaction_selects_no_context(home: House, capsys: Capture) -> None:
    for name in ("A", "B"):
        home.supervisor(name, status=no(4, "no such transaction"))
    assert main(["stop", "--transaction", "TX"]) == 2
    assert "A, B" in complaint(capsys)


def test_an_unknown_context_is_status_4(home: House, capsys: Capture) -> None:
    home.file("Echo")
    assert main(["-c", "Ecoh", "status"]) == 4
    assert "(known: Echo; did you mean Echo?)" in complaint(capsys)


def test_an_invalid_context_name_is_status_2(home: House, capsys: Capture) -> None:
    assert main(["-c", "../etc", "status"]) in (2, 4)
    assert main(["-c", "a b", "status"]) == 2
    capsys.readouterr()


def test_a_file_names_its_context(home: House) -> None:
    home.supervisor("Echo")
    assert main(["-c", str(home.file("Echo")), "status"]) == 0


def test_an_order_without_a_running_context_is_status_5(home: House, capsys: Capture) -> None:
    assert main(["stop"]) == 5
    assert "none is running" in complaint(capsys)
    home.file("Echo")
    assert main(["stop"]) == 5
    assert re.search(
        r"cannot reach the supervisor of Echo: .*\(is it running\? zmsvcctl -c Echo status\)",
        complaint(capsys),
    )


def test_the_socket_of_a_killed_daemon_counts_as_not_running(home: House) -> None:
    dead = home.runtime / "Dead"
    dead.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(dead / "control.sock"))
    (home.runtime / "not a context").mkdir()
    (home.runtime / "not a context" / "control.sock").touch()
    home.supervisor("Echo")
    assert main(["status"]) == 0
    assert main(["-c", "Dead", "stop"]) == 5
    assert main(["-c", "Dead", "status"]) == 3


# --- orders


def test_start_prints_the_id_of_its_transaction_alone(home: House, capsys: Capture) -> None:
    there = home.supervisor(
        start=lambda request: yes(transaction=request["transaction"], tasks=[], unfinished=[])
    )
    assert main(["start"]) == 0
    name = capsys.readouterr().out
    assert re.fullmatch(r"[A-Z0-9]{20}\n", name)
    (request,) = there.asked("start")
    assert request == {
        "verb": "start",
        "transaction": name.strip(),
        "new": True,
        "tasks": [],
        "block": True,
        "triggers": True,
        "timeout": None,
    }


def test_start_of_a_task_reports_its_outcome(home: House, capsys: Capture) -> None:
    told = {"id": "ts_101", "transaction": "TX", "state": "active", "sub": "running", "pid": 12}
    home.supervisor(start=yes(transaction="TX", tasks=[told], unfinished=[]))
    assert main(["start", "--task", "ts_101"]) == 0
    assert capsys.readouterr().out == "TX/ts_101: active (running), PID 12\n"


def test_start_with_an_id_sends_it(home: House) -> None:
    there = home.supervisor(start=yes(transaction="TX"))
    assert main(["start", "--transaction", "TX", "--no-block", "--task", "a", "b"]) == 0
    (request,) = there.asked("start")
    assert "new" not in request
    assert (request["transaction"], request["block"], request["tasks"]) == ("TX", False, ["b", "a"])


def test_stop_names_the_stopped_tasks(home: House, capsys: Capture) -> None:
    ended = [{"task": "ts_100", "pid": 77, "name": "sleep", "signal": "SIGKILL", "code": None}]
    there = home.supervisor(
        stop=yes(
            transaction="TX",
            tasks=[fake.task(state="inactive", sub="stopped")],
            ended=ended,
            survivors=["ts_1"],
        )
    )
    assert main(["stop", "--no-triggers", "--task", "ts_100"]) == 0
    said = capsys.readouterr()
    assert said.out == (
        "TX/ts_100: inactive (stopped)\nts_100: SIGKILL was sent to sleep (PID 77), which has ended: "
        "SIGKILL\n"
    )
    assert "ts_1 still has processes" in said.err
    assert there.asked("stop")[0]["triggers"] is False


def test_stop_names_killed_processes(home: House, capsys: Capture) -> None:
    home.supervisor(
        stop=yes(transaction="TX", tasks=[fake.task(state="inactive", sub="stopped", killed=True)])
    )
    assert main(["stop", "ts_100"]) == 0
    assert (
        capsys.readouterr().out
        == "TX/ts_100: inactive (stopped), killed with SIGKILL: it did not end when it was asked\n"
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        *(
            (f"-c Nope {verb}", 4)
            for verb in ("status", "start", "stop", "restart", "reload", "reexec", "exit", "top", "forget")
        ),
        *(
            (f"-c Known {verb}", 5)
            for verb in ("start", "stop", "restart", "reload", "reexec", "exit", "top", "reset-failed")
        ),
        ("-c Nope send x {}", 4),
        ("-c Known send x {}", 5),
        ("-c Known send x {", 2),
        ("-c Other status NOPE", 4),
        ("graph Nope", 4),
        ("graph /no.xml", 2),
        ("-c Known keys", 1),
        ("create", 2),
    ],
)
def test_failures_are_reported_as_json_too(words: str, code: int, home: House, capsys: Capture) -> None:
    home.file("Known")
    home.supervisor("Other", status=no(4, "cannot show NOPE: no such task"))
    assert main(["--json", *words.split()]) == code
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told["code"] == code
    assert told["error"] in said.err


@pytest.mark.parametrize("verb", ["logs", "events", "watch"])
def test_verbs_with_a_json_line_per_entry_print_none_for_a_failure(
    verb: str, home: House, capsys: Capture
) -> None:
    assert main(["--json", "-c", "Nope", verb]) == 4
    assert capsys.readouterr().out == ""


def test_orders_answer_in_json(home: House, capsys: Capture) -> None:
    home.supervisor(restart=yes(transaction="TX", tasks=[]))
    assert main(["--json", "restart"]) == 0
    assert json.loads(capsys.readouterr().out) == {"transaction": "TX", "tasks": []}


@pytest.mark.parametrize("code", [1, 2, 4, 124])
def test_a_refusal_is_one_line_and_its_code_is_the_exit_status(
    code: int, home: House, capsys: Capture
) -> None:
    home.supervisor(start=no(code, "cannot start ts_100: no\nsuch\x1b[31m luck", transaction="TX"))
    assert main(["start", "--transaction", "TX", "--task", "ts_100"]) == code
    said = complaint(capsys)
    assert said.startswith(r"zmsvcctl: cannot start ts_100: no; such\x1b[31m luck")
    way_out = {1: "logs --transaction TX ts_100)", 2: "luck", 4: "status)", 124: "status)"}
    assert said.endswith(f"{way_out[code]}\n")


@pytest.mark.parametrize("code", [0, -3, 256, "1", None])
def test_a_refusal_without_a_valid_code_is_status_1(code: Any, home: House) -> None:
    home.supervisor(stop={"ok": False, "code": code, "error": "cannot"})
    assert main(["stop"]) == 1


def test_reset_failed_sends_its_order(home: House) -> None:
    there = home.supervisor(reset_failed=yes(tasks=["ts_100"]))
    assert main(["reset-failed", "ts_100"]) == 0
    assert there.asked("reset-failed")[0]["tasks"] == ["ts_100"]


def test_forget_names_the_forgotten_transaction(home: House, capsys: Capture) -> None:
    there = home.supervisor(forget=yes(transactions=["OLD", "OLDER"]))
    assert main(["forget"]) == 0
    assert main(["forget", "--transaction", "OLD"]) == 0
    assert [each["transaction"] for each in there.asked("forget")] == [None, "OLD"]
    assert capsys.readouterr().out.startswith("OLD: forgotten\nOLDER: forgotten\n")
    home.supervisor("Other", forget=yes(transactions=[]))
    assert main(["-c", "Other", "forget"]) == 0
    assert capsys.readouterr().out == "nothing to forget: no transaction is stopped\n"


def test_reload_says_what_differs(home: House, capsys: Capture) -> None:
    home.supervisor(
        reload=(
            yes(added=["a"], removed=[], changed=["b", "c"], unchanged=["d"]),
            yes(added=[], removed=[], changed=[]),
        )
    )
    assert main(["reload"]) == 0
    assert capsys.readouterr().out == "added: a\nchanged: b c\n"
    assert main(["reload"]) == 0
    assert capsys.readouterr().out == "nothing differs\n"
    home.supervisor(
        reload=yes(
            added=[], removed=[], changed=[], in_place=["b"], context=["max_transactions"], unchanged=["a"]
        )
    )
    assert main(["reload"]) == 0
    assert (
        capsys.readouterr().out == "changed without a restart: b\nchanged for the context: max_transactions\n"
    )


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_reload_names_tasks_that_are_still_failed_and_how_to_start_them(
    options: list[str], home: House, capsys: Capture
) -> None:
    failed = [{"transaction": "T1", "task": "a"}]
    home.supervisor(reload=yes(added=[], removed=[], changed=["a"], still_failed=failed))
    assert main([*options, "reload"]) == 0
    assert capsys.readouterr().err == (
        "zmsvcctl: a is still failed, and a reload starts no failed task (zmsvcctl -c Echo start "
        "--transaction T1 a)\n"
    )


def test_reload_of_a_bad_file_is_status_2(home: House, capsys: Capture) -> None:
    home.supervisor(reload=no(2, "cannot reload: X.xml:1: bad; X.xml:2: worse"))
    assert main(["reload"]) == 2
    assert "X.xml:2: worse" in complaint(capsys)


# --- a supervisor that dies


@pytest.mark.parametrize("verb", ["status", "start", "stop", "reset-failed"])
def test_a_repeatable_request_is_repeated_when_the_supervisor_dies(verb: str, home: House) -> None:
    there = home.supervisor(**{verb.replace("-", "_"): (HangUp, HangUp, status(transaction()))})
    assert main([verb]) == 0
    requests = there.asked(verb)
    assert len(requests) == 3
    assert requests[0] == requests[1] == requests[2]


def test_an_incomplete_reply_counts_as_no_reply(home: House) -> None:
    there = home.supervisor(status=([b'{"ok": true, "data": {"name": "Ec', HangUp], status(transaction())))
    assert main(["status"]) == 0
    assert len(there.asked("status")) == 2


def test_the_next_supervisor_answers_on_the_socket_that_outlived_the_last(home: House) -> None:
    """The keeper owns the listening socket. While no supervisor runs, a connection waits in the backlog."""
    path = home.runtime / "Echo" / "control.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        codes: list[int] = []
        asking = threading.Thread(
            target=lambda: codes.append(main(["-c", "Echo", "stop", "--transaction", "TX"]))
        )
        asking.start()
        first, _ = listening.accept()
        with first:
            first.recv(4096)
        second, _ = listening.accept()
        with second:
            assert json.loads(second.recv(4096))["verb"] == "stop"
            second.sendall(json.dumps(yes(transaction="TX")).encode() + b"\n")
            asking.join()
    assert codes == [0]


def test_a_request_that_kills_every_supervisor_is_given_up(home: House, capsys: Capture) -> None:
    there = home.supervisor(stop=HangUp)
    assert main(["stop"]) == 5
    assert "went away over it" in complaint(capsys)
    assert len(there.asked("stop")) == client.MAX_DROPS + 1


@pytest.mark.parametrize("served", [0.0, client.SERVED])
def test_a_wait_outlives_any_number_of_supervisors_that_served_it_for_long(
    served: float, home: House, capsys: Capture
) -> None:
    drops = (HangUp,) * (client.MAX_DROPS + 3)
    there = home.supervisor(
        wait=(*drops, yes(task="ts_1")), events=(*([fake.more(seq=1), HangUp],) * 9, yes())
    )
    given_up = pytest.raises(client.DroppedError) if served else nullcontext()
    with given_up:
        client.Client(choose(None), served=served).ask("wait", tasks=["ts_1"])
    assert len(there.asked("wait")) == client.MAX_DROPS + (1 if served else 4)
    with given_up:
        events(parse(["events", "-f"])[1], served=served)


@pytest.mark.parametrize("verb", ["restart", "reload"])
def test_a_request_that_is_not_repeatable_is_sent_once(verb: str, home: House, capsys: Capture) -> None:
    there = home.supervisor(**{verb: (HangUp, yes())})
    assert main([verb]) == 5
    assert "zmsvcctl -c Echo status" in complaint(capsys)
    assert len(there.asked(verb)) == 1


def test_a_stop_carried_out_by_a_supervisor_that_died_has_succeeded(home: House) -> None:
    home.supervisor(stop=(HangUp, no(4, "cannot stop Echo: no transaction is open")))
    assert main(["stop"]) == 0


def test_a_daemon_that_ends_during_a_request_is_status_5(home: House, capsys: Capture) -> None:
    there = home.supervisor()

    def leave(_: Any) -> Any:
        there.close()
        return HangUp

    there.replies(stop=leave)
    assert main(["stop"]) == 5
    assert "nobody listens" in complaint(capsys)


# --- exit and reexec


def test_exit_waits_until_the_daemon_has_ended(home: House) -> None:
    there = home.supervisor(exit=yes())
    # The second connection waits for the end. As soon as it exists, the daemon leaves.
    real, waiting = client.Client.open, threading.Event()

    def opened(self: client.Client) -> client.Connection:
        made = real(self)
        if there.asked("exit"):
            waiting.set()
        return made

    leaving = threading.Thread(target=lambda: (waiting.wait(), there.close()))
    leaving.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client.Client, "open", opened)
        assert main(["exit"]) == 0
    leaving.join()
    assert waiting.is_set()


def test_exit_without_block_does_not_wait(home: House) -> None:
    there = home.supervisor(exit=yes())
    assert main(["exit", "--no-block"]) == 0
    assert there.asked("exit")[0]["block"] is False


def test_exit_that_loses_its_daemon_has_succeeded(home: House) -> None:
    there = home.supervisor()

    def leave(_: Any) -> Any:
        there.close()
        return HangUp

    there.replies(exit=leave)
    assert main(["exit"]) == 0


def test_exit_is_not_repeated_when_only_the_supervisor_dies(home: House, capsys: Capture) -> None:
    there = home.supervisor(exit=HangUp)
    assert main(["exit"]) == 1
    assert "exit does it again" in complaint(capsys)
    assert len(there.asked("exit")) == 1


def test_exit_beyond_its_timeout_is_status_124(home: House) -> None:
    home.supervisor(exit=yes())
    assert main(["--timeout", "0.05", "exit"]) == 124


def test_exit_ends_although_the_supervisor_keeps_hanging_up(home: House) -> None:
    home.supervisor(exit=HangUp, status=HangUp)
    assert main(["exit"]) == 5


def test_exit_that_is_refused_says_why(home: House, capsys: Capture) -> None:
    home.supervisor(exit=no(1, "cannot exit: only root and the user of the daemon may"))
    assert main(["exit"]) == 1
    assert "only root" in complaint(capsys)


def test_reexec_is_done_when_the_next_supervisor_answers(home: House, capsys: Capture) -> None:
    there = home.supervisor(status=(status(pid=11), status(pid=12)))

    def leave(_: Any) -> Any:
        for conn in list(there._open):
            fake._hang_up(conn)
        return HangUp

    there.replies(reexec=leave)
    assert main(["reexec"]) == 0
    assert capsys.readouterr().out == "supervisor 11 was replaced by 12\n"


# --- time


def test_a_reply_beyond_the_timeout_is_status_124(home: House, capsys: Capture) -> None:
    there = home.supervisor(stop=Silence)
    assert main(["stop", "--timeout", "0.05"]) == 124
    assert "within 0.05 s" in complaint(capsys)
    wait_for(lambda: there.asked("stop"))
    assert there.asked("stop")[0]["timeout"] == 0.05


def test_timeout_0_waits_without_a_limit(home: House) -> None:
    there = home.supervisor(stop=yes())
    assert main(["stop", "--timeout", "0"]) == 0
    assert there.asked("stop")[0]["timeout"] is None


def test_a_full_listen_backlog_is_status_124(home: House) -> None:
    path = home.runtime / "Echo" / "control.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as first:
        listening.bind(str(path))
        listening.listen(0)
        first.connect(str(path))
        assert main(["-c", "Echo", "stop", "--timeout", "0.05"]) == 124


def test_a_hung_supervisor_does_not_hang_status(home: House) -> None:
    home.supervisor(status=Silence)
    with pytest.raises(client.CtlError, match="does not answer") as error:
        status_source.current(parse(["status"])[1], choose(None), patience=0.1)
    assert error.value.code == 5


def test_a_question_waits_until_a_hung_supervisor_has_been_replaced() -> None:
    assert status_source.PATIENCE > keeper.WATCHDOG + 5


# --- hostile answers


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\n", b"\n", b'{"a":\n', b"[]\n", b"null\n", b'"ok"\n', b'{"ok": true, "data": []}\n',
        b"\xff\xfe\x00\n", b"[" * 100_000 + b"\n",
    ],
)  # fmt: skip
def test_a_malformed_reply_is_status_5_and_one_line(answer: bytes, home: House, capsys: Capture) -> None:
    home.supervisor(status=answer, stop=answer)
    assert main(["status"]) == 5
    assert "cannot understand the supervisor of Echo" in complaint(capsys)
    assert main(["stop"]) == 5
    capsys.readouterr()


def test_a_reply_beyond_the_size_limit_is_status_5(home: House) -> None:
    home.supervisor(status=b"x" * (4 << 20))
    with pytest.raises(client.CtlError, match=r"longer than 1 MiB \(name some of the tasks") as raised:
        client.Client(paths.places("Echo"), max_line=1 << 20).ask("status")
    assert raised.value.code == 5


def test_a_reply_that_never_completes_is_status_5_in_time(home: House) -> None:
    """This also applies to an order, whose answer may take any time."""
    home.supervisor(stop=[b'{"ok": ', fake.Silence])
    with pytest.raises(client.CtlError, match=r"an answer is not complete within 0\.2 s") as raised:
        client.Client(paths.places("Echo"), answer_time=0.2).ask("stop")
    assert raised.value.code == 5


@pytest.mark.parametrize(
    "value",
    [None, 5, "x", [], {}, [None], [5], ["x"], [{}], [{"tasks": [{}, 5]}], [{"id": [], "tasks": {}}], True],
)
@pytest.mark.parametrize("verb", ["status", "list", "events", "logs"])
def test_replies_with_wrong_types_do_not_raise_a_traceback(
    verb: str, value: Any, home: House, capsys: Capture
) -> None:
    names = (
        "name",
        "id",
        "pid",
        "restarts",
        "state",
        "frontend",
        "since",
        "dropped",
        "file",
        "log",
        "transactions",
        "unsaved",
    )
    home.supervisor(
        status=yes(**dict.fromkeys(names, value)),
        events=[fake.more(seq=1, detail=value), fake.more(seq=value), yes()],
    )
    home.program("journalctl", "exit 0")
    if verb != "logs":
        assert main([verb, "-c", "Echo"]) in (0, 3)
    capsys.readouterr()


def test_a_refusal_without_a_message_is_a_sentence(home: House, capsys: Capture) -> None:
    home.supervisor(stop={"ok": False})
    assert main(["stop"]) == 1
    assert "does not say why" in complaint(capsys)


# --- the process


def test_status_imports_little(home: House) -> None:
    """Every `status` takes the time of every import. These would double it."""
    file = home.file()
    home.supervisor(status=fake.status(fake.transaction(), file=str(file), file_digest="another"))
    code = (
        "import sys; from zmsvc.ctl.__main__ import main; code = main(['status']); print(*sys.modules, "
        "file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env=_with_packages(home)
    )
    assert done.returncode == 0, done.stderr
    imported = set(done.stderr.split())
    heavy = {
        "zmq",
        "lxml",
        "psutil",
        "asyncio",
        "logging",
        "subprocess",
        "shutil",
        "signal",
        "typing",
        "dataclasses",
        "inspect",
        "sqlite3",
        "zmsvc.core.model",
        "importlib.metadata",
        "zmsvc.ctl.verbs.logs",
        "zmsvc.ctl.verbs.events",
        "zmsvc.ctl.verbs.bus",
        "zmsvc.ctl.verbs.check",
        "zmsvc.ctl.create.command",
    }
    assert imported & heavy <= _imports_of_argparse(home)
    assert {"zmsvc.ctl.verbs.status", "zmsvc.host.config.file_bytes"} <= imported


def _imports_of_argparse(home: House) -> set[str]:
    """Return what argparse itself imports for a parser with verbs: since Python 3.14 also `dataclasses`, for
    the colors of its help.
    """
    code = (
        "import argparse, sys; parser = argparse.ArgumentParser(); "
        "verb = parser.add_subparsers().add_parser('verb'); verb.add_argument('--option', help='an option'); "
        "parser.parse_args(['verb']); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        env=_with_packages(home),
        check=True,
    )
    return set(done.stdout.split())


def _with_packages(home: House) -> dict[str, str]:
    """Return an environment with the libraries of zmsvcctl on the path, which `-S` leaves out."""
    packages = [path for path in sys.path if path.endswith("-packages")]
    return {
        **home.environment,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *packages]),
        "PATH": "/usr/bin:/bin",
    }


def test_a_closed_pipe_on_stdout_is_not_an_error(home: House) -> None:
    home.supervisor(status=status(transaction(tasks=[fake.task(f"ts_{number}") for number in range(3000)])))
    done = subprocess.Popen(
        [sys.executable, "-P", "-m", "zmsvc.ctl", "status"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert done.stdout is not None
    assert done.stderr is not None
    done.stdout.close()
    with done.stderr:
        assert done.stderr.read() == b""
    assert done.wait() == 0


def test_a_full_disk_on_stdout_is_one_line(home: House) -> None:
    home.supervisor()
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "zmsvc.ctl", "status"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert re.fullmatch(r"zmsvcctl: cannot go on: .*no space left on device\n", done.stderr)


def test_closed_standard_streams_are_not_an_error(home: House) -> None:
    home.supervisor()
    for closed in (">&-", "2>&-", ">&- 2>&- <&-"):
        done = subprocess.run(
            ["sh", "-c", f"exec {sys.executable} -P -m zmsvc.ctl status {closed}"], capture_output=True
        )
        assert done.returncode == 0
        assert done.stderr == b""


def test_any_character_can_be_written_in_any_locale(home: House) -> None:
    home.supervisor(status=status(transaction(tasks=[fake.task("ts_1", instance="Ü✓\ud800\x1b]0;x\x07")])))
    for locale in (
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C.UTF-8"},
        {"PYTHONUTF8": "0", "LC_ALL": "POSIX"},
    ):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "zmsvc.ctl", "status"],
            capture_output=True,
            env=_with_packages(home) | locale,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"\x1b" not in done.stdout


def test_ctrl_c_is_status_130_without_output(home: House) -> None:
    there = home.supervisor(stop=Silence)
    done = subprocess.Popen([sys.executable, "-P", "-m", "zmsvc.ctl", "stop"], stderr=subprocess.PIPE)
    wait_for(lambda: there.asked("stop"))
    done.send_signal(signal.SIGINT)
    assert done.stderr is not None
    with done.stderr:
        assert done.stderr.read() == b""
    assert done.wait() == 130
