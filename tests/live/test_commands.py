"""serviceType Command: any program is a task service. It is ready when it has been executed, or when it sends
READY=1 itself.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from context import Context, Subscriber
from waiting import wait_for


def test_a_program_is_started_when_its_exec_has_succeeded(
    context: Context, subscriber: Callable[..., Subscriber], home: Path
) -> None:
    script = f"echo $ZMSVC_TRANSACTION $ZMSVC_TASK > {home}/told; exec sleep 1000"
    context.task(
        "ts_1",
        "Shell",
        kind="Command",
        config=f"<command><arg>sh</arg><arg>-c</arg><arg>{script.replace('>', '&gt;')}</arg></command>",
    )
    context.write()
    (home / "Services").mkdir(exist_ok=True)
    context.start("--no-autostart")
    listener = subscriber(b"control @@@ ")
    context.ctl("start", "--transaction", "T")
    pid = listener.control("started", "ts_1")["content"]["status"]["pid"]
    assert os.getsid(pid) == pid
    context.task_is("ts_1", "running")
    wait_for(lambda: (home / "told").read_text() == "T ts_1\n")
    context.ctl("stop", "--task", "ts_1")
    assert listener.control("stopped", "ts_1")["content"]["status"]["reason"] == "requested"
    assert not Path(f"/proc/{pid}").exists()


def test_a_program_that_cannot_be_executed_fails_and_never_started(
    context: Context, subscriber: Callable[..., Subscriber], home: Path
) -> None:
    (home / "Services").mkdir()
    context.task("ts_1", "Nothing", kind="Command", config="<command>/no/such/program</command>", entry=False)
    context.start("--transaction", "T")
    listener = subscriber(b"control @@@ ")
    answer = context.ctl("start", "--transaction", "T", "--task", "ts_1", check=1)
    assert "/no/such/program" in answer.stderr
    body = listener.until(lambda topic, body: body["header"]["service_id"] == "ts_1")
    assert body["header"]["action"] == "failed"
    assert "/no/such/program" in body["content"]["status"]["message"]


def test_a_program_that_ends_with_0_has_exited_and_its_rule_fires(context: Context, home: Path) -> None:
    (home / "Services").mkdir()
    context.task(
        "ts_1",
        "First",
        kind="Command",
        config="<command>true</command>",
        rules={"on_exit": ("start", "ts_2")},
    )
    context.task("ts_2", "Second", kind="Command", config="<command>sleep 1000</command>", entry=False)
    context.start("--transaction", "T")
    context.task_is("ts_1", "exited")
    cause = context.task_is("ts_2", "running")["cause"]
    assert cause["sources"][0]["exit"] == {"code": 0, "signal": None, "reason": "exited"}


def test_what_a_program_prints_is_in_the_log_of_its_context(context: Context, home: Path) -> None:
    (home / "Services").mkdir()
    context.task(
        "ts_1", "Printer", kind="Command", config="<command>sh -c 'echo printed by a program'</command>"
    )
    context.start("--transaction", "T")
    context.task_is("ts_1", "exited")
    log = Path(context.status()["log"])
    wait_for(lambda: log.read_text().count("printed by a program") == 1)


def test_a_program_that_speaks_sd_notify_is_started_when_it_says_so(
    context: Context, subscriber: Callable[..., Subscriber], home: Path
) -> None:
    (home / "Services").mkdir()
    code = (
        "import os, socket, time\n"
        f"while not os.path.exists('{home}/go'): time.sleep(0.01)\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "s.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])\n"
        "time.sleep(1000)\n"
    )
    (home / "speaks.py").write_text(code)
    command = f"<command>{sys.executable} {home}/speaks.py</command><notify>1</notify>"
    context.task("ts_1", "Speaker", kind="Command", config=command, entry=False)
    context.start("--transaction", "T")
    context.ask(verb="start", transaction="T", tasks=["ts_1"], block=False)
    pid = context.task_is("ts_1", "start")["pid"]
    wait_for(lambda: b"speaks.py" in Path(f"/proc/{pid}/cmdline").read_bytes())
    assert context.tasks()["ts_1"]["sub"] == "start"
    (home / "go").touch()
    assert context.task_is("ts_1", "running")["pid"] == pid


def test_a_success_exit_status_is_a_clean_end_whose_rules_are_those_of_on_exit(
    context: Context, home: Path
) -> None:
    (home / "Services").mkdir()
    service = "<success_exit_status>3 kill RTMIN+3</success_exit_status><success_exit_status>75</success_exit_status>"
    ends = {
        "three": "exit 3",
        "last": "exit 75",
        "killed": "kill -9 $$",
        "realtime": "kill -37 $$",
        "bad": "exit 9",
    }
    for task, script in ends.items():
        context.task(
            task,
            "Shell",
            kind="Command",
            config=f"<command><arg>sh</arg><arg>-c</arg><arg>{script}</arg></command>",
            service=service,
            rules={"on_exit": ("start", f"{task}_exit"), "on_fail": ("start", f"{task}_fail")},
        )
        for end in ("exit", "fail"):
            sleep = "<command>sleep 3600</command>"
            context.task(f"{task}_{end}", "Sleep", kind="Command", entry=False, config=sleep)
    context.start("--transaction", "T")
    for task in ends:
        good = task != "bad"
        ended = context.task_is(task, "exited" if good else "failed")
        assert ended["exit"]["reason"] == ("exited" if good else "exit-code")
        context.task_is(f"{task}_{'exit' if good else 'fail'}", "running")
        assert context.tasks()[f"{task}_{'fail' if good else 'exit'}"]["sub"] == "waiting"
    # The supervisor applies the option, so a reload changes it for the end of a process that runs already.
    context.clear_tasks()
    context.task("late", "Sleep", kind="Command", config="<command>sleep 3600</command>")
    context.write()
    context.ctl("reload")
    pid = context.task_is("late", "running")["pid"]
    context.clear_tasks()
    context.task("late", "Sleep", kind="Command", config="<command>sleep 3600</command>", service=service)
    context.write()
    context.ctl("reload")
    assert context.task_is("late", "running")["pid"] == pid
    os.kill(pid, signal.SIGKILL)
    assert context.task_is("late", "exited")["exit"]["signal"] == "SIGKILL"
