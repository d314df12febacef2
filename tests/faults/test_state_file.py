"""The state file: full, damaged, of a newer version. Nothing is overwritten silently, and tasks can be
stopped in every case.
"""

from __future__ import annotations

import contextlib
import resource
import sqlite3
import subprocess

from context import Context, Subscriber
from waiting import wait_for, wait_for_end


def state_file(context: Context) -> str:
    return str(context.home / "state" / context.name / "state.db")


def test_a_task_can_be_stopped_on_a_full_disk(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.task("ts_2", "Echo")
    context.start("--transaction", "T")
    supervisor = context.status()["pid"]
    before = resource.prlimit(supervisor, resource.RLIMIT_FSIZE)
    resource.prlimit(supervisor, resource.RLIMIT_FSIZE, (1, before[1]))
    context.ctl("stop", "--task", "ts_1")
    status = context.status()
    assert "cannot save state" in status["unsaved"]
    assert context.tasks()["ts_1"]["sub"] == "stopped"
    assert "cannot save state" in context.ctl("status", check=None).stdout
    resource.prlimit(supervisor, resource.RLIMIT_FSIZE, before)
    wait_for(lambda: not context.status()["unsaved"])
    context.kill_supervisor()
    tasks = context.tasks()
    assert (tasks["ts_1"]["sub"], tasks["ts_2"]["sub"]) == ("stopped", "running")


def test_an_exit_that_could_not_be_saved_is_reported_again(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", "T")
    supervisor = context.status()["pid"]
    resource.prlimit(
        supervisor, resource.RLIMIT_FSIZE, (1, resource.prlimit(supervisor, resource.RLIMIT_FSIZE)[1])
    )
    pid = context.tasks()["ts_1"]["pid"]
    subprocess.run(["kill", "-SEGV", str(pid)], check=True)
    context.task_is("ts_1", "failed")
    context.kill_supervisor()
    assert context.task_is("ts_1", "failed")["exit"]["signal"] == "SIGSEGV"


def test_a_damaged_state_file_is_set_aside_and_reported(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", "T")
    assert context.stop() == 0
    with open(state_file(context), "r+b") as file:
        file.write(b"this is not a database" * 100)
    context.start()
    assert context.tasks()["ts_1"]["sub"] == "running"
    (aside,) = (context.home / "state" / context.name).glob("state.db.damaged-*")
    assert b"not a database" in aside.read_bytes()
    wait_for(lambda: str(aside) in context.log.read_text())


def test_a_truncated_file_is_set_aside(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", "T")
    assert context.stop() == 0
    with open(state_file(context), "r+b") as file:
        file.truncate(6000)
    context.start()
    assert context.tasks()["ts_1"]["sub"] == "running"
    assert list((context.home / "state" / context.name).glob("state.db.damaged-*"))


def test_a_state_file_damaged_under_a_running_context_leaves_no_unknown_process(context: Context) -> None:
    """Nothing says any more to which tasks the processes belong. They are ended, since otherwise they would
    run beside others of the same task.
    """
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", "T")
    running = context.tasks()["ts_1"]["pid"]
    supervisor = context.status()["pid"]
    # The write-ahead log has every changed page, so something is lost only if both files are damaged.
    for path in (state_file(context), state_file(context) + "-wal"):
        with open(path, "r+b") as file:
            file.write(b"this is not a database" * 100)
    context.kill_supervisor()
    assert context.status()["pid"] != supervisor
    wait_for_end(running)
    assert list((context.home / "state" / context.name).glob("state.db.damaged-*"))
    context.ctl("start", "--transaction", "U")
    assert context.tasks("U")["ts_1"]["sub"] == "running"


def test_a_newer_file_is_refused_and_left_as_it_is(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", "T")
    assert context.stop() == 0
    with contextlib.closing(sqlite3.connect(state_file(context), isolation_level=None)) as db:
        db.execute("PRAGMA user_version=99")
    context.start(ready=False)
    assert context.wait() == 1
    assert "schema 99" in context.log.read_text()
    with contextlib.closing(sqlite3.connect(state_file(context))) as db:
        assert db.execute("SELECT count(*) FROM transactions").fetchone() == (1,)


def test_the_shell_reads_it_while_the_daemon_runs(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", "T")
    with contextlib.closing(sqlite3.connect(f"file:{state_file(context)}?mode=ro", uri=True)) as db:
        assert db.execute("SELECT task, sub FROM tasks").fetchall() == [("ts_1", "running")]


def test_messages_of_tasks_are_processed_on_a_full_disk(context: Context) -> None:
    """Notifications do not wait for the disk. If tasks could not feed their watchdogs, healthy ones would be
    killed.
    """
    context.looped(
        "Echo", "interval = 0.01\nn = 0\ndef step(self):\n    self.n += 1\n    self.update(n=self.n)"
    )
    context.task("ts_1", "Echo", service="<watchdog>3s</watchdog>")
    context.looped("Still")
    context.task("ts_2", "Still")
    context.start("--transaction", "T")
    supervisor = context.status()["pid"]
    before = resource.prlimit(supervisor, resource.RLIMIT_FSIZE)
    resource.prlimit(supervisor, resource.RLIMIT_FSIZE, (1, before[1]))
    context.ctl("stop", "--task", "ts_2")
    assert context.status()["unsaved"]
    listener = Subscriber(context.subscribe_endpoint, context.publish_endpoint, b"control @@@ ")
    try:
        numbers = [listener.control("updated", "ts_1")["content"]["status"]["n"] for _ in range(300)]
    finally:
        listener.close()
    assert numbers == list(range(numbers[0], numbers[0] + 300))
    assert context.tasks()["ts_1"]["restarts"] == 0
    resource.prlimit(supervisor, resource.RLIMIT_FSIZE, before)
    wait_for(lambda: not context.status()["unsaved"])
