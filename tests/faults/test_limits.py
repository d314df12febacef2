"""Keeper, supervisor and shared processes get no more descriptors or processes. A refused order has the
reason, and everything else goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from context import Context, Subscriber
from groups import at_most
from waiting import PATIENCE, wait_for, wait_for_end, wait_until_it_sleeps


@pytest.fixture
def few(context: Context) -> Context:
    """A context with a task that runs and several that wait to be started."""
    context.looped("Echo", "interval = 0.05\ndef step(self):\n    self.update(alive=True)")
    context.looped(
        "Big",
        "def setup(self):\n    for number in range(3):\n        self.update(number=number, text='x' * "
        "200_000)",
    )
    context.task("steady", "Echo")
    context.task("process", "Echo", entry=False)
    context.task("program", "Sleep", kind="Command", entry=False, config="<command>sleep 1000</command>")
    context.task("thread", "Echo", kind="Thread", entry=False)
    context.task("big", "Big", entry=False)
    # Each start is a fork, which the tests let fail.
    context.start("--transaction", "T", ZMSVC_DISABLE="spare-tasks")
    return context


@contextlib.contextmanager
def no_more_files(pid: int, spare: int = 0) -> Iterator[None]:
    """Let this process open only `spare` more files. The limit is about the number of a descriptor, and the
    kernel gives the lowest free one.
    """
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    limit = [number for number in range(len(used) + spare + 1) if number not in used][spare]
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def refused(context: Context, task: str) -> str:
    """Order a start that cannot succeed. Return the reason in the answer."""
    answer = context.ask(verb="start", transaction="T", tasks=[task])
    assert not answer["ok"], answer
    told = context.task_is(task, "failed")
    assert told["exit"]["reason"] == "cannot-launch", told
    assert told["status"] in answer["error"], answer
    return str(told["status"])


def test_a_keeper_without_descriptors_reports_it_and_can_still_stop_and_kill(context: Context) -> None:
    """Each transaction with threads takes a descriptor of the keeper for its whole life. The last few are
    reserved for operations that must always work.
    """
    context.looped("Echo")
    context.task("thread", "Echo", kind="Thread")
    context.task("process", "Echo", entry=False, rules={"on_fail": ("restart", "process")})
    context.task("program", "Sleep", kind="Command", entry=False, config="<command>sleep 1000</command>")
    context.wrapper = ["sh", "-c", 'ulimit -n 48 && exec "$@"', "sh"]
    context.start("--transaction", "T0")
    opened = 1
    while (answer := context.ask(verb="start", transaction=f"T{opened}"))["ok"]:
        opened += 1
        assert opened < 48
    assert "too many open files" in answer["error"].lower(), answer
    failed = context.task_is("thread", "failed", f"T{opened}")
    assert (failed["exit"]["reason"], failed["status"]) == (
        "cannot-launch",
        "cannot fork: Too many open files",
    )
    answer = context.ask(verb="start", transaction="T0", tasks=["program"])
    assert "too many open files" in answer["error"].lower(), answer
    assert context.ask(verb="start", transaction="T0", tasks=["process"])["ok"], (
        "a plain process takes no descriptor"
    )
    pid = context.tasks("T0")["process"]["pid"]
    os.kill(pid, signal.SIGKILL)
    context.task_is("process", "running", "T0", also=lambda task: task["pid"] != pid)
    before = {name: context.tasks(name)["thread"]["pid"] for name in ("T0", "T1")}
    old = context.status()
    os.kill(old["device_pid"], signal.SIGKILL)
    context.kill_supervisor()
    assert {name: context.tasks(name)["thread"]["pid"] for name in ("T0", "T1")} == before
    wait_for(lambda: context.status()["device_pid"] not in (None, old["device_pid"]))
    assert context.ask(verb="stop", transaction="T1")["ok"]
    # There is room again when the shared process has ended, which is after its last thread.
    wait_for(lambda: context.ask(verb="start", transaction=f"T{opened}")["ok"])
    wait_for(lambda: set(context.children()) == alive(context))
    assert context.stop() == 0


def alive(context: Context) -> set[int]:
    """Return all processes that the supervisor knows."""
    status = context.status()
    tasks = {task["pid"] for each in status["transactions"] for task in each["tasks"] if task["pid"]}
    return tasks | {status["pid"], status["device_pid"], context.zygote(), context.output()}


def test_a_supervisor_without_descriptors_continues_and_accepts_clients_later(few: Context) -> None:
    status = few.status()
    path = str(few.runtime / few.name / "control.sock")
    subscriber = Subscriber(few.subscribe_endpoint, few.publish_endpoint, b"control @@@ ")
    with contextlib.ExitStack() as stack:
        stack.callback(subscriber.close)
        clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(60)]
        stack.enter_context(no_more_files(status["pid"], spare=8))
        for client in clients:
            client.connect(path)
        for _ in range(20):
            subscriber.control("updated", "steady")
        wait_until_it_sleeps(status["pid"])
        assert few.daemon is not None
        first = ask(clients[0], verb="stop", tasks=["steady"])
        assert first["ok"], "who is connected is served"
    assert few.status()["pid"] == status["pid"]
    assert few.tasks()["steady"]["sub"] == "stopped"


def ask(client: socket.socket, **request: object) -> dict[str, object]:
    client.settimeout(PATIENCE)
    client.sendall(json.dumps(request).encode() + b"\n")
    with client.makefile("rb") as answers:
        return json.loads(answers.readline())


def test_a_supervisor_without_descriptors_hears_large_updates(few: Context) -> None:
    """An update of 200 kB comes as a descriptor. The supervisor holds one descriptor in reserve for it, and
    reserves one again for the next update.
    """
    status = few.status()
    subscriber = Subscriber(few.subscribe_endpoint, few.publish_endpoint, b"control @@@ ")
    with contextlib.ExitStack() as stack:
        stack.callback(subscriber.close)
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.connect(str(few.runtime / few.name / "control.sock"))
        assert ask(client, verb="status")["ok"]
        stack.enter_context(no_more_files(status["pid"]))
        assert ask(client, verb="start", transaction="T", tasks=["big"])["ok"]
        for number in range(3):
            told = subscriber.control("updated", "big")["content"]["status"]
            assert (told["number"], len(told["text"])) == (number, 200_000)
        dropped = ask(client, verb="status")["data"]["dropped"]  # type: ignore[index]
    assert dropped["notifications"] == 0
    assert few.status()["pid"] == status["pid"]
    assert few.task_is("big", "running")


@pytest.mark.parametrize("task", ["process", "program", "thread"])
def test_a_keeper_that_cannot_fork_says_why(few: Context, task: str) -> None:
    status, tasks = few.status(), few.tasks()
    with at_most(1, few.zygote()):
        assert "resource temporarily unavailable" in refused(few, task).lower()
        few.ctl("stop", "--transaction", "T", "--task", "steady")
    few.ctl("start", "--transaction", "T", "--task", task)
    assert few.task_is(task, "running")["pid"] != tasks["steady"]["pid"]
    assert few.status()["pid"] == status["pid"]


def test_a_keeper_that_cannot_fork_starts_the_next_supervisor_and_device_when_it_can(few: Context) -> None:
    status, pid = few.status(), few.tasks()["steady"]["pid"]
    with at_most(1, status["keeper_pid"]):
        for name in ("pid", "device_pid"):
            os.kill(status[name], signal.SIGKILL)
            wait_for_end(status[name])
        wait_for(lambda: few.log.read_text().lower().count("resource temporarily unavailable") > 3)
        wait_until_it_sleeps(status["keeper_pid"])
        assert Path(f"/proc/{pid}").exists()
    assert few.status()["pid"] != status["pid"]
    assert few.task_is("steady", "running")["pid"] == pid
    wait_for(lambda: few.status()["device_pid"] not in (None, status["device_pid"]))


def test_a_shared_process_at_its_thread_limit_refuses_a_task_and_keeps_the_others(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo", kind="Thread")
    context.task("ts_2", "Echo", kind="Thread", entry=False)
    context.start("--transaction", "T")
    pid = context.tasks()["ts_1"]["pid"]
    threads = len(os.listdir(f"/proc/{pid}/task"))
    with at_most(threads, pid):
        answer = context.ask(verb="start", transaction="T", tasks=["ts_2"])
        assert not answer["ok"]
        assert context.task_is("ts_2", "failed")["exit"]["reason"] == "cannot-launch"
        assert context.tasks()["ts_1"]["pid"] == pid
    context.ctl("start", "--transaction", "T", "--task", "ts_2")
    assert context.task_is("ts_2", "running")["pid"] == pid
