"""serviceType="Thread": tasks of a transaction share a process, and one can fail without the others."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from context import Context, Subscriber
from waiting import stop_process, wait_for, wait_for_end

TX = "6FDAHH3WPRVV7FGZCRIN"


def threads(context: Context, *names: str, **settings: Any) -> None:
    """Add a Thread task for each service, with the IDs ts_0, ts_1, ..."""
    for number, name in enumerate(names):
        context.task(f"ts_{number}", name, kind="Thread", **settings)


def pid_of(context: Context, task: str, transaction: str | None = None) -> int:
    return int(context.task_is(task, "running", transaction)["pid"])


def test_thread_tasks_share_one_process_and_have_a_thread_each(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    body = (
        "def step(self):\n    self.update(me=self.service_id, "
        "thread=__import__('threading').current_thread().name)"
    )
    context.looped("One", body)
    context.looped("Two", body)
    threads(context, "One", "Two", "One")
    context.task("ts_3", "Two")
    context.start("--no-autostart")
    stranger = subscriber(b"control @@@ ")
    context.ctl("start", "--transaction", TX)
    tasks = context.tasks(TX)
    pids = [tasks[f"ts_{number}"]["pid"] for number in range(4)]
    assert len(set(pids[:3])) == 1, "one process for the three"
    assert pids[3] != pids[0], "and another for the Process"
    fields = Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()
    assert int(fields[3]) == pids[0], "it leads a session of its own"
    assert os.readlink(f"/proc/{pids[0]}/cwd") == "/"
    told = {}
    while len(told) < 3:
        body = stranger.until(
            lambda _topic, body: (
                body["header"]["action"] == "updated" and body["header"]["service_id"] != "ts_3"
            )
        )
        status = body["content"]["status"]
        assert (status["me"], status["pid"]) == (body["header"]["service_id"], pids[0])
        told[status["me"]] = status["thread"]
    assert len(set(told.values())) == 3
    context.close()
    wait_for_end(pids[0])


def test_thread_tasks_of_another_transaction_have_another_process(context: Context) -> None:
    context.looped("Echo")
    threads(context, "Echo", "Echo")
    context.start("--transaction", TX)
    context.ctl("start", "--transaction", "SECOND")
    first = {task["pid"] for task in context.tasks(TX).values()}
    second = {task["pid"] for task in context.tasks("SECOND").values()}
    assert (len(first), len(second)) == (1, 1)
    assert first != second
    context.ctl("stop", "--transaction", "SECOND")
    assert not Path(f"/proc/{second.pop()}").exists()
    assert {task["pid"] for task in context.tasks(TX).values()} == first


def test_a_thread_task_fails_alone_and_restarts_in_the_same_process(
    context: Context, home: Path, subscriber: Callable[..., Subscriber]
) -> None:
    context.looped("Echo")
    context.looped(
        "Frail",
        f"""
        interval = 0.01
        def step(self):
            if __import__("os").path.exists("{home}/break"):
                __import__("os").unlink("{home}/break")
                raise RuntimeError("out of paper")
        """,
    )
    context.task("ts_0", "Echo", kind="Thread")
    context.task("ts_1", "Frail", kind="Thread", rules={"on_fail": ("restart", "ts_1")})
    context.start("--transaction", TX)
    stranger = subscriber(b"control @@@ ")
    pid = pid_of(context, "ts_0")
    (home / "break").touch()
    failed = stranger.control("failed", "ts_1")["content"]["status"]
    assert (failed["reason"], failed["exit_code"], failed["pid"]) == ("exit-code", 1, pid)
    assert "out of paper" in failed["message"]
    assert stranger.control("started", "ts_1")["content"]["status"]["pid"] == pid
    assert context.tasks()["ts_1"]["restarts"] == 1
    assert context.tasks()["ts_0"]["restarts"] == 0
    assert not [body for _, body in stranger.heard if body["header"]["service_id"] == "ts_0"]


def test_a_thread_task_is_stopped_and_started_while_the_others_run(context: Context, home: Path) -> None:
    context.looped("Echo", f"def close(self):\n    open('{home}/closed.' + self.service_id, 'w')")
    threads(context, "Echo", "Echo")
    context.start("--transaction", TX)
    pid = pid_of(context, "ts_0")
    context.ctl("stop", "--task", "ts_1")
    task = context.tasks()["ts_1"]
    assert (task["sub"], task["exit"]["code"], task["exit"]["reason"]) == ("stopped", 0, "requested")
    assert (home / "closed.ts_1").exists()
    assert not (home / "closed.ts_0").exists()
    context.ctl("start", "--transaction", TX, "--task", "ts_1")
    context.ctl("restart", "--task", "ts_1")
    assert pid_of(context, "ts_1") == pid_of(context, "ts_0") == pid


def test_a_thread_task_that_returns_has_exited_and_its_rules_fire(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    context.looped("Echo")
    context.service(
        "Once",
        """
        from zmsvc.task import SingleTask, TaskService
        class Work(SingleTask):
            def run(self):
                self.update(done=1)
        class ServiceOnce(TaskService):
            task_class = Work
        """,
    )
    context.task("ts_0", "Echo", kind="Thread")
    context.task("ts_1", "Once", kind="Thread", entry=False, rules={"on_exit": ("start", "ts_2")})
    context.task("ts_2", "Echo", kind="Thread", entry=False)
    context.start("--transaction", TX)
    stranger = subscriber(b"control @@@ ")
    context.ask(verb="start", transaction=TX, tasks=["ts_1"])
    assert stranger.control("updated", "ts_1")["content"]["status"]["done"] == 1
    assert stranger.control("stopped", "ts_1")["content"]["status"]["reason"] == "exited"
    assert pid_of(context, "ts_2") == pid_of(context, "ts_0")


def test_a_crash_ends_all_thread_tasks_with_its_status_and_they_restart_together(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    context.looped("Echo")
    for number in range(3):
        context.task(f"ts_{number}", "Echo", kind="Thread", rules={"on_fail": ("restart", f"ts_{number}")})
    context.start("--transaction", TX)
    stranger = subscriber(b"control @@@ ")
    pid = pid_of(context, "ts_0")
    os.kill(pid, signal.SIGSEGV)
    failed = [stranger.until(lambda _topic, body: body["header"]["action"] == "failed") for _ in range(3)]
    assert {body["header"]["service_id"] for body in failed} == {"ts_0", "ts_1", "ts_2"}
    assert {body["content"]["status"]["signal"] for body in failed} == {"SIGSEGV"}
    pids = {
        context.task_is(f"ts_{number}", "running", also=lambda task: task["pid"] != pid)["pid"]
        for number in range(3)
    }
    assert len(pids) == 1


def test_a_thread_task_that_calls_os_exit_ends_all_with_its_status(context: Context, home: Path) -> None:
    context.looped("Echo")
    context.looped(
        "Rude",
        f"interval = 0.01\ndef step(self):\n    if __import__('os').path.exists('{home}/go'):\n        "
        f"__import__('os')._exit(7)",
    )
    threads(context, "Echo", "Rude")
    context.start("--transaction", TX)
    (home / "go").touch()
    for task in ("ts_0", "ts_1"):
        end = context.task_is(task, "failed")["exit"]
        assert (end["code"], end["reason"]) == (7, "exit-code")


def test_a_thread_task_that_does_not_stop_ends_the_process(context: Context) -> None:
    context.looped("Echo")
    context.looped("Deaf", "def step(self):\n    while True:\n        __import__('time').sleep(1)")
    context.task("ts_0", "Echo", kind="Thread")
    context.task("ts_1", "Deaf", kind="Thread", service="<stop_timeout>200ms</stop_timeout>")
    context.start("--transaction", TX)
    context.ctl("stop", "--task", "ts_1")
    stopped = context.tasks()["ts_1"]
    assert (stopped["sub"], stopped["exit"]["signal"]) == ("stopped", "SIGKILL")
    other = context.task_is("ts_0", "failed")["exit"]
    assert (other["reason"], other["signal"]) == ("signal", "SIGKILL")


def test_a_hung_thread_task_misses_its_watchdog_and_ends_the_process(
    context: Context, home: Path, subscriber: Callable[..., Subscriber]
) -> None:
    context.looped("Echo")
    context.looped(
        "Hung",
        f"""
        interval = 0.01
        def step(self):
            if __import__("os").path.exists("{home}/hang"):
                __import__("os").unlink("{home}/hang")
                __import__("time").sleep(1000)
        """,
    )
    # If the machine stands still, a healthy task with 3 s misses its watchdog, too.
    for task, service_name, watchdog in (("ts_0", "Echo", "1min"), ("ts_1", "Hung", "3s")):
        context.task(
            task,
            service_name,
            kind="Thread",
            service=f"<watchdog>{watchdog}</watchdog>",
            rules={"on_fail": ("restart", task)},
        )
    context.start("--transaction", TX)
    stranger = subscriber(b"control @@@ ")
    pid = pid_of(context, "ts_0")
    (home / "hang").touch()
    failed = {}
    while len(failed) < 2:
        body = stranger.until(lambda _topic, body: body["header"]["action"] == "failed")
        failed[body["header"]["service_id"]] = body["content"]["status"]
    # A thread cannot be ended from outside, so the process is killed. The answer says which task was at
    # fault, and that the other one ended with it.
    assert (failed["ts_1"]["reason"], failed["ts_1"]["message"]) == ("watchdog", "missed its watchdog")
    assert (failed["ts_0"]["reason"], failed["ts_0"]["signal"], failed["ts_0"]["pid"]) == (
        "signal",
        "SIGABRT",
        pid,
    )
    back = {
        context.task_is(name, "running", also=lambda task: task["pid"] != pid)["pid"]
        for name in ("ts_0", "ts_1")
    }
    assert len(back) == 1, "they are back together"


def test_a_new_supervisor_adopts_thread_tasks_and_learns_of_missed_exits(
    context: Context, home: Path
) -> None:
    context.looped(
        "Echo",
        f"""
        interval = 0.01
        def step(self):
            if __import__("os").path.exists("{home}/end." + self.service_id):
                raise SystemExit(42)
        """,
    )
    threads(context, "Echo", "Echo", "Echo")
    context.start("--transaction", TX)
    pid = pid_of(context, "ts_0")
    supervisor = context.status()["pid"]
    stop_process(supervisor)
    before = len(os.listdir(f"/proc/{pid}/task"))
    (home / "end.ts_1").touch()
    wait_for(lambda: len(os.listdir(f"/proc/{pid}/task")) == before - 1)
    os.kill(supervisor, signal.SIGKILL)
    end = context.task_is("ts_1", "failed")["exit"]
    assert (end["code"], end["reason"]) == (42, "exit-code")
    assert pid_of(context, "ts_0") == pid_of(context, "ts_2") == pid
    assert context.tasks()["ts_0"]["restarts"] == 0
    context.ctl("stop", "--task", "ts_2")
    (home / "end.ts_0").touch()
    assert context.task_is("ts_0", "failed")["exit"]["code"] == 42
    assert not Path(f"/proc/{pid}").exists(), "with the last of them the process has ended"


def test_leftover_processes_end_with_the_last_thread_task(context: Context) -> None:
    context.looped(
        "Parent", "def setup(self):\n    self.child = __import__('subprocess').Popen(['sleep', '1000'])"
    )
    context.looped("Echo")
    threads(context, "Parent", "Echo")
    context.start("--transaction", TX)
    pid = pid_of(context, "ts_0")
    (child,) = [
        int(word)
        for each in Path(f"/proc/{pid}/task").iterdir()
        for word in (each / "children").read_text().split()
    ]
    context.ctl("stop", "--task", "ts_0")
    context.ctl("stop", "--transaction", TX)
    assert not Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{child}").exists()


def test_a_thread_task_that_cannot_start_says_why_and_the_others_run(context: Context) -> None:
    context.looped("Echo")
    context.service("Unimportable", "import does_not_exist")
    context.task("ts_0", "Echo", kind="Thread")
    context.task("ts_1", "Unimportable", kind="Thread", entry=False)
    context.start("--transaction", TX)
    pid = pid_of(context, "ts_0")
    answer = context.ctl("start", "--transaction", TX, "--task", "ts_1", check=1)
    assert "does_not_exist" in answer.stderr
    assert pid_of(context, "ts_0") == pid


def test_each_thread_task_has_its_own_log_fields(context: Context) -> None:
    context.looped(
        "Talk",
        "def setup(self):\n    print('printed by', self.service_id)\n    self.log.info('logged by %s', "
        "self.service_id)",
    )
    threads(context, "Talk", "Talk")
    context.start("--transaction", TX)
    for task in ("ts_0", "ts_1"):
        for verb in ("printed", "logged"):
            # The output process writes the log, perhaps after READY=1.
            lines = wait_for(lambda text=f"{verb} by {task}": lines_with(context, text))  # type: ignore[misc]
            assert [f" {TX}/{task} " in line for line in lines] == [True]


def lines_with(context: Context, text: str) -> list[str]:
    return [line for line in context.log.read_text().splitlines() if text in line]


def test_many_starts_and_stops_leave_the_process_as_it_was(context: Context) -> None:
    context.looped("Echo")
    threads(context, "Echo", "Echo")
    context.start("--transaction", TX)
    pid = pid_of(context, "ts_0")
    context.ctl("restart", "--task", "ts_1")

    def counts() -> list[int]:
        return [len(os.listdir(f"/proc/{pid}/{kind}")) for kind in ("fd", "task")]

    before = counts()
    for _ in range(20):
        assert context.ask(verb="restart", transaction=TX, tasks=["ts_1"])["ok"]
    # The thread of a task that has ended may be there for a moment longer, now or when they were counted first.
    wait_for(lambda: all(now <= then for now, then in zip(counts(), before, strict=True)))


def test_unmarked_messages_of_a_shared_process_do_not_block_the_supervisor(context: Context) -> None:
    context.looped(
        "Loud",
        """
        interval = 0.01
        def step(self):
            import os, socket
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                for word in (b"STATUS=mine", b"X_ZMSVC_TASK=ts_9\\nREADY=1"):
                    sock.sendto(word, os.environ["NOTIFY_SOCKET"])
        """,
    )
    context.looped("Echo")
    context.task("ts_0", "Loud", kind="Thread")
    context.task("ts_1", "Echo", kind="Thread")
    context.start("--transaction", TX)
    wait_for(lambda: context.status()["dropped"]["notifications"] > 100)
    assert context.tasks()["ts_1"]["sub"] == "running"
