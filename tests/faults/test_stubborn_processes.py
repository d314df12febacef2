"""Tasks that are stopped (SIGSTOP), and processes that tasks leave behind and that ignore signals, with
control groups and without them.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from context import Context
from waiting import stop_process, wait_for, wait_for_end

DEAF = 'trap "" TERM HUP INT; echo $$ > {file}; while :; do sleep 1000; done'

CHILDREN = {
    "own group": "subprocess.Popen(['sh', '-c', {deaf!r}], process_group=0)",
    "own session": "subprocess.Popen(['sh', '-c', {deaf!r}], start_new_session=True)",
    "double fork": "subprocess.Popen(['sh', '-c', 'setsid sh -c \"$0\" & exit', {deaf!r}]).wait()",
    "stopped": "os.kill(subprocess.Popen(['sh', '-c', {deaf!r}], start_new_session=True).pid, 0)",
}


def leaves(context: Context, child: str) -> Path:
    """Add a service `Parent` that leaves such a child behind. Return the file to which the child writes its
    PID.
    """
    file = context.home / "child"
    code = child.format(deaf=DEAF.format(file=file))
    context.looped(
        "Parent",
        f"""
        def setup(self):
            import os, subprocess
            {code}
            while not (os.path.exists("{file}") and open("{file}").read().endswith("\\n")):
                self.wait(0.005)
        """,
    )
    return file


def test_a_stopped_task_is_stopped_by_order_in_time_and_proven_gone(either: Context) -> None:
    either.looped("Echo")
    either.task("ts_1", "Echo", service="<stop_timeout>300ms</stop_timeout>")
    either.task("ts_2", "Echo")
    either.start("--transaction", "T")
    tasks = either.tasks()
    stop_process(tasks["ts_1"]["pid"])
    answer = either.ask(verb="stop", tasks=["ts_1"])
    assert answer["ok"], answer
    assert not Path(f"/proc/{tasks['ts_1']['pid']}").exists()
    end = either.tasks()["ts_1"]["exit"]
    assert (end["signal"], end["reason"]) == ("SIGKILL", "requested")
    assert either.tasks()["ts_2"]["pid"] == tasks["ts_2"]["pid"]
    if either.wrapper:
        # Nothing is left in its control group, which is the proof. The keeper removes the group when the supervisor
        # has saved the end, perhaps after the answer.
        wait_for(lambda: not Path(tasks["ts_1"]["cgroup"]).exists())


def test_a_stopped_task_misses_its_watchdog_and_its_rule_fires(either: Context) -> None:
    either.looped("Echo")
    either.task(
        "ts_1",
        "Echo",
        service="<watchdog>3s</watchdog><stop_timeout>200ms</stop_timeout>",
        rules={"on_fail": ("restart", "ts_1")},
    )
    either.start("--transaction", "T")
    pid = either.tasks()["ts_1"]["pid"]
    stop_process(pid)
    task = either.task_is("ts_1", "running", also=lambda task: task["pid"] != pid)
    assert (task["exit"]["reason"], task["exit"]["signal"], task["restarts"]) == ("watchdog", "SIGKILL", 1)
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("kind", CHILDREN)
def test_a_hidden_process_that_ignores_sigterm_is_killed_with_its_task(either: Context, kind: str) -> None:
    file = leaves(either, CHILDREN[kind])
    either.task("ts_1", "Parent", service="<stop_timeout>2s</stop_timeout>")
    either.start("--transaction", "T")
    child = int(file.read_text())
    if kind == "stopped":
        stop_process(child)
    answer = either.ask(verb="stop", tasks=["ts_1"])
    assert answer["ok"], answer
    assert not Path(f"/proc/{child}").exists(), "the answer comes when nothing is left"
    ended = {entry["pid"]: entry for entry in answer["data"]["ended"]}
    assert ended[child] == {
        "task": "ts_1",
        "pid": child,
        "name": "sh",
        "code": None,
        "signal": "SIGKILL",
        "asked": "SIGTERM",
        "killed": True,
    }
    assert either.tasks()["ts_1"]["exit"]["code"] == 0, "the task itself ended well"


@pytest.mark.parametrize("kind", CHILDREN)
def test_leftovers_of_a_killed_task_end_before_its_rule_starts_another(either: Context, kind: str) -> None:
    file = leaves(either, CHILDREN[kind])
    either.task(
        "ts_1", "Parent", service="<stop_timeout>300ms</stop_timeout>", rules={"on_fail": ("restart", "ts_1")}
    )
    either.start("--transaction", "T")
    child = int(file.read_text())
    pid = either.tasks()["ts_1"]["pid"]
    file.unlink()
    os.kill(pid, signal.SIGKILL)
    wait_for_end(child)
    either.task_is("ts_1", "running", also=lambda task: task["pid"] != pid)
    assert int(file.read_text()) != child


def test_processes_killed_with_their_task_are_named(either: Context) -> None:
    file = leaves(either, CHILDREN["own session"])
    code = either.home / "Services" / "Parent" / "ServiceParent.py"
    deaf = "import os, signal, subprocess\n        signal.signal(15, signal.SIG_IGN)"
    code.write_text(code.read_text().replace("import os, subprocess", deaf))
    either.task("ts_1", "Parent", service="<stop_timeout>200ms</stop_timeout>")
    either.start("--transaction", "T")
    child = int(file.read_text())
    answer = either.ask(verb="stop", tasks=["ts_1"])
    assert answer["ok"], answer
    assert child in [entry["pid"] for entry in answer["data"]["ended"]]
    assert either.tasks()["ts_1"]["exit"]["signal"] == "SIGKILL"


FORKED = """
def setup(self):
    import os, signal
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with open("{file}", "w") as file:
            file.write(f"{{os.getpid()}}\\n")
        while True:
            signal.pause()
    while not (os.path.exists("{file}") and open("{file}").read().endswith("\\n")):
        self.wait(0.005)
