"""One ssh for each host, all at the same time: their output as it comes, and how each of them ends."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, assert_never

from zmsvc.core import remote_hosts
from zmsvc.core.errors import reason
from zmsvc.core.frozen import frozen
from zmsvc.core.remote_hosts import RemoteHost
from zmsvc.ctl.client import CtlError

MAX_TOLD = 64 << 10
"""Bytes of one host's lines on stderr that are kept; what comes after them is dropped."""
KILL_AFTER = 1.0
"""Seconds from SIGTERM to SIGKILL, and from SIGKILL until zmsvcctl gives up an ssh that hangs in the kernel.
"""
_LINE = 64
"""Bytes that a line counts in addition: it is shown after the name of its host."""
_CHUNK = 64 << 10
_DRAIN = 16
"""The number of chunks that are read from a pipe after the end of ssh: as much as a pipe can hold, because a
process that ssh has left behind may write for ever.
"""


class Why(Enum):
    """Why zmsvcctl itself has ended an ssh."""

    LATE = "late"
    LONG = "long"
    SENSELESS = "senseless"
    INTERRUPTED = "interrupted"


@frozen
class Part:
    """Some bytes of a host's answer."""

    host: RemoteHost
    data: bytes


@frozen
class Told:
    """A line that zmsvcctl has written to stderr on a host."""

    host: RemoteHost
    line: str


@frozen
class SshEnded:
    """The end of the ssh of a host. `status` is as of subprocess; None if ssh could not be ended. `told` are
    the lines on stderr that were not `Told`, which are ssh's or a shell's.
    """

    host: RemoteHost
    status: int | None
    why: Why | None
    told: tuple[str, ...]


Event = Part | Told | SshEnded


@dataclass(slots=True, kw_only=True)
class _Running:
    """One ssh."""

    host: RemoteHost
    process: subprocess.Popen[bytes]
    pidfd: int
    until: float | None
    """The monotonic time of the next step against it: SIGTERM at its limit, SIGKILL, or giving it up."""
    why: Why | None = None
    killed: bool = False
    taken: int = 0
    """Bytes of its answer and its complaints so far."""
    errors: bytearray
    told: list[str]
    kept: int = 0
    """Bytes of `told`."""
    dropped: int = 0


class SshProcesses:
    """The ssh of all hosts. A context manager, for the main thread: at its end no ssh runs. Ctrl-C, SIGTERM
    and SIGHUP end each ssh, and `events` yields that; the second one raises KeyboardInterrupt.
    """

    def __init__(self, *, seconds: float | None, longest: int | None) -> None:
        """`seconds` is the time limit of each host, and `longest` the most bytes that it may answer."""
        self._seconds, self._longest = seconds, longest
        self._selector = selectors.DefaultSelector()
        self._running: dict[RemoteHost, _Running] = {}
        self._before: dict[signal.Signals, Any] = {}
        self.signal: int | None = None
        """The signal that has ended all of them."""

    def __enter__(self) -> SshProcesses:
        self._rung = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._rung, selectors.EVENT_READ)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup has a program ignore SIGHUP.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        self.end_all()
        for _event in self.events():
            pass
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._selector.close()
        os.close(self._rung)

    def _on_signal(self, number: int, _frame: object) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        self.end_all()
        # Python continues the wait after a signal, so the handler sets a shorter one: until SIGKILL.
        os.eventfd_write(self._rung, 1)

    def start(self, host: RemoteHost, words: Sequence[str], environment: Mapping[str, str]) -> None:
        """Run a command with these words on a host. Raises CtlError if there is no ssh, or none can run."""
        command = ["ssh", *remote_hosts.ssh_words(host, words, self._seconds)]
        try:
            # In a session of its own ssh gets no Ctrl-C from the terminal, and cannot ask for a password
            # there.
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env=environment,
            )
        except OSError as error:
            raise _no_ssh(host, error) from None
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError as error:
            process.kill()
            process.communicate()
            raise _no_ssh(host, error) from None
        running = _Running(
            host=host,
            process=process,
            pidfd=pidfd,
            until=time.monotonic() + self._seconds if self._seconds else None,
            errors=bytearray(),
            told=[],
        )
        self._running[host] = running
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream.fileno(), selectors.EVENT_READ, running)
        self._selector.register(running.pidfd, selectors.EVENT_READ, running)

    # --- the loop

    def events(self) -> Iterator[Event]:
        """Yield the events of the hosts, until all have ended."""
        while self._running:
            now = time.monotonic()
            for running in [each for each in self._running.values() if (each.until or now + 1) <= now]:
                yield from self._past(running)
            waits = [each.until for each in self._running.values() if each.until is not None]
            ready = self._selector.select(max(0.0, min(waits) - time.monotonic()) if waits else None)
            for key, _ in ready:
                running = key.data
                if running is None:
                    os.eventfd_read(self._rung)
                elif running.host not in self._running:
                    continue  # It has ended in this turn.
                elif key.fd == running.pidfd:
                    yield from self._ended(running)
                else:
                    yield from self._read(running, key.fd)

    def end(self, host: RemoteHost, why: Why) -> None:
        """Begin to end the ssh of a host."""
        running = self._running.get(host)
        if running is None or running.why is not None:
            return
        running.why, running.until = why, time.monotonic() + KILL_AFTER
        stdin = running.process.stdin
        assert stdin is not None
        # zmsvcctl on the host ends with its standard input, even if something keeps the connection open.
        stdin.close()
        self._signal(running, signal.SIGTERM)

    def end_all(self) -> None:
        for host in list(self._running):
            self.end(host, Why.INTERRUPTED)

    def _past(self, running: _Running) -> Iterator[Event]:
        """Take the next step against an ssh whose time has passed."""
        if running.why is None:
            self.end(running.host, Why.LATE)
        elif not running.killed:
            running.killed, running.until = True, time.monotonic() + KILL_AFTER
            self._signal(running, signal.SIGKILL)
        else:
            yield from self._ended(running)

    @staticmethod
    def _signal(running: _Running, number: signal.Signals) -> None:
        """Send a signal to ssh and its ProxyCommand. ssh is not reaped yet, so its PID is still its own."""
        os.killpg(running.process.pid, number)

    def _read(self, running: _Running, fd: int) -> Iterator[Event]:
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(fd)
        elif running.process.stdout is not None and fd == running.process.stdout.fileno():
            yield from self._answer(running, data)
        else:
            yield from self._complaint(running, data)

    def _answer(self, running: _Running, data: bytes) -> Iterator[Event]:
        if running.why is not None:
            return  # The answer of a host that is being ended is not complete anyway.
        running.taken += len(data)
        if self._longest is not None and running.taken > self._longest:
            self.end(running.host, Why.LONG)
        else:
            yield Part(host=running.host, data=data)

    def _complaint(self, running: _Running, data: bytes) -> Iterator[Event]:
        running.taken += len(data)
        if self._longest is not None and running.taken > self._longest:
            self.end(running.host, Why.LONG)
            return
        running.errors += data
        *lines, rest = running.errors.split(b"\n")
        running.errors = rest[:MAX_TOLD]
        for line in lines:
            text = line[:MAX_TOLD].decode(errors="backslashreplace")
            if text.startswith(remote_hosts.COMPLAINT):
                yield Told(host=running.host, line=text)
            elif not text.strip():
                continue  # Empty lines are left out: a banner has some.
            elif running.kept + len(text) < MAX_TOLD:
                running.kept += len(text) + _LINE
                running.told.append(text)
            else:
                # The last line is kept, because it has the reason.
                running.dropped += 1
                running.told[-1:] = [text[:MAX_TOLD]]

    def _ended(self, running: _Running) -> Iterator[Event]:
        """Read what ssh has written before its end, and reap it."""
        process = running.process
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            for _ in range(_DRAIN):
                if stream.fileno() not in self._selector.get_map():
                    break
                yield from self._read(running, stream.fileno())
        if running.errors:
            yield from self._complaint(running, b"\n")
        self._forget(running)
        told = running.told
        if running.dropped:
            told = [*told[:-1], f"({running.dropped} more lines)", *told[-1:]]
        yield SshEnded(host=running.host, status=process.poll(), why=running.why, told=tuple(told))

    def _forget(self, running: _Running) -> None:
        process = running.process
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            if not stream.closed:
                if stream.fileno() in self._selector.get_map():
                    self._selector.unregister(stream.fileno())
                stream.close()
        self._selector.unregister(running.pidfd)
        os.close(running.pidfd)
        del self._running[running.host]


