"""A task in its own process: its environment at READY, its notifications until its end, and its exit status."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import waiting
from forked import Nest, Task, await_subscription, control, environment_of, update
from forwarder import Forwarder, received
from needs import need

from zmsvc.core import messages
from zmsvc.host import seqpacket
from zmsvc.protocol import sharing
from zmsvc.protocol.launch import Descriptors
from zmsvc.task import sdk
from zmsvc.task.runtime import interval_of


@pytest.fixture
def nest() -> Iterator[Nest]:
    home = Path(tempfile.mkdtemp(prefix="zm"))  # short: a Unix socket's path may have 107 bytes
    home.chmod(0o755)
    made = Nest(home)
    yield made
    made.close()
    shutil.rmtree(home)


@pytest.fixture
def gate(nest: Nest) -> Path:
    """Make a FIFO. A service that reads it blocks until the test calls `release`."""
    path = nest.home / "gate"
    os.mkfifo(path, 0o666)
    return path


def release(gate: Path) -> None:
    with open(gate, "w") as file:
        file.write("go")


# --- what a task is


def test_a_task_is_a_daemon_in_its_own_session(nest: Nest) -> None:
    nest.looped("""
        def setup(self):
            umask = os.umask(0)
            os.umask(umask)
            self.update(cwd=os.getcwd(), umask=umask, session=os.getsid(0), group=os.getpgid(0), parent=os.getppid(),
                fds={fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd in "012"},
                config=self.config, context=self.context, transaction=self.transaction, service_id=self.service_id,
                cause=self.cause, by=self.cause.by, name=self.log.name)
        def step(self):
            pass
    """)
    pid_file = nest.home / "pid"
    task = nest.fork(configuration={"a": ["1", {"b": "2"}]}, pidfile=str(pid_file))
    assert update(nest) == {
        "cwd": "/",
        "umask": 0o022,
        "session": task.pid,
        "group": task.pid,
        "parent": os.getpid(),
        "fds": {"0": "/dev/null", "1": str(nest.log), "2": str(nest.log)},
        "config": {"a": ["1", {"b": "2"}]},
        "context": "Echo",
        "transaction": "TX",
        "service_id": "ts_100",
        "cause": {
            "by": "operator",
            "uid": 0,
            "depth": 0,
            "task": None,
            "trigger": None,
            "rule": None,
            "exit": None,
            "update": None,
            "sources": [],
        },
        "by": "operator",
        "name": "Work",
    }
    ready = nest.next()
    assert (ready.pid, ready.lines) == (task.pid, [("READY", "1")])
    assert pid_file.read_text() == f"{task.pid}\n"


def test_a_task_inherits_no_descriptors(nest: Nest) -> None:
    nest.looped("""
        def step(self):
            fds = [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3, 4000) if os.path.lexists(f"/proc/self/fd/{fd}")]
            self.update(fds=[name for name in fds if not name.startswith("anon_inode")])
    """)
    opened = [os.open("/etc/passwd", os.O_RDONLY) for _ in range(200)]
    try:
        os.set_inheritable(opened[7], True)
        nest.fork()
        names = update(nest)["fds"]
    finally:
        for fd in opened:
            os.close(fd)
    assert "/etc/passwd" not in names
    assert len(names) <= 6  # the notify socket, the log twice, the pipe that wakes it


def test_a_limit_of_open_files_below_the_parents_does_not_hinder_the_start(nest: Nest) -> None:
    nest.looped("""
        def step(self):
            import resource
            self.update(limit=resource.getrlimit(resource.RLIMIT_NOFILE), nice=os.getpriority(os.PRIO_PROCESS, 0))
    """)
    opened = [os.open("/etc/passwd", os.O_RDONLY) for _ in range(200)]
    try:
        nest.fork(rlimits={"nofile": 64}, nice=5)
        assert update(nest) == {"limit": [64, 64], "nice": 5}
    finally:
        for fd in opened:
            os.close(fd)


def test_the_environment_says_who_it_is_and_why(nest: Nest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "LISTEN_FDS",
        "WATCHDOG_PID",
        "JOURNAL_STREAM",
        "INVOCATION_ID",
        "ZMSVC_CAUSE_TASK",
        "ZMSVC_LOG",
    ):
        monkeypatch.setenv(name, "the daemon's")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/x")
    monkeypatch.setenv("ZMSVC_RUNTIME_DIR", "/run/x")
    monkeypatch.setenv("KEPT", "yes")
    source = {"task": "ts_099", "trigger": "on_exit", "rule": "on_exit:start:ts_100",
              "exit": {"code": 3, "signal": None, "reason": "exit-code"}, "update": {"n": 1}}  # fmt: skip
    nest.looped("""
        def setup(self):
            self.update(**os.environ)
        def step(self):
            self.update(cause=self.cause, rule=self.cause.rule, code=self.cause.exit["code"], n=self.cause["update"]["n"])
    """)
    cause = {"by": "rule", "uid": None, "depth": 2, "sources": [{"task": "other"}, source]}
    bus = {"frontend": "ipc:///nowhere/sub", "backend": "ipc:///nowhere/pub", "keys": "/nowhere/keys"}
    task = nest.fork(cause=cause, watchdog=20.0, environment={"OWN": "1", "KEPT": "no"}, **bus)
    found = update(nest)
    assert {name for name, value in found.items() if value == "the daemon's"} == set()
    assert json.loads(found.pop("ZMSVC_CAUSE_SOURCES"))[1] == source
    assert json.loads(found.pop("ZMSVC_CAUSE_UPDATE")) == {"n": 1}
    assert {
        name: value for name, value in found.items() if name.startswith(("ZMSVC_", "WATCHDOG_", "NOTIFY_"))
    } == {
        "NOTIFY_SOCKET": str(nest.home / "n"),
        "WATCHDOG_USEC": "20000000",
        "WATCHDOG_PID": str(task.pid),
        "ZMSVC_CONTEXT": "Echo",
        "ZMSVC_TRANSACTION": "TX",
        "ZMSVC_TASK": "ts_100",
        "ZMSVC_INSTANCE": "Work",
        "ZMSVC_LAUNCH": "17",
        "ZMSVC_FRONTEND": "ipc:///nowhere/sub",
        "ZMSVC_BACKEND": "ipc:///nowhere/pub",
        "ZMSVC_KEYS": "/nowhere/keys",
        "ZMSVC_CAUSE_BY": "rule",
        "ZMSVC_CAUSE_DEPTH": "2",
        "ZMSVC_CAUSE_TASK": "ts_099",
        "ZMSVC_CAUSE_TRIGGER": "on_exit",
        "ZMSVC_CAUSE_RULE": "on_exit:start:ts_100",
        "ZMSVC_CAUSE_EXIT_CODE": "3",
        "ZMSVC_CAUSE_EXIT_REASON": "exit-code",
        "ZMSVC_RUNTIME_DIR": "/run/x",
    }
    assert (found["OWN"], found["KEPT"], found["CREDENTIALS_DIRECTORY"]) == ("1", "no", "/run/credentials/x")
    step = update(nest)
    assert (step["rule"], step["code"], step["n"]) == ("on_exit:start:ts_100", 3, 1)
    assert step["cause"]["sources"][1] == source


def test_a_task_may_run_as_another_user(nest: Nest) -> None:
    need(os.geteuid() == 0, "only root can change to another user")
    private = nest.home / "private"
    private.mkdir(mode=0o700)
    nest.looped("""
        def step(self):
            self.update(uid=os.getresuid(), gid=os.getresgid(), groups=os.getgroups(), user=os.environ.get("USER"))
    """)
    task = nest.fork(user="nobody", pidfile=str(private / "pid"), log=str(private / "log"))
    assert nest.next().uid == 65534
    found = update(nest)
    assert (found["uid"], found["user"]) == ([65534] * 3, "nobody")
    assert found["groups"] == found["gid"][:1]
    assert (private / "pid").read_text() == f"{task.pid}\n"
    nest.fork(group="daemon")
    assert update(nest)["gid"] == [1, 1, 1]


@pytest.mark.parametrize(
    ("user", "by_hand", "kept"),
    [
        ("nobody", True, set()),
        ("nobody", False, {"PASSWORD"}),
        ("root", True, {"PASSWORD", "CREDENTIALS_DIRECTORY"}),
    ],
)
def test_the_user_is_looked_up_at_each_start(
    nest: Nest, monkeypatch: pytest.MonkeyPatch, user: str, by_hand: bool, kept: set[str]
) -> None:
    """A supervisor whose user database does not answer sends no number. The task of another user must not
    inherit like one of the daemon's user then.
    """
    need(os.geteuid() == 0, "only root can change to another user")
    for name in ("PASSWORD", "CREDENTIALS_DIRECTORY"):
        monkeypatch.setenv(name, "secret")
    nest.looped("""
        def step(self):
            self.update(names=list(os.environ))
    """)
    nest.fork(user=user, own_environment=by_hand, log=str(nest.home / f"log-of-{user}"))
    found = update(nest)
    assert {"PASSWORD", "CREDENTIALS_DIRECTORY"} & set(found["names"]) == kept


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"user": "nobody-at-all"}, "cannot run as user nobody-at-all: this machine has no such user"),
        ({"rlimits": {"nofiles": 1}}, "cannot limit nofiles to 1: "),
        (
            {"pidfile": "/nonexistent/pid"},
            "cannot write PID file /nonexistent/pid: No such file or directory",
        ),
    ],
)
def test_a_task_that_cannot_start_says_why(nest: Nest, changes: dict[str, Any], why: str) -> None:
    task = nest.fork(**changes)
    assert nest.until("STATUS")["STATUS"].startswith(why)
    assert task.end() == 203
    assert why in nest.logged()


# --- its life


def test_a_looped_task_from_ready_to_the_end(nest: Nest) -> None:
    nest.looped("""
        def setup(self):
            self.update(at="setup")
        def step(self):
            self.update(at="step")
        def close(self):
            self.update(at="close")
    """)
    task = nest.fork()
    assert update(nest) == {"at": "setup"}
    assert nest.next().lines == [("READY", "1")]
    said = nest.until("X_ZMSVC_UPDATE")
    assert said == {"X_ZMSVC_SEQ": "2", "X_ZMSVC_UPDATE": '{"at":"step"}'}
    task.signal(signal.SIGTERM)
    assert task.end() == 0
    assert update(nest) == {"at": "close"}
    assert nest.rest() == ["STOPPING=1"]


def test_a_step_is_finished_before_the_stop(nest: Nest, gate: Path) -> None:
    nest.looped(f"""
        def step(self):
            self.update(at="step")
            self.update(read=open({str(gate)!r}).read(), stop=self.wait(3600))
    """)
    task = nest.fork()
    update(nest)
    task.signal(signal.SIGTERM)
    task.signal(signal.SIGTERM)
    release(gate)
    assert update(nest) == {"read": "go", "stop": True}
    assert task.end() == 0
    assert nest.rest() == ["STOPPING=1"]


def test_a_run_that_returns_ends_the_service(nest: Nest) -> None:
    nest.single("""
        def run(self):
            self.update(answer=42)
    """)
    task = nest.fork()
    assert nest.next().lines == [("READY", "1")]
    assert update(nest) == {"answer": 42}
    assert task.end() == 0
    assert nest.rest() == ["STOPPING=1"]


@pytest.mark.parametrize(
    "work", ["open({gate!r}).read()", "[None for _ in iter(int, 1)]", "asyncio.run(forever())"]
)
def test_a_stopped_run_is_interrupted_and_closed_once(nest: Nest, gate: Path, work: str) -> None:
    nest.single(f"""
        def run(self):
            import asyncio
            async def forever():
                while True:
                    await asyncio.sleep(0.001)
            self.update(at="run")
            try:
                {work.format(gate=str(gate))}
            except Exception:
                self.update(at="never")
        def close(self):
            self.update(at="close")
            self.update(read=open({str(gate)!r}).read())
    """)
    task = nest.fork()
    assert update(nest) == {"at": "run"}
    task.signal(signal.SIGTERM)
    assert update(nest) == {"at": "close"}
    task.signal(signal.SIGTERM)  # a second one changes nothing
    release(gate)
    assert update(nest) == {"read": "go"}
    assert task.end() == 0
    assert nest.rest() == ["STOPPING=1"]
    assert "Failed" not in nest.logged()


def test_wait_in_run_returns_true_instead(nest: Nest) -> None:
    nest.single("""
        def run(self):
            self.update(before=self.wait(0))
            self.update(stopped=self.wait())
            self.update(again=self.wait(3600))
    """)
    task = nest.fork(watchdog=0.1)
    assert update(nest) == {"before": False}
    assert nest.next().lines == [("WATCHDOG", "1")]  # which wait() sends
    task.signal(signal.SIGTERM)
    assert update(nest) == {"stopped": True}
    assert update(nest) == {"again": True}
    assert task.end() == 0


def test_a_stop_during_setup_is_obeyed_after_it(nest: Nest, gate: Path) -> None:
    nest.looped(f"""
        def setup(self):
            self.update(at="setup")
            open({str(gate)!r}).read()
        def step(self):
            self.update(at="never")
        def close(self):
            self.update(at="close")
    """)
    task = nest.fork()
    update(nest)
    task.signal(signal.SIGTERM)
    release(gate)
    assert update(nest) == {"at": "close"}
    assert task.end() == 0
    assert nest.rest() == ["STOPPING=1"]


BROKEN = "raise ValueError('bad ' + 'thing')"


@pytest.mark.parametrize("where", ["setup", "step", "close", "__init__"])
def test_an_exception_is_reported_logged_and_followed_by_one_close(nest: Nest, where: str) -> None:
    methods = {
        "setup": "pass",
        "step": "os.kill(os.getpid(), 15)",
        "close": "self.update(at='close')",
        where: BROKEN,
    }
    nest.looped("\n".join(f"def {name}(self):\n    {body}" for name, body in methods.items()))
    task = nest.fork()
    assert task.end() == 1
    said = nest.rest()
    assert "STATUS=ValueError: bad thing" in said
    assert "STOPPING=1" not in said
    assert ("READY=1" in said) == (where in ("step", "close"))
    assert len([line for line in said if line.startswith("X_ZMSVC_SEQ")]) == (where in ("setup", "step"))
    assert "TX/ts_100 ERROR: Failed: ValueError: bad thing\n    Traceback" in nest.logged()
    assert nest.logged().count("raise ValueError") == 1


LINES = {
    "raise RuntimeError('cannot connect\\n[SQL]\\n(Background on this error at: https://example.org/x)')": "RuntimeError: cannot connect",
    "raise RuntimeError('\\n\\n  begins late\\nand goes on')": "RuntimeError: begins late",
    "error = KeyError('k'); error.add_note('a note'); raise error": "KeyError: 'k'",
    "raise RuntimeError": "RuntimeError",
    "import json; json.loads('')": "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
    "raise ExceptionGroup('two', [ValueError('a'), ValueError('b')])": "ExceptionGroup: two (2 sub-exceptions)",
    "raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})": "work.Odd: <exception str() failed>",
}


@pytest.mark.parametrize("raising", LINES)
def test_the_status_of_a_failed_task_is_the_line_of_its_exception(nest: Nest, raising: str) -> None:
    """Its last line may be a link to a page, or a note."""
    nest.looped(f"def setup(self):\n    {raising}")
    assert nest.fork().end() == 1
    told = [line.removeprefix("STATUS=") for line in nest.rest() if line.startswith("STATUS=")]
    assert [line.rpartition(".")[2] if ".Odd" in line else line for line in told] == [
        LINES[raising].removeprefix("work.")
    ]


def test_the_first_failure_is_the_reason_also_when_close_fails_over_it(nest: Nest) -> None:
    nest.looped(
        "def setup(self):\n    raise SystemExit('no database')\ndef close(self):\n    self.database.close()"
    )
    assert nest.fork().end() == 1
    assert [line for line in nest.rest() if line.startswith("STATUS=")] == ["STATUS=SystemExit: no database"]
    assert "AttributeError" in nest.logged()


def test_an_exception_in_run_is_a_failure(nest: Nest) -> None:
    nest.single(f"def run(self):\n    {BROKEN}")
    assert nest.fork().end() == 1


@pytest.mark.parametrize(("code", "status"), [("3", 3), ("None", 0), ("0", 0), ("'no luck'", 1)])
def test_sys_exit_gives_the_status(nest: Nest, code: str, status: int) -> None:
    nest.looped(f"def step(self):\n    raise SystemExit({code})")
    assert nest.fork().end() == status
    assert ("STATUS=SystemExit: no luck" in nest.rest()) == ("luck" in code)


# --- loading


def test_a_service_is_a_package_of_its_name(nest: Nest) -> None:
    nest.looped("def step(self):\n    self.update(module=__name__)", "Inner")
    (nest.home / "Services" / "Inner" / "helper.py").write_text("from .ServiceInner import Work\n")
    nest.service("Outer", """
        from zmsvc.task import TaskService
        from .helper import Work
        class ServiceOuter(TaskService):
            service_name, task_class = "outer", Work
    """)  # fmt: skip
    (nest.home / "Services" / "Outer" / "helper.py").write_text("from Inner.helper import Work\n")
    nest.fork(instance="Outer", search=["/nonexistent", str(nest.home / "Services")])
    assert update(nest) == {"module": "Inner.ServiceInner"}


@pytest.mark.parametrize("name", ["queue", "json", "zmq"])
def test_a_service_may_be_called_like_a_library(nest: Nest, name: str) -> None:
    nest.looped(
        "def step(self):\n    import queue, json, zmq\n    self.update(lib=queue.Queue and json.dumps and "
        "bool(zmq.Context))",
        name,
    )
    nest.fork(instance=name)
    assert update(nest) == {"lib": True}


def test_two_locations_may_have_a_service_of_the_same_name(nest: Nest) -> None:
    for location in ("one", "two"):
        body = f"    def step(self): self.update(location={location!r})"
        nest.service("Work", f"""
