"""Users who may publish on the bus and subscribe to it: over loopback tcp, over ipc, and by the options of
the context file.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
import zmq
from context import Context
from others import others, python, run
from ports import free_ports
from waiting import PATIENCE, wait_for

from zmsvc.core.access import BUS, MAY_CONNECT

TX = "5HGAHZ3WPZUI71PACRPP"
SCRIPTS = Path(__file__).parents[2] / "scripts"
NAMES = (
    "without CURVE keys only root, the daemon's user, members of its group and the <user> of each task may"
)


@pytest.fixture
def loopback(context: Context) -> Context:
    """A context as in old files: tcp on loopback, without keys."""
    sub, pub = free_ports()
    context.subscribe_endpoint, context.publish_endpoint = f"tcp://127.0.0.1:{sub}", f"tcp://127.0.0.1:{pub}"
    context.looped("Echo", "interval = 0.05\ndef step(self):\n    self.publish('beacon', {})")
    context.home.chmod(0o755)
    return context


def script(context: Context, uid: int, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an old command as another user, who has no copy of any file."""
    return run(uid, sys.executable, "-P", str(SCRIPTS / name), *arguments, env=context.environment)


def order(action: str, transaction: str = TX, ident: str = "context001") -> str:
    head = {
        "service_transaction": transaction,
        "service_id": ident,
        "action": action,
        "service_name": "context",
    }
    return json.dumps({"header": head, "content": {}})


EXIT = ("--service_name=context", "--service_id=context001", f"--transaction={TX}", "--action=exit")


def test_an_order_of_another_user_does_not_arrive_and_its_sender_is_told_who_may_connect(
    loopback: Context,
) -> None:
    stranger = others(1)[0]
    loopback.task("ts_1", "Echo")
    loopback.start("--transaction", TX)
    refused = script(loopback, stranger, "conf_command.py", f"--endpoint={loopback.publish_endpoint}", *EXIT)
    assert (refused.returncode, NAMES in refused.stderr) == (5, True), refused.stderr
    assert f"uid {stranger} may not" in refused.stderr
    assert loopback.tasks(TX)["ts_1"]["sub"] == "running"
    heard = script(loopback, stranger, "display.py", "--count=1", f"--endpoint={loopback.subscribe_endpoint}")
    assert (heard.returncode, NAMES in heard.stderr) == (5, True), heard.stderr
    assert "beacon" not in heard.stdout
    wait_for(
        lambda: (
            f"(uid {stranger}) is refused" in loopback.log.read_text()
            and "so far)" in loopback.log.read_text()
        )
    )
    # The same command of the daemon's user works as before.
    done = subprocess.run(
        [sys.executable, "-P", str(SCRIPTS / "conf_command.py"), f"--endpoint={loopback.publish_endpoint}", *EXIT],
        env=loopback.environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert loopback.wait() == 0


def test_zmsvcctl_of_a_user_who_may_not_connect_ends_with_5(loopback: Context) -> None:
    """Its process has the group of the daemon, so it can use the control socket. But in the user database it
    is not a member of that group.
    """
    stranger = others(1)[0]
    loopback.task("ts_1", "Echo")
    loopback.start("--transaction", TX)
    ctl = [sys.executable, "-P", "-m", "zmsvc.ctl", "-c", loopback.name]
    for words in (
        ["send", "context", order("exit")],
        ["--timeout", "20", "send", "context", order("exit")],
        ["watch", "--count", "1"],
    ):
        done = run(stranger, *ctl, *words, groups=(os.getegid(),), env=loopback.environment)
        assert (done.returncode, NAMES in done.stderr, done.stdout) == (5, True, ""), (words, done.stderr)
    assert loopback.tasks(TX)["ts_1"]["sub"] == "running"


SDK = """
import sys, logging
from zmsvc.core.errors import RefusedError
from zmsvc.task.bus import TaskBus
from zmsvc.task.runtime import TaskRuntime
bus = TaskBus(sys.argv[1], sys.argv[2])
try:
    bus.publish(b"talk @@@ {}")
except RefusedError as error:
    print(error)
    sys.exit(error.status)
"""


def test_the_sdk_of_a_user_who_may_not_connect_ends_with_5(loopback: Context) -> None:
    stranger = others(1)[0]
    loopback.task("ts_1", "Echo")
    loopback.start()
    done = python(stranger, SDK, loopback.publish_endpoint, loopback.subscribe_endpoint)
    assert (done.returncode, NAMES in done.stdout) == (5, True), done.stderr


def test_the_user_of_a_task_may_connect_and_a_reload_counts_at_once(loopback: Context) -> None:
    others(1)
    one, other = pwd.getpwnam("daemon").pw_uid, pwd.getpwnam("bin").pw_uid
    loopback.task("ts_1", "Echo", service="<user>daemon</user>")
    loopback.start("--transaction", TX)
    assert (
        "beacon"
        in script(
            loopback,
            one,
            "display.py",
            "--count=1",
            "--topic=beacon",
            f"--endpoint={loopback.subscribe_endpoint}",
        ).stdout
    )
    asked = ("--count=1", "--topic=beacon", f"--endpoint={loopback.subscribe_endpoint}")
    assert script(loopback, other, "display.py", *asked).returncode == 5
    loopback.clear_tasks()
    loopback.task("ts_1", "Echo", service="<user>bin</user>")
    loopback.write()
    loopback.ctl("reload")
    loopback.ctl("restart", "--task", "ts_1")
    assert "beacon" in script(loopback, other, "display.py", *asked).stdout


def test_bus_access_anyone_opens_the_bus_with_a_warning(loopback: Context) -> None:
    stranger = others(1)[0]
    loopback.task("ts_1", "Echo")
    loopback.edit = lambda text: text.replace("<Context>", '<Context bus_access="anyone">')
    loopback.start("--transaction", TX)
    warning = 'bus_access="anyone": every user of this machine may give orders (start, stop, restart, exit)'
    assert warning in loopback.log.read_text()
    assert warning in loopback.ctl("check", str(loopback.file)).stdout
    assert (
        "beacon"
        in script(
            loopback,
            stranger,
            "display.py",
            "--count=1",
            "--topic=beacon",
            f"--endpoint={loopback.subscribe_endpoint}",
        ).stdout
    )
    assert (
        script(
            loopback, stranger, "conf_command.py", f"--endpoint={loopback.publish_endpoint}", *EXIT
        ).returncode
        == 0
    )
    assert loopback.wait() == 0


@pytest.mark.parametrize(
    "service", ["", "<user>daemon</user>"], ids=["of the daemon's user", "of another user"]
)
def test_the_context_s_own_tasks_do_not_pass_the_gate(loopback: Context, service: str) -> None:
    others(1)
    loopback.task("ts_1", "Echo", service=service)
    loopback.start("--transaction", TX)
    loopback.ctl("watch", "--topic", "beacon", "--count", "1", "--timeout", "25")
    inodes = {
        os.readlink(fd)
        for fd in Path(f"/proc/{loopback.tasks(TX)['ts_1']['pid']}/fd").iterdir()
        if fd.is_symlink()
    }
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert [row for row in table if f"socket:[{row[9]}]" in inodes] == []
    place = loopback.runtime / loopback.name
    assert [oct(path.stat().st_mode & 0o777) for path in (place / "sub", place / "pub")] == ["0o660"] * 2
    status = loopback.status()
    assert (status["frontend"], status["backend"]) == (loopback.subscribe_endpoint, loopback.publish_endpoint)
    assert loopback.stop() == 0
    assert not (place / "sub").exists()


CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1]); print('in')"


