"""A context runs its task services as real daemons, and publishes their changes on the bus."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from context import Context, Subscriber
from waiting import stop_process, wait_for, wait_for_end

TX = "6FDAHH3WPRVV7FGZCRIN"


def stat_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def test_a_start_is_published_and_its_pid_is_a_daemon(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    context.looped("Echo", "def step(self):\n    self.update(shout='hello')")
    context.task("ts_100", "Echo")
    context.start("--no-autostart")
    stranger = subscriber()
    out = context.ctl("start", "--transaction", TX).stdout
    assert TX in out or out == ""
    order = stranger.until(lambda topic, body: topic == "process")
    inner = order["Task"]["message"]["header"]
    assert inner == {"action": "start", "service_id": "ts_100", "service_name": "echo", "transaction": TX}
    started = stranger.control("started", "ts_100", TX)
    assert list(started["header"]) == ["service_transaction", "service_id", "action", "service_name"]
    status = started["content"]["status"]
    assert status["result"] == "success"
    assert status["device_action"] == "act"
    pid = status["pid"]
    fields = stat_of(pid)
    assert int(fields[3]) == pid, "it leads a session of its own"
    assert int(fields[4]) == 0, "it has no controlling terminal"
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert int(fields[1]) == context.status()["keeper_pid"] == context.daemon.pid
    updated = stranger.control("updated", "ts_100", TX)
    assert updated["content"]["status"]["shout"] == "hello"


def test_two_transactions_run_side_by_side(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_100", "Echo")
    context.start()
    context.ctl("start", "--transaction", TX)
    pids = {each["id"]: each["tasks"][0]["pid"] for each in context.status()["transactions"]}
    assert len(pids) == 2
    assert len(set(pids.values())) == 2
    context.ctl("stop", "--transaction", TX)
    after = {each["id"]: each for each in context.status()["transactions"]}
    assert after[TX]["state"] == "inactive"
    (other,) = [each for name, each in after.items() if name != TX]
    assert other["tasks"][0]["pid"] == pids[other["id"]]


def test_stop_ends_the_process_and_restart_gives_another(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    context.looped("Echo")
    context.task("ts_100", "Echo")
    context.start("--transaction", TX)
    stranger = subscriber(b"control @@@ ")
    first = context.tasks()["ts_100"]["pid"]
    context.ctl("restart", "--task", "ts_100")
    second = context.task_is("ts_100", "running")["pid"]
    assert second != first
    assert stranger.control("stopped", "ts_100")["content"]["status"]["reason"] == "requested"
    assert stranger.control("started", "ts_100")["content"]["status"]["pid"] == second
    context.ctl("stop", "--task", "ts_100")
    assert not Path(f"/proc/{second}").exists()
    assert context.tasks()["ts_100"]["exit"]["code"] == 0
    context.ctl("status", "ts_100", check=3)


def test_sigterm_stops_all_tasks_and_the_daemon_exits_with_0(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_100", "Echo")
    context.task("ts_101", "Echo")
    context.start()
    pids = [task["pid"] for task in context.tasks().values()]
    device = context.status()["device_pid"]
    assert context.stop() == 0
    context.wait_for_notification("STOPPING=1")
    for pid in [*pids, device]:
        assert not Path(f"/proc/{pid}").exists()
    assert not (context.runtime / "Live" / "control.sock").exists()


def test_exit_ends_the_daemon(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_100", "Echo")
    context.start()
    context.ctl("exit")
    assert context.wait() == 0
    context.ctl("status", check=3)
    context.ctl("stop", check=5)


def test_the_next_daemon_resumes_open_transactions(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_100", "Echo")
    context.start("--transaction", TX)
    context.ctl("start", "--transaction", "SECOND")
    context.ctl("stop", "--transaction", "SECOND")
    assert context.stop() == 0
    context.start()
    states = {each["id"]: each["state"] for each in context.status()["transactions"]}
    assert states == {TX: "active", "SECOND": "inactive"}


def test_a_second_daemon_of_the_same_context_is_refused(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_100", "Echo")
    context.start()
    first = context.daemon
    context.start(ready=False)
    assert context.wait() == 2
    assert "already running" in context.log.read_text()
    context.daemon = first
    assert context.tasks()["ts_100"]["sub"] == "running"


def test_a_task_that_ignores_sigterm_is_killed_in_time(context: Context) -> None:
    context.looped(
        "Deaf", "def setup(self):\n    import signal\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    )
    context.task("ts_100", "Deaf", service="<stop_timeout>200ms</stop_timeout>")
    context.start()
    context.ctl("stop", "--task", "ts_100")
    task = context.tasks()["ts_100"]
    assert task["sub"] == "stopped"
    assert task["exit"]["signal"] == "SIGKILL"


def test_leftover_processes_of_a_task_are_killed_and_named(context: Context, home: Path) -> None:
    body = f"""
    def setup(self):
        import subprocess
        child = subprocess.Popen(["sh", "-c", "trap '' TERM; echo $$ > {home}/new; mv {home}/new {home}/child; while :; do sleep 1000; done"])
        while not __import__("os").path.exists("{home}/child"):
            self.wait(0.01)
    """
    context.looped("Parent", body)
    # The main process has to end within this time, or the other one is asked for nothing before its end.
    context.task("ts_100", "Parent", service="<stop_timeout>3s</stop_timeout>")
    context.start()
    child = int((home / "child").read_text())
    answer = context.ask(verb="stop", tasks=["ts_100"])
    assert answer["ok"], answer
    told = {
        "task": "ts_100",
        "pid": child,
        "name": "sh",
        "code": None,
        "signal": "SIGKILL",
        "asked": "SIGTERM",
        "killed": True,
    }
    assert told in answer["data"]["ended"]
    assert not Path(f"/proc/{child}").exists()


def test_failures_say_why(context: Context, subscriber: Callable[..., Subscriber]) -> None:
    context.looped("Broken", "def setup(self):\n    raise RuntimeError('no such printer')")
    context.service("Unimportable", "import does_not_exist")
    context.service("Classless", "x = 1")
    context.looped("Sudden", "def step(self):\n    __import__('os')._exit(7)")
    for number, name in enumerate(("Broken", "Unimportable", "Classless", "Sudden")):
        context.task(f"ts_{number}", name, entry=False)
    context.start("--transaction", TX)
    stranger = subscriber(b"control @@@ ")
    answer = context.ctl("start", "--transaction", TX, "--task", "ts_0", check=1)
    assert answer.stderr.startswith("zmsvcctl: cannot start ts_0: ")
    assert "no such printer" in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert "no such printer" in stranger.control("failed", "ts_0")["content"]["status"]["message"]
    context.ctl("start", "--transaction", TX, "--task", "ts_1", check=1)
    assert "does_not_exist" in context.task_is("ts_1", "failed")["status"]
    context.ctl("start", "--transaction", TX, "--task", "ts_2", check=1)
    assert "ServiceClassless" in context.task_is("ts_2", "failed")["status"]
    context.ask(verb="start", transaction=TX, tasks=["ts_3"])
    end = context.task_is("ts_3", "failed")["exit"]
    assert (end["code"], end["reason"]) == (7, "exit-code")
    assert stranger.control("failed", "ts_3")["content"]["status"]["exit_code"] == 7
    assert "no such printer" in context.ctl("status", check=3).stdout


def test_unknown_names_are_refused_with_4(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_100", "Echo")
    context.start("--transaction", TX)
    assert "no such task" in context.ctl("start", "--transaction", TX, "--task", "ts_999", check=4).stderr
    context.ctl("stop", "--transaction", "NOBODY", check=4)
    context.ctl("status", "ts_999", check=4)


def test_kill_of_a_task_is_reported_with_its_signal(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    context.looped("Echo")
    context.task("ts_100", "Echo", rules={"on_fail": ("restart", "ts_100")})
    context.start()
    stranger = subscriber(b"control @@@ ")
    pid = context.tasks()["ts_100"]["pid"]
    os.kill(pid, signal.SIGKILL)
    failed = stranger.control("failed", "ts_100")["content"]["status"]
    assert (failed["reason"], failed["signal"], failed["pid"]) == ("signal", "SIGKILL", pid)
    task = context.task_is("ts_100", "running", also=lambda task: task["pid"] != pid)
    assert task["restarts"] == 1


def test_a_killed_supervisor_is_replaced_and_nothing_else_notices(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    context.looped(
        "Talk",
        "interval = 0.02\ncount = 0\ndef step(self):\n    self.count += 1\n    self.publish('talk', "
        "{'header': {}, 'n': self.count})",
    )
    context.looped("Echo")
    context.task("ts_100", "Talk")
    context.task("ts_101", "Echo")
    context.start("--transaction", TX)
    stranger = subscriber(b"talk @@@ ")
    before = {name: task["pid"] for name, task in context.tasks().items()}
    _, first = stranger.next()
    old = context.kill_supervisor()
    status = context.status()
    assert status["pid"] != old
    assert status["restarts"] == 1
    assert {name: task["pid"] for name, task in context.tasks().items()} == before
    numbers = [first["n"], *(stranger.next()[1]["n"] for _ in range(50))]
    assert numbers == list(range(first["n"], first["n"] + 51)), "messages between tasks flow on"
    context.ctl("stop", "--task", "ts_100")
    assert context.tasks()["ts_100"]["sub"] == "stopped"


def test_an_exit_without_a_supervisor_is_known_with_its_status(context: Context, home: Path) -> None:
    context.looped(
        "Echo",
        f"interval = 0.01\ndef step(self):\n    if __import__('os').path.exists('{home}/die'):\n        "
        f"__import__('os')._exit(42)",
    )
    context.task("ts_100", "Echo")
    context.start()
    pid = context.tasks()["ts_100"]["pid"]
    supervisor = context.status()["pid"]
    stop_process(supervisor)
    (home / "die").touch()
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    os.kill(supervisor, signal.SIGKILL)
    end = context.task_is("ts_100", "failed")["exit"]
    assert (end["code"], end["reason"]) == (42, "exit-code")


def test_a_killed_device_is_back_and_tasks_reconnect(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    context.looped("Talk", "interval = 0.02\ndef step(self):\n    self.publish('talk', {'header': {}})")
    context.task("ts_100", "Talk")
    context.start()
    stranger = subscriber(b"talk @@@ ")
    stranger.next()
    device = context.status()["device_pid"]
    os.kill(device, signal.SIGKILL)
    wait_for_end(device)
    wait_for(lambda: context.status()["device_pid"] not in (None, device))
    for _ in range(5):
        stranger.next()


def test_the_keepers_death_leaves_no_orphan(context: Context) -> None:
    context.looped(
        "Parent",
        "def setup(self):\n    import subprocess\n    self.child = subprocess.Popen(['sleep', '1000'])",
    )
    context.task("ts_100", "Parent")
    context.start("--no-autostart")
    context.ctl("start", "--transaction", TX)
    status = context.status()
    pid = context.tasks()["ts_100"]["pid"]
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    assert children
    context.daemon.kill()
    context.wait()
    for each in (pid, status["pid"], status["device_pid"], *children):
        wait_for_end(each)
    context.start()
    assert list(context.tasks(TX)) == ["ts_100"], "the next daemon starts the open transaction afresh"