from zmsvc.task import LoopedTask, TaskService
class Work(LoopedTask):
{body}
class ServiceWork(TaskService):
    task_class = Work
""", location)  # fmt: skip
        nest.fork(search=[str(nest.home / location)])
        assert update(nest) == {"location": location}


def test_a_service_without_init_file_works(nest: Nest) -> None:
    nest.looped("def step(self):\n    self.update(ok=1)")
    (nest.home / "Services" / "Work" / "__init__.py").unlink()
    nest.fork()
    assert update(nest) == {"ok": 1}


CLASS = "from zmsvc.task import TaskService\nclass ServiceWork(TaskService):\n    "


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("x = 1", "cannot load service Work: {file} has no class ServiceWork"),
        (
            "class ServiceWork: pass",
            "cannot load service Work: class ServiceWork in {file} is not a zmsvc.task.TaskService",
        ),
        (
            CLASS + "pass",
            "cannot load service Work: task_class of ServiceWork in {file} is not a LoopedTask, SingleTask, MessageTask or AsyncTask",
        ),
        (
            CLASS + "task_class = int",
            "cannot load service Work: task_class of ServiceWork in {file} is not a LoopedTask, SingleTask, MessageTask or AsyncTask",
        ),
        ("import nothing_like_it", "ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("def", "SyntaxError: invalid syntax ({file}, line 1)"),
        (None, "cannot load service Work: there is no Work/ServiceWork.py in /nonexistent, {home}/Services"),
    ],
)
def test_a_service_that_cannot_be_loaded_says_why(nest: Nest, code: str | None, status: str) -> None:
    if code is not None:
        nest.service("Work", code)
    task = nest.fork(search=["/nonexistent", str(nest.home / "Services")])
    assert task.end() == 203
    expected = status.format(file=nest.home / "Services/Work/ServiceWork.py", home=nest.home)
    assert nest.rest() == [f"STATUS={expected}"]
    assert f"ERROR: Failed: {expected}" in nest.logged()


def test_a_services_init_need_not_take_the_sdks_arguments(nest: Nest) -> None:
    nest.service("Work", """
        from zmsvc.task import LoopedTask, TaskService
        class Work(LoopedTask):
            def __init__(self):
                self.seen = self.config["a"], self.transaction
            def step(self):
                self.update(seen=self.seen)
        class ServiceWork(TaskService):
            task_class = Work
            def __init__(self):
                self.update(service=self.service_id)
    """)  # fmt: skip
    nest.fork(configuration={"a": "1"})
    assert update(nest) == {"service": "ts_100"}
    assert update(nest) == {"seen": ["1", "TX"]}


# --- time


def test_steps_are_at_a_fixed_rate_without_drift_and_without_bursts(nest: Nest) -> None:
    nest.looped("""
        def setup(self):
            self.times = (time.monotonic(),)
        def step(self):
            self.times += (time.monotonic(),)
            if len(self.times) == 5:
                self.wait(0.3)
            if len(self.times) == 9:
                self.update(times=self.times)
    """)
    nest.fork(configuration={"interval": "0.1"})
    # No step comes early, but on a busy machine any may come late.
    before, *times = update(nest)["times"]
    assert times[3] - before >= 0.299
    # After the late step the rate starts again, and missed steps are left out.
    assert times[7] - times[3] >= 0.3 + 0.299


@pytest.mark.parametrize("given", ["often", "-1", "nan", "inf", ["1", "2"]])
def test_an_invalid_interval_is_refused(nest: Nest, given: Any) -> None:
    nest.looped("def step(self):\n    pass")
    task = nest.fork(configuration={"interval": given})
    assert task.end() == 1
    assert nest.rest() == [
        f"STATUS=cannot use interval {given!r}: expected a number of seconds, or a time span such as 500ms"
    ]


@pytest.mark.parametrize(("given", "seconds"), [("0.25", 0.25), (2, 2.0), ("500ms", 0.5), ("1min 30s", 90.0)])
def test_an_interval_is_a_number_of_seconds_or_a_time_span(given: Any, seconds: float) -> None:
    assert interval_of({"interval": given}, 7.0) == seconds
    assert interval_of({}, 7.0) == 7.0


def test_waiting_costs_nothing(nest: Nest) -> None:
    """Nothing is called but to feed the watchdog every 0.1 s. Measured: 280 calls in all."""
    nest.looped("""
        def step(self):
            import sys
            calls = []
            sys.setprofile(lambda _frame, event, _argument: calls.append(event))
            self.wait(0.5)
            sys.setprofile(None)
            self.update(calls=len(calls))
    """)
    nest.fork(watchdog=0.2)
    assert update(nest)["calls"] < 1000


def test_wait_works_in_a_thread_of_the_task(nest: Nest) -> None:
    nest.looped("""
        def setup(self):
            def work():
                self.update(first=self.wait(0.01))
                self.update(stopped=self.wait(3600))
            self.thread = threading.Thread(target=work)
            self.thread.start()
        def step(self):
            pass
        def close(self):
            self.thread.join()
    """)
    task = nest.fork()
    assert update(nest) == {"first": False}
    task.signal(signal.SIGTERM)
    assert update(nest) == {"stopped": True}
    assert task.end() == 0


def test_the_watchdog_is_fed_while_waiting(nest: Nest) -> None:
    nest.looped("def step(self):\n    pass")
    began = time.monotonic()
    nest.fork(watchdog=0.2)
    nest.until("READY")
    for _ in range(5):
        assert nest.next().lines == [("WATCHDOG", "1")]
    assert time.monotonic() - began > 0.4


def test_the_watchdog_is_not_fed_by_a_step_that_hangs(nest: Nest) -> None:
    nest.looped("""
        def step(self):
            self.update(at="step")
            time.sleep(0.5)
            self.update(at="after")
    """)
    nest.fork(watchdog=0.1)
    update(nest)
    assert nest.next().lines[1] == ("X_ZMSVC_UPDATE", '{"at":"after"}')


# --- notifications of a task


def test_an_update_that_is_not_json_names_the_item(nest: Nest) -> None:
    nest.single("""
        def run(self):
            loop = []
            loop.append(loop)
            for bad in ({"x": object()}, {"x": float("nan")}, {"x": {(1, 2): 3}}, {"x": loop}, {"x": b""}):
                try:
                    self.update(fine=1, **bad)
                except TypeError as error:
                    self.log.info("%s", error)
            try:
                self.update(x="x" * (1 << 20))
            except ValueError as error:
                self.log.info("%s", error)
            self.update(self="é", big="x" * 200_000)
    """)
    task = nest.fork()
    nest.until("READY")
    assert update(nest) == {"self": "é", "big": "x" * 200_000}
    assert task.end() == 0
    assert nest.logged().count("cannot update: x is not JSON: ") == 5
    assert "cannot update: 1048584 bytes of JSON, at most 1048576 are allowed" in nest.logged()


@pytest.mark.parametrize(
    "item", ["pid=1", "device_action='shout'", "result=42", "deep=[[]] * 0 or nested(64)"]
)
def test_an_update_with_a_reserved_item_raises_and_sends_nothing(nest: Nest, item: str) -> None:
    nest.single(f"""
        def run(self):
            def nested(depth):
                return [nested(depth - 1)] if depth else []
            try:
                self.update({item}, n=3)
            except ValueError as error:
                self.log.info("%s", error)
            self.update(after=1)
    """)
    task = nest.fork()
    nest.until("READY")
    assert update(nest) == {"after": 1}, "nothing was sent of the first"
    assert task.end() == 0
    assert "cannot update: " in nest.logged()


def full(nest: Nest) -> None:
    """Wait until the queue of the supervisor has no room."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        probe.connect(str(nest.home / "n"))
        waiting.wait_for(lambda: not select.select([], [probe], [], 0)[1])


