"""A device that hangs because of another user, or that a signal has stopped, is replaced. Nothing else waits
for it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from context import Context, Subscriber
from lingering import LINGERING
from needs import need
from others import command, others
from releases import edited
from waiting import stop_process, wait_for, wait_for_end

from zmsvc.host.kernel import unix_sockets

ATTACK = (
    LINGERING
    + r"""
def send(fd):
    victim = socket.socket(socket.AF_UNIX)
    victim.connect(sys.argv[1])
    victim.sendmsg([b"\xff" + bytes(8)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
    return victim
try:
    send(0)
except PermissionError:
    print("refused", flush=True)
    sys.exit()
ours = lingering(3600)
print("ready", flush=True)
sys.stdin.readline()
victim = send(ours.fileno())
os.close(ours.detach())
print("sent", flush=True)
sys.stdin.read()
"""
)


@pytest.fixture
def talk(context: Context) -> Context:
    context.looped(
        "Talk",
        "interval = 0.02\nn = 0\ndef step(self):\n    self.n += 1\n    self.publish('beacon', {'n': self.n})",
    )
    context.task("talk", "Talk")
    context.task("idle", "Talk", entry=False)
    context.home.chmod(0o755)
    return context


@contextmanager
def attack(context: Context, word: str) -> Iterator[None]:
    """Send a descriptor whose close hangs, as a member of the daemon's group. `word` is the expected
    outcome.
    """
    status = context.status()
    device, keeper = status["device_pid"], status["keeper_pid"]
    line = [
        *command(others(1)[0], os.getegid()),
        sys.executable,
        "-P",
        "-c",
        ATTACK,
        context.publish_endpoint.removeprefix("ipc://"),
    ]
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/", start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdin is not None
            if word == "sent":
                assert process.stdout.readline() == "ready\n"
                # The process that closes the descriptor last hangs. An attacker tries until that is the
                # device. Here it is the device for certain. The keeper would replace a device that stays stopped.
                stop_process(keeper)
                stop_process(device)
                print(file=process.stdin, flush=True)
            assert process.stdout.readline() == f"{word}\n"
            os.kill(device, signal.SIGCONT)
            os.kill(keeper, signal.SIGCONT)
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def hears(context: Context) -> None:
    subscriber = Subscriber(context.subscribe_endpoint, context.publish_endpoint, b"beacon @@@ ")
    subscriber.next()
    subscriber.close()


def test_a_device_that_a_descriptor_of_another_user_hangs_is_replaced(talk: Context) -> None:
    talk.start("--transaction", "T", ZMSVC_DISABLE="passrights")
    device = talk.status()["device_pid"]
    with attack(talk, "sent"):
        wait_for_end(device)
        hears(talk)
        assert "the device hangs: it gave no sign of life for 3 s" in talk.log.read_text()
        assert talk.status()["device_restarts"] == 1


def test_the_kernel_refuses_the_descriptor_where_it_can(talk: Context) -> None:
    with socket.socket(socket.AF_UNIX) as tried:
        need(unix_sockets.refuse_descriptors(tried), "this kernel has no SO_PASSRIGHTS")
    talk.start("--transaction", "T")
    with attack(talk, "refused"):
        hears(talk)
    assert talk.status()["device_restarts"] == 0


def test_the_end_of_the_context_does_not_wait_for_a_hung_device(talk: Context) -> None:
    talk.start("--transaction", "T", ZMSVC_DISABLE="passrights")
    with attack(talk, "sent"):
        talk.ctl("exit")
        assert talk.wait() == 0


def test_a_stopped_device_is_replaced_when_the_supervisors_probe_does_not_return(talk: Context) -> None:
    talk.start("--transaction", "T")
    device = talk.status()["device_pid"]
    stop_process(device)
    talk.ctl("start", "--transaction", "T", "--task", "idle", "--no-block")
    wait_for_end(device)
    hears(talk)
    assert "The device hangs: it forwarded nothing for 3 s" in talk.log.read_text()


def test_an_idle_client_of_another_user_does_not_get_the_device_replaced(talk: Context) -> None:
    """The device has a watchdog only while such a client is connected."""
    talk.start("--transaction", "T", ZMSVC_DISABLE="passrights")
    status = talk.status()
    code = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print('in', "
        "flush=True); sys.stdin.read()"
    )
    line = [
        *command(others(1)[0], os.getegid()),
        sys.executable,
        "-P",
        "-c",
        code,
        talk.publish_endpoint.removeprefix("ipc://"),
    ]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        # It is ended after 5 s because it makes no handshake; twice the keeper's patience has passed by then.
        wait_for(lambda: talk.status()["dropped"].get("handshakes"))
        process.kill()
    os.kill(status["device_pid"], signal.SIGSTOP)
    os.kill(status["device_pid"], signal.SIGCONT)
    hears(talk)
    assert talk.status()["device_pid"] == status["device_pid"]


def test_a_device_that_is_ready_and_does_not_answer_at_the_start_is_replaced(
    context: Context, home: Path
) -> None:
    deaf_once = (
        rf"if not os.path.exists('{home}/deaf'):\n"
        rf"                open('{home}/deaf', 'x').close()\n"
        r"                time.sleep(3600)\n"
        r"            zmq.proxy_steerable("
    )
    release = edited(home, "deaf-once", "device/device.py", r"zmq\.proxy_steerable\(", deaf_once)
    device = release / "zmsvc" / "device" / "device.py"
    device.write_text(device.read_text().replace("import math\n", "import math\nimport os\n"))
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", "T", PYTHONPATH=str(release))
    context.task_is("ts_1", "running", "T")
    assert (
        "does not answer (it has sent no subscription), and the keeper replaces it" in context.log.read_text()
    )
