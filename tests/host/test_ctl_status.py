"""Output of zmsvcctl with a fake supervisor: `status` with its exit status, colors and pager; `list`."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_supervisor as fake
import pytest
from counting import lines_in
from fake_supervisor import House, Silence, no, status, task, transaction, yes

from zmsvc import __version__
from zmsvc.core.amounts import size
from zmsvc.ctl import procfs, render, select_context, terminal
from zmsvc.ctl.__main__ import main, parse
from zmsvc.ctl.status_reply import ContextStatus
from zmsvc.ctl.terminal import Style
from zmsvc.ctl.verbs import status as shown_status

Capture = pytest.CaptureFixture[str]
ME = os.getpid()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with fake.house(tmp_path) as made:
        yield made


def shown(capsys: Capture, *words: str, code: int = 0) -> str:
    assert main([*words, "status"]) == code
    return capsys.readouterr().out


# --- the exit status

ACTIVE, FAILED = task(), task("ts_101", "failed", "failed")
WAITING, ENTRY_WAITING = (
    task("ts_102", "inactive", "waiting", entry=False),
    task("ts_103", "inactive", "waiting"),
)
EXITED, STOPPED = task("ts_104", "inactive", "exited"), task("ts_105", "inactive", "stopped")
STARTING = task("ts_106", "activating", "start")


@pytest.mark.parametrize(
    ("tasks", "code"),
    [
        ([ACTIVE], 0), ([ACTIVE, WAITING], 0), ([ACTIVE, EXITED], 0), ([EXITED], 0), ([WAITING], 0), ([], 0),
        ([ACTIVE, FAILED], 3), ([ACTIVE, ENTRY_WAITING], 3), ([ACTIVE, STOPPED], 3), ([ACTIVE, STARTING], 3),
    ],
)  # fmt: skip
@pytest.mark.parametrize("words", [[], ["--transaction", "TX"]])
def test_a_context_is_active_when_all_of_its_expected_tasks_are(
    tasks: list[Any], code: int, words: list[str], home: House
) -> None:
    home.supervisor(status=status(transaction(tasks=tasks)))
    assert main(["status", *words]) == code


@pytest.mark.parametrize(
    ("one", "code"), [(ACTIVE, 0), (WAITING, 3), (EXITED, 3), (FAILED, 3), (STARTING, 3)]
)
def test_a_named_task_has_to_be_active_itself(one: Any, code: int, home: House) -> None:
    there = home.supervisor(status=status(transaction(tasks=[one])))
    assert main(["status", "ts_100"]) == code
    assert main(["status", "--task", "ts_100", "--transaction", "TX"]) == code
    assert [(each["transaction"], each["tasks"]) for each in there.requests] == [
        (None, ["ts_100"]),
        ("TX", ["ts_100"]),
    ]


def test_a_stopped_transaction_beside_an_active_one_leaves_the_context_active(home: House) -> None:
    old = transaction("OLD", "inactive", [STOPPED])
    home.supervisor(status=status(old, transaction()))
    assert main(["status"]) == 0
    assert main(["status", "ts_100"]) == 0


def test_a_context_with_only_stopped_transactions_is_not_active(home: House) -> None:
    home.supervisor(status=status(transaction("OLD", "inactive", [STOPPED])))
    assert main(["status"]) == 3
    assert main(["status", "--transaction", "OLD"]) == 3
    assert main(["status", "ts_105"]) == 3


def test_a_context_without_transactions_is_active(home: House) -> None:
    home.supervisor(status=status())
    assert main(["status"]) == 0


@pytest.mark.parametrize("state", ["failed", "activating", "deactivating", "inactive", ""])
def test_a_context_that_says_it_is_not_active_is_believed(state: str, home: House) -> None:
    home.supervisor(status=status(transaction(), state=state))
    assert main(["status"]) == 3


def test_an_unknown_name_is_status_4(home: House, capsys: Capture) -> None:
    home.supervisor(status=no(4, "cannot show TX: no such transaction"))
    assert main(["status", "--transaction", "TX"]) == 4
    assert capsys.readouterr().err == "zmsvcctl: cannot show TX: no such transaction\n"


def test_a_task_of_no_transaction_is_status_4(home: House) -> None:
    home.supervisor(status=status())
    assert main(["status", "ts_100"]) == 4


# --- JSON


def test_status_as_json_is_the_reply_of_the_supervisor(home: House, capsys: Capture) -> None:
    answer = status(transaction(tasks=[ACTIVE, FAILED]))
    home.supervisor(status=answer)
    versions = {"version": __version__, "restart_needed": False, "need_reload": None}
    assert json.loads(shown(capsys, "--json", code=3)) == {"contexts": [answer["data"] | versions]}


def test_a_supervisor_of_1_0_tells_no_versions_and_needs_a_restart(home: House, capsys: Capture) -> None:
    data = dict(status(transaction())["data"])
    for name in ("supervisor_version", "keeper_version", "zygote_version"):
        del data[name]
    home.supervisor(status=yes(**data))
    (told,) = json.loads(shown(capsys, "--json"))["contexts"]
    assert (told["supervisor_version"], told["keeper_version"], told["zygote_version"]) == (None, None, None)
    assert (told["version"], told["restart_needed"]) == (__version__, True)
    (line,) = [line for line in shown(capsys).splitlines() if "Version:" in line]
    assert line.startswith(
        f"    Version: {__version__} is installed; supervisor 1.0, keeper 1.0, zygote 1.0; restart needed: "
    )
    assert main(["list"]) == 0
    assert f"{__version__} is installed, another release runs: Echo" in capsys.readouterr().err


def test_only_the_supervisor_differs_where_only_it_was_replaced(home: House, capsys: Capture) -> None:
    home.supervisor(status=status(transaction(), supervisor_version="0.1"))
    (line,) = [line for line in shown(capsys).splitlines() if "Version:" in line]
    assert line.endswith(
        f"supervisor 0.1, keeper {__version__}, zygote {__version__}; zmsvcctl -c Echo reexec renews the "
        f"supervisor"
    )


def test_json_of_a_context_that_does_not_run_has_the_same_fields(home: House, capsys: Capture) -> None:
    home.file("Echo")
    (told,) = json.loads(shown(capsys, "--json", "-c", "Echo", code=3))["contexts"]
    wanted = (
        "name",
        "id",
        "pid",
        "keeper_pid",
        "device_pid",
        "restarts",
        "state",
        "frontend",
        "backend",
        "transactions",
    )
    assert [name for name in wanted if name not in told] == []
    assert (told["name"], told["state"], told["transactions"]) == ("Echo", "inactive", [])


def test_json_where_nothing_runs_is_still_json(home: House, capsys: Capture) -> None:
    told = json.loads(shown(capsys, "--json", code=3))
    assert (told["contexts"], told["code"]) == ([], 3)


# --- the tree


def test_a_known_context_that_does_not_run_is_shown_as_inactive(home: House, capsys: Capture) -> None:
    home.file("Echo")
    told = shown(capsys, "-c", "Echo", code=3)
    assert told.startswith("○ Echo\n")
    assert f"File: {home.config}/Context-Echo.xml\n" in told
    assert re.search(
        r"Active: inactive \(not running; (zmsvcd --detach Echo|systemctl start zmsvc@Echo) starts it\)\n",
        told,
    )


def test_status_names_the_unit_that_starts_a_context_for_root_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select_context.os.path, "isdir", lambda path: path == "/run/systemd/system")
    monkeypatch.setattr(select_context.os, "geteuid", lambda: 0)
    assert select_context.start_command("Echo") == "systemctl start zmsvc@Echo"
    assert select_context.start_command(None) == "zmsvcd --detach FILE.xml"
    monkeypatch.setattr(select_context.os, "geteuid", lambda: 1000)
    assert select_context.start_command("Echo") == "zmsvcd --detach Echo"


def test_a_context_whose_file_lies_elsewhere_is_started_by_its_file(
    home: House, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home.root / "my files" / "Context-Mine.xml"
    file.parent.mkdir()
    file.write_text("<Context/>")
    told = shown(capsys, "-c", str(file), code=3)
    assert f"inactive (not running; zmsvcd --detach '{file}' starts it)\n" in told
    assert (
        select_context.restart_command("Mine", str(file))
        == f"zmsvcctl -c Mine exit && zmsvcd --detach '{file}'"
    )
    monkeypatch.setattr(select_context.os.path, "isdir", lambda path: path == "/run/systemd/system")
    monkeypatch.setattr(select_context.os, "geteuid", lambda: 0)
    assert select_context.start_command("Mine", str(file)) == f"zmsvcd --detach '{file}'", (
        "a unit would look for another file"
    )
    assert (
        select_context.restart_command("Echo", f"{home.config}/Context-Echo.xml")
        == "systemctl restart zmsvc@Echo"
    )


def test_status_is_a_tree(home: House, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown_status.time, "time", lambda: 1795435323.0)  # 2026-11-23T12:02:03Z
    end = {"code": None, "signal": "SIGKILL", "reason": "signal", "at": "2026-11-23T12:00:00+00:00"}
    first = transaction(
        "A",
        "failed",
        [task(restarts=1), task("ts_7", "failed", "failed", exit=end, status="no luck", held=True)],
    )
    home.supervisor(
        status=status(
            first, transaction("B", "inactive"), dropped={"updates": 2, "messages_in": 0}, restarts=2
        )
    )
    # The cross is written as an escape, because linters take it for an x.
    lines = shown(capsys, code=3).replace("\N{MULTIPLICATION SIGN}", "X").splitlines()
    assert lines[0] == "● Echo - context001"
    assert lines[1:] == [
        "       File: /nowhere/Context-Echo.xml",
        "     Active: active",
        f"    Version: {__version__}",
        " Supervisor: 4194301 (restarted 2 times); keeper 4194300",
        "     Device: 4194302",
        "  Endpoints: subscribe at ipc:///nowhere/f, publish to ipc:///nowhere/b",
        "    Dropped: 2 updates",
        "      Tasks: 1 active, 1 failed in 1 transaction",
        "             ├─X A failed since 3min 3s ago",
        "             │ ├─● ts_100  EchoAction  active (running)  PID 4194305  2min 3s ago  1 restart",
        "             │ └─X ts_7    EchoAction  failed (failed)                2min 3s ago             "
        "last exit: signal, SIGKILL",
        '             │     Status: "no luck"',
        "             │     Held: no rule starts it until an operator starts it",
        "             └─○ B inactive (1 task)",
    ]  # fmt: skip


def test_memory_and_age_are_those_of_the_processes(home: House, capsys: Capture) -> None:
    home.supervisor(status=status(transaction(tasks=[task(pid=ME)]), keeper_pid=ME))
    told = shown(capsys)
    (line,) = [line for line in told.splitlines() if f"PID {ME}" in line]
    assert line.endswith("M")
    assert "Active: active; up since " in told


def test_a_stopped_transaction_is_shown_in_full_when_it_is_asked_for(home: House, capsys: Capture) -> None:
    home.supervisor(status=status(transaction("B", "inactive", [STOPPED])))
    assert "ts_105" in shown(capsys, code=3)


def test_the_cost_of_status_grows_with_its_tasks(home: House, capsys: Capture) -> None:
    """Measured: 265 lines of Python for each task. A thousand tasks take 0.07 s."""
    supervisor, cost = home.supervisor(), {}
    for count in (250, 1000):
        tasks = [task(f"ts_{number}", pid=ME) for number in range(count)]
        supervisor.replies(status=status(transaction(tasks=tasks)))
        cost[count] = lines_in(lambda: main(["status"]))
        told = capsys.readouterr().out
        assert told.count("● ts_") == count
        assert "M rss" in told
    assert cost[1000] < 600 * 1000
    assert cost[1000] < 4.5 * cost[250]


def test_1000_failed_tasks_do_not_start_1000_journalctls(
    home: House, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = home.program("journalctl", f"echo x >> {home.root}/calls; echo line")
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    tasks = [task(f"ts_{number}", "failed", "failed") for number in range(1000)]
    home.supervisor(status=status(transaction(tasks=tasks), log="journal"))
    shown(capsys, code=3)
    assert (home.root / "calls").read_text().count("x") == 16


# --- log lines of what failed

LOG = """\
2026-11-23T12:00:00.123+0000 EchoAction[9] TX/ts_100 INFO: not this one
2026-11-23T12:00:00.123+0000 EchoAction[10] TX/ts_101 INFO: one
2026-11-23T12:00:00.123+0000 zmsvc-Echo[8] INFO: nor this
2026-11-23T12:00:00.123+0000 Echo Action[10] TX/ts_101 ERROR: two
    its second line