def test_update_with_wait_false_returns_false_instead_of_waiting(nest: Nest, gate: Path) -> None:
    nest.single(f"""
        def run(self):
            taken = 0
            while self.update(n=taken, wait=False):
                taken += 1
            open({str(nest.home / "taken")!r}, "w").write(str(taken))
            open({str(gate)!r}).read()
            self.update(last=taken)
    """)
    task = nest.fork()
    taken = int(
        waiting.wait_for(lambda: (nest.home / "taken").exists() and (nest.home / "taken").read_text())
    )
    nest.until("READY")
    assert [json.loads(nest.until("X_ZMSVC_UPDATE")["X_ZMSVC_UPDATE"]) for _ in range(taken)] == [
        {"n": n} for n in range(taken)
    ]
    release(gate)
    said = nest.until("X_ZMSVC_UPDATE")
    assert json.loads(said["X_ZMSVC_UPDATE"]) == {"last": taken}
    assert int(said["X_ZMSVC_SEQ"]) == taken + 1, "what was not taken has no number"
    assert task.end() == 0


@pytest.mark.parametrize("kind", ["single", "looped"])
def test_a_stop_request_ends_a_waiting_update(nest: Nest, kind: str) -> None:
    work = """
        def METHOD(self):
            try:
                while self.update(n=1):
                    pass
                self.log.info("not taken")
            finally:
                self.log.info("the wait is over")
        def close(self):
            self.log.info("closed")
    """
    if kind == "single":
        nest.single(work.replace("METHOD", "run"))
    else:
        nest.looped(work.replace("METHOD", "step"))
    task = nest.fork()
    full(nest)
    task.signal(signal.SIGTERM)
    waiting.wait_for(lambda: "closed" in nest.logged())
    assert "the wait is over" in nest.logged()
    assert ("not taken" in nest.logged()) is (kind == "looped"), "the run of a SingleTask is broken off there"
    nest.until("STOPPING")
    assert task.end() == 0


