"""Rehearse the start of a task in the zygote until the interpreter has specialized all code that a start
runs.

CPython 3.11 specializes code as it runs (PEP 659): it writes to the code, to the caches of attributes in it,
and to the objects of names. In a fork, each first write to a page copies the page. The rehearsal saves 90 of
the 1,090 pages that a start copied, and takes 0.1 s once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType

import zmq

from zmsvc.host import seqpacket
from zmsvc.host.kernel import linux, memfd, process_marks, processes
from zmsvc.host.python import code_copies
from zmsvc.host.python.interpreter import Switch, disabled
from zmsvc.host.systemd import datagrams
from zmsvc.protocol import forking
from zmsvc.protocol.launch import Descriptors, LaunchSpec
from zmsvc.task import runner
from zmsvc.task.stop import SignalStop

FIRST_ROUNDS, ROUNDS = (4, 2) if sys.version_info >= (3, 12) else (9, 8)
"""Rounds after which CPython has specialized every function of a start (PEP 659), and further rounds, in
which the copies of the code are specialized.

Each round takes 3 to 5 ms, for which the first task waits. Since Python 3.12 a task copies as many pages
after 4 and 2 rounds as after 9 and 8 (431 and 429 faults of a start). On 3.11 it copies 30 pages more, and
with 24 rounds instead of 8 no fewer.
"""
LONGEST = 0.5
"""Seconds after which no further round begins: on a busy machine the first task must not wait longer than the
rehearsal saves.
"""
FORK_PATIENCE = 1
"""Seconds for the rehearsal in a fork."""
SERVICE = "Rehearsal"
SERVICES = Path(__file__).parents[1] / "data" / "rehearsal"


def rehearse(log: str = "journal", also: Iterable[CodeType] = ()) -> None:
    """Rehearse the start of a task in a context that logs to `log`. `also` is code of a start that a
    rehearsal cannot run. Raises RuntimeError if the rehearsal fails.

    Afterwards no thread, descriptor or ZMQ context of the rehearsal is left.
    """
    with _restored(), _notify_socket() as receiver, _device() as device:
        spec = _spec(notify_socket=f"@{receiver.getsockname()[1:].decode()}", device=device, log=log)
        until = time.monotonic() + LONGEST
        # Without FILL the copies would be scattered over holes of the heap, which is worse than no copies.
        if not {Switch.GATHER, Switch.FILL} & disabled():
            watch = code_copies.RunDetector()
            for _ in range(FIRST_ROUNDS):
                _play(spec, receiver)
            in_fork = code_copies.run_in_fork(lambda: _play_as_fork(spec), FORK_PATIENCE)
            watch.gather({*in_fork, *map(id, also)})
            while datagrams.receive(receiver) is not None:
                pass  # what the fork has sent
        for _ in range(ROUNDS):
            _play(spec, receiver)
            if time.monotonic() > until:
                break


def rehearse_once(log: str) -> None:
    """Rehearse the start of a task in a spare task, so that it has its own copies of the pages that a start
    writes to. Raises as `rehearse` does, and leaves as little.
    """
    with _restored(), _notify_socket() as receiver, _device() as device:
        _play(
            _spec(notify_socket=f"@{receiver.getsockname()[1:].decode()}", device=device, log=log), receiver
        )


def _play(spec: LaunchSpec, receiver: socket.socket) -> None:
    # The journal gets no entry. With other logs the output of a task is a pipe, which the sink of the log
    # closes.
    output = None if spec.log == "journal" else os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    status = runner.run(
        forking.decode_launch(forking.encode_launch(spec)),
        Descriptors(output=output, barrier=_open_barrier()),
        _NoSignals,
    )
    sent = []
    while (datagram := datagrams.receive(receiver)) is not None:
        sent += [key for key, _ in datagram.lines]
    if status != 0 or "READY" not in sent or "STOPPING" not in sent:
        raise RuntimeError(f"cannot rehearse the start of a task: status {status}, it sent {' '.join(sent)}")
    for name in [name for name in sys.modules if name.partition(".")[0] == SERVICE]:
        del sys.modules[name]
    del logging.Logger.manager.loggerDict[SERVICE]


def _open_barrier() -> int:
    """Return the barrier of a start that waits for no other task."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.close(writer)
    return reader


