"""A log file is rotated, in each of the usual ways: no line is lost, and no process keeps the old file."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from context import Context
from needs import need
from test_output_of_tasks import command, followed, log_file
from waiting import wait_for

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def talking(context: Context) -> Context:
    """A Command prints each line that is written into a FIFO; a supervisor logs its own actions."""
    os.mkfifo(context.home / "fifo")
    command(context, "ts", f"while :; do read -r line < {context.home}/fifo && echo said $line; done")
    context.start("--transaction", "TX")
    say(context, "first")
    wait_for(lambda: "said first" in log_file(context).read_text())
    return context


def say(context: Context, word: str) -> None:
    (context.home / "fifo").write_text(f"{word}\n")


def holders(context: Context, path: Path) -> list[str]:
    """Return the names of the processes of the context that have this file open."""
    assert context.daemon is not None
    found = []
    for pid, name in {context.daemon.pid: "keeper", **context.children()}.items():
        files = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()]
        found += [name] if str(path) in files else []
    return found


def test_a_signal_after_mv_opens_the_new_file(talking: Context) -> None:
    assert talking.daemon is not None
    log, old = log_file(talking), log_file(talking).with_suffix(".log.1")
    log.rename(old)
    talking.daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: log.exists() and "Reloaded" in log.read_text())
    wait_for(lambda: holders(talking, old) == [])
    say(talking, "second")
    wait_for(lambda: "said second" in log.read_text())
    assert "said second" not in old.read_text()


def test_the_log_is_opened_before_the_file_is_read_again(talking: Context) -> None:
    assert talking.daemon is not None
    log, old = log_file(talking), log_file(talking).with_suffix(".log.1")
    log.rename(old)
    talking.file.write_text("<Context>no context")
    talking.daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: log.exists() and f"{talking.file}:" in log.read_text())
    assert f"{talking.file}:" not in old.read_text()


def test_another_file_in_its_place_is_used_without_a_signal(talking: Context) -> None:
    log, old = log_file(talking), log_file(talking).with_suffix(".log.1")
    log.rename(old)
    say(talking, "between")
    wait_for(lambda: "said between" in old.read_text())
    log.touch()
    say(talking, "second")
    wait_for(lambda: "said second" in log.read_text())
    talking.ctl("restart", "ts")
    wait_for(lambda: "TX/ts INFO: launching" in log.read_text())
    wait_for(lambda: holders(talking, old) == [])


def test_a_removed_log_file_is_created_again(talking: Context) -> None:
    log = log_file(talking)
    log.unlink()
    say(talking, "second")
    wait_for(lambda: log.exists() and "said second" in log.read_text())
    assert log.stat().st_mode & 0o777 == 0o640


def test_a_truncated_log_file_continues_from_its_start(talking: Context) -> None:
    log = log_file(talking)
    os.truncate(log, 0)
    say(talking, "second")
    wait_for(lambda: "said second" in log.read_text())
    assert "\0" not in log.read_text()


@pytest.mark.parametrize("place", ["link", "fifo"])
def test_a_log_path_that_is_not_a_regular_file_is_not_used(talking: Context, place: str) -> None:
    log, old, elsewhere = (
        log_file(talking),
        log_file(talking).with_suffix(".log.1"),
        talking.home / "elsewhere",
    )
    elsewhere.touch()
    log.rename(old)
    log.symlink_to(elsewhere) if place == "link" else os.mkfifo(log)
    say(talking, "second")
    wait_for(lambda: "said second" in old.read_text())
    assert elsewhere.read_text() == ""


def test_logs_follow_a_rotated_file(talking: Context) -> None:
    with followed(talking, "ts") as line:
        assert "said first" in line()
        log_file(talking).rename(log_file(talking).with_suffix(".log.1"))
        log_file(talking).touch()
        say(talking, "second")
        assert "said second" in line()


@pytest.mark.parametrize("ways", ["create", "copytruncate"])
def test_logrotate_with_the_example_loses_no_line(talking: Context, ways: str) -> None:
    need(shutil.which("logrotate"), "logrotate is not installed")
    example = (CHECKOUT / "etc/logrotate.d/zmsvc").read_text()
    assert "/var/lib/zmsvc/*/zmsvcd.log" in example
    settings = talking.home / "logrotate.conf"
    settings.write_text(
        example.replace("/var/lib/zmsvc", f"{talking.home}/state").replace("    create\n", f"    {ways}\n")
    )
    settings.chmod(0o644)
    for number in range(3):
        say(talking, f"round {number}")
        wait_for(lambda number=number: f"said round {number}" in log_file(talking).read_text())  # type: ignore[misc]
        command_ = ["logrotate", "--force", "--state", str(talking.home / "rotated"), str(settings)]
        done = subprocess.run(command_, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    say(talking, "last")
    wait_for(lambda: "said last" in log_file(talking).read_text())
    assert "said round" not in log_file(talking).read_text()
    assert "said round 2" in log_file(talking).with_suffix(".log.1").read_text()
