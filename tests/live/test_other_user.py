"""A task inherits the umask of the caller, and, as another user, nothing about the person who has started the
daemon.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest
from context import Context
from needs import need
from others import command, give, others
from waiting import wait_for

USER = "daemon"


@pytest.fixture(params=[0o077, 0o002], ids=["umask 077", "umask 002"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def told(context: Context, task: str) -> list[str]:
    """Return the output of the shell of the task, from the log of the daemon."""
    marker = f"{task}-of-this-test"

    def lines() -> list[str]:
        found = (context.home / marker).read_text().splitlines()
        assert found[-1:] == ["end"]
        return found

    return wait_for(lines)


def teller(context: Context, task: str, service: str = "") -> None:
    (context.home / "Services").mkdir(exist_ok=True)
    target = context.home / f"{task}-of-this-test"
    target.touch()
    target.chmod(0o666)
    script = f"exec &gt; {target}; umask; grep NoNewPrivs /proc/self/status; env; echo end"
    command = f"<command><arg>sh</arg><arg>-c</arg><arg>{script}</arg></command>"
    context.task(task, "Tell", kind="Command", config=command, service=service)


def test_a_task_of_another_user_inherits_nothing_of_the_person_who_starts_the_daemon(
    by_hand: Context,
) -> None:
    teller(by_hand, "own")
    teller(by_hand, "other", f"<user>{USER}</user><environment><GIVEN>by the file</GIVEN></environment>")
    by_hand.detach(SSH_AUTH_SOCK="/run/agent", PASSWORD="secret", LC_TIME="C", TZ="UTC")
    assert {"SSH_AUTH_SOCK=/run/agent", "PASSWORD=secret"} <= {*told(by_hand, "own")}
    variables = {line.partition("=")[0] for line in told(by_hand, "other") if "=" in line}
    assert {"GIVEN", "LC_TIME", "TZ", "PATH", "NOTIFY_SOCKET", "ZMSVC_TASK"} <= variables
    known = {
        "PATH",
        "LANG",
        "TZ",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "NOTIFY_SOCKET",
        "GIVEN",
        "PWD",
        "_",
        "SHLVL",
        "OLDPWD",
    }
    assert {name for name in variables if not name.startswith(("LC_", "ZMSVC_"))} <= known
    assert f"HOME={pwd.getpwnam(USER).pw_dir}" in told(by_hand, "other")


def test_under_a_service_manager_every_task_keeps_its_environment(context: Context) -> None:
    need(os.geteuid() == 0, "only root can run tasks of several users")
    context.home.chmod(0o755)
    teller(context, "other", f"<user>{USER}</user>")
    context.start("--transaction", "T", OF_THE_UNIT="kept")
    assert "OF_THE_UNIT=kept" in told(context, "other")


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("", "0"),
        (f"<user>{USER}</user>", "1"),
        (f"<user>{USER}</user><no_new_privileges>no</no_new_privileges>", "0"),
        ("<no_new_privileges>yes</no_new_privileges>", "1"),
    ],
)
def test_a_task_of_another_user_gains_no_privileges_unless_the_file_allows_it(
    context: Context, service: str, expected: str
) -> None:
    need(os.geteuid() == 0, "only root can run tasks of several users")
    need(
        "NoNewPrivs:\t0" in Path("/proc/self/status").read_text(),
        "this process itself may gain no privileges",
    )
    context.home.chmod(0o755)
    teller(context, "ts_100", service)
    context.start("--transaction", "T")
    assert f"NoNewPrivs:\t{expected}" in told(context, "ts_100")


def test_a_task_has_the_umask_of_who_started_the_daemon(by_hand: Context, umask: int) -> None:
    teller(by_hand, "ts_100")
    by_hand.detach()
    assert told(by_hand, "ts_100")[0] == f"{umask:04o}"


def test_a_python_task_has_the_umask_of_its_daemon(context: Context, umask: int) -> None:
    context.looped("Write", "def setup(self):\n    open(self.config['file'], 'w').close()\n")
    context.task("ts_100", "Write", config=f"<file>{context.home}/made</file>")
    context.start("--transaction", "T")
    context.task_is("ts_100", "running")
    assert (context.home / "made").stat().st_mode & 0o777 == 0o666 & ~umask


def test_credentials_of_the_unit_reach_the_tasks_of_its_own_user_and_no_others(context: Context) -> None:
    need(os.geteuid() == 0, "only root can run tasks of several users")
    context.home.chmod(0o755)
    teller(context, "own")
    teller(context, "named", "<user>root</user>")
    teller(context, "other", f"<user>{USER}</user>")
    context.looped(
        "Python",
        "def setup(self):\n    import os\n    self.log.info('has %s', "
        "os.environ.get('CREDENTIALS_DIRECTORY'))",
    )
    context.task("python", "Python")
    context.task("stranger", "Python", service=f"<user>{USER}</user>")
    context.start("--transaction", "T", CREDENTIALS_DIRECTORY="/run/credentials/x")
    line = "CREDENTIALS_DIRECTORY=/run/credentials/x"
    assert [line in told(context, task) for task in ("own", "named", "other")] == [True, True, False]
    assert not [each for each in told(context, "other") if each.startswith("CREDENTIALS_DIRECTORY")]
    wait_for(lambda: "has /run/credentials/x" in context.ctl("logs", "python").stdout)
    wait_for(lambda: "has None" in context.ctl("logs", "stranger").stdout)


CAPABLE = "+setuid,+setgid,+kill,+chown"


def test_capabilities_that_the_daemon_has_for_other_users_reach_no_task(context: Context) -> None:
    """A unit may give them by AmbientCapabilities=. With CAP_SETUID each task could become root."""
    owner = others(1)[0]
    (context.home / "Services").mkdir()
    context.looped("Idle")
    for task, kind, service in (
        ("own", "Process", ""),
        ("thread", "Thread", ""),
        ("other", "Process", f"<user>{USER}</user>"),
    ):
        context.task(task, "Idle", kind=kind, service=service)
    for task, service in (("command", ""), ("other-command", f"<user>{USER}</user>")):
        context.task(task, "sleep", kind="Command", config="<command>sleep 1000</command>", service=service)
    context.write()
    give(context.home, owner)
    context.home.chmod(0o755)
    context.wrapper = [*command(owner), f"--inh-caps={CAPABLE}", f"--ambient-caps={CAPABLE}"]
    # The task cannot send READY=1, because the notify socket belongs to root.
    context.start("--transaction", "T", ready=False)
    wait_for((context.runtime / context.name / "control.sock").exists)
    wait_for(lambda: [task["state"] for task in context.tasks("T").values()] == ["active"] * 5)
    tasks = context.tasks("T")
    owners = {name: os.stat(f"/proc/{task['pid']}").st_uid for name, task in tasks.items()}
    other = pwd.getpwnam(USER).pw_uid
    assert owners == {"own": owner, "thread": owner, "command": owner, "other": other, "other-command": other}
    kinds = ("CapInh", "CapPrm", "CapEff", "CapAmb")
    for pid in (*(task["pid"] for task in tasks.values()), context.status()["device_pid"]):
        found = dict(
            line.split(":\t")
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("Cap")
        )
        assert [int(found[kind], 16) for kind in kinds] == [0] * 4


@pytest.mark.parametrize("detached", [False, True])
def test_a_task_of_another_user_has_neither_the_terminal_nor_the_log(
    by_hand: Context, detached: bool
) -> None:
    """The task may neither truncate the log by its standard error (ftruncate), nor write as another task, nor
    read the input of the terminal.
    """
    target = by_hand.home / "attack"
    target.touch()
    target.chmod(0o666)
    script = (
        f"exec 3&gt; {target}; ls -l /proc/$$/fd &gt;&amp;3; truncate -s 0 /proc/$$/fd/2; echo end "
        f"&gt;&amp;3; sleep 3600"
    )
    (by_hand.home / "Services").mkdir(exist_ok=True)
    command = f"<command><arg>sh</arg><arg>-c</arg><arg>{script}</arg></command>"
    by_hand.task("evil", "Evil", kind="Command", config=command, service=f"<user>{USER}</user>")
    if detached:
        by_hand.detach()
    else:
        by_hand.start("--transaction", "T")
    log = by_hand.home / "state" / by_hand.name / "zmsvcd.log"
    before = log.read_text()
    wait_for(lambda: target.read_text().endswith("end\n"))
    opened = {
        line.split(" -> ")[1].partition(":")[0] for line in target.read_text().splitlines() if " -> " in line
    }
    assert {each for each in opened if each not in ("/dev/null", str(target))} == {"pipe"}
    assert log.read_text().startswith(before)
