"""Access rights of a context: files and sockets, the control socket, environments, users of tasks."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from context import Context, Subscriber
from needs import need

from zmsvc.core.access import CONTROL, Who
from zmsvc.supervisor.control import MAX_CLIENTS
from zmsvc.supervisor.control_requests import Requests

TX = "5HGAHZ3WPZUI71PACRPP"
NOBODY = 65534
PYTHON = "/usr/bin/python3"
"""An interpreter that every user may execute."""

FILES = {
    ".": "drwxr-xr-x",
    "keys": "drwxr-xr-x",
    "keys/Live": "drwxr-xr-x",
    "keys/Live/client.key": "-rw-r--r--",
    "keys/Live/client.key_secret": "-rw-------",
    "keys/Live/clients": "drwxr-xr-x",
    "keys/Live/clients/context.key": "-rw-r--r--",
    "keys/Live/server.key": "-rw-r--r--",
    "keys/Live/server.key_secret": "-rw-------",
    "mon": "srw-rw----",
    "pub": "srw-rw----",
    "run": "drwxr-xr-x",
    "run/Live": "drwxr-xr-x",
    f"run/Live/{TX}:ts_000.pid": "-rw-r--r--",
    f"run/Live/{TX}:ts_100.pid": "-rw-r--r--",
    "run/Live/bus.members": "-rw-r-----",
    "run/Live/control.sock": "srw-rw----",
    # Other users may only write to the sockets for notifications, where the credentials of the sender decide.
    "run/Live/keeper.sock": "srw-------",
    "run/Live/notify.sock": "srw-------",
    "run/Live/zmsvcd.lock": "-rw-r-----",
    "run/Live/zmsvcd.pid": "-rw-r--r--",
    "state": "drwxr-xr-x",
    "state/Live": "drwxr-x---",
    # This file has the text of the context file, which may have secrets.
    "state/Live/state.db": "-rw-------",
    "state/Live/state.db-shm": "-rw-------",
    "state/Live/state.db-wal": "-rw-------",
    "state/Live/zmsvcd.log": "-rw-r-----",
    "sub": "srw-rw----",
}
"""Everything that a running context and `keys make` create, by the path below the directory of the test."""


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def files(home: Path) -> dict[str, os.stat_result]:
    """Return the files of the context, without those that the test has put there."""
    ours = ("Services", "Context-Live.xml", "daemon.log", "ready.sock")
    return {
        str(path.relative_to(home)): path.lstat()
        for path in [home, *home.rglob("*")]
        if path == home or path.relative_to(home).parts[0] not in ours
    }


@pytest.mark.parametrize("given", [0o022, 0o000], ids=["umask 022", "umask 000"])
def test_every_file_and_socket_has_its_mode_and_owner(
    context: Context, home: Path, umask: Callable[[int], int], given: int
) -> None:
    context.looped("Echo", "def setup(self):\n    self.publish('x', {})")
    context.task(
        "ts_000",
        "Monitor",
        config=f"<service><endpoint>ipc://{home}/mon</endpoint><frequency_s>0.1</frequency_s></service>",
    )
    context.task("ts_100", "Echo")
    context.write()
    home.chmod(0o755)
    umask(given)
    context.ctl("keys", "make")
    context.start("--transaction", TX)
    found = files(home)
    assert {path: stat.filemode(about.st_mode) for path, about in sorted(found.items())} == FILES
    assert {(about.st_uid, about.st_gid) for about in found.values()} == {(os.geteuid(), os.getegid())}


# --- the control socket


ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    try:
        sock.sendall(sys.argv[2].encode() + b"\\n")
    except BrokenPipeError:
        pass  # It was refused before it could ask; the reason waits to be read.
    print(sock.makefile().readline())
"""


