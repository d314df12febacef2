"""`started` means executed: a failure before that is `cannot-launch` with a reason. It fires on_fail, and the
order fails.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest
from context import Context, Subscriber
from needs import need
from waiting import wait_for


@pytest.fixture(autouse=True)
def services(context: Context) -> None:
    """Make the directory that every task of the file names."""
    (context.home / "Services").mkdir(exist_ok=True)


Prepare = Callable[[Path], str]


def _script(home: Path, first: bytes, mode: int = 0o755) -> str:
    path = home / "program"
    path.write_bytes(first + b"\nexit 0\n")
    path.chmod(mode)
    return f"<command>{path}</command>"


BIG = "x" * 200_000
CASES: dict[str, tuple[Prepare, str, str]] = {
    "a limit above the hard one": (
        lambda home: "<command>sleep 1000</command>",
        "<limits><nofile>{more}</nofile></limits>",
        "cannot limit nofile",
    ),
    "a missing program": (
        lambda home: "<command>/no/such/program</command>",
        "",
        "No such file or directory",
    ),
    "a program that is not in PATH": (
        lambda home: "<command>no-such-program</command>",
        "",
        "No such file or directory",
    ),
    "a program without permission": (
        lambda home: _script(home, b"#!/bin/sh", 0o644),
        "",
        "Permission denied",
    ),
    "a directory": (lambda home: f"<command>{home}</command>", "", "Permission denied"),
    "a missing interpreter": (
        lambda home: _script(home, b"#!/no/such/one"),
        "",
        "its interpreter '/no/such/one' cannot be",
    ),
    "an interpreter with a carriage return": (
        lambda home: _script(home, b"#!/bin/sh\r"),
        "",
        "its interpreter '/bin/sh\\r' cannot be",
    ),
    "no program at all": (lambda home: _script(home, b"\x7fELF\x02\x01\x01"), "", "Exec format error"),
    "an argument that is too long": (
        lambda home: f"<command><arg>echo</arg><arg>{BIG}</arg></command>",
        "",
        "argument 1 has 200000 bytes, and the kernel takes 131071",
    ),
    "a variable that is too long": (
        lambda home: "<command>true</command>",
        f"<environment><BIG>{BIG}</BIG></environment>",
        "the variable BIG has 200004 bytes, and the kernel takes 131071",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_command_that_was_not_executed_was_never_started(context: Context, case: str) -> None:
    prepare, service, why = CASES[case]
    if "{more}" in service:
        # Root may raise a hard limit, but not above the limit of the kernel for all processes.
        service = service.format(more=int(Path("/proc/sys/fs/nr_open").read_text()) + 1)
    context.task(
        "ts_1",
        "Bad",
        kind="Command",
        config=prepare(context.home),
        service=service,
        entry=False,
        rules={"on_start": ("start", "ts_2"), "on_fail": ("start", "ts_3")},
    )
    context.task("ts_2", "After", kind="Command", config="<command>sleep 1000</command>", entry=False)
    context.task("ts_3", "Rescue", kind="Command", config="<command>sleep 1000</command>", entry=False)
    context.start("--transaction", "T")
    answer = context.ask(verb="start", transaction="T", tasks=["ts_1"])
    assert (answer["ok"], answer["code"]) == (False, 1)
    assert why in answer["error"]
    task = context.task_is("ts_1", "failed")
    assert task["exit"]["reason"] == "cannot-launch", task
    assert why in task["status"]
    context.task_is("ts_3", "running")
    events = context.ctl("events", "--json").stdout
    assert '"started"' not in "".join(line for line in events.splitlines() if '"ts_1"' in line)
    assert context.tasks()["ts_2"]["sub"] == "waiting"


@pytest.mark.parametrize("kind", ["Command", "Process", "Thread"])
@pytest.mark.parametrize(("service", "why"), [
    ("<user>nobody-here</user>", "cannot run as user nobody-here: this machine has no such user (add it, or change <user>)"),
    ("<group>nobody-here</group>", "cannot run as group nobody-here: this machine has no such group (add it, or change <group>)"),
])  # fmt: skip
def test_an_unknown_user_keeps_that_task_alone_from_being_started(
    context: Context, kind: str, service: str, why: str
) -> None:
    context.looped("Echo")
    config = "<command>sleep 1000</command>" if kind == "Command" else ""
    context.task("bad", "Echo", kind=kind, config=config, service=service)
    context.task("good", "Good", kind="Command", config="<command>sleep 1000</command>")
    context.start("--transaction", "T")
    task = context.task_is("bad", "failed")
    assert (task["exit"]["reason"], task["status"]) == ("cannot-launch", why)
    context.task_is("good", "running")


IDS = "grep -E '^(Uid|Gid|Groups)' /proc/self/status; echo $HOME $USER $LOGNAME; echo end"


@pytest.mark.parametrize(
    ("service", "uid", "gid", "of_the_user"),
    [
        ("<user>12345</user>", 12345, 12345, "/ 12345 12345"),
        ("<user>12345</user><group>2</group>", 12345, 2, "/ 12345 12345"),
        (
            "<user>2</user>",
            2,
            pwd.getpwuid(2).pw_gid,
            f"{pwd.getpwuid(2).pw_dir} {pwd.getpwuid(2).pw_name} {pwd.getpwuid(2).pw_name}",
        ),
        ("<group>54321</group>", 0, 54321, ""),
    ],
    ids=["without an entry", "without an entry, with a group", "with an entry", "a group alone"],
)
def test_a_number_is_a_user_with_and_without_an_entry(
    context: Context, service: str, uid: int, gid: int, of_the_user: str
) -> None:
    need(os.geteuid() == 0, "only root can run tasks of several users")
    with pytest.raises(KeyError):
        pwd.getpwuid(12345)
    context.home.chmod(0o755)
    told = context.home / "told"
    told.touch()
    told.chmod(0o666)
    context.task("ts_1", "Ids", kind="Command", service=service, config=(
        f"<command><arg>sh</arg><arg>-c</arg><arg>exec &gt; {told}; {IDS}</arg></command>"
    ))  # fmt: skip
    context.start("--transaction", "T")
    wait_for(lambda: told.read_text().endswith("end\n"))
    lines = dict(line.split(":\t") for line in told.read_text().splitlines() if ":\t" in line)
    assert (lines["Uid"], lines["Gid"]) == ("\t".join([f"{uid}"] * 4), "\t".join([f"{gid}"] * 4))
    if "12345" in service or "54321" in service:
        assert lines["Groups"].split() == [str(gid)], "no group of the daemon's is left"
    if of_the_user:
        assert of_the_user in told.read_text().splitlines()


def test_an_argument_that_the_locale_cannot_encode_is_told(context: Context) -> None:
    context.task(
        "ts_1",
        "Bad",
        kind="Command",
        config="<command><arg>echo</arg><arg>\N{SNOWMAN}</arg></command>",
        entry=False,
    )
    context.start("--transaction", "T", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", LC_ALL="C")
    answer = context.ask(verb="start", transaction="T", tasks=["ts_1"])
    if answer["ok"]:
        pytest.skip("this locale can encode it")
    assert "cannot be written in this locale's encoding" in answer["error"]
    assert context.tasks()["ts_1"]["exit"]["reason"] == "cannot-launch"


def test_a_program_that_is_executed_and_ends_at_once_was_started(context: Context) -> None:
    context.task("ts_1", "Quick", kind="Command", config="<command>sh -c 'exit 203'</command>", entry=False)
    context.start("--transaction", "T")
    subscriber = Subscriber(context.subscribe_endpoint, context.publish_endpoint)
    try:
        context.ask(verb="start", transaction="T", tasks=["ts_1"])
        assert subscriber.control("started", "ts_1")
        assert context.task_is("ts_1", "failed")["exit"]["code"] == 203
    finally:
        subscriber.close()


def test_a_process_that_is_killed_before_its_program_runs_was_never_started(context: Context) -> None:
    """RLIMIT_CPU of 0 kills the process before it executes the program."""
    limit = "<limits><cpu>0</cpu></limits>"
    context.task(
        "ts_1", "Bad", kind="Command", config="<command>sleep 1000</command>", service=limit, entry=False
    )
    context.start("--transaction", "T")
    answer = context.ask(verb="start", transaction="T", tasks=["ts_1"])
    task = context.tasks()["ts_1"]
    if not answer["ok"]:
        assert task["exit"]["reason"] == "cannot-launch", task
        assert "its program was not executed" in task["status"]
    else:
        # The kernel looks at this limit at a clock tick, which may come after the exec.
        assert task["sub"] in ("running", "failed")


@pytest.mark.parametrize("kind", ["Process", "Thread"])
def test_a_python_task_that_cannot_be_imported_cannot_be_launched(context: Context, kind: str) -> None:
    context.service("Broken", "import no_such_module\n")
    context.task("ts_1", "Broken", kind=kind, entry=False, rules={"on_fail": ("start", "ts_2")})
    context.task("ts_2", "Rescue", kind="Command", config="<command>sleep 1000</command>", entry=False)
    context.start("--transaction", "T")
    answer = context.ask(verb="start", transaction="T", tasks=["ts_1"])
    assert (answer["ok"], answer["code"]) == (False, 1)
    assert "no_such_module" in answer["error"]
    assert context.tasks()["ts_1"]["exit"]["reason"] == "cannot-launch"
    context.task_is("ts_2", "running")


def test_a_file_system_that_executes_nothing_is_named(context: Context) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or not os.statvfs(shm).f_flag & os.ST_NOEXEC:
        pytest.skip("no file system here is mounted noexec")
    program = shm / f"zmsvc-{os.getpid()}"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    try:
        context.task("ts_1", "Bad", kind="Command", config=f"<command>{program}</command>", entry=False)
        context.start("--transaction", "T")
        answer = context.ask(verb="start", transaction="T", tasks=["ts_1"])
        assert "mounted noexec" in answer["error"]
    finally:
        program.unlink()
    wait_for(lambda: context.tasks()["ts_1"]["sub"] == "failed")
