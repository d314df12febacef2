"""`<after>` and `<requires>`: which task starts after which and stops before which, also across a crash of
the supervisor.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from context import Context
from waiting import wait_for

TX = "TX"
GATED = """
import pathlib
from zmsvc.task import LoopedTask, TaskService
class Work(LoopedTask):
    interval = 3600.0
    def setup(self):
        gate = pathlib.Path({home!r}, self.service_id + ".gate")
        while not gate.exists() and not self.wait(0.02):
            pass
    def step(self):
        pass
    def close(self):
        gate = pathlib.Path({home!r}, self.service_id + ".close")
        while gate.exists():
            import time
            time.sleep(0.02)
class ServiceGated(TaskService):
    task_class = Work
"""


def gated(context: Context) -> None:
    """Make a service whose tasks are ready when ID.gate exists, and delay their end while ID.close exists."""
    context.service("Gated", GATED.format(home=str(context.home)))


def open_gate(context: Context, name: str) -> None:
    Path(context.home, f"{name}.gate").touch()


def launches(context: Context) -> list[str]:
    """Return the tasks in the order in which they were launched and stopped."""
    rows = map(json.loads, context.ctl("--json", "events").stdout.splitlines())
    words = {"launching": "+", "stopped": "-"}
    return [f"{words[row['event']]}{row['task']}" for row in rows if row["event"] in words]


def test_a_start_waits_for_ready_and_status_says_for_whom(context: Context) -> None:
    gated(context)
    context.task("web", "Gated", service="<after>db cache</after>")
    context.task("db", "Gated")
    context.task("cache", "Gated")
    context.start("--transaction", TX, ready=False)
    wait_for((context.runtime / context.name / "control.sock").exists)
    wait_for(lambda: context.ask_again(verb="status"))
    context.task_is("web", "start-after", TX, also=lambda task: task["status"] == "waits for db, cache")
    context.task_is("db", "start", TX)
    assert "waits for db, cache" in context.ctl("status", check=3).stdout
    open_gate(context, "db")
    context.task_is("web", "start-after", TX, also=lambda task: task["status"] == "waits for cache")
    assert context.tasks(TX)["web"]["state"] == "activating"
    context.kill_supervisor()
    open_gate(context, "cache")
    open_gate(context, "web")
    context.wait_for_notification("READY=1")
    assert launches(context)[-1] == "+web"


def test_a_stop_goes_the_other_way_round_over_a_crash_of_the_supervisor(context: Context) -> None:
    gated(context)
    for name in ("db", "web"):
        open_gate(context, name)
        Path(context.home, f"{name}.close").touch()
    context.task("web", "Gated", service="<after>db</after><stop_timeout>60s</stop_timeout>")
    context.task("db", "Gated", service="<stop_timeout>60s</stop_timeout>")
    context.start("--transaction", TX)
    context.ask(verb="stop", transaction=TX, block=False)
    context.task_is("db", "stop-after", TX, also=lambda task: task["status"] == "stops after web")
    context.kill_supervisor()
    wait_for(lambda: context.ask_again(verb="status"))
    context.task_is("db", "stop-after", TX)
    Path(context.home, "web.close").unlink()
    context.task_is("web", "stopped", TX)
    context.task_is("db", "stop-sigterm", TX)
    Path(context.home, "db.close").unlink()
    context.task_is("db", "stopped", TX)
    assert launches(context) == ["+db", "+web", "-web", "-db"]


def test_a_task_is_not_started_without_what_it_requires(context: Context) -> None:
    context.looped("Echo")
    context.looped("Fails", "def setup(self):\n    raise RuntimeError('on purpose')\n")
    context.task("web", "Echo", service="<requires>db</requires>", entry=False)
    context.task("db", "Fails", entry=False)
    context.task("other", "Echo")
    context.start("--transaction", TX)
    done = context.ctl("start", "--transaction", TX, "web", check=1)
    assert "web: not started: it requires db, which has failed" in done.stderr
    task = context.tasks()["web"]
    assert (task["state"], task["sub"], task["pid"], task["exit"]) == ("inactive", "waiting", None, None)
    context.looped("Fails")
    context.ctl("start", "--transaction", TX, "web")
    assert [context.tasks()[name]["sub"] for name in ("db", "web")] == ["running", "running"]
    context.ctl("stop", "--transaction", TX, "db")
    assert [context.tasks()[name]["sub"] for name in ("db", "web")] == ["stopped", "stopped"]
    assert launches(context)[-2:] == ["-web", "-db"]


def test_sigterm_stops_in_order(context: Context) -> None:
    context.looped("Echo")
    for name, before in (("c", "b"), ("b", "a"), ("a", "")):
        context.task(name, "Echo", service=f"<requires>{before}</requires>" if before else "")
    context.start("--transaction", TX)
    assert launches(context) == ["+a", "+b", "+c"]
    assert context.stop() == 0
    assert launches(context) == ["+a", "+b", "+c", "-c", "-b", "-a"]


def test_check_refuses_a_ring_with_its_line(context: Context) -> None:
    (context.home / "Services").mkdir(exist_ok=True)
    context.task("a", "Echo", service="<after>b</after>")
    context.task("b", "Echo", service="<requires>a</requires>")
    context.write()
    done = context.ctl("check", os.fspath(context.file), check=2)
    assert f"{context.file}:2: " in done.stderr + done.stdout
    assert "a after b after a" in done.stderr + done.stdout
