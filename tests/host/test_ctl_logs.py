"""`zmsvcctl logs` picks entries as journalctl does, from the journal and from the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_supervisor as fake
import pytest
from fake_supervisor import House, no, status, task, transaction

from zmsvc.core.errors import UsageError
from zmsvc.ctl.__main__ import main
from zmsvc.ctl.log import time_ranges

Capture = pytest.CaptureFixture[str]

LOG = """\
2026-11-23T12:00:00.000+0000 zmsvc-Echo[8] INFO: of the context
2026-11-23T12:00:01.000+0000 Echo[9] TX/ts_1 INFO: first word
2026-11-23T12:00:02.000+0000 Echo[9] TX/ts_2 WARNING: Second word
2026-11-23T13:00:03.000+0100 Echo[9] TX/ts_1 ERROR: third
    with a tail
2026-11-23T12:00:04.000+0000 Echo[9] TX2/ts_1 DEBUG: fourth word
2026-11-23T12:00:05.000+0000 Echo[9] TX2/ts_1 CRITICAL: fifth
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with fake.house(tmp_path) as made:
        yield made


@pytest.fixture
def file(home: House) -> House:
    (home.root / "log").write_text(LOG)
    home.supervisor(status=status(transaction(), log=f"{home.root}/log"))
    return home


def test_entries_that_other_processes_wrote_late_are_shown_in_their_order(
    file: House, capsys: Capture
) -> None:
    """Two processes write to the file, the supervisor and the output process, so entries may be out of
    order.
    """
    lines = [
        "2026-11-23T12:00:03.000+0000 Echo[8] TX/ts_1 WARNING: failed word\n",
        "2026-11-23T12:00:01.000+0000 Echo[9] TX/ts_1 INFO: first word\n",
        "2026-11-23T12:00:02.000+0000 Echo[9] TX/ts_1 ERROR: second word\n    with a tail\n",
        "2026-11-23T12:00:02.000+0000 Echo[9] TX/ts_1 INFO: third word\n",
    ]
    (file.root / "log").write_text("".join(lines))
    assert main(["logs", "-g", "word"]) == 0
    assert capsys.readouterr().out == "".join([*lines[1:], lines[0]])
    assert main(["logs", "-n", "2", "ts_1"]) == 0
    assert capsys.readouterr().out == "".join([lines[3], lines[0]])
    failed = task("ts_1", "failed", "failed")
    file.supervisor(status=status(transaction("TX", "failed", [failed]), log=f"{file.root}/log"))
    assert main(["status"]) == 3
    told = capsys.readouterr().out
    assert told.index("first word") < told.index("second word") < told.index("third word")
    assert told.index("third word") < told.index("failed word")


PICKED = [
    (["-p", "err"], [3, 4, 6]),
    (["-p", "3"], [3, 4, 6]),
    (["-p", "debug..warning"], [0, 1, 2, 5]),
    (["-p", "warning..err"], [2, 3, 4]),
    (["-p", "err", "ts_1", "--transaction", "TX"], [3, 4]),
    (["-g", "word"], [1, 2, 5]),
    (["-g", "Second"], [2]),
    (["-g", "FIRST"], []),
    (["-g", "tail"], [3, 4]),
    (["-g", "^fi"], [1, 6]),
    (["--since", "2026-11-23 12:00:03 UTC"], [3, 4, 5, 6]),
    (["--until", "2026-11-23 12:00:02 UTC"], [0, 1, 2]),
    (["--since", "2026-11-23T12:00:01Z", "--until", "2026-11-23 12:00:03+00:00"], [1, 2, 3, 4]),
    (["--since", "1 day ago"], []),
    (["--since", "-2h"], []),
    (["--since", "@0", "--until", "now"], range(7)),
    (["-r"], [6, 5, 3, 4, 2, 1, 0]),
    (["-r", "-n", "2"], [6, 5]),
    (["-g", "word", "-n", "2"], [5, 2]),
    (["-n", "2", "-p", "err"], [3, 4, 6]),
    (["-n", "1", "-p", "warning..err"], [3, 4]),
    (["-r", "-n", "2", "-p", "err"], [6, 3, 4]),
]


@pytest.mark.parametrize(("words", "lines"), PICKED)
def test_logs_picks_from_the_file(words: list[str], lines: Any, file: House, capsys: Capture) -> None:
    whole = LOG.splitlines()
    assert main(["logs", *words]) == 0
    assert capsys.readouterr().out.splitlines() == [whole[number] for number in lines]


def test_a_task_that_no_transaction_has_is_named_and_its_log_shown(file: House, capsys: Capture) -> None:
    assert main(["logs", "ts_2"]) == 0
    shown, said = capsys.readouterr()
    assert "Second word" in shown
    assert said == (
        "zmsvcctl: no transaction of Echo has ts_2; its log is searched all the same (zmsvcctl -c Echo "
        "status)\n"
    )


