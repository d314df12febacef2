"""The keeper without other processes: hung, killed and failing supervisors, a device that cannot bind, and a
second crash.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from context import Context
from needs import need
from others import command, give, others, run
from ports import free_ports
from waiting import PATIENCE, stop_process, wait_for, wait_for_end


def test_a_hung_supervisor_is_found_by_its_watchdog_and_replaced(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start(WATCHDOG_USEC="2000000")
    pid = context.tasks()["ts_1"]["pid"]

    def stopped() -> int:
        """Stop the supervisor. On a busy machine the keeper may have replaced it just before."""
        supervisor = int(context.status()["pid"])
        os.kill(supervisor, signal.SIGSTOP)
        return supervisor

    hung = wait_for(stopped)
    wait_for_end(hung)
    assert context.status()["pid"] != hung
    assert context.tasks()["ts_1"]["pid"] == pid


def test_a_supervisor_killed_by_its_watchdog_leaves_a_traceback(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start()
    supervisor = context.status()["pid"]
    os.kill(supervisor, signal.SIGABRT)
    wait_for_end(supervisor)

    def dumped() -> bool:
        log = context.log.read_text()
        assert re.search(r"Fatal Python error: Aborted.*File .*supervisor/__main__", log, re.DOTALL), log
        return True

    wait_for(dumped)
    assert context.tasks()["ts_1"]["sub"] == "running"


def test_a_bad_file_is_reported_with_its_lines_and_status_2(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo", rules={"on_exit": ("jump", "ts_1"), "on_fail": ("start", "ts_9")})
    context.start(ready=False)
    assert context.wait() == 2
    text = context.log.read_text()
    assert f"{context.file}:2: " in text
    assert "jump" in text
    assert "ts_9" in text


def test_a_missing_file_is_reported_with_status_2(context: Context) -> None:
    zmsvcd = [sys.executable, "-P", "-m", "zmsvc.keeper", str(context.file)]
    done = subprocess.run(
        zmsvcd, env=context.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 2
    assert str(context.file) in done.stderr


def test_a_port_in_use_is_reported_and_ends_the_daemon(context: Context) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, (free,) = taken.getsockname()[1], free_ports(1)
        context.subscribe_endpoint, context.publish_endpoint = (
            f"tcp://127.0.0.1:{free}",
            f"tcp://127.0.0.1:{port}",
        )
        context.looped("Echo")
        context.task("ts_1", "Echo")
        context.start(ready=False)
        assert context.wait() == 1
    reported = f"{context.file}:1: cannot bind tcp://127.0.0.1:{port}: address already in use"
    assert reported in context.log.read_text()


def test_the_death_of_keeper_and_supervisor_together_is_cleaned_up_by_the_next(context: Context) -> None:
    context.looped(
        "Parent",
        "def setup(self):\n    import subprocess\n    self.child = subprocess.Popen(['sleep', '1000'])",
    )
    context.task("ts_1", "Parent")
    context.start("--transaction", "T")
    status, pid = context.status(), context.tasks()["ts_1"]["pid"]
    (child,) = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    stop_process(status["pid"])
    context.daemon.kill()
    context.wait()
    os.kill(status["pid"], signal.SIGKILL)
    wait_for_end(pid)
    assert Path(f"/proc/{child}").exists(), "no keeper was there to end it"
    context.start()
    wait_for_end(child)
    assert context.tasks("T")["ts_1"]["sub"] == "running"


def test_a_program_that_cannot_be_killed_does_not_keep_the_supervisor_when_the_keeper_is_gone(
    context: Context,
) -> None:
    uid = others(1)[0]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        become_root = shutil.copy(shutil.which("setpriv") or "", directory)
        os.chmod(become_root, 0o4755)
        tried = run(uid, become_root, "--reuid=0", "true")
        need(tried.returncode == 0, "no program can be root by its mode here")
        script = f"{become_root} --reuid=0 sleep 120 &amp; exec sleep 1000"
        context.task(
            "ts_1",
            "sh",
            kind="Command",
            config=f"<command><arg>sh</arg><arg>-c</arg><arg>{script}</arg></command>",
        )
        context.write()
        (context.home / "Services").mkdir()
        give(context.home, uid)
        zmsvcd = [
            *command(uid),
            sys.executable,
            "-P",
            "-m",
            "zmsvc.keeper",
            "--transaction",
            "T",
            str(context.file),
        ]
        with subprocess.Popen(zmsvcd, cwd="/", env=context.environment, stderr=subprocess.DEVNULL) as daemon:
            try:
                wait_for((context.runtime / context.name / "control.sock").is_socket)
                task = context.task_is("ts_1", "running")["pid"]
                supervisor = context.status()["pid"]
                (child,) = wait_for(lambda: Path(f"/proc/{task}/task/{task}/children").read_text().split())
                wait_for(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
            finally:
                daemon.kill()
        try:
            wait_for_end(supervisor)
            wait_for_end(task)
            assert Path(f"/proc/{child}").exists(), "it was killed"
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_sigterm_while_the_supervisor_is_dead_still_stops_in_order(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start()
    pid, supervisor = context.tasks()["ts_1"]["pid"], context.status()["pid"]
    stop_process(supervisor)
    context.daemon.send_signal(signal.SIGTERM)
    os.kill(supervisor, signal.SIGKILL)
    assert context.wait() == 0
    assert not Path(f"/proc/{pid}").exists()
    assert "stopped" in context.log.read_text()


def test_a_misspelled_option_is_refused_with_a_suggestion(context: Context) -> None:
    context.start("--detahc", ready=False)
    assert context.wait() == 2
    unknown = "cannot understand the command: unrecognized arguments: --detahc (did you mean --detach?)"
    assert context.log.read_text() == f"zmsvcd: {unknown} (see zmsvcd --help)\n"


def test_detach_returns_when_the_context_is_ready(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--detach", ready=False)
    assert context.wait() == 0
    assert context.tasks()["ts_1"]["sub"] == "running"
    keeper = context.status()["keeper_pid"]
    assert os.getsid(keeper) != os.getsid(0)
    context.ctl("exit")
    wait_for(lambda: not Path(f"/proc/{keeper}").exists())


def test_the_end_removes_the_runtime_directory_that_the_daemon_has_made(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    directory = context.runtime / context.name
    context.start("--detach", ready=False)
    assert context.wait() == 0
    assert directory.is_dir()
    context.ctl("exit")
    wait_for(lambda: not directory.exists())
    # systemd does this, or root for another user.
    directory.mkdir()
    context.start()
    assert context.stop() == 0
    assert list(directory.iterdir()) == []


def test_detach_keeps_no_stream_of_its_parent(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.write()
    command = [sys.executable, "-P", "-m", "zmsvc.keeper", "--detach", str(context.file)]
    try:
        # Like $(zmsvcd --detach ...), or a call over ssh, this waits until every process has closed the
        # pipes.
        done = subprocess.run(
            command, env=context.environment, capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        assert done.stderr == ""
        assert context.tasks()["ts_1"]["sub"] == "running"
    finally:
        context.ctl("exit")


def test_detach_reports_on_the_terminal_why_it_failed(context: Context) -> None:
    context.looped("Echo")
    context.task("bad id", "Echo")
    context.start("--detach", ready=False)
    assert context.wait() == 2, "as in the foreground"
    assert "bad id" in context.log.read_text()


def test_detach_reports_on_the_terminal_which_entry_task_failed_at_once(context: Context) -> None:
    context.looped("Echo")
    context.looped("Bad", "def setup(self):\n    raise ValueError('no such database')")
    context.task("ts_1", "Echo")
    context.task("ts_2", "Bad")
    context.task("ts_3", "Bad", entry=False)
    context.start("--detach", ready=False)
    try:
        assert context.wait() == 0, "the context runs"
        (said,) = [line for line in context.log.read_text().splitlines() if line.startswith("zmsvcd:")]
        assert re.fullmatch(
            r"zmsvcd: cannot start ts_2: failed \(.*\): .*no such database.* \(see zmsvcctl -c Live status\)",
            said,
        )
        status = context.ctl("status", check=3).stdout
        assert "1 active" in status
        assert "ts_2  Bad   failed" in status
    finally:
        context.ctl("exit")


def test_a_launch_that_is_ordered_twice_is_forked_once(context: Context) -> None:
    """If a supervisor dies between its order and the answer, the next one orders again; see also
    tests/faults/test_crash_points.py.
    """
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--no-autostart")
    before = context.children().keys()
    supervisor = context.status()["pid"]
    context.ask(verb="start", transaction="T", block=False)
    os.kill(supervisor, signal.SIGKILL)
    pid = context.task_is("ts_1", "running", "T")["pid"]
    # A spare task, which does not count, has its name a moment after its fork.
    wait_for(lambda: context.children().keys() - before == {pid, context.status()["pid"]})


def test_processes_of_another_context_are_not_killed_with_a_task(context: Context, home: Path) -> None:
    """Both contexts count their launches from 1, and a task of each has that number in its environment."""
    context.looped(
        "Parent",
        "def setup(self):\n    self.child = __import__('subprocess').Popen(['setsid', 'sleep', '1000'])",
    )
    context.task("ts_1", "Parent")
    context.start()
    (home / "other").mkdir()
    other = Context(home / "other", name="Other")
    try:
        (other.home / "Services").mkdir()
        other.task("ts_1", "Sleep", kind="Command", config="<command>sleep 1000</command>")
        other.start()
        pid = other.tasks()["ts_1"]["pid"]
        assert context.ask(verb="stop", tasks=["ts_1"])["ok"]
        assert other.tasks()["ts_1"]["pid"] == pid
        assert Path(f"/proc/{pid}").exists()
        assert other.tasks()["ts_1"]["sub"] == "running"
    finally:
        other.close()