def test_the_last_update_of_a_stopping_task_arrives(nest: Nest) -> None:
    nest.looped("""
        def step(self):
            self.wait()
        def close(self):
            assert self.update(last="words")
    """)
    task = nest.fork()
    nest.until("READY")
    task.signal(signal.SIGTERM)
    assert update(nest) == {"last": "words"}
    assert task.end() == 0


def test_the_watchdog_is_fed_while_updates_are_paced(nest: Nest) -> None:
    nest.single("""
        def run(self):
            for n in range(1600):
                self.update(n=n)
    """)
    task = nest.fork(watchdog=0.1)
    nest.until("READY")
    said, began = [], time.monotonic()
    while len([each for each in said if each == "X_ZMSVC_UPDATE"]) < 1600:
        said += [key for key, _ in nest.next().lines]
    assert time.monotonic() - began > 0.5, "600 more than come at once, at 1,000 a second"
    assert said.count("WATCHDOG") >= 2
    assert task.end() == 0


def test_updates_wait_for_a_slow_supervisor_and_none_is_lost(nest: Nest) -> None:
    nest.single("""
        def run(self):
            for number in range(100):
                self.update(number=number)
    """)
    task = nest.fork()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        probe.connect(str(nest.home / "n"))
        waiting.wait_for(lambda: not select.select([], [probe], [], 0)[1])
    said = [nest.until("X_ZMSVC_UPDATE") for _ in range(100)]
    assert [json.loads(each["X_ZMSVC_UPDATE"])["number"] for each in said] == list(range(100))
    assert [int(each["X_ZMSVC_SEQ"]) for each in said] == list(range(1, 101))
    assert task.end() == 0


