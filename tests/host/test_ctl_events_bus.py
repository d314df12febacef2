"""zmsvcctl's logs, events, watch, send, check and graph, with a fake supervisor and real files, sockets
and programs.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_supervisor as fake
import pytest
import zmq
from fake_supervisor import HangUp, House, Silence, more, no, status, task, transaction, yes
from waiting import wait_for_line

from zmsvc.core.access import BUS, MAY_CONNECT
from zmsvc.core.errors import UsageError, ZmsvcError
from zmsvc.ctl import client
from zmsvc.ctl.__main__ import main
from zmsvc.ctl.log.journal_matches import Writers, matches
from zmsvc.ctl.status_reply import ContextStatus
from zmsvc.ctl.verbs import logs, update
from zmsvc.host import paths
from zmsvc.host.bus import sockets
from zmsvc.host.systemd import datagrams, notify

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with fake.house(tmp_path) as made:
        yield made


def process(*words: str, **settings: Any) -> subprocess.Popen[bytes]:
    """Start zmsvcctl as a process. Its output can be read as it comes."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "zmsvc.ctl", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        **settings,
    )


def interrupted(running: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """Send Ctrl-C; return the exit status and standard error."""
    running.send_signal(signal.SIGINT)
    _, said = running.communicate()
    return running.returncode, said


# --- logs: journald


DAEMON = Writers("Echo", 0, {}, "")


def test_matches_find_fields_and_cgroups() -> None:
    assert matches(DAEMON, "TX", ["a", "b"], ["/sys/fs/cgroup/x", "/sys/fs/cgroup/unified/y", "/z"]) == [
        "ZMSVC_CONTEXT=Echo", "ZMSVC_TRANSACTION=TX", "ZMSVC_TASK=a", "ZMSVC_TASK=b", "_UID=0", "+",
        "_SYSTEMD_CGROUP=/x", "_SYSTEMD_CGROUP=/y", "_SYSTEMD_CGROUP=/z",
    ]  # fmt: skip
    assert matches(DAEMON, None, ["a"], []) == ["ZMSVC_CONTEXT=Echo", "ZMSVC_TASK=a", "_UID=0"]
    assert matches(DAEMON, None, [], []) == [
        "ZMSVC_CONTEXT=Echo",
        "_UID=0",
        "+",
        "_SYSTEMD_UNIT=zmsvc@Echo.service",
        "+",
        "_SYSTEMD_UNIT=zmsvc-host@Echo.service",
        "+",
        "_SYSTEMD_USER_UNIT=zmsvc@Echo.service",
        "_UID=0",
    ]


def test_entries_of_another_users_task_are_shown_for_that_task_only() -> None:
    of = Writers("Echo", 0, {"a": 1, "b": 2, "c": 0}, "_SYSTEMD_UNIT")
    unit = "_SYSTEMD_UNIT=zmsvc@Echo.service"
    assert matches(of, None, ["a"], []) == [
        "ZMSVC_CONTEXT=Echo",
        unit,
        "ZMSVC_TASK=a",
        "_UID=0",
        "+",
        "ZMSVC_CONTEXT=Echo",
        unit,
        "ZMSVC_TASK=a",
        "_UID=1",
    ]
    assert matches(of, "TX", [], []) == [
        "ZMSVC_CONTEXT=Echo",
        "ZMSVC_TRANSACTION=TX",
        unit,
        "_UID=0",
        "+",
        "ZMSVC_CONTEXT=Echo",
        "ZMSVC_TRANSACTION=TX",
        unit,
        "ZMSVC_TASK=a",
        "_UID=1",
        "+",
        "ZMSVC_CONTEXT=Echo",
        "ZMSVC_TRANSACTION=TX",
        unit,
        "ZMSVC_TASK=b",
        "_UID=2",
    ]


def test_the_matched_cgroups_are_those_of_the_named_tasks() -> None:
    tasks = [task("a", cgroup="/g/A"), task("b", cgroup="/g/B"), task("c")]
    shown = ContextStatus(
        status(transaction("T1", tasks=tasks), transaction("T2", tasks=[task("a", cgroup="/g/A2")]))["data"]
    )
    assert logs.cgroups(shown, "Echo", "T1", []) == ["/g/A", "/g/B"]
    assert logs.cgroups(shown, "Echo", None, ["a"]) == ["/g/A", "/g/A2"]


JOURNALCTL = """
case "$*" in
  *-F*) printf '%s\\n' /s/zmsvc@Echo.service/tasks/TX:ts_1 /s/zmsvc@Echo.service/tasks/TX2:ts_1 /s/zmsvc@Other.service/tasks/TX:ts_1 / ;;
  *) printf '%s\\n' "$@" ;;
esac"""


@pytest.fixture
def journalctl(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a journalctl into PATH that prints its arguments, each on a line."""
    monkeypatch.setenv("PATH", f"{home.program('journalctl', JOURNALCTL)}:{os.environ['PATH']}")


def asked(*words: str, complaint: str = "") -> list[str]:
    done = subprocess.run([sys.executable, "-P", "-m", "zmsvc.ctl", *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, complaint)
    return done.stdout.splitlines()


@pytest.mark.usefixtures("journalctl")
def test_logs_asks_journalctl(home: House) -> None:
    home.supervisor(
        status=status(transaction(tasks=[task("ts_1", cgroup="/sys/fs/cgroup/g/TX:ts_1")]), log="journal")
    )
    matches = [
        "ZMSVC_CONTEXT=Echo",
        "ZMSVC_TRANSACTION=TX",
        "ZMSVC_TASK=ts_1",
        f"_UID={os.geteuid()}",
        "+",
        "_SYSTEMD_CGROUP=/g/TX:ts_1",
    ]
    assert asked("logs", "--transaction", "TX", "ts_1") == matches
    options = ["--follow", "--no-pager", "--lines=3", "--output=cat"]
    assert (
        asked("logs", "-f", "-n", "3", "--no-pager", "-o", "cat", "--task", "ts_1", "--transaction", "TX")
        == options + matches
    )
    assert asked("--json", "logs", "--transaction", "TX", "ts_1")[0] == "--output=json"


@pytest.mark.usefixtures("journalctl")
def test_logs_of_a_forgotten_transaction_come_from_the_journals_field_values(home: House) -> None:
    home.supervisor(status=no(4, "no such transaction"))
    own = ["ZMSVC_CONTEXT=Echo", "ZMSVC_TRANSACTION=TX", f"_UID={os.geteuid()}"]
    matches = [*own, "+", "_SYSTEMD_CGROUP=/s/zmsvc@Echo.service/tasks/TX:ts_1"]
    said = "zmsvcctl: no such transaction; its log is searched all the same\n"
    assert asked("-c", "Echo", "logs", "--transaction", "TX", complaint=said) == matches


@pytest.mark.usefixtures("journalctl")
def test_logs_of_a_context_that_does_not_run(home: House) -> None:
    home.file("Echo")
    said = "zmsvcctl: Echo does not run; this is from the journal\n"
    assert asked("-c", "Echo", "logs", complaint=said)[0] == "ZMSVC_CONTEXT=Echo"


def test_logs_without_journalctl_is_one_line(
    home: House, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(home.root))
    home.supervisor(status=status(transaction(), log="journal"))
    assert main(["logs"]) == 1
    assert "zmsvcctl: cannot run journalctl: no such file" in capsys.readouterr().err


# --- logs: a file

LOG = """\
2026-11-23T12:00:00.123+0000 zmsvc-Echo[8] INFO: of the context
2026-11-23T12:00:00.123+0000 zmsvc-Echo[8] TX INFO: of the transaction
2026-11-23T12:00:00.123+0000 EchoAction[9] TX/ts_1 INFO: first
2026-11-23T12:00:00.123+0000 EchoAction[9] TX/ts_2 INFO: second
2026-11-23T12:00:00.123+0000 EchoAction[9] TX2/ts_1 ERROR: third
    with a tail TX/ts_1
2026-11-23T12:00:00.123+0000 EchoAction[9] TX/ts_1 INFO: fourth ZX/ts_2 INFO: x
"""


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ([], range(8)),
        (["--transaction", "TX"], [1, 2, 3, 6]),
        (["ts_1"], [2, 4, 5, 6]),
        (["--transaction", "TX", "ts_1"], [2, 6]),
        (["ts_1", "ts_2"], range(2, 7)),
        (["-n", "2"], [4, 5, 6]),
        (["-n", "1", "ts_2"], [3]),
        (["-n", "0"], []),
        (["--transaction", "X"], []),
    ],
)
def test_logs_from_the_daemons_file(words: list[str], lines: Any, home: House, capsys: Capture) -> None:
    (home.root / "log").write_text(LOG)
    home.supervisor(status=status(transaction(), log=f"{home.root}/log"))
    assert main(["logs", *words]) == 0
    whole = LOG.splitlines()
    assert capsys.readouterr().out.splitlines() == [whole[number] for number in lines if number < len(whole)]


def test_logs_of_a_context_that_does_not_run_come_from_its_file(home: House, capsys: Capture) -> None:
    (home.state / "Echo").mkdir()
    (home.state / "Echo" / "zmsvcd.log").write_text(LOG)
    assert main(["-c", "Echo", "logs"]) == 0
    assert capsys.readouterr().out == LOG


def test_a_log_that_cannot_be_read_is_one_line(home: House, capsys: Capture) -> None:
    home.supervisor(status=status(transaction(), log="/no/such/file"))
    assert main(["logs"]) == 1
    assert capsys.readouterr().err == "zmsvcctl: cannot read /no/such/file: no such file or directory\n"


def test_logs_follow_the_file(home: House) -> None:
    log = home.root / "log"
    log.write_text(LOG)
    home.supervisor(status=status(transaction(tasks=[task("ts_1")]), log=str(log)))
    running = process("logs", "-f", "--transaction", "TX", "ts_1")
    assert running.stdout is not None
    assert wait_for_line(running.stdout, "").endswith("first")
    assert wait_for_line(running.stdout, "").endswith("fourth ZX/ts_2 INFO: x")
    with log.open("a") as file:
        file.write(LOG.replace("first", "fifth"))
    assert wait_for_line(running.stdout, "").endswith("fifth")
    assert interrupted(running) == (0, b"")


# --- events


def row(seq: int, **other: Any) -> Any:
    told = {
        "at": "2026-11-23T12:00:00.123+00:00",
        "transaction": "TX",
        "task": "ts_1",
        "event": "started",
        "detail": {"pid": 7},
    }
    return more(seq=seq, **told | other)


ENDED = [
    {"pid": 9, "name": "sleep", "code": None, "signal": "SIGTERM", "asked": "SIGTERM", "killed": False},
    {"pid": 8, "name": "sh", "code": 3, "signal": None, "asked": "SIGTERM", "killed": False},
    {"pid": 7, "name": "cat", "code": None, "signal": None, "asked": "SIGTERM", "killed": False},
]


def test_events_are_a_table(home: House, capsys: Capture) -> None:
    cause = {"by": "rule", "uid": None, "sources": [{"task": "ts_2", "trigger": "on_exit"}]}
    detail = {"cause": cause, "x": [], "y": ["a", "b"], "ended": ENDED}
    there = home.supervisor(events=[row(1), row(2, task="", detail=detail), yes()])
    assert main(["events", "--transaction", "TX", "-n", "9", "ts_1"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "TIME                     TRANSACTION           TASK          EVENT       DETAIL",
        "2026-11-23 12:00:00.123  TX                    ts_1          started     pid=7",
        "2026-11-23 12:00:00.123  TX                    -             started     y=a,b "
        "ended=sleep(9):SIGTERM,sh(8):3,cat(7) by=rule "
        "after=ts_2:on_exit",
    ]
    (request,) = there.asked("events")
    assert request == {"verb": "events", "transaction": "TX", "tasks": ["ts_1"], "follow": False, "limit": 9}


def test_events_as_json_are_a_line_each(home: House, capsys: Capture) -> None:
    home.supervisor(events=[row(1), row(2), yes()])
    assert main(["--json", "events"]) == 0
    assert [json.loads(line)["seq"] for line in capsys.readouterr().out.splitlines()] == [1, 2]


def test_a_history_without_events_is_a_head(home: House, capsys: Capture) -> None:
    home.supervisor(events=yes())
    assert main(["events"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_events_of_an_unknown_name_say_so(home: House, capsys: Capture) -> None:
    home.supervisor(events=[yes()])
    assert main(["events", "--transaction", "TX", "ts_9"]) == 0
    assert (
        capsys.readouterr().err
        == "zmsvcctl: the history of Echo has no event of TX ts_9 (zmsvcctl -c Echo status)\n"
    )


def test_events_f_continues_with_the_next_supervisor_without_repeats(home: House) -> None:
    home.supervisor(events=([row(1), row(2), HangUp], [row(1), row(2), row(3), Silence]))
    running = process("--json", "events", "-f", "-n", "2")
    assert running.stdout is not None
    assert [json.loads(wait_for_line(running.stdout, ""))["seq"] for _ in range(3)] == [1, 2, 3]
    assert interrupted(running) == (0, b"")


def test_events_f_with_zero_lines_shows_new_events_only(home: House) -> None:
    home.supervisor(events=([row(2), yes()], [row(1), row(2), HangUp], [row(1), row(2), row(3), Silence]))
    running = process("--json", "events", "-f", "-n", "0")
    assert running.stdout is not None
    assert json.loads(wait_for_line(running.stdout, ""))["seq"] == 3
    assert interrupted(running) == (0, b"")


def test_an_interrupted_reply_to_events_is_status_5(home: House, capsys: Capture) -> None:
    home.supervisor(events=[row(1), HangUp])
    assert main(["events"]) == 5
    assert main(["events", "-f"]) == 5
    capsys.readouterr()


def test_events_beyond_the_timeout_are_status_124(home: House) -> None:
    home.supervisor(events=[row(1), Silence])
    with pytest.raises(client.CtlError) as raised:
        list(client.Client(paths.places("Echo"), 0.1, grace=0.0).stream("events", follow=True))
    assert raised.value.code == 124


# --- the bus


@pytest.fixture
def bus(home: House) -> Iterator[zmq.Socket[bytes]]:
    """Yield an XPUB in the place of the device's side for subscribers. `heard` waits for a subscription."""
    with zmq.Context() as ctx, ctx.socket(zmq.XPUB) as xpub:
        xpub.linger = 0
        xpub.rcvtimeo = 10_000
        xpub.bind(f"ipc://{home.root}/f")
        home.supervisor(status=status(transaction(), frontend=f"ipc://{home.root}/f"))
        yield xpub


def test_watch_prints_a_line_for_every_message(bus: zmq.Socket[bytes]) -> None:
    running = process("watch", "--count", "4")
    assert bus.recv() == b"\x01"
    for frame in (
        b'control @@@ {"header":{"a":1}}',
        b"no message \xff",
        b"talk @@@ {}",
        b'x @@@ {"a": "\x1b"}',
        b"late @@@ {}",
    ):
        bus.send(frame)
    told, said = running.communicate()
    assert (running.returncode, said) == (0, b"")
    lines = told.decode().splitlines()
    assert re.fullmatch(r'\d\d:\d\d:\d\d\.\d{3} control {"header":{"a":1}}', lines[0])
    assert [line.split(" ", 2)[1] for line in lines[1:]] == ["?", "talk", "?"]


@pytest.mark.parametrize("words", [["watch", "--topic"], ["send"]])
def test_a_topic_that_is_too_long_is_refused_at_once(words: list[str], home: House, capsys: Capture) -> None:
    """The device would end the connection of `watch` each time that libzmq makes it."""
    assert main([*words, "t" * 1001, *(["{}"] if words == ["send"] else [])]) == 2
    assert "it has 1001 bytes, 1000 are allowed" in capsys.readouterr().err


def test_watch_filters_and_ends_on_ctrl_c(bus: zmq.Socket[bytes]) -> None:
    running = process("--json", "watch", "--topic", "control", "--transaction", "TX")
    assert running.stdout is not None
    assert bus.recv() == b"\x01control @@@ "
    for name in ("OTHER", "TX"):
        bus.send(b'control @@@ {"header":{"service_transaction":"%b"}}' % name.encode())
    line = json.loads(wait_for_line(running.stdout, ""))
    assert line == {"topic": "control", "body": {"header": {"service_transaction": "TX"}}}
    assert interrupted(running) == (0, b"")


def test_watch_ends_when_nobody_reads(bus: zmq.Socket[bytes]) -> None:
    running = process("watch")
    assert bus.recv() == b"\x01"
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    bus.send(b"talk @@@ {}")
    with running.stderr:
        assert running.stderr.read() == b""
    assert running.wait() == 0


def test_watch_without_enough_messages_in_time_is_status_124(bus: zmq.Socket[bytes], capsys: Capture) -> None:
    assert main(["watch", "--count", "1", "--timeout", "0.05"]) == 124
    assert "0 messages within 0.05 s" in capsys.readouterr().err


def test_watch_of_a_malformed_endpoint_is_one_line(home: House, capsys: Capture) -> None:
    home.supervisor(status=(status(frontend="nonsense"), status(frontend="")))
    assert main(["watch"]) == 2
    assert main(["watch"]) == 5
    assert capsys.readouterr().err.count("\n") == 2


class Courier:
    """Takes the place of sockets.send_once, which has tests of its own."""

    def __init__(self, outcome: bool | ZmsvcError) -> None:
        self.outcome = outcome
        self.sent: list[tuple[str, bytes, float]] = []

    def __call__(
        self, endpoint: str, frame: bytes, timeout_s: float, curve: sockets.Curve | None, *, presence: bytes
    ) -> bool:
        assert curve is None, "the context says that it has no keys"
        assert presence == (b"unheard." if frame.startswith(b"context") else b"")
        self.sent.append((endpoint, frame, timeout_s))
        if isinstance(self.outcome, ZmsvcError):
            raise self.outcome
        return self.outcome


@pytest.fixture
def courier(home: House, monkeypatch: pytest.MonkeyPatch) -> Courier:
    made = Courier(True)
    monkeypatch.setattr(sockets, "send_once", made)
    home.supervisor()
    return made


def test_send_waits_for_the_supervisor_with_messages_meant_for_it(courier: Courier, capsys: Capture) -> None:
    assert main(["send", "context", '{"header": {}}']) == 0
    assert courier.sent == [("ipc:///nowhere/b", b'context @@@ {"header":{}}', 5.0)]
    assert capsys.readouterr() == ("", "")


def test_send_puts_the_header_first(courier: Courier, capsys: Capture) -> None:
    assert (
        main(["send", "talk", '{"content": {"é": 1.50}, "header": {"action": "x", "service_id": "y"}}']) == 0
    )
    frame = 'talk @@@ {"header":{"service_id":"y","action":"x"},"content":{"é":1.5}}'.encode()
    assert courier.sent == [("ipc:///nowhere/b", frame, 5.0)]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("words", [["-"], []])
def test_send_reads_standard_input(words: list[str], home: House) -> None:
    # No device takes the message: the command tries to send it until its time is over. It has asked for the
    # endpoint first.
    home.supervisor(status=status(backend=f"ipc://{home.root}/b"))
    command = [sys.executable, "-P", "-m", "zmsvc.ctl", "--timeout", "3", "send", "talk", *words]
    done = subprocess.run(command, input='{"a": 1}', capture_output=True, text=True)
    assert done.returncode == 124
    assert done.stderr.startswith("zmsvcctl: cannot reach ipc://")


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"header": 5}', '{"a": NaN}', "[" * 100_000])
def test_send_of_a_malformed_message_is_status_2(text: str, courier: Courier, capsys: Capture) -> None:
    assert main(["send", "talk", text]) == 2
    assert capsys.readouterr().err.startswith("zmsvcctl: cannot send: the message is not ")
    assert courier.sent == []


@pytest.mark.parametrize("topic", ["", " ", "a @@@ b", "a\nb"])
def test_send_to_a_malformed_topic_is_status_2(topic: str, courier: Courier, capsys: Capture) -> None:
    assert main(["send", topic, "{}"]) == 2
    assert "is not a topic" in capsys.readouterr().err


def test_send_says_when_nobody_is_subscribed(courier: Courier, capsys: Capture) -> None:
    courier.outcome = False
    assert main(["send", "talk", "{}"]) == 0
    assert "no subscriber to talk" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "words", "code"),
    [
        (ZmsvcError("cannot reach x: y"), [], 5),
        (ZmsvcError("x"), ["--timeout", "1"], 124),
        (UsageError("too large"), [], 2),
    ],
)
def test_send_that_fails_says_why(
    error: ZmsvcError, words: list[str], code: int, courier: Courier, capsys: Capture
) -> None:
    courier.outcome = error
    assert main([*words, "send", "talk", "{}"]) == code
    assert capsys.readouterr().err == f"zmsvcctl: {error}\n"


