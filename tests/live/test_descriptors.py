"""Another user sends descriptors whose close hangs the process that receives them: only that user's own
tasks notice.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from context import Context, Subscriber
from lingering import LINGERING
from needs import need
from waiting import stop_process, wait_for

ATTACKER = "daemon"
"""A user that exists on every Debian. One of the tasks runs as this user."""
LINGER = 3600
"""Seconds for which the kernel blocks the process that closes the descriptor of the attacker. No order waits as
long.
"""

Attack = Callable[..., None]

ATTACK = (
    LINGERING
    + r"""
path, linger = sys.argv[1], int(sys.argv[2])
victim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
victim.connect(path)
ours = lingering(linger)
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [ours.fileno()]))]
print("ready", flush=True)
sys.stdin.readline()
victim.sendmsg([b"STATUS=hello"], rights)
ours.close()
print("sent", flush=True)
sys.stdin.read()
"""
)


ECHO = """
interval = 0.05
n = 0
def step(self):
    import pathlib
    limit, sent = pathlib.Path("{home}/limit"), pathlib.Path("{home}/sent")
    if limit.exists() and self.n >= int(limit.read_text()):
        return
    self.n += 1
    self.update(n=self.n)
    if self.service_id == "other":
        with sent.open("r+") as file:
            file.write(f"{{self.n:6}}")
"""
"""Numbers its updates, up to the one in the file `limit`. The task `other` writes into `sent` which it has
sent.
"""


@pytest.fixture
def mixed(context: Context) -> Context:
    """A context with a task of root and one of another user."""
    need(os.geteuid() == 0, "only root can run tasks of several users")
    context.home.chmod(0o755)
    context.looped("Echo", ECHO.format(home=context.home))
    (context.home / "sent").write_text(f"{0:6}")
    (context.home / "sent").chmod(0o666)
    context.task("own", "Echo")
    context.task("other", "Echo", service=f"<user>{ATTACKER}</user>")
    context.start("--transaction", "T")
    return context


@pytest.fixture
def attack() -> Iterator[Attack]:
    """Yield a function that sends a descriptor as the attacker, who goes on running, when `first` has been
    called. The attacker has connected by then.
    """
    running: list[subprocess.Popen[str]] = []

    def begin(path: Path, first: Callable[[], None] = lambda: None) -> None:
        user = pwd.getpwnam(ATTACKER)
        process = subprocess.Popen(
            [
                shutil.which("python3", path="/usr/bin:/usr/local/bin") or "python3",
                "-c",
                ATTACK,
                str(path),
                str(LINGER),
            ],
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            cwd="/",
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        running.append(process)
        assert process.stdin
        assert process.stdout
        assert process.stderr
        if process.stdout.readline() != "ready\n":
            raise PermissionError(process.stderr.read())
        first()
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "sent\n"

    yield begin
    for each in running:
        each.kill()
        with each:
            each.wait()


def attacked(context: Context) -> Path:
    return context.runtime / context.name / f"notify-{pwd.getpwnam(ATTACKER).pw_uid}.sock"


def test_another_user_cannot_reach_the_notify_socket_of_the_daemon(mixed: Context, attack: Attack) -> None:
    with pytest.raises(PermissionError, match="Permission denied"):
        attack(mixed.runtime / mixed.name / "notify.sock")


def test_tasks_of_other_users_are_heard_over_a_socket_of_their_own(
    mixed: Context, subscriber: Callable[..., Subscriber]
) -> None:
    told = subscriber(b"control @@@ ")
    assert {
        told.control("updated", "own")["header"]["service_id"],
        told.control("updated", "other")["header"]["service_id"],
    } == {"own", "other"}
    about = attacked(mixed).stat()
    assert (about.st_uid, about.st_mode & 0o777) == (pwd.getpwnam(ATTACKER).pw_uid, 0o600)
    # The supervisor is idle when it is killed: the messages of this moment would be lost (docs/promises.md).
    last = silence(mixed, told)
    status = mixed.status()
    stop_process(status["pid"])
    limit(mixed, last + 20)
    wait_for(lambda: int((mixed.home / "sent").read_text()) >= last + 5)
    os.kill(status["pid"], signal.SIGKILL)
    numbers = [told.control("updated", "other")["content"]["status"]["n"] for _ in range(20)]
    assert numbers == list(range(last + 1, last + 21)), "the next supervisor has lost or repeated some"
    assert mixed.status()["restarts"] == status["restarts"] + 1


def silence(context: Context, told: Subscriber) -> int:
    """Let the task `other` say no more. Return the number of its last update, when the supervisor has it."""
    last = int(wait_for((context.home / "sent").read_text)) + 20
    limit(context, last)
    while told.control("updated", "other")["content"]["status"]["n"] < last:
        pass
    return last


def limit(context: Context, number: int) -> None:
    new = context.home / "limit.new"
    new.write_text(str(number))
    new.rename(context.home / "limit")


def test_the_last_updates_of_another_users_task_are_processed_before_its_exit(
    mixed: Context, subscriber: Callable[..., Subscriber]
) -> None:
    said = "".join(f"self.update(n={number})\n        " for number in range(20))
    mixed.service(
        "Short",
        "from zmsvc.task import SingleTask, TaskService\n"
        f"class Short(SingleTask):\n    def run(self):\n        {said}\n"
        "class ServiceShort(TaskService):\n    service_name = 'short'\n    task_class = Short\n",
    )
    mixed.task("short", "Short", entry=False, service=f"<user>{ATTACKER}</user>")
    mixed.write()
    mixed.ctl("reload")
    told = subscriber(b"control @@@ ")
    mixed.ctl("start", "--transaction", "T", "--task", "short", check=None)
    told.control("stopped", "short")
    numbers = [
        body["content"]["status"]["n"]
        for topic, body in told.heard
        if body.get("header", {}).get("service_id") == "short" and body["header"]["action"] == "updated"
    ]
    assert numbers == list(range(20))


def test_a_descriptor_that_hangs_holds_up_only_the_tasks_of_its_user(
    mixed: Context, attack: Attack, subscriber: Callable[..., Subscriber]
) -> None:
    # The queue of the socket has room for the attacker: no supervisor would read what fills it.
    last = silence(mixed, subscriber(b"control @@@ "))
    before = mixed.status()
    # The attacker closes its copy before the supervisor receives one. Otherwise the attacker's close would be
    # the last, and would hang.
    attack(attacked(mixed), lambda: stop_process(before["pid"]))
    limit(mixed, last + 1_000_000)
    os.kill(before["pid"], signal.SIGCONT)
    for _ in range(5):
        mixed.ctl("restart", "--transaction", "T", "--task", "own")
    assert mixed.status()["pid"] == before["pid"]
    mixed.ctl("stop", "--transaction", "T", "--task", "other")
    assert mixed.stop() == 0
    assert "User 1 delays the notifications of its tasks" in mixed.log.read_text()
