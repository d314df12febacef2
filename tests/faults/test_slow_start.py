"""A supervisor that comes up slowly, as on a busy machine, is not taken for a hung one."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest
from context import Context
from waiting import wait_for


def supervisor_of(keeper: int) -> int:
    """Return the child of the keeper that will be the supervisor, before it answers; 0 if there is none."""
    for word in Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split():
        # A child of the keeper may end meanwhile.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if b"zmsvc.supervisor" in Path(f"/proc/{word}/cmdline").read_bytes():
                return int(word)
    return 0


def test_a_supervisor_whose_start_takes_longer_than_its_watchdog_is_not_killed(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo = context.home / "slow"
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parent / "shim"), os.environ.get("PYTHONPATH", "")])
    )
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", "T", SLOW_START=str(fifo), WATCHDOG_USEC="6000000")
    pid, keeper = context.tasks()["ts_1"]["pid"], context.status()["keeper_pid"]
    os.mkfifo(fifo)
    context.kill_supervisor()
    starting = wait_for(lambda: supervisor_of(keeper))
    began = time.monotonic()
    wait_for(lambda: time.monotonic() - began > 6.0)
    assert supervisor_of(keeper) == starting, "twice as long as it may be silent afterwards"
    fifo.write_bytes(b"go on")
    assert context.status()["pid"] == starting
    assert context.tasks()["ts_1"]["pid"] == pid