def hand_over(host: RemoteHost, words: Sequence[str], environment: Mapping[str, str]) -> int | None:
    """Run a command with these words on a host, with the terminal of this process, as a person who logs in
    there. Return the exit status as of subprocess; None after Ctrl-C before ssh was connected.
    Raises CtlError if there is no ssh.
    """
    try:
        return subprocess.call(["ssh", *remote_hosts.ssh_words(host, words, terminal=True)], env=environment)
    except OSError as error:
        raise _no_ssh(host, error) from None
    except KeyboardInterrupt:
        return None


def _no_ssh(host: RemoteHost, error: OSError) -> CtlError:
    advice = " (is openssh-client installed?)" if isinstance(error, FileNotFoundError) else ""
    return CtlError(5, f"cannot run ssh for {host.name}: {reason(error)}{advice}")


def code_and_reason(
    ended: SshEnded, *, seconds: float | None, longest: int | None, order: bool
) -> tuple[int, str | None]:
    """Return the exit status of a host, and in one line why it did not come from its zmsvcctl; else None."""
    name = ended.host.name
    may_go_on = f"; the order may go on there (zmsvcctl -H {name} status)" if order else ""
    match ended.why:
        case None:
            status = ended.status
            if status is None:
                return remote_hosts.UNREACHABLE, f"cannot end ssh to {name}: it waits in the kernel"
            return remote_hosts.code_of(status), remote_hosts.reason_of(ended.host, status, ended.told)
        case Why.LATE:
            return remote_hosts.TIMED_OUT, (
                f"timed out: {name} has not answered within {seconds:g} s"
                f"{may_go_on or ' (--host-timeout sets the limit)'}"
            )
        case Why.LONG:
            if longest is None:
                most = remote_hosts.MAX_ANSWER >> 20
                return remote_hosts.UNREACHABLE, (
                    f"cannot read the answer of {name}: a line of it is longer than {most} MiB"
                )
            return remote_hosts.UNREACHABLE, (
                f"cannot read the answer of {name}: it is longer than {longest >> 20} MiB "
                f"(name some of the tasks, or ask fewer hosts)"
            )
        case Why.SENSELESS:
            return remote_hosts.UNREACHABLE, senseless(name)
        case Why.INTERRUPTED:
            return 130, f"broken off: {name} has not answered{may_go_on}"
        case never:
            assert_never(never)


def senseless(name: str) -> str:
    return f"cannot understand {name}: its answer is not JSON (is zmsvcctl there another program?)"
