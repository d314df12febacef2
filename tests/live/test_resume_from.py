"""`zmsvcd --resume-from FILE`: a context goes on with what another host has written down, once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from context import Context
from waiting import wait_for


@pytest.fixture
def moved(context: Context) -> Context:
    """A context of two tasks that was left on this host with the transaction OLD."""
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.task("ts_2", "Echo")
    context.start("--transaction", "OLD")
    assert context.stop() == 0
    return context


def written(context: Context, *opened: str, held: list[list[str]] | None = None) -> Path:
    file = context.home / "carried.json"
    file.write_text(json.dumps({"host": "h1", "open": opened, "held": held or []}))
    return file


def states(context: Context) -> dict[str, dict[str, str]]:
    found = context.status()["transactions"]
    return {each["id"]: {task["id"]: task["sub"] for task in each["tasks"]} for each in found}


def opened(context: Context) -> set[str]:
    return {each["id"] for each in context.status()["transactions"] if each["state"] != "inactive"}


def test_the_open_transactions_of_the_other_host_are_resumed_with_their_held_tasks(moved: Context) -> None:
    moved.start("--resume-from", str(written(moved, "TX", held=[["TX", "ts_2"]])))
    wait_for(lambda: states(moved)["TX"] == {"ts_1": "running", "ts_2": "waiting"})
    assert opened(moved) == {"TX"}
    held = {task["id"]: task["held"] for one in moved.status()["transactions"] for task in one["tasks"]}
    assert held["ts_2"]
    assert "Live resumes 1 transaction of another host (h1): TX" in moved.log.read_text()
    words = [line.split()[2:] for line in moved.ctl("events").stdout.splitlines()]
    assert ["OLD", "-", "closed", "host=h1"] in words
    assert ["TX", "-", "carried", "host=h1"] in words


def test_a_restart_with_the_same_file_resumes_what_has_happened_since(moved: Context) -> None:
    """systemd starts a killed keeper again with the same arguments."""
    file = str(written(moved, "TX"))
    moved.start(ZMSVC_RESUME=file)
    moved.ctl("stop", "--transaction", "TX")
    moved.ctl("start", "--transaction", "NEXT")
    assert moved.daemon is not None
    moved.daemon.send_signal(signal.SIGKILL)
    moved.wait()
    moved.start(ZMSVC_RESUME=file)
    assert opened(moved) == {"NEXT"}
    assert "resumes its own state, because an earlier run has taken" in moved.log.read_text()
    moved.stop()
    written(moved, "TX")
    moved.start(ZMSVC_RESUME=file)
    assert opened(moved) == {"TX"}, "a file that was written again counts"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "no such file or directory"),
        ('{"host": "h1"}', '"open" is missing, expected a list of transaction IDs'),
        ("directory", "it is not a regular file"),
        ("fifo", "it is not a regular file"),
    ],
)
def test_a_bad_file_starts_nothing(context: Context, text: str | None, why: str) -> None:
    context.write()
    file = context.home / "carried.json"
    if text == "directory":
        file.mkdir()
    elif text == "fifo":
        os.mkfifo(file)
    elif text is not None:
        file.write_text(text)
    for words, more in ((["--resume-from", str(file)], {}), ([], {"ZMSVC_RESUME": str(file)})):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "zmsvc.keeper", *words, str(context.file)],
            env=context.environment | more,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr == f"zmsvcd: cannot start Live: cannot resume from {file}: {why}\n"
    assert not (context.home / "state").exists()


def test_the_launches_of_each_move_have_numbers_of_their_own(moved: Context) -> None:
    file = moved.home / "carried.json"
    file.write_text(json.dumps({"host": "h1", "open": ["TX"], "generation": 3}))
    moved.start("--resume-from", str(file))
    launches = {
        task["launch"] for one in moved.status()["transactions"] for task in one["tasks"] if one["id"] == "TX"
    }
    assert {launch >> 32 for launch in launches} == {3}
