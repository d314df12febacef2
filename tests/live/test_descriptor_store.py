"""The descriptor store (`FDSTORE=1`): what a task has stored, its next process gets."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from context import Context
from needs import need
from ports import free_ports
from releases import PROTOCOL_3, ROOT, Installed, extracted
from waiting import PATIENCE, stop_process, wait_for, wait_for_end

SERVER = """
import os, socket, threading
import zmsvc.task
from zmsvc.task import LoopedTask, TaskService

class Work(LoopedTask):
    interval = 3600.0

    def setup(self):
        (listener,) = zmsvc.task.listen_sockets()
        for name, fd in zmsvc.task.stored_descriptors("peer"):
            self.begin(self.talk, socket.socket(fileno=fd))
        self.begin(self.accept, listener)

    def step(self):
        pass

    def begin(self, call, sock):
        threading.Thread(target=call, args=(sock,), daemon=True).start()

    def accept(self, listener):
        while True:
            peer, _ = listener.accept()
            zmsvc.task.store_descriptor(peer.fileno(), "peer")
            self.begin(self.talk, peer)

    def talk(self, peer):
        while data := peer.recv(100):
            peer.sendall(b"%s %d" % (data, os.getpid()))

class ServiceServer(TaskService):
    task_class = Work
"""
PROGRAM = """
import array, os, select, socket, sys
LISTEN = 3
NAMES = os.environ.get("LISTEN_FDNAMES", "").split(":")

def notify(text, *fds):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendmsg([text.encode()], rights, 0, os.environ["NOTIFY_SOCKET"])

def broken(fd):
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))

def in_a_child(call, *arguments):
    if os.fork() == 0:
        call(*arguments)
        os._exit(0)
    os.wait()

orders = socket.socket(socket.AF_UNIX)
orders.connect(sys.argv[1])
with orders.makefile("rw") as stream:
    stream.write(f"{os.getpid()}\\n")
    stream.flush()
    for line in stream:
        answer = None
        exec(line)
        stream.write(f"{answer!r}\\n")
        stream.flush()