class Stranger:
    """A client of another user, whose program does not use zmsvc."""

    def __init__(self, context: Context, *groups: int) -> None:
        need(os.geteuid() == 0, "only root can be another user")
        need(os.access(PYTHON, os.X_OK), "there is no Python for everybody")
        context.home.chmod(0o755)
        self._socket = context.runtime / context.name / "control.sock"
        self._groups = groups

    def run(self, verb: str) -> subprocess.CompletedProcess[str]:
        request = json.dumps({"verb": verb, "transaction": "NONE", "tasks": ["none"]})
        return subprocess.run(
            [PYTHON, "-c", ASK, str(self._socket), request],
            user=NOBODY,
            group=NOBODY,
            extra_groups=self._groups,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=30,
        )

    def connectable(self) -> None:
        """Open the file of the socket to all users."""
        self._socket.chmod(0o666)

    @contextlib.contextmanager
    def holding(self, count: int) -> Iterator[dict[str, Any]]:
        """Open this number of connections. Yield the output of the last one."""
        with subprocess.Popen(
            [PYTHON, "-c", HOLD, str(self._socket), str(count)],
            user=NOBODY,
            group=NOBODY,
            extra_groups=self._groups,
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as holder:
            assert holder.stdin is not None
            assert holder.stdout is not None
            yield json.loads(holder.stdout.readline())
            holder.stdin.close()

    def ask(self, verb: str) -> dict[str, Any]:
        """Return the reply through a socket file that all users may open."""
        self.connectable()
        done = self.run(verb)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


@pytest.fixture
def running(context: Context) -> Context:
    context.looped("Echo")
    context.task("ts_100", "Echo")
    context.start("--transaction", TX)
    return context


def test_the_table_of_who_may_do_what_has_every_verb() -> None:
    assert Requests(None, {}).table().keys() == CONTROL.keys()  # type: ignore[arg-type]


def test_another_user_cannot_connect_to_the_control_socket(running: Context) -> None:
    assert "PermissionError" in Stranger(running).run("status").stderr


@pytest.mark.parametrize("verb", CONTROL)
def test_another_user_with_a_connection_is_refused_every_verb(running: Context, verb: str) -> None:
    answer = Stranger(running).ask(verb)
    assert (answer["ok"], answer["code"], answer["data"]) == (False, 1, {})
    assert answer["error"] == f"cannot {verb}: permission denied for uid {NOBODY}: only {CONTROL[verb]} may"
    assert running.tasks(TX)["ts_100"]["state"] == "active"


@pytest.mark.parametrize("verb", CONTROL)
def test_the_group_may_do_what_the_table_says_by_a_supplementary_group_too(
    running: Context, verb: str
) -> None:
    answer = Stranger(running, os.getegid()).ask(verb)
    # The supervisor refuses an allowed verb only because the transaction of the request does not exist.
    assert ("permission denied for uid" in answer.get("error", "")) == (CONTROL[verb] is Who.OWNER)


HOLD = """
import resource, socket, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = [socket.socket(socket.AF_UNIX) for _ in range(int(sys.argv[2]))]
for each in held:
    each.connect(sys.argv[1])
print(held[-1].makefile().readline(), flush=True)
sys.stdin.read()
"""


def test_a_member_of_the_group_cannot_keep_the_owner_out(running: Context) -> None:
    stranger = Stranger(running, os.getegid())
    need(
        resource.getrlimit(resource.RLIMIT_NOFILE)[1] > 2 * MAX_CLIENTS,
        "a process may not have that many descriptors",
    )
    stranger.connectable()
    with stranger.holding(MAX_CLIENTS) as told:
        assert "too many connections" in told["error"]
        assert "too many connections" in stranger.ask("status")["error"]
        assert running.tasks(TX)["ts_100"]["state"] == "active"


# --- environments


def environment(name: str, value: str) -> str:
    return f"<environment><{name}>{value}</{name}></environment>"


def start_another_transaction(context: Context) -> None:
    """Order it on the bus, with the command of zmicroservices."""
    script = Path(__file__).parents[2] / "scripts" / "conf_command.py"
    order = (
        "--context_file",
        str(context.file),
        "--service_name",
        "context",
        "--action",
        "start",
        "--transaction",
        "SECOND",
    )
    subprocess.run(
        [sys.executable, str(script), *order], env=context.environment, check=True, capture_output=True
    )


def told_to_others(context: Context) -> list[str]:
    """Return all that other processes, zmsvcctl and the logs show of ts_1 and ts_2."""
    tasks = context.tasks(TX)
    status = context.status()
    pids = [
        tasks["ts_3"]["pid"],
        tasks["ts_4"]["pid"],
        status["pid"],
        status["keeper_pid"],
        status["device_pid"],
    ]
    seen = [Path(f"/proc/{pid}/{file}").read_text() for pid in pids for file in ("environ", "cmdline")]
    file = str(context.file)
    verbs = (
        ["--json", "status"],
        ["status", "ts_1"],
        ["logs"],
        ["--json", "events"],
        ["graph", "Live"],
        ["graph", file],
        ["check", file],
    )
    seen += [context.ctl(*verb).stdout for verb in verbs]
    seen += [context.log.read_text(), (context.home / "state/Live/zmsvcd.log").read_text()]
    return seen


def test_an_environment_is_for_its_task_alone(
    context: Context, home: Path, subscriber: Callable[..., Subscriber]
) -> None:
    secret = "correct-horse-battery-staple"
    context.looped(
        "Keeper",
        f"def setup(self):\n    import os\n    open('{home}/told', 'w').write(os.environ['PASSWORD'])",
    )
    context.looped("Other")
    context.task("ts_1", "Keeper", service=environment("PASSWORD", secret))
    context.task(
        "ts_2",
        "sleep",
        kind="Command",
        config="<command>sleep 1000</command>",
        service=environment("PASSWORD", secret),
    )
    context.task("ts_3", "Other")
    context.task(
        "ts_4",
        "cat",
        kind="Command",
        config="<command>sleep 1000</command>",
        service=environment("OTHER", "x"),
    )
    context.start("--transaction", TX)
    assert (home / "told").read_text() == secret
    stranger = subscriber()
    for task in ("ts_1", "ts_2", "ts_3"):
        context.ctl("restart", "--task", task)
    context.send_state_request(TX)
    start_another_transaction(context)
    stranger.control("started", "ts_3", "SECOND")
    stranger.until(
        lambda _, body: (
            body["header"].get("service_id") == "context001" and body["header"]["action"] == "update"
        )
    )
    kinds = {(topic, body.get("header", {}).get("action")) for topic, body in stranger.heard}
    assert {topic for topic, _ in kinds} >= {"process", "control", "state", "context"}
    assert kinds >= {("state", "reply_context"), ("context", "start"), ("control", "update")}
    tasks = context.tasks(TX)
    own = Path(f"/proc/{tasks['ts_2']['pid']}/environ").read_bytes()
    assert f"PASSWORD={secret}".encode() in own
    seen = [*told_to_others(context), json.dumps(stranger.heard)]
    assert [text[:200] for text in seen if secret in text] == []


# --- users


WAY_BACK = """
def setup(self):
    import os
    told = {}
    for name, call in (("setuid", lambda: os.setuid(0)), ("setresuid", lambda: os.setresuid(-1, 0, -1)), ("setgid", lambda: os.setgid(0)),
                       ("setgroups", lambda: os.setgroups([0])), ("seteuid", lambda: os.seteuid(0))):
        try:
            call()
            told[name] = "done"
        except PermissionError:
            told[name] = "refused"
    self.update(**told)
"""


def credentials(pid: int) -> dict[str, list[int]]:
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: [int(word) for word in lines[name].split()] for name in ("Uid", "Gid", "Groups")} | {
        name: [int(lines[name], 16)] for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")
    }