def reached(uid: int, context: Context) -> list[bool]:
    """Return True if this user can connect to each of the sockets of the bus."""
    paths = (place.removeprefix("ipc://") for place in (context.subscribe_endpoint, context.publish_endpoint))
    return [python(uid, CONNECT, path).stdout == "in\n" for path in paths]


def test_the_user_of_a_task_reaches_an_ipc_bus_without_the_group_of_the_daemon(context: Context) -> None:
    stranger = others(1)[0]
    one, other = pwd.getpwnam("daemon").pw_uid, pwd.getpwnam("bin").pw_uid
    context.looped("Echo", "interval = 0.05\ndef step(self):\n    self.publish('beacon', {})")
    context.home.chmod(0o755)
    context.task("ts_1", "Echo", service="<user>daemon</user>")
    context.start("--transaction", TX)
    assert "beacon" in context.ctl("watch", "--topic", "beacon", "--count", "1", "--timeout", "25").stdout
    assert (reached(one, context), reached(other, context), reached(stranger, context)) == (
        [True] * 2,
        [False] * 2,
        [False] * 2,
    )
    context.clear_tasks()
    context.task("ts_1", "Echo", service="<user>bin</user>")
    context.write()
    context.ctl("reload")
    assert (reached(one, context), reached(other, context)) == ([False] * 2, [True] * 2)
    context.kill_supervisor()
    context.ctl("restart", "--task", "ts_1")
    assert "beacon" in context.ctl("watch", "--topic", "beacon", "--count", "1", "--timeout", "25").stdout
    assert (reached(one, context), reached(other, context)) == ([False] * 2, [True] * 2)


