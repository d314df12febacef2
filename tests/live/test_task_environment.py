"""`<environment>` of a task in Python has its effect, or `check` says that it has none. The task ends as an
interpreter does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from context import Context, Subscriber
from waiting import wait_for

TX = "5HGAHZ3WPZUI71PACRPP"
TOLD = """
import os, sys, time
from zmsvc.task import SingleTask, TaskService

class Work(SingleTask):
    def run(self):
        import only_there
        flags = {"hash": sys.flags.hash_randomization, "warn": sys.warnoptions}
        self.update(zone=time.strftime("%Z"), found=only_there.NAME, pid_=os.getpid(), **flags)
        self.wait()

class ServiceTold(TaskService):
    task_class = Work
"""
ENVIRONMENT = "<environment><TZ>Asia/Tokyo</TZ><PYTHONPATH>{home}/extra</PYTHONPATH>{more}</environment>"


@pytest.fixture
def extra(home: Path) -> Path:
    (home / "extra").mkdir()
    (home / "extra/only_there.py").write_text("NAME = 'there'\n")
    return home / "extra"


@pytest.mark.parametrize("kind", ["Process", "Thread"])
def test_time_zone_and_python_path_of_a_task_have_their_effect(
    context: Context, home: Path, extra: Path, subscriber: Callable[..., Subscriber], kind: str
) -> None:
    context.service("Told", TOLD)
    context.task("ts_1", "Told", entry=False, kind=kind, service=ENVIRONMENT.format(home=home, more=""))
    context.start("--transaction", TX)
    listener = subscriber(b"control @@@ ")
    context.ctl("start", "--transaction", TX, "--task", "ts_1")
    status = listener.control("updated", "ts_1")["content"]["status"]
    assert (status["zone"], status["found"]) == ("JST", "there")
    assert "does not affect a forked task" not in context.ctl("check", str(context.file)).stdout


def test_settings_that_need_a_new_interpreter_are_warned_about_and_work_with_fresh(
    context: Context, home: Path, extra: Path, subscriber: Callable[..., Subscriber]
) -> None:
    more = "<PYTHONHASHSEED>0</PYTHONHASHSEED><PYTHONWARNINGS>error</PYTHONWARNINGS>"
    context.service("Told", TOLD)
    context.task("ts_1", "Told", entry=False, service=ENVIRONMENT.format(home=home, more=more))
    context.task(
        "ts_2", "Told", entry=False, service=ENVIRONMENT.format(home=home, more=more) + "<fresh>yes</fresh>"
    )
    context.start("--transaction", TX)
    checked = context.ctl("check", str(context.file)).stdout
    for name in ("PYTHONHASHSEED", "PYTHONWARNINGS"):
        assert f"ts_1: its environment sets {name}, which a program reads only at its start" in checked
        assert f"ts_2: its environment sets {name}" not in checked
    assert "<fresh>yes</fresh>" in checked
    listener = subscriber(b"control @@@ ")
    context.ctl("start", "--transaction", TX, "--task", "ts_1", "--task", "ts_2")
    told = [listener.until(lambda _topic, body: body["header"]["action"] == "updated") for _ in range(2)]
    by_task = {body["header"]["service_id"]: body["content"]["status"] for body in told}
    assert (by_task["ts_1"]["hash"], by_task["ts_1"]["warn"]) == (1, [])
    assert (by_task["ts_2"]["hash"], by_task["ts_2"]["warn"]) == (0, ["error"])
    assert by_task["ts_2"]["zone"] == "JST"
    pid = context.tasks()["ts_2"]["pid"]
    assert by_task["ts_2"]["pid_"] == pid, "the keeper's child is the task, as ever"
    context.ctl("stop", "--task", "ts_2")
    stopped = listener.control("stopped", "ts_2")["content"]["status"]
    assert (stopped["reason"], stopped["pid"], stopped["exit_code"]) == ("requested", pid, 0)


THREADS = """
import atexit, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zmsvc.task import SingleTask, TaskService

POOL = ThreadPoolExecutor(1)

def told(text):
    with open({file!r}, "a") as file:
        file.write(text + "\\n")

class Work(SingleTask):
    def run(self):
        atexit.register(told, "atexit")
        gate = threading.Event()
        threading.Thread(target=lambda: (gate.wait(), told("thread"))).start()
        threading.Thread(target=lambda: (threading.Event().wait(), told("daemon")), daemon=True).start()
        for number in range(3):
            POOL.submit(lambda number=number: (gate.wait(), told(f"job {{number}}")))
        self.opener = threading.Thread(target=self.open_gate, args=(gate,))
        self.opener.start()
        told("returned")

    def open_gate(self, gate):
        while not Path({go!r}).exists():
            time.sleep(0.01)
        gate.set()

class ServiceThreads(TaskService):
    task_class = Work
"""


@pytest.mark.parametrize(
    ("kind", "fresh"), [("Process", ""), ("Process", "<fresh>yes</fresh>"), ("Thread", "")]
)
def test_threads_and_jobs_are_finished_at_the_end_before_atexit_as_in_an_interpreter(
    context: Context, home: Path, subscriber: Callable[..., Subscriber], kind: str, fresh: str
) -> None:
    context.service("Threads", THREADS.format(file=str(home / "told"), go=str(home / "go")))
    context.task("ts_1", "Threads", entry=False, service=fresh, kind=kind)
    context.start("--transaction", TX)
    listener = subscriber(b"control @@@ ")
    context.ctl("start", "--transaction", TX, "--task", "ts_1")
    pid = context.tasks()["ts_1"]["pid"]
    wait_for(lambda: (home / "told").exists() and (home / "told").read_text() == "returned\n")
    (home / "go").touch()
    stopped = listener.control("stopped", "ts_1")["content"]["status"]
    assert (stopped["reason"], stopped["exit_code"], stopped["pid"]) == ("exited", 0, pid)
    told = (home / "told").read_text().split("\n")[:-1]
    assert told[0] == "returned"
    assert sorted(told[1:-1]) == ["job 0", "job 1", "job 2", "thread"]
    assert told[-1] == "atexit"
    assert not os.path.exists(f"/proc/{pid}")


def test_what_a_thread_task_has_started_goes_on_while_another_shares_its_process(
    context: Context, home: Path
) -> None:
    """The task ends alone and at once. Its threads belong to the process and are joined when that ends."""
    context.service("Threads", THREADS.format(file=str(home / "told"), go=str(home / "go")))
    context.looped("Echo")
    context.task("ts_1", "Threads", kind="Thread")
    context.task("ts_2", "Echo", kind="Thread")
    context.start("--transaction", TX)
    context.task_is("ts_1", "exited")
    pid = context.tasks()["ts_2"]["pid"]
    (home / "go").touch()
    wait_for(lambda: {"thread", "job 2"} <= {*(home / "told").read_text().split("\n")})
    assert context.tasks()["ts_2"]["pid"] == pid
    context.ctl("stop", "--task", "ts_2")
    assert (home / "told").read_text().split("\n")[-2] == "atexit"
    assert not os.path.exists(f"/proc/{pid}")


def test_fresh_is_refused_where_there_is_no_process_of_its_own(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo", kind="Thread", service="<fresh>yes</fresh>")
    context.write()
    assert (
        "<fresh> is for a Process, expected none for a Thread"
        in context.ctl("check", str(context.file), check=2).stderr
    )
