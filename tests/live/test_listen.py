"""`<listen>`: sockets that the keeper opens and holds, so that no connection is refused while a task restarts."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
from pathlib import Path

import pytest
from context import Context
from ports import free_ports
from waiting import PATIENCE, wait_for, wait_for_end

SERVER = """
import os, socket
import zmsvc.task
from zmsvc.task import LoopedTask, TaskService

class Work(LoopedTask):
    interval = 3600.0

    def setup(self):
        self.sockets = zmsvc.task.listen_sockets()
        assert self.sockets == [*zmsvc.task.listen_sockets("a"), *zmsvc.task.listen_sockets("b")]
        for each in self.sockets:
            each.setblocking(False)
            self._runtime.watch(each.fileno(), lambda each=each: self.serve(each))

    def step(self):
        pass

    def serve(self, sock):
        try:
            peer, _ = sock.accept()
        except BlockingIOError:
            return
        with peer:
            peer.sendall(f"{self.service_id} {os.getpid()}".encode())

class ServiceServer(TaskService):
    task_class = Work
"""
PROGRAM = """
import os, socket, sys
assert os.environ["LISTEN_PID"] == str(os.getpid())
names = os.environ["LISTEN_FDNAMES"].split(":")
assert len(names) == int(os.environ["LISTEN_FDS"])
sockets = [socket.socket(fileno=3 + at) for at in range(len(names))]
open_files = sorted(int(each) for each in os.listdir("/proc/self/fd"))
assert open_files[:-1] == [*range(3 + len(names))], open_files
while True:
    peer, _ = sockets[-1].accept()
    with peer:
        peer.sendall(f"{names[-1]} {os.getpid()}".encode())