def test_publish_outside_of_a_task_is_status_2(
    courier: Courier, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZMSVC_BACKEND", raising=False)
    assert main(["publish", "talk", "{}"]) == 2
    assert capsys.readouterr().err == (
        "zmsvcctl: cannot publish: this process belongs to no task (ZMSVC_BACKEND is not set); zmsvcctl send "
        "publishes from elsewhere\n"
    )
    assert courier.sent == []


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["--timeout", "0.01", "a=1"], 124, "has not saved the result within 0.01 s"),
        (["a"], 2, "'a' is not an item, expected KEY=VALUE"),
        (["=1"], 2, "'=1' is not an item, expected KEY=VALUE"),
        (["a=1", "a=2"], 2, "a is given twice, expected one value for each key"),
        (["result=1"], 2, "result must be a str"),
        (["a=" + "[" * 100 + "]" * 100], 2, "nested more than 64 deep"),
    ],
)
def test_an_update_that_is_not_saved_or_not_one_says_so(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, error: str
) -> None:
    monkeypatch.setenv("ZMSVC_TASK", "ts_1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
    with datagrams.bind(tmp_path / "n", 0o600):
        assert main(["update", *words]) == code
    assert error in capsys.readouterr().err


def test_without_a_timeout_an_update_that_is_not_saved_is_status_5(tmp_path: Path) -> None:
    with (
        datagrams.bind(tmp_path / "n", 0o600),
        pytest.raises(client.CtlError, match=r"has not saved the result within 0\.01 s") as raised,
    ):
        update.report(notify.Notifier(str(tmp_path / "n")), "{}", None, patience=0.01)
    assert raised.value.code == 5


def test_the_values_of_an_update_are_json_or_texts() -> None:
    words = [
        "a=1",
        "b=1.5",
        "c=true",
        'd={"x":[1]}',
        "e=on the way",
        'f="1"',
        "g=",
        "h=NaN",
        "i=1e999",
        "j=a=b",
    ]
    assert update.parsed(words) == {
        "a": 1,
        "b": 1.5,
        "c": True,
        "d": {"x": [1]},
        "e": "on the way",
        "f": "1",
        "g": "",
        "h": "NaN",
        "i": "1e999",
        "j": "a=b",
    }


def test_an_update_outside_of_a_task_is_status_2(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ZMSVC_TASK", raising=False)
    assert main(["update", "a=1"]) == 2
    assert "this process belongs to no task (ZMSVC_TASK is not set)" in capsys.readouterr().err
    monkeypatch.setenv("ZMSVC_TASK", "ts_1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
    assert main(["update", "a=1"]) == 5
    assert f"{tmp_path}/n cannot be reached" in capsys.readouterr().err


# --- context files

GOOD = """<Context>
  <FrontEndEndpoint>ipc://{0}/f</FrontEndEndpoint>
  <BackendEndpoint>ipc://{0}/b</BackendEndpoint>
  <ContextID>context001</ContextID>
  <TaskService id="ts_1" topic="process" instance="sleeper" serviceType="Command"><Task>
    <message><header><action>start</action><service_name>sleeper</service_name></header>
      <content><configuration><device_action>x</device_action><command>sleep 1</command></configuration></content></message>
    <state type="{1}"/>
  </Task></TaskService>
</Context>
"""


def who_may_connect(home: House) -> str:
    """Return the lines of check about who may connect."""
    orders = f"give orders ({', '.join(BUS['context'])}) and read configurations"
    return f"bus: {MAY_CONNECT} may connect to ipc://{home.root}/b and ipc://{home.root}/f, {orders}"


def test_check_of_a_good_file(home: House, capsys: Capture) -> None:
    file = home.file(text=GOOD.format(home.root, "on_start"))
    assert main(["check", str(file)]) == 0
    assert capsys.readouterr() == (f"{file}: {who_may_connect(home)}\n{file}: ok (1 task)\n", "")


def test_check_warns(home: House, capsys: Capture) -> None:
    file = home.file(text=GOOD.format(home.root, ""))
    assert main(["check", str(file)]) == 0
    told = capsys.readouterr().out.splitlines()
    line = 1 + file.read_text()[: file.read_text().index("<TaskService")].count("\n")
    assert told[0].startswith(f"{file}: warning: no task starts"), "that is about no line"
    assert told[1].startswith(f"{file}:{line}: warning: ts_1: it waits for a rule")
    assert told[-1] == f"{file}: ok (1 task, {len(told) - 2} warnings)"


def test_check_of_bad_files_names_every_fault(home: House, capsys: Capture) -> None:
    good = home.file("Good", GOOD.format(home.root, "on_start"))
    bad = home.file("Bad", "<Context>\n<max_transactions>many</max_transactions>\n</Context>")
    assert main(["check", str(bad), str(good), "/no/such/file"]) == 2
    told = capsys.readouterr()
    assert told.out == f"{good}: {who_may_connect(home)}\n{good}: ok (1 task)\n"
    assert all(
        re.match(rf"({re.escape(str(bad))}|/no/such/file):\d+: ", line) for line in told.err.splitlines()
    )
    assert f"{bad}:2: " in told.err
    assert "/no/such/file:1: " in told.err


def test_check_as_json(home: House, capsys: Capture) -> None:
    file = home.file(text=GOOD.format(home.root, "on_start"))
    assert main(["--json", "check", str(file), "/no"]) == 2
    good, bad = json.loads(capsys.readouterr().out)["files"]
    assert good == {
        "file": str(file),
        "ok": True,
        "tasks": 1,
        "faults": [],
        "warnings": [],
        "access": [who_may_connect(home)],
        "wiring": [],
        "problems": [],
    }
    assert (bad["ok"], len(bad["faults"])) == (False, 1)


def test_each_fault_and_warning_has_its_place_in_the_json_of_check(home: House, capsys: Capture) -> None:
    warned = home.file(text=GOOD.format(home.root, ""))
    bad = home.file("Bad", "<Context>\n<max_transactions>many</max_transactions>\n</Context>")
    assert main(["--json", "check", str(warned), str(bad)]) == 2
    first, second = json.loads(capsys.readouterr().out)["files"]
    line = 1 + warned.read_text()[: warned.read_text().index("<TaskService")].count("\n")
    places = [(each["severity"], each["file"], each["line"]) for each in first["problems"]]
    assert places[:2] == [("warning", str(warned), None), ("warning", str(warned), line)]
    assert first["problems"][1]["text"].startswith("ts_1: it waits for a rule")
    assert {(each["severity"], each["file"]) for each in second["problems"]} == {("error", str(bad))}
    assert [f"{each['file']}:{each['line']}: {each['text']}" for each in second["problems"]] == second[
        "faults"
    ]


def test_check_of_a_running_context_does_not_complain_about_its_own_ports(
    home: House, capsys: Capture
) -> None:
    file = home.file(text=GOOD.format(home.root, "on_start"))
    with zmq.Context() as ctx, ctx.socket(zmq.XPUB) as device:
        device.bind(f"ipc://{home.root}/f")
        assert main(["check", str(file)]) == 0
        assert "warning" in capsys.readouterr().out
        home.supervisor("Echo")
        assert main(["check", str(file)]) == 0
        assert "warning" not in capsys.readouterr().out


@pytest.mark.parametrize(("words", "head"), [([], "digraph"), (["--format", "mermaid"], "flowchart LR")])
def test_graph_of_a_file(words: list[str], head: str, home: House, capsys: Capture) -> None:
    assert main(["graph", str(home.file(text=GOOD.format(home.root, "on_start"))), *words]) == 0
    told = capsys.readouterr().out
    assert told.startswith(head)
    assert "ts_1" in told


def test_graph_of_a_running_context_has_its_states(home: House, capsys: Capture) -> None:
    file = home.file(text=GOOD.format(home.root, "on_start"))
    assert main(["graph", "Echo"]) == 0
    assert "failed" not in capsys.readouterr().out
    old = transaction("OLD", "inactive", [task("ts_1", "inactive", "stopped")])
    home.supervisor(status=status(transaction(tasks=[task("ts_1", "failed", "failed")]), old, file=str(file)))
    assert main(["graph", "Echo"]) == 0
    assert "failed" in capsys.readouterr().out


def test_graph_as_svg_runs_dot(home: House, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(home.file(text=GOOD.format(home.root, "on_start")))
    monkeypatch.setenv("PATH", str(home.root))
    assert main(["graph", file, "--format", "svg"]) == 1
    assert "install graphviz" in capsys.readouterr().err
    monkeypatch.setenv("PATH", f"{home.program('dot', 'echo $1; cat')}:/usr/bin:/bin")
    assert main(["graph", file, "--format", "svg"]) == 0
    assert capsys.readouterr().out.startswith("-Tsvg\ndigraph")
    home.program("dot", "echo no such font >&2; exit 1")
    assert main(["graph", file, "--format", "svg"]) == 1
    assert capsys.readouterr().err == "zmsvcctl: cannot draw svg: dot ended with 1: no such font\n"


def test_graph_of_a_bad_file_names_every_fault(home: House, capsys: Capture) -> None:
    file = home.file(text="<Context>\n<max_transactions>many</max_transactions></Context>")
    assert main(["graph", str(file)]) == 2
    assert f"{file}:2: " in capsys.readouterr().err


def test_zmsvcctl_create_calls_the_create_package(home: House, capsys: Capture) -> None:
    assert main(["create"]) == 2
    assert "cannot create" in capsys.readouterr().err
