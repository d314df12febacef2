"""The verbs for scripts against the real daemon: is-active, is-failed, show."""

from __future__ import annotations

import os
import signal

from context import Context

TX = "5HGAHZ3WPZUI71PACRPP"


def test_is_active_and_is_failed_follow_a_task_from_its_start_to_its_end(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.task("ts_2", "Echo")
    context.start("--transaction", TX)
    assert context.ctl("is-active", "ts_1", "ts_2").stdout == "active\nactive\n"
    assert context.ctl("is-failed", "ts_1", check=1).stdout == "active\n"
    os.kill(context.tasks()["ts_1"]["pid"], signal.SIGKILL)
    context.task_is("ts_1", "failed")
    assert context.ctl("is-active", "ts_1", check=3).stdout == "failed\n"
    assert context.ctl("is-active", "ts_1", "ts_2").stdout == "failed\nactive\n"
    assert context.ctl("is-failed", "--transaction", TX).stdout == "failed\n"
    assert context.ctl("is-failed", "ts_9", check=4).stdout == ""
    context.ctl("exit")
    assert context.wait() == 0
    assert context.ctl("is-active", "ts_2", check=3).stdout == "inactive\n"
    assert context.ctl("is-failed", "--quiet", "ts_1").stdout == ""


def test_show_prints_what_status_knows(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", TX)
    shown = dict(line.split("=", 1) for line in context.ctl("show", "ts_1").stdout.splitlines())
    known = context.tasks()["ts_1"]
    assert (shown["MainPID"], shown["ActiveState"], shown["SubState"], shown["NRestarts"]) == (
        str(known["pid"]),
        "active",
        "running",
        "0",
    )
    assert (shown["Transaction"], shown["CauseBy"]) == (TX, known["cause"]["by"])
    assert context.daemon is not None
    assert context.ctl("show", "-p", "MainPID", "--value").stdout == f"{context.daemon.pid}\n"
    context.ctl("show", "ts_9", check=4)