"""


def server(context: Context, *listen: str, task: str = "ts_1", more: str = "", kind: str = "Process") -> None:
    context.service("Server", SERVER)
    if kind == "fresh":
        kind, more = "Process", f"{more}<fresh>yes</fresh>"
    if kind == "Command":
        program = context.home / "program.py"
        program.write_text(PROGRAM)
        words = f"<command><arg>/usr/bin/python3</arg><arg>{program}</arg></command>"
        context.task(task, "Server", kind=kind, config=words, service=f"{more}{''.join(listen)}")
    else:
        context.task(task, "Server", kind=kind, service=f"{more}{''.join(listen)}")
    context.write()


def ask(place: tuple[str, int] | str) -> list[str]:
    """Connect, and return the words that the task says. A refused connection is an error."""
    family = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
    with socket.socket(family) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(place)
        text = b""
        while more := sock.recv(1024):
            text += more
    return text.decode().split()


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("kind", ["Process", "Command", "fresh"])
def test_a_task_gets_its_sockets_and_their_names(context: Context, home: Path, kind: str) -> None:
    (port,) = free_ports(1)
    path = home / "made" / "b.sock"
    tcp, unix = f'<listen name="a">127.0.0.1:{port}</listen>', f'<listen name="b" mode="0600">{path}</listen>'
    server(context, tcp, unix, kind=kind)
    context.start("--transaction", "T")
    pid = context.task_is("ts_1", "running")["pid"]
    assert ask(str(path)) == ["b" if kind == "Command" else "ts_1", str(pid)]
    if kind != "Command":
        assert ask(("127.0.0.1", port)) == ["ts_1", str(pid)]
    about = path.stat()
    assert (stat.S_IMODE(about.st_mode), stat.S_ISSOCK(about.st_mode)) == (0o600, True)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert context.stop() == 0
    assert not path.exists()


def test_no_connection_is_refused_while_a_task_restarts_or_the_supervisor_is_replaced(
    context: Context,
) -> None:
    (port,) = free_ports(1)
    place = ("127.0.0.1", port)
    more = "<restart>on-failure</restart><restart_delay>500ms</restart_delay>"
    server(context, f'<listen name="a">tcp://127.0.0.1:{port}</listen>', more=more)
    context.start("--transaction", "T")
    before = context.task_is("ts_1", "running")["pid"]
    os.kill(before, signal.SIGKILL)
    wait_for_end(before)
    # No process accepts connections now, so this one waits for the next process.
    (_, second) = ask(place)
    assert int(second) != before
    context.kill_supervisor()
    assert ask(place) == ["ts_1", second]
    context.ctl("reexec")
    assert ask(place) == ["ts_1", second]
    context.clear_tasks()
    server(context, f'<listen name="a">127.0.0.1:{port}</listen>', more=f"{more}<nice>1</nice>")
    with socket.create_connection(place) as early:
        early.settimeout(PATIENCE)
        context.ctl("reload")
        assert ask(place)[1] != second
        assert early.recv(1024)
    context.ctl("restart", "--task", "ts_1")
    assert ask(place)[0] == "ts_1"


def test_a_socket_is_closed_when_its_task_is_stopped_and_when_the_file_has_it_no_more(
    context: Context, home: Path
) -> None:
    path = home / "a.sock"
    (port,) = free_ports(1)
    server(context, f'<listen name="a">{path}</listen>', f'<listen name="b">127.0.0.1:{port}</listen>')
    context.start("--transaction", "T")
    context.task_is("ts_1", "running")
    context.ctl("stop", "--task", "ts_1")
    wait_for(lambda: not path.exists())
    wait_for(lambda: refused(port))
    context.ctl("start", "--transaction", "T", "--task", "ts_1")
    assert ask(str(path))[0] == "ts_1"
    context.clear_tasks()
    server(context, f'<listen name="b">127.0.0.1:{port}</listen>')
    context.ctl("reload")
    wait_for(lambda: not path.exists())
    assert ask(("127.0.0.1", port))[0] == "ts_1"


def test_replicas_share_a_socket(context: Context) -> None:
    (port,) = free_ports(1)
    server(context, f'<listen name="a">127.0.0.1:{port}</listen>', more="<replicas>2</replicas>")
    context.start("--transaction", "T")
    for number in (1, 2):
        context.task_is(f"ts_1@{number}", "running")
    for stopped, other in (("ts_1@1", "ts_1@2"), ("ts_1@2", "ts_1@1")):
        context.ctl("stop", "--task", stopped)
        assert ask(("127.0.0.1", port))[0] == other
        context.ctl("start", "--transaction", "T", "--task", stopped)


def test_a_socket_that_cannot_be_opened_fails_its_own_task_alone(context: Context, home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        (home / "file").write_text("kept")
        server(context, f'<listen name="a">{place}</listen>', task="ts_1")
        server(context, f"<listen>{home}/file</listen>", task="ts_2")
        server(context, '<listen user="no-such-user">/run/zmsvc-test-x.sock</listen>', task="ts_3")
        server(context, task="ts_4")
        checked = context.ctl("check", str(context.file)).stdout
        assert f"ts_1: <listen> tcp://{place}: in use now" in checked
        assert "ts_3: <listen> ipc:///run/zmsvc-test-x.sock: this machine has no user no-such-user" in checked
        context.start("--transaction", "T")
        texts = {
            "ts_1": f"cannot listen at tcp://{place}: Address already in use (ss -ltnp shows by which process)",
            "ts_2": f"cannot listen at ipc://{home}/file: there is a file, and not a socket (move it away)",
            "ts_3": "cannot listen at ipc:///run/zmsvc-test-x.sock: this machine has no user no-such-user",
        }
        for task, text in texts.items():
            ended = context.task_is(task, "failed")
            assert (ended["exit"]["reason"], ended["status"]) == ("cannot-launch", text)
        context.task_is("ts_4", "running")
        assert (home / "file").read_text() == "kept"
    context.ctl("start", "--transaction", "T", "--task", "ts_1")
    context.task_is("ts_1", "running")


def test_the_file_that_a_killed_keeper_has_left_is_replaced(context: Context, home: Path) -> None:
    path = home / "a.sock"
    server(context, f'<listen name="a">{path}</listen>')
    context.start("--transaction", "T")
    first = ask(str(path))
    assert context.daemon is not None
    context.daemon.kill()
    context.daemon.wait()
    wait_for_end(int(first[1]))
    assert path.exists()
    context.start()
    second = ask(str(path))
    assert second[0] == "ts_1"
    assert second != first


def test_descriptors_that_a_client_sends_do_not_hang_the_keeper(context: Context, home: Path) -> None:
    """A client of the socket sends a TCP socket whose close lingers. No task accepts the connection."""
    path = home / "a.sock"
    config = "<command>sleep 3600</command>"
    context.task("ts_1", "Sleep", kind="Command", config=config, service=f"<listen>{path}</listen>")
    (home / "Services").mkdir()
    context.start("--transaction", "T")
    pid = context.task_is("ts_1", "running")["pid"]
    with socket.socket() as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        lingering = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
        with peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            lingering.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, (1).to_bytes(4, "little") + (600).to_bytes(4, "little")
            )
            lingering.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    lingering.send(bytes(65536))
            client.connect(str(path))
            socket.send_fds(client, [b"x"], [lingering.fileno()])
            lingering.close()
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not path.exists())
            context.ctl("start", "--transaction", "T", "--task", "ts_1")
            context.task_is("ts_1", "running")


@pytest.mark.parametrize(
    ("element", "fault"),
    [
        ("<listen>localhost:80</listen>", "'localhost:80' is not an address to listen at"),
        ("<listen>/run/</listen>", "'/run/' is not the path of a socket"),
        ('<listen mode="9">/run/a</listen>', "the mode of <listen> '9' is not a mode"),
        ('<listen name="a:b">/run/a</listen>', "the name of <listen> 'a:b' cannot be a name"),
        ('<listen shade="red">/run/a</listen>', "shade"),
    ],
)
def test_a_fault_has_its_line_and_what_was_expected(context: Context, element: str, fault: str) -> None:
    server(context, element)
    answer = context.ctl("check", str(context.file), check=2).stderr
    assert answer.startswith(f"{context.file}:2: ")
    assert fault in answer
    assert "expected" in answer