"""
"""This program executes nothing, so its environment is in memory that it has from the daemon."""


def test_forked_children_are_killed_with_their_task(either: Context) -> None:
    file = either.home / "child"
    either.looped("Parent", FORKED.format(file=file))
    either.task(
        "ts_1", "Parent", service="<stop_timeout>300ms</stop_timeout>", rules={"on_fail": ("restart", "ts_1")}
    )
    either.start("--transaction", "T")
    children = [int(file.read_text())]
    pid = either.tasks()["ts_1"]["pid"]
    file.unlink()
    os.kill(pid, signal.SIGKILL)
    wait_for_end(children[0])
    either.task_is("ts_1", "running", also=lambda task: task["pid"] != pid)
    children.append(int(file.read_text()))
    answer = either.ask(verb="stop", tasks=["ts_1"])
    assert answer["ok"], answer
    assert [(entry["pid"], entry["signal"]) for entry in answer["data"]["ended"]] == [
        (children[1], "SIGKILL")
    ]
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def test_forked_children_are_found_by_the_next_keeper(context: Context) -> None:
    file = context.home / "child"
    context.looped("Parent", FORKED.format(file=file))
    context.task("ts_1", "Parent")
    context.start("--transaction", "T")
    child, supervisor = int(file.read_text()), context.status()["pid"]
    stop_process(supervisor)
    assert context.daemon is not None
    context.daemon.kill()
    context.wait()
    os.kill(supervisor, signal.SIGKILL)
    file.unlink()
    context.start()
    wait_for_end(child)
    assert context.task_is("ts_1", "running", "T")


def test_a_daemon_with_a_wiped_environment_is_found(either: Context) -> None:
    """The process is double-forked, in its own session, and has an empty environment. Its control group, or a
    limit that it has inherited, shows its task.
    """
    file = leaves(
        either, "subprocess.Popen(['sh', '-c', 'env -i setsid sh -c \"$0\" & exit', {deaf!r}]).wait()"
    )
    either.task("ts_1", "Parent")
    either.start("--transaction", "T")
    child = int(file.read_text())
    assert either.ask(verb="stop", tasks=["ts_1"])["ok"]
    assert not Path(f"/proc/{child}").exists()
    assert either.stop() == 0