@pytest.mark.parametrize("kind", ["Process", "Thread", "Command"])
@pytest.mark.parametrize(
    ("user", "group"),
    [("daemon", None), ("daemon", "tty"), (None, "tty")],
    ids=["user", "user and group", "group"],
)
def test_a_task_drops_to_its_user_and_group(
    context: Context, kind: str, user: str | None, group: str | None
) -> None:
    need(os.geteuid() == 0, "only root can give another user")
    context.looped("Echo")
    context.home.chmod(0o755)
    asked = "".join(
        f"<{name}>{value}</{name}>" for name, value in (("user", user), ("group", group)) if value
    )
    context.task(
        "ts_100",
        "Echo",
        kind=kind,
        service=asked,
        config="<command>sleep 1000</command>" if kind == "Command" else "",
    )
    context.start("--transaction", TX)
    found = credentials(context.tasks(TX)["ts_100"]["pid"])
    uid = pwd.getpwnam(user).pw_uid if user else 0
    gid = grp.getgrnam(group).gr_gid if group else pwd.getpwnam(user or "").pw_gid
    # These are the real, effective, saved and file system IDs. With another saved ID the task could change
    # back.
    assert (found["Uid"], found["Gid"]) == ([uid] * 4, [gid] * 4)
    assert set(found["Groups"]) == (set(os.getgrouplist(user, gid)) if user else {gid})
    if user:
        assert [found[name] for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")] == [[0]] * 4


def test_a_task_that_dropped_privileges_cannot_regain_them(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    need(os.geteuid() == 0, "only root can give another user")
    context.looped("Escape", WAY_BACK)
    context.home.chmod(0o755)
    context.task("ts_100", "Escape", entry=False, service="<user>daemon</user>")
    context.start("--transaction", TX)
    stranger = subscriber()
    context.ctl("start", "--transaction", TX, "--task", "ts_100")
    status = stranger.control("updated", "ts_100")["content"]["status"]
    names = ("setuid", "setresuid", "setgid", "setgroups", "seteuid")
    assert {name: status[name] for name in names} == dict.fromkeys(names, "refused")
