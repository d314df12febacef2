"""The verbs for scripts against the real daemon: is-active, is-failed, show, wait, signal,
reload --dry-run."""

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
    unknown = context.ctl("is-failed", "ts_9", check=4)
    assert (unknown.stdout, "no such task" in unknown.stderr) == ("inactive\n", True)
    assert context.ctl("is-failed", "ts_9", "ts_1").stdout == "inactive\nfailed\n"
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
    """Open a connection to the supervisor, and send a request whose answer does not come yet."""
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
        wait_for(lambda: has_socket(waiting.pid))
        yield waiting


def has_socket(pid: int) -> bool:
    return any(os.readlink(each).startswith("socket:") for each in Path(f"/proc/{pid}/fd").iterdir())


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
        # zmsvcctl waits half a second longer than the supervisor, which a busy machine may need.
        context.ctl("wait", "--for", "active", "--timeout", "0.2", "ts_2", check=124)
        late = context.ask(verb="wait", tasks=["ts_2"], timeout=0.2, **{"for": "active"})
        assert late["error"] == "timed out: ts_2 is inactive after 0.2 s, not active"
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


def test_wait_for_several_tasks_is_answered_when_all_are_in_the_state(context: Context) -> None:
    context.looped("Echo")
    for number in (1, 2, 3):
        context.task(f"ts_{number}", "Echo", entry=number == 1)
    context.start("--transaction", TX)
    late = context.ask(verb="wait", tasks=["ts_1", "ts_2", "ts_3"], timeout=0.2, **{"for": "active"})
    assert late["error"] == "timed out: ts_2 is inactive; ts_3 is inactive after 0.2 s, not active"
    with asked(context, verb="wait", tasks=["ts_1", "ts_2", "ts_3"], **{"for": "active"}) as started:
        context.ctl("start", "--transaction", TX, "ts_2")
        context.ctl("start", "--transaction", TX, "ts_3")
        answer = json.loads(started.recv(65536))["data"]
    assert (answer["tasks"], answer["state"]) == (["ts_1", "ts_2", "ts_3"], "active")
    context.ctl("wait", "--for", "active", "ts_1", "ts_9", check=4)


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
        context.task("other", "Echo")
        context.write()
        context.ctl("reload")
        answer = json.loads(waiting.recv(65536))
    assert (answer["code"], answer["error"]) == (4, f"cannot wait for ts_1: no such task in {context.file}")


CHILD = """
import signal, sys
signal.signal(signal.SIGHUP, lambda *_: open(sys.argv[1], "a").write("child\\n"))
open(sys.argv[1], "a").write("here\\n")
while True:
    signal.pause()
"""
PARENT = f"""
import signal, subprocess, sys
signal.signal(signal.SIGHUP, lambda *_: open(sys.argv[1], "a").write("parent\\n"))
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}, sys.argv[1]])
while True:
    signal.pause()
"""


def family(context: Context) -> Path:
    """Add a Command with a child process. Return the file in which both note a SIGHUP."""
    noted, program = context.home / "noted", context.home / "family.py"
    program.write_text(PARENT)
    (context.home / "Services").mkdir()
    words = "".join(f"<arg>{word}</arg>" for word in (sys.executable, program, noted))
    context.task("ts_1", "Family", kind="Command", config=f"<command>{words}</command>")
    return noted


def test_signal_reaches_the_main_process_or_all_and_is_in_the_history(context: Context) -> None:
    noted = family(context)
    context.start("--transaction", TX)
    wait_for(lambda: noted.exists() and noted.read_text() == "here\n")
    pid = context.tasks()["ts_1"]["pid"]
    told = context.ctl("signal", "1", "ts_1")
    assert told.stdout == f"{TX}/ts_1: SIGHUP was sent to PID {pid}\n"
    wait_for(lambda: noted.read_text() == "here\nparent\n")
    context.ctl("signal", "--all", "sighup", "ts_1")
    wait_for(lambda: sorted(noted.read_text().split()) == ["child", "here", "parent", "parent"])
    assert context.tasks()["ts_1"]["pid"] == pid
    rows = [json.loads(line) for line in context.ctl("--json", "events", "ts_1").stdout.splitlines()]
    details = [row["detail"] for row in rows if row["event"] == "signaled"]
    assert [(each["signal"], each["all"], each["by"], each["uid"]) for each in details] == [
        ("SIGHUP", False, "operator", os.getuid()),
        ("SIGHUP", True, "operator", os.getuid()),
    ]
    context.ctl("stop", "ts_1")
    assert context.ctl("signal", "HUP", "ts_1", check=1).stderr.startswith(
        "zmsvcctl: cannot signal ts_1: it does not run (see zmsvcctl"
    )
    assert "is not a signal" in context.ctl("signal", "FOO", "ts_1", check=2).stderr
    context.ctl("signal", "HUP", "ts_9", check=4)


def test_a_signal_that_ends_a_task_fires_its_on_fail_rules(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo", rules={"on_fail": ("start", "ts_2")})
    context.task("ts_2", "Echo", entry=False)
    context.start("--transaction", TX)
    context.ctl("signal", "KILL", "ts_1")
    context.task_is("ts_2", "running")
    assert context.tasks()["ts_1"]["exit"]["reason"] == "signal"


def test_reload_dry_run_says_what_reload_does_and_changes_nothing(context: Context) -> None:
    context.looped("Echo")
    for name in ("ts_1", "ts_2", "ts_3"):
        context.task(name, "Echo")
    context.start("--transaction", TX)
    before = context.status()["transactions"]
    assert context.ctl("reload", "--dry-run").stdout == "nothing differs\n"
    context.clear_tasks()
    context.task("ts_1", "Echo")
    context.task("ts_2", "Echo", config="<color>red</color>")
    context.task("ts_4", "Echo")
    context.write()
    differences = "added: ts_4\nremoved: ts_3\nchanged: ts_2\n"
    assert context.ctl("reload", "--dry-run").stdout == (
        f"would stop: {TX}/ts_3\nwould restart: {TX}/ts_2\nwould start: {TX}/ts_4\n{differences}"
    )
    after = context.status()["transactions"]
    assert [(task["id"], task["pid"]) for task in after[0]["tasks"]] == [
        (task["id"], task["pid"]) for task in before[0]["tasks"]
    ]
    assert "reloaded" not in context.ctl("events").stdout
    assert context.ctl("reload").stdout == differences
    context.file.write_text("<Context>")
    context.ctl("reload", "--dry-run", check=2)