2026-11-23T12:00:00.123+0000 EchoAction[11] OTHER/ts_101 INFO: nor that
"""


def test_the_last_lines_of_a_failed_task_are_shown_from_the_file(home: House, capsys: Capture) -> None:
    (home.root / "log").write_text(LOG)
    home.supervisor(status=status(transaction(tasks=[ACTIVE, FAILED]), log=f"{home.root}/log+stderr"))
    told = shown(capsys, code=3)
    assert [line.split(": ", 1)[-1].strip() for line in told.splitlines()[-3:]] == [
        "one",
        "two",
        "its second line",
    ]
    assert "not this one" not in told
    assert "nor" not in told


def test_n_limits_the_number_of_log_lines(home: House, capsys: Capture) -> None:
    (home.root / "log").write_text(LOG)
    home.supervisor(status=status(transaction(tasks=[FAILED]), log=f"{home.root}/log"))
    assert main(["status", "-n", "1"]) == 3
    assert "two" not in capsys.readouterr().out
    assert main(["status", "-n", "0"]) == 3
    assert "second line" not in capsys.readouterr().out


def test_the_last_lines_of_a_failed_task_are_shown_from_the_journal(
    home: House, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = home.program("journalctl", 'printf "%s\\n" "$@"')
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    failed = task("ts_101", "failed", "failed", cgroup="/sys/fs/cgroup/zmsvc.slice/tasks/TX:ts_101")
    home.supervisor(status=status(transaction(tasks=[failed]), log="journal"))
    said = [line.split()[-1] for line in shown(capsys, code=3).splitlines()[-10:]]
    assert said[2:5] == ["--lines=5", "--output=short", "ZMSVC_CONTEXT=Echo"]
    own = ["ZMSVC_TRANSACTION=TX", "ZMSVC_TASK=ts_101", f"_UID={os.geteuid()}"]
    assert said[5:] == [*own, "+", "_SYSTEMD_CGROUP=/zmsvc.slice/tasks/TX:ts_101"]


def test_without_a_journalctl_there_are_no_lines(
    home: House, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(home.root))
    home.supervisor(status=status(transaction(tasks=[FAILED]), log="journal"))
    assert "ts_101" in shown(capsys, code=3)


# --- the terminal


@pytest.mark.parametrize(
    ("environment", "colored"),
    [
        ({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"SYSTEMD_COLORS": "0"}, False),
        ({"SYSTEMD_COLORS": "1", "NO_COLOR": "1", "TERM": "dumb"}, True), ({"SYSTEMD_COLORS": "256"}, True),
        ({"SYSTEMD_COLORS": "maybe"}, True),
    ],
)  # fmt: skip
def test_a_terminal_gets_colors(environment: dict[str, str], colored: bool, home: House) -> None:
    home.supervisor()
    told = on_terminal(home, {"TERM": "xterm", "SYSTEMD_PAGER": ""} | environment)
    assert ("\x1b[0;1;32m●\x1b[0m" in told) is colored
    assert ("\x1b" in told) is colored


@pytest.mark.parametrize(
    ("environment", "colored"),
    [({}, False), ({"SYSTEMD_COLORS": "1"}, True), ({"SYSTEMD_COLORS": "no"}, False)],
)
def test_a_pipe_gets_no_colors_unless_forced(
    environment: dict[str, str], colored: bool, home: House, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    home.supervisor(status=status(transaction(tasks=[ACTIVE, FAILED])))
    told = shown(capsys, code=3)
    assert ("\x1b[0;1;31mfailed (failed)" in told) is colored
    assert ("\x1b" in told) is colored
    assert main(["list"]) == 0
    assert ("\x1b[0;1;32mactive\x1b[0m" in capsys.readouterr().out) is colored


@pytest.mark.parametrize(
    ("environment", "dot"),
    [
        ({"LC_ALL": "C.UTF-8"}, "●"),
        ({"LC_ALL": "C"}, "*"),
        ({"LANG": "C"}, "*"),
        ({}, "*"),
        ({"PYTHONIOENCODING": "ascii"}, "*"),
        ({"SYSTEMD_UTF8": "1"}, "●"),
        ({"LC_ALL": "C.UTF-8", "SYSTEMD_UTF8": "0"}, "*"),
    ],
)
def test_a_locale_without_utf8_gets_ascii(environment: dict[str, str], dot: str, home: House) -> None:
    home.supervisor()
    paths = {**home.environment, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "zmsvc.ctl", "status"], capture_output=True, env=paths | environment
    )
    told = done.stdout.decode()
    assert told.startswith(f"{dot} Echo")
    assert ("└─" in told, "`-" in told) == (dot == "●", dot == "*")


@pytest.mark.parametrize(
    ("words", "environment", "paged"),
    [
        ([], {}, True),
        (["--no-pager"], {}, False),
        ([], {"TERM": "dumb"}, False),
        ([], {"SYSTEMD_PAGER": "cat"}, False),
        ([], {"SYSTEMD_PAGER": "", "PAGER": "sed s/^/P:/"}, False),
        ([], {"SYSTEMD_PAGER": "/no/such/program"}, False),
    ],
)
def test_the_pager_is_that_of_systemctl(
    words: list[str], environment: dict[str, str], paged: bool, home: House
) -> None:
    home.supervisor()
    told = on_terminal(home, {"TERM": "xterm", "PAGER": "sed s/^/P:/"} | environment, *words)
    assert told.startswith("P:") is paged
    assert "Echo" in told


def on_terminal(home: House, environment: dict[str, str], *words: str) -> str:
    """Return the output of `status` on a terminal."""
    reader, writer = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name not in ("TERM", "COLUMNS")}
    command = [sys.executable, "-P", "-m", "zmsvc.ctl", *words, "status"]
    with subprocess.Popen(
        command, stdout=writer, stdin=subprocess.DEVNULL, env=clean | {"LC_ALL": "C.UTF-8"} | environment
    ) as process:
        os.close(writer)
        told = b""
        while True:
            try:
                told += os.read(reader, 4096)
            except OSError:
                break  # This is the error of a read at the end of a terminal.
    os.close(reader)
    assert process.returncode == 0
    return told.decode().replace("\r\n", "\n")


def test_a_pager_that_ends_early_is_no_error(home: House) -> None:
    home.supervisor(status=status(transaction(tasks=[task(f"ts_{number}") for number in range(3000)])))
    assert on_terminal(home, {"TERM": "xterm", "PAGER": "head -n 1"}).count("\n") == 1


# --- list


def test_list_shows_known_and_running(home: House, capsys: Capture) -> None:
    home.file("Known")
    home.file("Echo")
    home.supervisor(
        "Echo", status=status(transaction(tasks=[ACTIVE, WAITING]), transaction("OLD", "inactive"), file="")
    )
    home.supervisor("Elsewhere")
    assert main(["list"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["NAME", "STATE", "TASKS", "PID", "FILE"],
        ["Echo", "active", "1/2", "4194301", f"{home.config}/Context-Echo.xml"],
        ["Elsewhere", "active", "1/1", "4194301", "/nowhere/Context-Echo.xml"],
        ["Known", "inactive", "-", "-", f"{home.config}/Context-Known.xml"],
    ]


def test_list_shows_also_what_has_run_and_has_no_file_there(home: House, capsys: Capture) -> None:
    """The file of the context is elsewhere or removed. `status` and `events` read its state file."""
    for name in ("Past", "no context"):
        (home.state / name).mkdir(parents=True)
        (home.state / name / "state.db").touch()
    assert main(["list"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["Past", "inactive", "-", "-", "-"]
    ]


def test_a_stopped_transaction_that_is_named_is_counted(home: House, capsys: Capture) -> None:
    home.supervisor(status=status(transaction("OLD", "inactive", [STOPPED, EXITED])))
    main(["status", "--transaction", "OLD"])
    assert "Tasks: 2 inactive in 1 transaction\n" in capsys.readouterr().out


def test_list_as_json(home: House, capsys: Capture) -> None:
    home.supervisor("Echo")
    assert main(["--json", "list"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["contexts"]
    assert told == {
        "name": "Echo",
        "state": "active",
        "running": 1,
        "tasks": 1,
        "pid": 4194301,
        "file": "/nowhere/Context-Echo.xml",
        "restart_needed": False,
    }


def test_list_without_contexts_is_a_header(home: House, capsys: Capture) -> None:
    assert main(["list"]) == 0
    assert capsys.readouterr().out.split() == ["NAME", "STATE", "TASKS", "PID", "FILE"]


def test_a_hung_context_does_not_hide_the_others(home: House, capsys: Capture) -> None:
    home.supervisor("Echo")
    home.supervisor("Hung", status=Silence)
    assert shown_status.contexts(parse(["list"])[1], patience=0.1) == 0
    told = capsys.readouterr()
    assert "Hung  unreachable" in told.out
    assert "Hung: it does not answer" in told.err


# --- pieces


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "now"),
        (0, "now"),
        (0.25, "250ms ago"),
        (3, "3s ago"),
        (60, "1min ago"),
        (123, "2min 3s ago"),
        (400, "6min ago"),
        (3660, "1h 1min ago"),
        (30000, "8h ago"),
        (90000, "1 day 1h ago"),
        (3 * 86400, "3 days ago"),
        (8 * 86400, "1 week 1 day ago"),
        (40 * 86400, "1 month 9 days ago"),
        (800 * 86400, "2 years 2 months ago"),
    ],
)
def test_times_are_told_as_systemd_does(seconds: float, words: str) -> None:
    assert render.ago(seconds) == words


@pytest.mark.parametrize("at", ["", "yesterday", "9999-99-99", "2026-11-23T12:00:00+99:99"])
def test_a_missing_time_is_a_dash(at: str) -> None:
    assert render.since(at, 0.0) == "-"


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1.0K"),
        (1_300_000, "1.2M"),
        (1 << 20, "1.0M"),
        (5 << 30, "5.0G"),
        (1 << 50, "1024.0T"),
    ],
)
def test_memory_is_told_as_systemd_does(amount: int, words: str) -> None:
    assert size(amount) == words


def test_memory_of_a_process_that_has_gone_is_left_out() -> None:
    assert procfs.memory([4194305]) == {}
    assert procfs.age(4194305) is None
    assert procfs.age(None) is None


def test_foreign_text_cannot_control_the_terminal() -> None:
    assert terminal.clean("a\x1b[31m\nb\tc\x00\u202e\ud800é✓") == r"a\x1b[31m b c\x00\u202e\ud800é✓"


def test_only_states_are_colored_in_the_tree() -> None:
    shown = ContextStatus(status(transaction(tasks=[ACTIVE, FAILED]))["data"])
    lines = render.context(shown, render.StatusExtras(now=0.0), Style(colors=True, utf8=False))
    assert lines[0] == "\x1b[0;1;32m*\x1b[0m \x1b[0;1;39mEcho\x1b[0m - context001"
    assert lines[-1].startswith(
        "               `-\x1b[0;1;31mx\x1b[0m ts_101  EchoAction  \x1b[0;1;31mfailed (failed)"
    )
