"""Run the probe of `<health>` or `<ready>`, in a process beside the task. core.probing judges the results.

The process is a fork of the zygote with the user, the working directory and the environment of the task. It
reports only changes, so a healthy task costs the supervisor nothing. The keeper kills it with the task.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from zmsvc.core import probing
from zmsvc.core.auxiliary_name import AuxiliaryName
from zmsvc.core.probing import Address, Judgment, Probe
from zmsvc.host.kernel import programs
from zmsvc.host.systemd import notify
from zmsvc.host.systemd.notify import Notifier
from zmsvc.protocol.launch import LaunchSpec

MOST_OUTPUT = 4096
"""Bytes of the output of a program that are kept, for the reason of a failure."""
_MOST_SHOWN = 200
_MOST_HEAD = 4096
"""Bytes in which the status line of an HTTP answer has to end."""
_USED_BY_PYTHON = [signal.SIGXFSZ]
"""Signals that Python ignores. A program expects their default action."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The result of one probe, with the reason of a failure."""

    ok: bool
    text: str = ""


def run(spec: LaunchSpec, notifier: Notifier) -> int:
    """Run the probe of this launch. Return the exit status; the process of `<health>` does not end by
    itself.
    """
    probe = probing.probe_from_json(spec.probe)
    if spec.auxiliary == AuxiliaryName.READY:
        while not once(probe).ok:
            time.sleep(probe.interval)
        return 0
    watch(probe, lambda health, text: notifier.notify(f"{notify.HEALTH}={health}", f"STATUS={text}"))
    return 0


def watch(probe: Probe, report: Callable[[probing.Health, str], object]) -> None:
    """Run a probe at its interval, and report each change of the health."""
    judgment, began = Judgment(), time.monotonic()
    while True:
        time.sleep(probe.interval)
        result = once(probe)
        before, age = judgment, time.monotonic() - began
        judgment = probing.judge(before, probe, ok=result.ok, age=age)
        if judgment.health is not before.health:
            report(judgment.health, result.text)


def once(probe: Probe) -> ProbeResult:
    """Run a probe once, for no longer than its timeout."""
    until = time.monotonic() + probe.timeout
    if probe.address is None:
        return _execute(probe.command, until)
    try:
        return _connect(probe.address, until)
    except TimeoutError:
        return ProbeResult(False, f"no answer within {probe.timeout:g} s")
    except OSError as error:
        return ProbeResult(False, f"cannot connect: {error.strerror or error}")


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


# --- tcp and http


def _connect(address: Address, until: float) -> ProbeResult:
    hosts = ("127.0.0.1", "::1") if address.host == "localhost" else (address.host,)
    for number, host in enumerate(hosts, start=1):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.settimeout(_left(until))
                sock.connect((host, address.port))
                return _get(sock, address, until) if address.target else ProbeResult(True)
        except OSError:
            # Of localhost, one of the addresses is enough.
            if number == len(hosts):
                raise
    raise AssertionError("there is a host")


def _get(sock: socket.socket, address: Address, until: float) -> ProbeResult:
    request = (
        f"GET {address.target} HTTP/1.1\r\nHost: {address.authority}\r\nUser-Agent: zmsvc\r\nAccept: */*\r\n"
        "Connection: close\r\n\r\n"
    )
    sock.sendall(request.encode("ascii"))
    head = b""
    while b"\n" not in head and len(head) < _MOST_HEAD:
        sock.settimeout(_left(until))
        more = sock.recv(_MOST_HEAD)
        if not more:
            break
        head += more
    words = head.partition(b"\n")[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return ProbeResult(False, "the answer is not HTTP")
    status = int(words[1])
    return ProbeResult(200 <= status < 400, f"HTTP status {status}")


# --- exec


def _execute(command: tuple[str, ...], until: float) -> ProbeResult:
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        try:
            pid = os.posix_spawnp(
                command[0],
                command,
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)],
                setpgroup=0,
                setsigdef=_USED_BY_PYTHON,
            )
        except OSError as error:
            why = programs.obstacle(command[0], error.errno, command) or error.strerror
            return ProbeResult(False, f"cannot execute {command[0]}: {why}")
        finally:
            os.close(writer)
        return _await(pid, reader, until)
    finally:
        os.close(reader)


def _await(pid: int, reader: int, until: float) -> ProbeResult:
    """Wait for the end of a program, and read its output meanwhile."""
    ended = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(reader, select.POLLIN)
    output, timed_out = b"", False
    try:
        while True:
            milliseconds = max(0.0, until - time.monotonic()) * 1000
            events = dict(poll.poll(milliseconds))
            if reader in events:
                more = _read(reader)
                output = (output + more)[:MOST_OUTPUT]
                if not more:
                    poll.unregister(reader)
            if ended in events:
                break
            if not events:
                timed_out = True
                break
        output = (output + _read(reader))[:MOST_OUTPUT]
    finally:
        os.close(ended)
        # Its group too: the program may have left others, such as the children of a shell.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if timed_out:
        return ProbeResult(False, _with(output, "timed out"))
    how = f"exit status {status}" if status >= 0 else signal.Signals(-status).name
    return ProbeResult(status == 0, _with(output, how))


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 65536)
    except BlockingIOError:
        return b""


def _with(output: bytes, how: str) -> str:
    """Return the way a program ended, and the first line of its output."""
    line = next(iter(output.decode(errors="replace").strip().splitlines()), "")
    return f"{how}: {line[:_MOST_SHOWN]}" if line else how