def test_what_is_logged_and_printed_is_in_the_log(nest: Nest) -> None:
    nest.single("""
        def run(self):
            import subprocess, sys, logging
            self.log.info("logged")
            logging.getLogger("library").warning("by a library")
            self.log.debug("not this")
            print("printed", "twice")
            print("<3>worse")
            print("on stderr", file=sys.stderr)
            subprocess.run("echo by a program; echo and on stderr >&2", shell=True)
            sys.stdout.write("without end")
    """)
    task = nest.fork()
    assert task.end() == 0
    head = f"Work[{task.pid}] TX/ts_100 "
    lines = [line[29:] if line[4:5] == "-" else line for line in nest.logged().splitlines()]
    assert lines == [
        f"{head}INFO: logged",
        f"{head}WARNING: by a library",
        f"{head}INFO: printed twice",
        f"{head}ERROR: worse",
        f"{head}WARNING: on stderr",
        "by a program",
        "and on stderr",
        f"{head}INFO: without end",
    ]


def test_an_exception_in_a_thread_is_logged(nest: Nest) -> None:
    nest.single("""
        def run(self):
            class Weird:
                def __del__(self):
                    raise KeyError("at its end")
            thread = threading.Thread(target=lambda: 1 / 0, name="helper")
            thread.start()
            thread.join()
            Weird()
    """)
    assert nest.fork().end() == 0
    assert "ERROR: Thread helper ended by an exception\n    Traceback" in nest.logged()
    assert "ZeroDivisionError" in nest.logged()
    assert "KeyError: 'at its end'" in nest.logged()