"""
RESTARTS = "<restart>on-failure</restart><restart_delay>50ms</restart_delay>"


def number(context: Context, task: str = "ts_1") -> int:
    shown = context.ctl("show", "-p", "NFileDescriptorStore", "--value", "--transaction", "T", task).stdout
    return int(shown)


class Process:
    """A process of `PROGRAM`, which executes lines of the test."""

    def __init__(self, conn: socket.socket) -> None:
        conn.settimeout(PATIENCE)
        self.stream = conn.makefile("rw")
        self.pid = int(self.stream.readline())

    def run(self, line: str) -> str:
        """Execute one line, and return the value that it gives `answer`."""
        self.stream.write(f"{line}\n")
        self.stream.flush()
        return self.stream.readline().rstrip("\n")

    def kill(self) -> None:
        kill(self.pid)
        self.stream.close()


class Program:
    """A Command task whose processes connect to the test."""

    def __init__(self, context: Context, listener: socket.socket, task: str, service: str) -> None:
        self.listener = listener
        script = context.home / "program.py"
        script.write_text(PROGRAM)
        (context.home / "Services").mkdir(exist_ok=True)
        words = "".join(f"<arg>{word}</arg>" for word in ("/usr/bin/python3", script, listener.getsockname()))
        context.task(
            task, "Program", kind="Command", config=f"<command>{words}</command>", service=RESTARTS + service
        )

    def process(self) -> Process:
        """Return the next process that the task starts."""
        conn, _ = self.listener.accept()
        with conn:
            return Process(conn)


@contextmanager
def program(context: Context, service: str, task: str = "ts_1") -> Iterator[Program]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(PATIENCE)
        listener.bind(str(context.home / f"{task}.sock"))
        os.chmod(listener.getsockname(), 0o777)
        listener.listen()
        yield Program(context, listener, task, service)


def server(context: Context, kind: str, port: int) -> None:
    context.service("Server", SERVER)
    service = (
        f"{RESTARTS}<listen>127.0.0.1:{port}</listen><file_descriptor_store_max>4</file_descriptor_store_max>"
    )
    context.task("ts_1", "Server", service=service + ("<fresh>yes</fresh>" if kind == "fresh" else ""))
    context.write()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    # A process that is about to end may still read what is sent to it.
    wait_for_end(pid)


def answered_by(client: socket.socket) -> int:
    client.sendall(b"ping")
    word, pid = client.recv(100).split()
    assert word == b"ping"
    return int(pid)


def test_a_connection_outlives_its_task_the_supervisor_and_a_restart_but_no_stop(context: Context) -> None:
    (port,) = free_ports(1)
    server(context, "Process", port)
    context.start("--transaction", "T")
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(PATIENCE)
        first = answered_by(client)
        # The task has sent the connection before it answers, and the supervisor reads that before its end.
        kill(first)
        second = answered_by(client)
        assert second != first
        context.kill_supervisor()
        assert answered_by(client) == second
        wait_for(lambda: number(context) == 1)
        kill(second)
        third = answered_by(client)
        assert third != second
        context.ctl("reexec")
        context.ctl("restart", "--transaction", "T", "--task", "ts_1")
        assert answered_by(client) not in (first, second, third)
        wait_for(lambda: "FD Store: 1\n" in context.ctl("status", "--transaction", "T").stdout)
        context.ctl("stop", "--transaction", "T", "--task", "ts_1")
        assert client.recv(1) == b""
    wait_for(lambda: number(context) == 0)
    assert context.stop() == 0


def test_a_new_interpreter_gets_the_stored_descriptors_after_the_sockets(context: Context) -> None:
    (port,) = free_ports(1)
    server(context, "fresh", port)
    context.start("--transaction", "T")
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(PATIENCE)
        first = answered_by(client)
        kill(first)
        assert answered_by(client) != first
    assert context.stop() == 0


def test_a_descriptor_that_came_while_no_supervisor_ran_is_stored(context: Context) -> None:
    with program(context, "<file_descriptor_store_max>2</file_descriptor_store_max>") as task:
        context.write()
        context.start("--transaction", "T")
        first = task.process()
        supervisor = context.status()["pid"]
        stop_process(supervisor)
        first.run("r, w = os.pipe(); os.write(w, b'kept'); notify('FDSTORE=1\\nFDNAME=p', r, w)")
        os.kill(supervisor, signal.SIGKILL)
        first.kill()
        second = task.process()
        assert second.run("answer = NAMES, os.read(LISTEN, 9)") == "(['p', 'p'], b'kept')"
        second.stream.close()


def test_a_supervisor_that_dies_before_it_discards_a_datagram_stores_its_descriptor_once(
    context: Context, home: Path
) -> None:
    crash = home / "crash"
    crash.write_text("")
    with program(context, "<file_descriptor_store_max>9</file_descriptor_store_max>") as task:
        context.write()
        context.start("--transaction", "T", ZMSVC_CRASH_FILE=str(crash))
        first = task.process()
        context.task_is("ts_1", "running")
        crash.write_text("discard datagrams")
        first.run("file, other = os.memfd_create('a'), os.memfd_create('b')")
        first.run("notify('FDSTORE=1\\nFDNAME=once', file)")
        wait_for(lambda: crash.read_text() == "died before discard datagrams")
        crash.write_text("")
        first.run("notify('FDSTORE=1\\nFDNAME=other', other)")
        wait_for(lambda: number(context) == 2)
        first.kill()
        second = task.process()
        assert second.run("answer = NAMES") == "['once', 'other']"
        second.stream.close()


def test_the_words_of_sd_notify_mean_what_they_mean_for_systemd(context: Context) -> None:
    option = f"<listen>127.0.0.1:{free_ports(1)[0]}</listen><file_descriptor_store_max>5</file_descriptor_store_max>"
    with program(context, option) as task:
        context.write()
        context.start("--transaction", "T")
        first = task.process()
        first.run("file, other = os.memfd_create('file'), os.memfd_create('file')")
        first.run("pairs = [os.pipe() for _ in range(2)]")
        first.run("notify('FDSTORE=1\\nFDNAME=a', file, pairs[0][0])")
        first.run("notify('FDSTORE=1\\nFDNAME=bad:name', other)")
        first.run("notify('FDSTORE=1\\nFDNAME=b\\nFDPOLL=0', pairs[1][0])")
        wait_for(lambda: number(context) == 4)
        # A descriptor that is stored already is ignored, and so is the removal of no name.
        first.run("notify('FDSTORE=1\\nFDNAME=c', file, os.dup(pairs[0][0]))")
        first.run("notify('FDSTOREREMOVE=1')")
        # The other ends of both pipes close.
        first.run("os.close(pairs[0][1]); os.close(pairs[1][1])")
        wait_for(lambda: number(context) == 3)
        first.kill()
        second = task.process()
        assert second.run("answer = NAMES") == "['ts_1', 'a', 'stored', 'b']"
        assert second.run("answer = os.environ['LISTEN_FDS'], os.environ['ZMSVC_STORED_FDS']") == "('4', '3')"
        second.run("notify('FDSTOREREMOVE=1\\nFDNAME=a')")
        wait_for(lambda: number(context) == 2)
        second.run("more = [os.memfd_create('file') for _ in range(250)]; notify('FDSTORE=1', *more)")
        wait_for(lambda: number(context) == 5)
        second.kill()
        third = task.process()
        assert third.run("answer = NAMES") == "['ts_1', 'stored', 'b', 'stored', 'stored', 'stored']"
        dropped = json.loads(context.ctl("--json", "status").stdout)["contexts"][0]["dropped"]
        assert dropped["descriptors"] == 247
        assert "Cannot store a descriptor: T:ts_1: its store is full" in context.log.read_text()
        third.stream.close()


@pytest.mark.parametrize("user", ["", "<user>daemon</user>"])
def test_what_may_not_be_stored_is_refused_counted_and_closed(context: Context, user: str) -> None:
    need(not user or os.geteuid() == 0, "only root can run tasks of several users")
    context.home.chmod(0o755)
    with (
        program(context, user, "ts_1") as without,
        program(context, f"{user}<file_descriptor_store_max>9</file_descriptor_store_max>", "ts_2") as task,
    ):
        context.write()
        context.start("--transaction", "T")
        first, second = without.process(), task.process()
        supervisor = context.status()["pid"]
        before = len(os.listdir(f"/proc/{supervisor}/fd"))
        for _ in range(4):
            first.run("made = os.pipe(); notify('FDSTORE=1', *[made[0]] * 250); os.close(made[0])")
        second.run("made = os.pipe(); in_a_child(notify, 'FDSTORE=1', made[0]); os.close(made[0])")

        def refused() -> bool:
            dropped = json.loads(context.ctl("--json", "status").stdout)["contexts"][0]["dropped"]
            return bool(dropped["descriptors"] == 1000 and dropped["notifications"] == 1)

        wait_for(refused)
        for process in (first, second):
            # No process has the other end of the last pipe any more.
            wait_for(lambda process=process: process.run("answer = broken(made[1])") == "True")
        wait_for(lambda: len(os.listdir(f"/proc/{supervisor}/fd")) <= before)
        assert "T:ts_1: it may store none (set <file_descriptor_store_max>)" in context.log.read_text()
        assert (number(context, "ts_1"), number(context, "ts_2")) == (0, 0)
        for process in (first, second):
            process.stream.close()


def test_the_end_of_the_store_loses_its_descriptors_and_nothing_else(context: Context) -> None:
    with program(context, "<file_descriptor_store_max>2</file_descriptor_store_max>") as task:
        context.write()
        context.start("--transaction", "T")
        first = task.process()
        first.run("file = os.memfd_create('file'); notify('FDSTORE=1', file)")
        wait_for(lambda: number(context) == 1)
        (store,) = [pid for pid, name in context.children().items() if name == "zmsvc-fdstore"]
        kill(store)
        wait_for(lambda: number(context) == 0)

        def stored_again() -> bool:
            first.run("notify('FDSTORE=1', file)")
            return number(context) == 1

        wait_for(stored_again)
        first.kill()
        second = task.process()
        assert second.run("answer = NAMES") == "['stored']"
        second.stream.close()
        assert context.stop() == 0


def test_a_keeper_that_has_no_store_starts_no_task_that_needs_one(context: Context, home: Path) -> None:
    installed = Installed(home, extracted(PROTOCOL_3, home))
    (home / "Services").mkdir()
    context.task("plain", "Sleep", kind="Command", config="<command>sleep 3600</command>")
    context.write()
    context.start("--transaction", "T", PYTHONPATH=str(installed.path), PYTHONDONTWRITEBYTECODE="1")
    installed.replace(ROOT)
    context.kill_supervisor()
    service = "<file_descriptor_store_max>2</file_descriptor_store_max>"
    context.task("ts_1", "Sleep", kind="Command", config="<command>sleep 3600</command>", service=service)
    context.write()
    context.ctl("reload", check=None)
    failed = context.task_is("ts_1", "failed", "T")
    assert failed["exit"]["reason"] == "cannot-launch"
    assert "<file_descriptor_store_max>" in failed["status"]
    context.task_is("plain", "running", "T")