def test_a_user_who_may_not_open_the_ipc_bus_is_told_who_may(context: Context) -> None:
    stranger = others(1)[0]
    context.looped("Echo")
    context.home.chmod(0o755)
    context.task("ts_1", "Echo")
    context.start("--transaction", TX)
    done = [
        script(context, stranger, "conf_command.py", f"--endpoint={context.publish_endpoint}", *EXIT),
        script(context, stranger, "display.py", "--count=1", f"--endpoint={context.subscribe_endpoint}"),
        python(stranger, SDK, context.publish_endpoint, context.subscribe_endpoint),
    ]
    assert [(each.returncode, NAMES in each.stdout + each.stderr) for each in done] == [(5, True)] * 3, done
    context.home.chmod(0o700)
    closed = script(context, stranger, "conf_command.py", f"--endpoint={context.publish_endpoint}", *EXIT)
    assert closed.returncode != 0
    assert context.tasks(TX)["ts_1"]["sub"] == "running"


def test_clients_reconnect_after_a_crash_of_supervisor_and_device(loopback: Context) -> None:
    loopback.task("ts_1", "Echo")
    loopback.start("--transaction", TX)
    loopback.kill_supervisor()
    os.kill(loopback.status()["device_pid"], 9)
    wait_for(lambda: loopback.status()["device_restarts"] == 1)
    loopback.ctl("watch", "--topic", "beacon", "--count", "1", "--timeout", "25")


def test_the_bus_does_not_know_every_order_of_the_control_socket(loopback: Context) -> None:
    """The bus has a list of orders of its own: with the verbs of the core, `reset-failed` would be
    accepted.
    """
    loopback.looped("Fails", "def setup(self):\n    raise RuntimeError('no')")
    loopback.task(
        "ts_1",
        "Fails",
        rules={"on_fail": ("restart", "ts_1")},
        service="<start_limit_burst>1</start_limit_burst>",
    )
    loopback.start("--transaction", TX)
    loopback.task_is("ts_1", "failed", also=lambda task: task["exit"]["reason"] == "start-limit")
    refused = loopback.status()["dropped"]["messages_in"]
    for verb in ("reset-failed", "reload", "reexec", "status"):
        loopback.ctl("send", "context", order(verb))
    wait_for(lambda: loopback.status()["dropped"]["messages_in"] == refused + 4)
    assert loopback.tasks(TX)["ts_1"]["sub"] == "failed"


def test_no_more_transactions_are_opened_than_the_file_allows(loopback: Context) -> None:
    loopback.task("ts_1", "sleep", kind="Command", config="<command>sleep 1000</command>")
    limit = "<max_transactions>2</max_transactions>"
    loopback.edit = lambda text: text.replace("<ContextID>", f"{limit}<ContextID>")
    loopback.start("--transaction", TX)
    loopback.ctl("start", "--transaction", "SECOND")
    said = loopback.ctl("start", check=1).stderr
    assert "2 transactions are open, and <max_transactions> of the context file allows 2" in said
    for number in range(20):
        loopback.ctl("send", "context", order("start", f"EVIL{number}"))
    loopback.ctl("start", "--transaction", "SECOND")
    assert [each["id"] for each in loopback.status()["transactions"]] == [TX, "SECOND"]
    loopback.ctl("stop", "--transaction", "SECOND")
    loopback.ctl("start", "--transaction", "THIRD")
    assert "allows 2" in loopback.ctl("restart", "--transaction", "SECOND", check=1).stderr