def test_everything_is_flushed_at_the_end(nest: Nest) -> None:
    nest.single(f"""
        def run(self):
            import atexit, tempfile
            self.file = open({str(nest.home)!r} + "/written", "w")
            self.file.write("all of it")
            self.temporary = tempfile.TemporaryDirectory(dir={str(nest.home)!r})
            atexit.register(lambda: self.update(at="exit"))
            atexit.register(lambda: 1 / 0)
    """)
    task = nest.fork()
    assert task.end() == 0
    assert (nest.home / "written").read_text() == "all of it"
    assert not list(nest.home.glob("tmp*"))
    assert nest.rest()[-1] == "X_ZMSVC_SEQ=1"
    assert "ZeroDivisionError" in nest.logged()


def test_what_a_task_forks_may_be_ended_by_sigterm_and_the_task_lives_on(nest: Nest) -> None:
    nest.looped("""
        interval = 0.01
        def setup(self):
            import multiprocessing
            child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,))
            child.start()
            child.terminate()
            child.join()
            self.update(code=child.exitcode)
        def step(self):
            self.update(at="step")
    """)
    nest.fork()
    assert update(nest) == {"code": -15}
    assert [update(nest) for _ in range(3)] == [{"at": "step"}] * 3


# --- the bus


def test_what_is_published_arrives_from_the_first_message_on(nest: Nest, bus: Forwarder) -> None:
    nest.single("""
        def run(self):
            for number in range(1000):
                self.publish("news", {"content": {"number": number}, "header": {"action": "x"}})
            self.update(sent=True)
            for bad in ("", "a @@@ b", "ends @@@"):
                try:
                    self.publish(bad, {})
                except ValueError as error:
                    self.log.info("%s", error)
    """)
    subscriber = bus.subscriber(messages.prefix("news"))
    bus.connected_publisher(messages.prefix("news"))
    task = nest.fork()
    assert task.end() == 0
    frames = [received(subscriber) for _ in range(1000)]
    assert frames[0] == b'news @@@ {"header":{"action":"x"},"content":{"number":0}}'
    assert [messages.decode(frame)[1]["content"]["number"] for frame in frames] == list(range(1000))
    assert nest.logged().count("cannot be a topic") == 3


LISTENER = """
from zmsvc.task import {kind}, TaskService
class Work({kind}):
    interval = 3600.0
    def setup(self):
        self.got = []
    {method}
class ServiceWork(TaskService):
    service_name = "work"
    task_class = Work
    def on_control(self, message):
        self.update(heard=message["content"]["status"]["number"], of=message["header"]["service_id"], task=self.task.got)
        if message["content"]["status"]["number"] == 666:
            raise ValueError("no such number")
"""


@pytest.mark.parametrize(
    ("kind", "method"), [("LoopedTask", "def step(self): pass"), ("SingleTask", "def run(self): self.wait()")]
)
def test_on_control_gets_the_messages_of_its_transaction_after_ready(
    nest: Nest, bus: Forwarder, kind: str, method: str
) -> None:
    nest.service("Work", LISTENER.format(kind=kind, method=method))
    publisher = bus.connected_publisher()
    task = nest.fork()
    nest.until("READY")
    await_subscription(publisher)
    for frame in (
        control("TX2", "ts_101", 1), control("TX", "ts_100", 2), control("T", "ts_101", 3),
        b'control @@@ {"header":{"service_transaction":"TX"',
        control("TX", "ts_101", 4), control("TX", "ts_102", 5),
    ):  # fmt: skip
        assert publisher.send(frame)
    assert update(nest) == {"heard": 4, "of": "ts_101", "task": []}
    assert update(nest) == {"heard": 5, "of": "ts_102", "task": []}
    assert "Ignored a message on the bus: cannot read message" in nest.logged()
    task.signal(signal.SIGTERM)
    assert task.end() == 0


def test_a_flood_of_messages_does_not_delay_steps_or_a_stop(nest: Nest, bus: Forwarder) -> None:
    nest.service("Work", LISTENER.format(kind="LoopedTask", method="def step(self): self.got.append(1)"))
    publisher = bus.connected_publisher()
    task = nest.fork(configuration={"interval": "0.001"})
    nest.until("READY")
    await_subscription(publisher)
    for number in range(1000):
        assert publisher.send(control("TX", "ts_101", number + 1000))
    found = [update(nest) for _ in range(1000)]
    assert [each["heard"] for each in found] == list(range(1000, 2000))
    assert len(found[-1]["task"]) > 3
    task.signal(signal.SIGTERM)
    assert task.end() == 0