def _play_as_fork(spec: LaunchSpec) -> None:
    """Run what only a fork of this process can run: it gets its launch from the keeper, and the signals of a
    task.
    """
    linux.die_with_parent(os.getppid())
    packet, descriptors = forking.order(
        Descriptors(output=os.open(os.devnull, os.O_WRONLY), barrier=_open_barrier()),
        memfd.private("zmsvc-launch", forking.encode_launch(spec)),
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    seqpacket.send_data(ours, packet, descriptors)
    orders = seqpacket.PendingPackets(theirs)
    orders.take()
    runner.run(*forking.read_launch(orders.data(), orders.fds))


def _spec(*, notify_socket: str, device: str, log: str) -> LaunchSpec:
    """Return a launch like those of zmsvc.supervisor.launch_spec."""
    return LaunchSpec(
        launch=0,
        context="rehearsal",
        context_id="rehearsal",
        transaction="rehearsal",
        task="rehearsal",
        instance=SERVICE,
        service_name="rehearsal",
        service_type="Process",
        device_action="rehearsal",
        description="rehearsal",
        configuration={"location": str(SERVICES)},
        search=(str(SERVICES),),
        command=(),
        frontend=device,
        backend=device,
        notify=notify_socket,
        log=log,
        mark=resource.getrlimit(process_marks.RLIMIT_LOCKS)[0],
        cause={"by": "operator", "uid": 0, "depth": 0, "sources": []},
    )


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Restore the state of the process that a start changes. Only the sink of the log stays; it is closed,
    and each task opens it.
    """
    fds = [os.dup(fd) for fd in (1, 2)]
    environment = dict(os.environ)
    streams = sys.stdin, sys.stdout, sys.stderr
    hooks = threading.excepthook, sys.unraisablehook
    path = sys.path[:]
    name, shown = processes.process_name(os.getpid()), processes.environment_of(os.getpid())
    try:
        yield
    finally:
        for handler in logging.getLogger().handlers:
            handler.close()
        linux.set_process_name(name)
        linux.show_environment(shown)
        sys.path[:] = path
        threading.excepthook, sys.unraisablehook = hooks
        sys.stdin, sys.stdout, sys.stderr = streams
        for variable in os.environ.keys() - environment.keys():
            del os.environ[variable]
        for target, fd in enumerate(fds, 1):
            os.dup2(fd, target)
            os.close(fd)


@contextlib.contextmanager
def _notify_socket() -> Iterator[socket.socket]:
    """Yield a notify socket that replaces the supervisor's."""
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_UNIX, kind) as receiver:
        receiver.bind("")  # the kernel chooses an abstract name
        yield receiver


@contextlib.contextmanager
def _device() -> Iterator[str]:
    """Yield the endpoint of a socket that replaces the device. It sends every publisher a subscription to all
    messages.
    """
    context = zmq.Context[zmq.Socket[bytes]]()
    xsub = context.socket(zmq.XSUB)
    endpoint = f"ipc://@zmsvc-rehearsal-{os.getpid()}"
    xsub.bind(endpoint)
    xsub.send(b"\x01")
    reader = threading.Thread(target=_read, args=(xsub,))
    reader.start()
    try:
        yield endpoint
    finally:
        context.term()
        reader.join()


def _read(xsub: zmq.Socket[bytes]) -> None:
    # libzmq completes a peer's connection only while a thread waits at the socket.
    with contextlib.suppress(zmq.ContextTerminated), xsub:
        while True:
            xsub.recv()


class _NoSignals(SignalStop):
    """A stop request without signals: os.register_at_fork, which those need, could not be undone after the
    rehearsal.
    """

    ends_process = False

    def listen(self) -> None:
        """Do nothing: leave the signals alone."""

    def __del__(self) -> None:
        for fd in (self.fd, self._wakeup, self._writer):
            os.close(fd)
