"""Limits of updates: each excess is answered, and the supervisor goes on answering."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from context import Context, Subscriber
from waiting import stop_process, wait_for

SINGLE = """
from zmsvc.task import SingleTask, TaskService
class Work(SingleTask):
    def run(self):
{body}
class Service{name}(TaskService):
    task_class = Work
"""


def single(context: Context, name: str, *lines: str) -> None:
    context.service(name, SINGLE.format(name=name, body="\n".join(f"        {line}" for line in lines)))


def test_an_item_that_is_not_json_is_a_clear_error_to_the_task(context: Context) -> None:
    single(context, "Odd", "self.update(fine=1, bad=object())")
    context.task("ts_1", "Odd", entry=False)
    context.start("--transaction", "T")
    context.ask(verb="start", transaction="T", tasks=["ts_1"])
    assert "cannot update: bad is not JSON" in context.task_is("ts_1", "failed")["status"]


def test_a_megabyte_arrives_and_more_is_a_clear_error(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    single(context, "Huge", "self.update(text='x' * 1_000_000)", "self.update(text='x' * 1_100_000)")
    context.task("ts_1", "Huge", entry=False)
    context.start("--transaction", "T")
    listener = subscriber(b"control @@@ ")
    context.ask(verb="start", transaction="T", tasks=["ts_1"])
    assert len(listener.control("updated", "ts_1")["content"]["status"]["text"]) == 1_000_000
    assert "1048576" in context.task_is("ts_1", "failed")["status"]


def test_thousands_of_updates_all_arrive_as_they_were_reported(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    single(context, "Many", "for n in range(5000):", "    assert self.update(n=n)")
    context.task("ts_1", "Many", entry=False)
    context.start("--transaction", "T")
    listener = subscriber(b"control @@@ ")
    context.ask(verb="start", transaction="T", tasks=["ts_1"])
    heard = []
    while len(heard) < 5000:
        _, body = listener.next()
        heard += [body["content"]["status"]["n"]] if body["header"]["action"] == "updated" else []
        listener.heard.clear()  # otherwise each check of the growing list would take longer
    assert heard == list(range(5000))
    assert context.status()["dropped"]["updates"] == 0


@pytest.mark.parametrize("result", ["failed", "success", "failure", "partly"])
def test_the_result_that_a_task_reports_is_published_as_such(
    context: Context, subscriber: Callable[..., Subscriber], result: str
) -> None:
    single(context, "Told", f"self.update(result={result!r}, n=2)", "self.update(n=3)")
    context.task("ts_1", "Told", entry=False, rules={"on_update": ("start", "ts_2")})
    context.looped("Echo")
    context.task("ts_2", "Echo", entry=False)
    context.start("--transaction", "T")
    listener = subscriber(b"control @@@ ")
    context.ask(verb="start", transaction="T", tasks=["ts_1"])
    first, second = (listener.control("updated", "ts_1")["content"]["status"] for _ in range(2))
    assert (first["result"], first["n"], first["device_action"]) == (result, 2, "act")
    assert (second["result"], second["n"]) == ("success", 3)
    assert context.task_is("ts_2", "running")["cause"]["sources"][0]["update"] == {"result": result, "n": 2}


def prefer(pid: int) -> None:
    """Give each thread of a process the CPU before others, as far as the user of the test may. On a busy machine
    the two processes would wait for each other's turn too long for 1,000 updates a second.
    """
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.sched_setscheduler(int(thread), os.SCHED_RR, os.sched_param(1))


def test_an_update_flood_is_limited_counted_and_leaves_the_supervisor_responsive(
    context: Context, home: Path
) -> None:
    # Send without the SDK, which would wait. Any program may do so.
    imported = "from zmsvc.host.systemd.notify import Notifier"
    flood = (imported, "n, told = 0, Notifier()", "while not self.wait(0):", "    for _ in range(100):")
    single(
        context,
        "Flood",
        *flood,
        "        n += 1",
        "        told.notify(f'X_ZMSVC_SEQ={n}', 'X_ZMSVC_UPDATE={}')",
    )
    context.task("ts_1", "Flood")
    context.start("--transaction", "T")
    prefer(context.status()["pid"])
    prefer(context.tasks()["ts_1"]["pid"])
    context.task_is("ts_1", "running", also=lambda task: task["dropped"] > 0)
    dropped = []
    for _ in range(30):
        # The supervisor answers during the flood, and not only when it is over.
        dropped.append(context.status()["dropped"]["updates"])
    context.task_is("ts_1", "running", also=lambda task: task["dropped"] > dropped[-1])
    context.ctl("stop", "--transaction", "T")
    assert context.status()["dropped"]["updates"] > 0


def test_the_last_updates_of_a_task_are_processed_before_its_exit(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    single(context, "Words", "for n in range(30):", "    self.update(n=n)")
    context.task("ts_1", "Words", entry=False)
    context.start("--transaction", "T")
    listener = subscriber(b"control @@@ ")
    context.ask(verb="start", transaction="T", tasks=["ts_1"])
    numbers = []
    while True:
        _, body = listener.next()
        match body["header"]["action"]:
            case "updated":
                numbers.append(body["content"]["status"]["n"])
            case "stopped":
                break
    assert numbers == list(range(30))


def test_updates_while_no_supervisor_is_there_are_delivered_once(
    context: Context, subscriber: Callable[..., Subscriber], home: Path
) -> None:
    single(
        context,
        "Count",
        "n = 0",
        f"while not __import__('os').path.exists('{home}/enough'):",
        "    n += 1",
        "    self.update(n=n)",
        "    self.wait(0.002)",
        "self.update(last=n)",
    )
    context.task("ts_1", "Count", entry=False, rules={"on_update": ("start", "ts_2")})
    context.looped("Echo")
    context.task("ts_2", "Echo", entry=False)
    context.start("--transaction", "T")
    context.ask(verb="start", transaction="T", tasks=["ts_1"])
    for _ in range(3):
        context.kill_supervisor()
        context.status()
    (home / "enough").touch()
    context.task_is("ts_1", "exited")
    rows = [json.loads(line) for line in context.ctl("--json", "events").stdout.splitlines()]
    assert sum(row["event"] == "launching" and row["task"] == "ts_2" for row in rows) == 1
    assert context.tasks()["ts_2"]["cause"]["sources"][0]["update"] is not None
    assert context.tasks()["ts_1"]["action"] == "stopped"


@pytest.mark.parametrize(
    "datagram",
    [
        "'EXTEND_TIMEOUT_USEC=' + '9' * 400",
        "'X_ZMSVC_SEQ=1\\nX_ZMSVC_UPDATE=' + '{\"a\":' * 5000 + '1' + '}' * 5000",
        "'X_ZMSVC_SEQ=1\\nX_ZMSVC_UPDATE={\"a\":NaN}'",
        "'X_ZMSVC_SEQ=x\\nX_ZMSVC_UPDATE={}'",
        "'X_ZMSVC_UPDATE=[1]'",
    ],
)
def test_other_messages_are_processed_in_spite_of_a_hostile_datagram(
    context: Context, home: Path, datagram: str
) -> None:
    """The supervisor refuses and counts the datagram, processes the other messages of this task and of its
    neighbor as before, and does not crash.
    """
    send = f"s.sendto(({datagram}).encode(), os.environ['NOTIFY_SOCKET'])"
    context.looped(
        "Evil",
        f"def setup(self):\n    import os, socket\n    s = socket.socket(socket.AF_UNIX, "
        f"socket.SOCK_DGRAM)\n    {send}",
    )
    context.looped("Echo")
    context.task("ts_1", "Evil")
    context.task("ts_2", "Echo")
    context.start("--transaction", "T")
    assert {task["sub"] for task in context.tasks().values()} == {"running"}
    status = context.status()
    assert status["restarts"] == 0
    assert status["dropped"]["notifications"] == 1
    context.kill_supervisor()
    assert {task["sub"] for task in context.tasks().values()} == {"running"}
    assert context.status()["restarts"] == 1


def test_updates_and_exit_of_a_task_without_a_supervisor_are_processed_later(
    context: Context, home: Path
) -> None:
    context.service(
        "Shot",
        f"""
        import os
        from zmsvc.task import SingleTask, TaskService
        class Work(SingleTask):
            def setup(self):
                while not os.path.exists("{home}/go"):
                    self.wait(0.01)
            def run(self):
                self.update(last="words")
        class ServiceShot(TaskService):
            task_class = Work
        """,
    )
    context.looped("Echo")
    context.task("ts_1", "Shot", entry=False, rules={"on_update": ("start", "ts_2")})
    context.task("ts_2", "Echo", entry=False)
    context.start("--transaction", "T")
    context.ask(verb="start", transaction="T", tasks=["ts_1"], block=False)
    pid, supervisor = context.task_is("ts_1", "start")["pid"], context.status()["pid"]
    stop_process(supervisor)
    (home / "go").touch()
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    os.kill(supervisor, signal.SIGKILL)
    assert context.task_is("ts_1", "exited")["exit"]["code"] == 0
    assert context.task_is("ts_2", "running")["cause"]["sources"][0]["update"] == {"last": "words"}