def test_an_exception_in_on_control_is_a_failure(nest: Nest, bus: Forwarder) -> None:
    nest.service("Work", LISTENER.format(kind="LoopedTask", method="def step(self): pass"))
    publisher = bus.connected_publisher()
    task = nest.fork()
    nest.until("READY")
    await_subscription(publisher)
    assert publisher.send(control("TX", "ts_101", 666))
    assert nest.until("STATUS")["STATUS"] == "ValueError: no such number"
    assert task.end() == 1


def test_without_a_device_a_task_starts_and_says_so(nest: Nest) -> None:
    nest.service("Work", LISTENER.format(kind="LoopedTask", method="def step(self): pass"))
    task = nest.fork()
    nest.until("READY")
    assert "Cannot reach ipc://" in nest.logged()
    task.signal(signal.SIGTERM)
    assert task.end() == 0


# --- commands


def command(nest: Nest, *argv: str, **changes: Any) -> tuple[Any, int]:
    """Fork a Command. Return it with the pipe that reports a failed exec."""
    reader, writer = os.pipe()
    task = nest.fork(Descriptors(exec_gate=writer), service_type="Command", command=argv, **changes)
    os.close(writer)
    return task, reader


def test_a_command_takes_the_process_over(nest: Nest) -> None:
    task, reader = command(
        nest,
        "sh",
        "-c",
        "echo out; echo err >&2; pwd; umask; read x; exec sleep 3600",
        environment={"OWN": "1"},
    )
    assert os.read(reader, 1) == b""
    os.close(reader)
    waiting.wait_for(lambda: nest.logged() == "out\nerr\n/\n0022\n")
    waiting.wait_for(lambda: os.readlink(f"/proc/{task.pid}/exe").endswith("sleep"))
    found = environment_of(task.pid)
    assert (found["OWN"], found["ZMSVC_TASK"], found["NOTIFY_SOCKET"]) == (
        "1",
        "ts_100",
        str(nest.home / "n"),
    )
    assert os.getsid(task.pid) == task.pid
    # While the program loads its libraries, they are open for a moment.
    waiting.wait_for(lambda: sorted(os.listdir(f"/proc/{task.pid}/fd")) == ["0", "1", "2"])
    task.signal(signal.SIGTERM)
    assert task.end() == -signal.SIGTERM
    assert nest.empty()


def test_a_command_that_cannot_be_executed_says_why(nest: Nest) -> None:
    task, reader = command(nest, "/nonexistent/program", "x")
    assert os.read(reader, 1000) == b"cannot execute /nonexistent/program: No such file or directory"
    os.close(reader)
    assert task.end() == 203
    assert nest.rest() == ["STATUS=cannot execute /nonexistent/program: No such file or directory"]
    assert "ERROR: cannot execute /nonexistent/program" in nest.logged()


# --- tasks that share a process


def shared(nest: Nest, *instances: str) -> tuple[Task, socket.socket]:
    """Start a process with a member ts_0, ts_1, ... for each of these instances, with the launches 0, 1, ...
    Return it with the keeper's end of the channel.
    """
    line, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.settimeout(waiting.PATIENCE)
    with its:
        task = nest.fork(Descriptors(shared_line=its.fileno()), service_type="Thread")
    for number, instance in enumerate(instances):
        spec = nest.spec(launch=number, service_type="Thread", task=f"ts_{number}", instance=instance)
        seqpacket.send(line, sharing.ORDERS.encode(sharing.StartMember(spec=spec)))
    return task, line


def ended(line: socket.socket) -> tuple[int, int]:
    """Return the launch and the status of the next member that ends."""
    got = seqpacket.receive_message(line, sharing.REPORTS)
    assert got is not None
    return got.launch, got.status


def test_tasks_that_share_a_process_run_and_end_independently(nest: Nest) -> None:
    nest.looped("""
        interval = 0.01
        def step(self):
            print("printed by", self.service_id)
            self.log.info("logged by %s", self.service_id)
            self.update(of=self.service_id, process=os.getpid())
            self.wait(3600)
    """, "Good")  # fmt: skip
    nest.looped("def step(self):\n    raise ValueError('bad')", "Bad")
    nest.single("def run(self):\n    self.update(done=True)", "Short")
    task, line = shared(nest, "Good", "Bad", "Short")
    with line:
        assert {ended(line), ended(line)} == {(1, 1), (2, 0)}
        said: dict[str, list[str]] = {"ts_0": [], "ts_1": [], "ts_2": []}
        while sum(map(len, said.values())) < 7:
            datagram = nest.next()
            assert datagram.pid == task.pid
            (key, member), *rest = datagram.lines
            assert key == "X_ZMSVC_TASK"
            said[member].append("=".join(rest[-1]))
        assert said == {
            "ts_0": ["READY=1", f'X_ZMSVC_UPDATE={{"of":"ts_0","process":{task.pid}}}'],
            "ts_1": ["READY=1", "STATUS=ValueError: bad"],
            "ts_2": ["READY=1", 'X_ZMSVC_UPDATE={"done":true}', "STOPPING=1"],
        }
        seqpacket.send(line, sharing.ORDERS.encode(sharing.StopMember(launch=0)))
        assert ended(line) == (0, 0)
        assert nest.next().lines == [("X_ZMSVC_TASK", "ts_0"), ("STOPPING", "1")]
    assert task.end() == 0
    for text in ("printed by ts_0", "logged by ts_0"):
        assert f"Good[{task.pid}] TX/ts_0 INFO: {text}" in nest.logged()
    assert f"Bad[{task.pid}] TX/ts_1 ERROR: Failed: ValueError: bad" in nest.logged()


