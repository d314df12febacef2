"""Plays the start of a task in the process out of which tasks are forked, so often that the interpreter has
nothing more to learn.

CPython 3.11 rewrites code as it runs (PEP 659) and remembers where attributes were found, beside the code and
in the names themselves. In a fork each page of that is copied: this saves 90 of the 1,090 pages that a start
copied, and takes 0.1 s once.
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
from collections.abc import Iterator
from pathlib import Path

import zmq

from zmsvc.host.kernel import linux, process_marks
from zmsvc.host.python import code_copies
from zmsvc.host.python.interpreter import Shortcut, disabled
from zmsvc.host.systemd import notify
from zmsvc.protocol import forking
from zmsvc.protocol.launch import Descriptors, LaunchSpec
from zmsvc.task import runner
from zmsvc.task.stop import SignalStop

FIRST_ROUNDS = 9
"""After these every function that a start runs has been rewritten."""
ROUNDS = 24
"""A function is rewritten after 8 calls, and what could not be specialised is tried again a few times."""
LONGEST = 0.5
"""Seconds after which no further round begins: on a busy machine the first task must not wait for what was
meant to save time.
"""
SERVICE = "Rehearsal"
SERVICES = Path(__file__).parents[1] / "data" / "rehearsal"


def rehearse(log: str = "journal") -> None:
    """Play it for tasks of a context that logs to `log`. Raises RuntimeError when it failed.

    Afterwards nothing runs or is open that was not; no ZMQ context above all.
    """
    with _kept(), _ear() as ear, _device() as device:
        spec = _spec(notify_socket=f"@{ear.getsockname()[1:].decode()}", device=device, log=log)
        until = time.monotonic() + LONGEST
        # Copies that lie in holes are worse than none.
        if not {Shortcut.GATHER, Shortcut.FILL} & disabled():
            watch = code_copies.RunDetector()
            for _ in range(FIRST_ROUNDS):
                _play(spec, ear)
            watch.gather()
        for _ in range(ROUNDS):
            _play(spec, ear)
            if time.monotonic() > until:
                break


def _play(spec: LaunchSpec, ear: socket.socket) -> None:
    # To the journal it has nothing to say; else its output is a pipe, which the log's sink closes.
    output = None if spec.log == "journal" else os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    status = runner.run(forking.decode_launch(forking.encode_launch(spec)), Descriptors(output=output), _Deaf)
    said = []
    while (datagram := notify.receive(ear)) is not None:
        said += [key for key, _ in datagram.lines]
    if status != 0 or "READY" not in said or "STOPPING" not in said:
        raise RuntimeError(f"cannot rehearse the start of a task: status {status}, it said {' '.join(said)}")
    for name in [name for name in sys.modules if name.partition(".")[0] == SERVICE]:
        del sys.modules[name]


def _spec(*, notify_socket: str, device: str, log: str) -> LaunchSpec:
    """Return a launch as zmsvc.supervisor.launch_spec makes it."""
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
def _kept() -> Iterator[None]:
    """What a start changes in its process is put back; only the log's sink, closed, is left to be opened
    by each task.
    """
    fds = [os.dup(fd) for fd in (1, 2)]
    environment = dict(os.environ)
    streams = sys.stdin, sys.stdout, sys.stderr
    hooks = threading.excepthook, sys.unraisablehook
    path = sys.path[:]
    called, shown = linux.process_name(os.getpid()), linux.environment_of(os.getpid())
    try:
        yield
    finally:
        for handler in logging.getLogger().handlers:
            handler.close()
        linux.set_process_name(called)
        linux.show_environment(shown)
        sys.path[:] = path
        threading.excepthook, sys.unraisablehook = hooks
        sys.stdin, sys.stdout, sys.stderr = streams
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        for target, fd in enumerate(fds, 1):
            os.dup2(fd, target)
            os.close(fd)


@contextlib.contextmanager
def _ear() -> Iterator[socket.socket]:
    """In the place of the supervisor."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as ear:
        ear.bind("")  # the kernel finds an abstract name
        yield ear


@contextlib.contextmanager
def _device() -> Iterator[str]:
    """In the place of the device: its endpoint. A publisher that connects is told that somebody wants
    everything.
    """
    context = zmq.Context[zmq.Socket[bytes]]()
    front = context.socket(zmq.XSUB)
    endpoint = f"ipc://@zmsvc-rehearsal-{os.getpid()}"
    front.bind(endpoint)
    front.send(b"\x01")
    reader = threading.Thread(target=_read, args=(front,))
    reader.start()
    try:
        yield endpoint
    finally:
        context.term()
        reader.join()


def _read(front: zmq.Socket[bytes]) -> None:
    # libzmq lets a peer in only while somebody waits at the socket.
    with contextlib.suppress(zmq.ContextTerminated), front:
        while True:
            front.recv()


class _Deaf(SignalStop):
    """Nobody stops a rehearsal; and what is done at each fork cannot be undone."""

    last = False

    def listen(self) -> None:
        """Signals are left alone."""

    def __del__(self) -> None:
        for fd in (self.fd, self._wakeup, self._writer):
            os.close(fd)
