"""The verbs for scripts against the real daemon: is-active, is-failed, show, wait."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from context import Context
from waiting import PATIENCE, wait_for

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


@contextmanager
def asked(context: Context, **request: object) -> Iterator[socket.socket]:
    """A connection to the supervisor with a request, whose answer has not come."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(context.runtime / context.name / "control.sock"))
        sock.sendall(json.dumps(request).encode() + b"\n")
        yield sock


@contextmanager
def waits(context: Context, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run `zmsvcctl wait` in the background. It is connected to the supervisor."""
    command = [sys.executable, "-P", "-m", "zmsvc.ctl", "-c", context.name, "wait", *words]
    with subprocess.Popen(command, env=context.environment, stderr=subprocess.PIPE, text=True) as waiting:
        fds = Path(f"/proc/{waiting.pid}/fd")
        wait_for(lambda: any(os.readlink(each).startswith("socket:") for each in fds.iterdir()))
        yield waiting


def test_wait_is_answered_when_the_task_is_in_the_state_and_not_before(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.task("ts_2", "Echo", entry=False)
    context.start("--transaction", TX)
    assert context.ctl("wait", "--for", "active", "ts_1").stdout == ""
    with (
        asked(context, verb="wait", tasks=["ts_2"], **{"for": "active"}) as started,
        asked(context, verb="wait", tasks=["ts_1"], **{"for": "failed"}) as failed,
    ):
        late = context.ctl("wait", "--for", "active", "--timeout", "0.2", "ts_2", check=124)
        assert late.stderr == "zmsvcctl: timed out: ts_2 is inactive after 0.2 s, not active\n"
        context.ctl("start", "--transaction", TX, "ts_2")
        assert json.loads(started.recv(65536))["data"]["state"] == "active"
        os.kill(context.tasks()["ts_1"]["pid"], signal.SIGKILL)
        assert json.loads(failed.recv(65536))["data"] == {
            "transaction": None,
            "task": "ts_1",
            "state": "failed",
        }
    context.ctl("wait", "--for", "active", "ts_9", check=4)
    context.ctl("wait", "--for", "active", "--transaction", "NO", "ts_1", check=4)


def test_wait_outlives_its_supervisor(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", TX)
    with waits(context, "--for", "failed", "ts_1") as waiting:
        context.kill_supervisor()
        os.kill(context.tasks()["ts_1"]["pid"], signal.SIGKILL)
        assert waiting.wait(PATIENCE) == 0, waiting.communicate()


def test_wait_ends_with_its_context(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", TX)
    with (
        waits(context, "--for", "inactive", "ts_1") as inactive,
        waits(context, "--for", "failed", "ts_1") as failed,
    ):
        context.ctl("exit")
        assert inactive.wait(PATIENCE) == 0, inactive.communicate()
        assert failed.wait(PATIENCE) == 5, failed.communicate()


def test_a_wait_ends_when_its_task_is_removed(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", TX)
    with asked(context, verb="wait", tasks=["ts_1"], **{"for": "failed"}) as waiting:
        context.clear_tasks()
        context.task("ts_2", "Echo")
        context.write()
        context.ctl("reload")
        answer = json.loads(waiting.recv(65536))
    assert (answer["code"], answer["error"]) == (4, f"cannot wait for ts_1: no such task in {context.file}")