def test_sigterm_stops_all_tasks_of_a_shared_process(nest: Nest) -> None:
    nest.looped("def step(self):\n    self.wait(3600)")
    task, line = shared(nest, "Work", "Work")
    with line:
        for _ in range(2):
            assert nest.until("READY")
        task.signal(signal.SIGTERM)
        assert {ended(line), ended(line)} == {(0, 0), (1, 0)}
    assert task.end() == 0


# --- by hand


def foreground(nest: Nest, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "zmsvc.task", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=nest.home,
    )


SHOUT = """
def step(self):
    self.update(shout=self.config.get("word"), cwd=os.getcwd())
    self.publish("news", {"header": {}, "content": 1})
    self.log.info("logged")
    print("printed")
def close(self):
    print("closed")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_service_runs_by_hand_until_it_is_interrupted(nest: Nest, number: int) -> None:
    nest.looped(SHOUT)
    with foreground(nest, "Services/Work/", "word=hé", "interval=0.01") as process:
        assert process.stdout is not None
        first = [process.stdout.readline() for _ in range(4)]
        process.send_signal(number)
        rest, errors = process.communicate(timeout=waiting.PATIENCE)
    assert json.loads(first[0]) == {"shout": "hé", "cwd": str(nest.home)}
    assert first[1:] == ['news @@@ {"header":{},"content":1}\n', "printed\n", first[0]]
    assert rest.endswith("closed\n")
    assert "INFO: logged" in errors
    assert process.returncode == 0


def test_ctrl_c_interrupts_a_step_and_closes(nest: Nest) -> None:
    nest.looped(
        "def step(self):\n    print('in', flush=True)\n    time.sleep(3600)\ndef close(self):\n    "
        "print('closed')"
    )
    with foreground(nest, "Services/Work") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=waiting.PATIENCE)[0] == "closed\n"
    assert process.returncode == 0


def test_a_context_file_gives_the_configuration(nest: Nest) -> None:
    nest.single(
        "def run(self):\n    self.update(word=self.config['word'], more=self.config['more'], "
        "of=[self.context, self.service_id])"
    )
    (nest.home / "Context-Echo.xml").write_text(CONTEXT)
    done = foreground(nest, "Services/Work", "--context", "Context-Echo.xml", "more=2")
    out, errors = done.communicate(timeout=waiting.PATIENCE)
    assert done.returncode == 0, errors
    assert json.loads(out) == {"word": "loud", "more": "2", "of": ["Echo", "ts_100"]}
    wrong = foreground(nest, "Services/Work", "--context", "Context-Echo.xml", "--task", "ts_999")
    assert (
        wrong.communicate(timeout=waiting.PATIENCE)[1]
        == "cannot run Work: Context-Echo.xml has no task ts_999 of it\n"
    )
    assert wrong.returncode == 2


def test_an_environment_file_of_the_context_file_acts_by_hand_as_well(nest: Nest) -> None:
    nest.single("def run(self):\n    self.update(word=os.environ['WORD'])")
    option = f"<service><environment_file>{nest.home}/ts.env</environment_file></service>"
    (nest.home / "Context-Echo.xml").write_text(CONTEXT.replace("<Task>", f"<Task>{option}", 1))
    (nest.home / "ts.env").write_text("WORD='of the file'\n")
    done = foreground(nest, "Services/Work", "--context", "Context-Echo.xml")
    out, errors = done.communicate(timeout=waiting.PATIENCE)
    assert done.returncode == 0, errors
    assert json.loads(out) == {"word": "of the file"}
    (nest.home / "ts.env").write_text("WORD\n")
    wrong = foreground(nest, "Services/Work", "--context", "Context-Echo.xml")
    where = f"{nest.home}/ts.env:1"
    assert wrong.communicate(timeout=waiting.PATIENCE)[1].startswith(
        f"cannot run Work: cannot read the environment: {where}: "
    )
    assert wrong.returncode == 2


CONTEXT = """<Context>
  <FrontEndEndpoint>tcp://127.0.0.1:5556</FrontEndEndpoint><BackendEndpoint>tcp://127.0.0.1:5557</BackendEndpoint>
  <FrontBind>tcp://*:5557</FrontBind><BackendBind>tcp://*:5556</BackendBind>
  <ContextID>context001</ContextID><TaskLogName>Echo</TaskLogName>
  <TaskService id="ts_100" topic="process" instance="Work" serviceType="Process"><Task>
    <description>Says a word</description>
    <message><header><action>start</action><service_name>work</service_name></header>
      <content><configuration><location>Services</location><word>loud</word><more>1</more></configuration></content></message>
    <state type="on_start"></state>
  </Task></TaskService>
</Context>
"""


def test_a_service_that_fails_by_hand_says_why(nest: Nest) -> None:
    nest.single(f"def run(self):\n    {BROKEN}")
    process = foreground(nest, "Services/Work")
    assert "ValueError: bad thing" in process.communicate(timeout=waiting.PATIENCE)[1]
    assert process.returncode == 1
    process = foreground(nest, "Services/None")
    assert (
        f"cannot load service None: there is no None/ServiceNone.py in {nest.home}/Services"
        in process.communicate()[1]
    )
    assert process.returncode == 203


# --- the classes alone


def test_a_class_listens_only_when_it_overrides_on_control() -> None:
    class Deaf(sdk.TaskService):
        pass

    class Listening(Deaf):
        def on_control(self, message: dict[str, Any]) -> None:
            pass

    assert (Deaf.listens(), Listening.listens()) == (False, True)


def test_a_cause_is_json_with_attributes() -> None:
    cause = sdk.cause_of(
        {
            "by": "rule",
            "depth": 1,
            "sources": [{"task": "a", "trigger": "on_exit"}, {"task": "b", "rule": "r"}],
        }
    )
    assert (cause.by, cause.task, cause.trigger, cause.rule, cause.exit) == ("rule", "b", None, "r", None)
    assert json.loads(json.dumps(cause)) == cause
    with pytest.raises(AttributeError):
        _ = cause.nothing