def test_without_endpoints_the_bus_is_at_sockets_that_others_cannot_open(context: Context) -> None:
    stranger = others(1)[0]
    context.looped("Echo", "interval = 0.05\ndef step(self):\n    self.publish('beacon', {})")
    context.task("ts_1", "Echo")
    context.home.chmod(0o755)
    place = context.runtime / context.name
    context.subscribe_endpoint, context.publish_endpoint = f"ipc://{place}/sub", f"ipc://{place}/pub"
    context.edit = lambda text: text[: text.index("<FrontEndEndpoint>")] + text[text.index("<ContextID>") :]
    context.start("--transaction", TX)
    assert context.ctl("watch", "--topic", "beacon", "--count", "1", "--timeout", "25").stdout
    context.ctl("send", "context", order("start", "BYBUS"))
    context.task_is("ts_1", "running", "BYBUS")
    for path in (place / "sub", place / "pub"):
        done = python(
            stranger, "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])", str(path)
        )
        assert "PermissionError" in done.stderr
    conf = (
        "--context_file",
        str(context.file),
        "--service_name=state",
        "--action=request",
        f"--transaction={TX}",
    )
    done = subprocess.run(
        [sys.executable, "-P", str(SCRIPTS / "conf_command.py"), *conf],
        env=context.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "reply_context" in done.stdout, done.stderr


def test_an_allowed_client_connects_while_another_user_floods(loopback: Context) -> None:
    stranger = others(1)[0]
    loopback.task("ts_1", "Echo")
    loopback.start("--transaction", TX)
    hostile = str(Path(__file__).parents[1] / "hostile.py")
    port = loopback.publish_endpoint.rpartition(":")[2]
    with subprocess.Popen(
        [
            "setpriv",
            f"--reuid={stranger}",
            "--clear-groups",
            sys.executable,
            "-P",
            hostile,
            port,
            "PUB",
            "300",
            "0.01",
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
    ) as flood:
        try:
            for number in range(5):
                with zmq.Context() as ctx, ctx.socket(zmq.XPUB) as client:
                    client.linger = 0
                    client.connect(loopback.publish_endpoint)
                    assert client.poll(PATIENCE * 1000), f"attempt {number}: not in"
            out, _ = flood.communicate(timeout=90)
        finally:
            flood.kill()
    assert out == "let in 0 heard 0\n"
    assert loopback.tasks(TX)["ts_1"]["sub"] == "running"


def test_check_says_who_may_connect(loopback: Context) -> None:
    loopback.task("ts_1", "Echo")
    loopback.write()
    orders = f"give orders ({', '.join(BUS['context'])}) and read configurations"
    line = f"bus: {MAY_CONNECT} may connect to {loopback.publish_endpoint} and {loopback.subscribe_endpoint}, {orders}"
    assert line in loopback.ctl("check", str(loopback.file)).stdout
    assert json.loads(loopback.ctl("--json", "check", str(loopback.file)).stdout)["files"][0]["access"] == [
        line
    ]
    loopback.ctl("keys", "make")
    assert (
        "bus: each client that has an allowed key may connect"
        in loopback.ctl("check", str(loopback.file)).stdout
    )
    loopback.subscribe_endpoint, loopback.publish_endpoint = (
        f"ipc://{loopback.home}/sub",
        f"ipc://{loopback.home}/pub",
    )
    loopback.write()
    line = f"bus: {MAY_CONNECT} may connect to {loopback.publish_endpoint} and {loopback.subscribe_endpoint}, {orders}"
    assert line in loopback.ctl("check", str(loopback.file)).stdout


def test_tasks_that_run_as_root_beside_a_task_with_a_user_are_warned_about(loopback: Context) -> None:
    others(1)
    loopback.task("ts_1", "Echo", service="<user>daemon</user>")
    loopback.task("ts_2", "Echo")
    loopback.start("--transaction", TX)
    warning = "ts_2 has no <user>, while ts_1 has one: zmsvcd must run as root"
    assert warning in loopback.log.read_text()
    assert warning in loopback.ctl("check", str(loopback.file)).stdout
    loopback.clear_tasks()
    loopback.task("ts_1", "Echo", service="<user>daemon</user>")
    loopback.task("ts_3", "Echo")
    loopback.write()
    loopback.ctl("reload")
    wait_for(lambda: "ts_3 has no <user>, while ts_1 has one" in loopback.log.read_text())
    loopback.clear_tasks()
    loopback.task("ts_1", "Echo", service="<user>daemon</user>")
    loopback.task("ts_3", "Echo", service="<user>root</user>")
    loopback.write()
    assert "while ts_1 has one" not in loopback.ctl("check", str(loopback.file)).stdout


def test_commands_of_a_user_with_another_user_s_home_end_without_a_traceback(loopback: Context) -> None:
    """`su` without `-` leaves HOME=/root."""
    stranger = others(1)[0]
    loopback.task("ts_1", "Echo")
    loopback.start("--transaction", TX)
    closed = loopback.home / "closed"
    closed.mkdir(mode=0o700)
    home = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("ZMSVC_", "XDG_"))},
        "HOME": str(closed),
    }
    code = "from zmsvc.ctl.compat.conf_command import main; raise SystemExit(main())"
    done = python(stranger, code, f"--endpoint={loopback.publish_endpoint}", *EXIT, env=home)
    assert (done.returncode, NAMES in done.stderr, "Traceback" in done.stderr) == (5, True, False), (
        done.stderr
    )
    done = run(stranger, sys.executable, "-P", "-m", "zmsvc.ctl", "-c", "Nothing", "status", env=home)
    assert (done.returncode, "cannot find context Nothing" in done.stderr) == (4, True), done.stderr
