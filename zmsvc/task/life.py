"""The life of a task in its process: setup, READY, steps, stop, close. The watchdog is fed by this loop, so a hang is not hidden."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from zmsvc.core import messages
from zmsvc.core.errors import ProtocolError
from zmsvc.host import sockets
from zmsvc.host.notify import Notifier
from zmsvc.task.sdk import LoopedTask, SingleTask, Task, TaskService

ATTACH = 2.0
"""Seconds to wait for the device before the service says that it is ready; it comes up without it, too."""


class StopRequestedError(BaseException):
    """Breaks off the `run` of a SingleTask that is told to stop. No `except Exception` of a user catches it."""


class Bus:
    """A task's own connection to the device: out at once, in only for a service that listens."""

    def __init__(self, spec: Mapping[str, Any], *, listens: bool) -> None:
        self._context = sockets.context()
        self._out = sockets.publisher(self._context, spec["backend"])
        self._in = None
        self._mine = spec["task"]
        if listens:
            head = messages.dumps({"header": {"service_transaction": spec["transaction"]}}).rstrip("}")
            self._in = sockets.subscriber(self._context, spec["frontend"], [messages.prefix("control") + head.encode()])

    def attach(self) -> bool:
        return sockets.attached(self._out, ATTACH)

    def fileno(self) -> int:
        return int(self._in.fileno()) if self._in is not None else -1

    def publish(self, topic: str, body: Mapping[str, Any]) -> bool:
        return sockets.publish(self._out, messages.encode(topic, body))

    def heard(self) -> list[Mapping[str, Any]]:
        """What others of this transaction have reported since the last call."""
        found: list[Mapping[str, Any]] = []
        while self._in is not None:
            try:
                frame = self._in.recv(zmq.DONTWAIT)
            except zmq.Again:
                break
            try:
                _, body = messages.decode(frame)
            except ProtocolError:
                continue
            if body.get("header", {}).get("service_id") != self._mine:
                found.append(body)
        return found

    def close(self) -> None:
        if self._in is not None:
            self._in.close(0)
        self._out.close(1000)
        self._context.term()


class Life:
    """A task's companion: it carries out what the task asks for, and knows when it is time to stop."""

    def __init__(self, notifier: Notifier, watchdog: float = 0.0) -> None:
        self.stopping = False
        self.bus: Bus | None = None
        self.on_control: Callable[[Mapping[str, Any]], None] | None = None
        self.show: Callable[[str], None] | None = None
        """Where results go when there is no supervisor: a terminal."""
        self._notifier = notifier
        self._every = watchdog / 2
        self._fed_at = 0.0
        self._sequence = 0
        self._waiting = False
        self._breaks = False
        self._poll = select.poll()
        self._wakeup, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll.register(self._wakeup, select.POLLIN)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_stop)

    def _on_stop(self, _number: int, _frame: object) -> None:
        first, self.stopping = not self.stopping, True
        if first and self._breaks and not self._waiting:
            raise StopRequestedError

    # --- what a task asks for

    def update(self, items: Mapping[str, Any]) -> None:
        text = _as_json(items)
        if self.show is not None:
            self.show(text)
        self._sequence += 1
        self._notifier.update(text, self._sequence)

    def publish(self, topic: str, body: Mapping[str, Any]) -> None:
        if self.bus is not None:
            self.bus.publish(topic, body)
        elif self.show is not None:
            self.show(f"{topic} {messages.dumps(body)}")

    def wait(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        self._waiting = True
        try:
            while not self.stopping:
                self.listen()
                left = until - time.monotonic()
                if left <= 0 or self.stopping:
                    break
                pause = min(left, self.feed()) if self._every else left
                # Rounded up: a wait of 0.4 ms must not become a busy loop of waits of 0 ms.
                self._poll.poll(-(-pause * 1000 // 1))
                self._drain()
        finally:
            self._waiting = False
        return self.stopping

    def _drain(self) -> None:
        try:
            os.read(self._wakeup, 4096)
        except BlockingIOError:
            return

    def listen(self) -> None:
        """Hand on what other services have reported."""
        if self.bus is not None and self.on_control is not None:
            for message in self.bus.heard():
                self.on_control(message)

    def feed(self) -> float:
        """Feed the watchdog when it is time; gives the seconds until the next time."""
        now = time.monotonic()
        if now - self._fed_at >= self._every * 0.9:
            self._notifier.watchdog()
            self._fed_at = now
        return self._fed_at + self._every - now

    # --- the life itself

    def connect(self, spec: Mapping[str, Any], service: TaskService) -> None:
        """Join the bus of the context."""
        self.bus = Bus(spec, listens=service.listens())
        if service.listens():
            self.on_control = service.on_control
            self._poll.register(self.bus.fileno(), select.POLLIN)

    def live(self, task: Task) -> None:
        """From setup to close. Raises what the user's code raises, after close."""
        try:
            task.setup()
            if self.bus is not None:
                self.bus.attach()
            self._fed_at = time.monotonic()
            self._notifier.ready()
            self._work(task)
            self._notifier.stopping()
        finally:
            self._breaks = False
            task.close()

    def _work(self, task: Task) -> None:
        match task:
            case SingleTask():
                self._run(task)
            case LoopedTask():
                self._loop(task)
            case _:
                raise TypeError(f"{type(task).__name__} is neither a LoopedTask nor a SingleTask")

    def _run(self, task: SingleTask) -> None:
        try:
            self._breaks = True
            if not self.stopping:
                task.run()
        except StopRequestedError:
            task.log.info("Broken off: told to stop")
        finally:
            self._breaks = False

    def _loop(self, task: LoopedTask) -> None:
        while not self.stopping:
            began = time.monotonic()
            if self._every:
                self.feed()
            task.step()
            # From start to start, so that the step's own time does not add up; a late round is not made up for.
            self.wait(max(0.0, began + task.interval - time.monotonic()))


def _as_json(items: Mapping[str, Any]) -> str:
    try:
        return json.dumps(items, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        for name, value in items.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError, RecursionError) as reason:
                raise TypeError(f"cannot update: {name} is not JSON: {reason}") from error
        raise TypeError(f"cannot update: {error}") from error