def test_the_log_of_a_transaction_that_the_supervisor_does_not_know_is_shown_and_that_said(
    home: House, capsys: Capture
) -> None:
    (home.state / "Echo").mkdir()
    (home.state / "Echo" / "zmsvcd.log").write_text(LOG)
    home.supervisor(status=no(4, "cannot show TX: no such transaction"))
    assert main(["logs", "--transaction", "TX", "ts_1"]) == 0
    shown, said = capsys.readouterr()
    assert "third" in shown
    assert said == "zmsvcctl: cannot show TX: no such transaction; its log is searched all the same\n"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["ts_1"],
        ["--transaction", "TX"],
        ["--transaction", "TX", "ts_1", "ts_2"],
        ["-p", "err"],
        ["ts_1", "-p", "warning..err"],
        ["-g", "word"],
        ["-g", "Second"],
        ["ts_1", "-g", "third"],
    ],
)
def test_the_query_of_a_file_finds_the_same(words: list[str], file: House, capsys: Capture) -> None:
    assert main(["logs", *words]) == 0
    shown = capsys.readouterr().out
    assert main(["logs", "--show-query", *words]) == 0
    query = capsys.readouterr().out
    assert subprocess.run(["sh", "-c", query], capture_output=True, text=True, check=True).stdout == shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-p", "loud"], "cannot understand the priority 'loud'"),
        (["--since", "whenever"], "cannot understand the time 'whenever'"),
        (["-g", "("], "cannot use the pattern '('"),
        (["-f", "-r"], "--reverse and --follow exclude each other"),
        (["--since", "now", "--until", "yesterday"], "--since must be before --until"),
    ],
)
def test_an_invalid_option_is_one_line(words: list[str], said: str, file: House, capsys: Capture) -> None:
    assert main(["logs", *words]) == 2
    assert capsys.readouterr().err.startswith(f"zmsvcctl: {said}")


def test_a_file_is_shown_as_json_with_the_journals_names(file: House, capsys: Capture) -> None:
    assert main(["--json", "logs", "-p", "err", "--transaction", "TX"]) == 0
    (entry,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert entry == {
        "MESSAGE": "third\nwith a tail",
        "__REALTIME_TIMESTAMP": "1795435203000000",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "Echo",
        "SYSLOG_PID": "9",
        "ZMSVC_TRANSACTION": "TX",
        "ZMSVC_TASK": "ts_1",
    }


def asked(*words: str) -> list[str]:
    done = subprocess.run([sys.executable, "-P", "-m", "zmsvc.ctl", *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_journalctl_is_asked_for_the_same(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = home.program("journalctl", 'printf "%s\\n" "$@"')
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    home.supervisor(status=status(transaction(tasks=[task("ts_1")]), log="journal"))
    words = ["--since", "-2h", "--until", "now", "-p", "err", "-g", "a b", "-r"]
    options = ["--reverse", "--since=-2h", "--until=now", "--priority=err", "--grep=a b"]
    matches = ["ZMSVC_CONTEXT=Echo", "ZMSVC_TASK=ts_1", f"_UID={os.geteuid()}"]
    assert asked("logs", "ts_1", *words) == options + matches
    (query,) = asked("logs", "ts_1", "--show-query", *words)
    assert (
        query
        == f"journalctl --reverse --since=-2h --until=now --priority=err '--grep=a b' {' '.join(matches)}"
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("@1795435203.5", 1795435203.5),
        ("2026-11-23 12:00:03 UTC", 1795435203),
        ("2026-11-23T13:00:03+01:00", 1795435203),
        ("Mon 2026-11-23 12:00:03 UTC", 1795435203),
        ("26-11-23 12:00:03Z", 1795435203),
        ("2026-11-23 12:00:03.25 UTC", 1795435203.25),
        ("2026-11-23 13:00:03 Europe/Berlin", 1795435203),
    ],
)
def test_times_are_those_of_systemd(text: str, seconds: float) -> None:
    assert time_ranges.moment(text) == seconds


def test_times_are_relative_to_now() -> None:
    now = time.time()
    for text, offset in (
        ("now", 0),
        ("-2h", -7200),
        ("+1min 30s", 90),
        ("5min ago", -300),
        ("1d left", 86400),
    ):
        assert abs(time_ranges.moment(text) - now - offset) < 10, text
    midnight = time_ranges.moment("today")
    assert midnight <= now < time_ranges.moment("tomorrow")
    assert time.localtime(time_ranges.moment("yesterday")).tm_hour == time.localtime(midnight).tm_hour == 0
    assert time_ranges.moment("00:00") == midnight


@pytest.mark.parametrize(
    "text", ["", " ", "12", "2026-13-01", "25:00", "2026-11-23 12:00 Nowhere/Else", "-", "@x", "2h"]
)
def test_a_malformed_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        time_ranges.moment(text)
