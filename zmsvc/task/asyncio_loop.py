"""The event loop of an AsyncTask: run setup, run and close, feed the watchdog, read messages, and cancel the
work at a stop request.

Only the runtime of an AsyncTask imports this module: asyncio takes 25 ms of CPU and 7 MB.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import math
import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from zmsvc.task.bus import Subscription
from zmsvc.task.inbox import Message
from zmsvc.task.stop import Stop, Stopped
from zmsvc.task.subscriptions import TopicMessages

T = TypeVar("T")

Act = Callable[[], Awaitable[None] | None]
Handle = Callable[[bytes], Awaitable[None] | None]


class AsyncioLoop:
    """The event loop of one task. Its thread is that of the task."""

    def __init__(self, stop: Stop, feed: Callable[[], float], chores: Callable[[], float]) -> None:
        """`feed` feeds the watchdog if that is due, and returns the seconds until the next time. `chores`
        does the same with what the runtime has to do from time to time.
        """
        self._stop, self._feed, self._chores = stop, feed, chores
        self._next_chores: asyncio.TimerHandle | None = None
        own = stop.new_event_loop()
        self._runner = asyncio.Runner(loop_factory=None if own is None else lambda: own)
        self._loop = self._runner.get_loop()
        self._stopping = asyncio.Event()
        self._main: asyncio.Task[Any] | None = None
        """The asyncio task of the work that a stop request cancels."""
        self._canceled = False
        """True if the stop request need not cancel the work any more."""
        self._main_waits = False
        self._readable: set[asyncio.Event] = set()
        """The events of those who wait for a message."""
        self._reading: list[tuple[Subscription, Handle]] = []
        self._watched: list[tuple[int, Callable[[], Awaitable[None]]]] = []
        self._error: BaseException | None = None
        """The exception of a handler of messages."""
        self._loop.add_reader(stop.fd, self._on_stop)

    def read(self, subscription: Subscription, handle: Handle) -> None:
        """Pass each message to `handle` while the next work runs."""
        self._reading.append((subscription, handle))

    def watch(self, fd: int, act: Callable[[], Awaitable[None]]) -> None:
        """Call `act` whenever the descriptor is readable while the next work runs."""
        self._watched.append((fd, act))

    def begin_chores(self) -> None:
        """Begin to do the chores when they are due, if that has not begun. Any thread may call this."""
        # A thread of the user may call this after the end of the loop.
        if self._next_chores is None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._do_chores)

    def _do_chores(self) -> None:
        if self._next_chores is not None:
            self._next_chores.cancel()
        pause = self._chores()
        self._next_chores = None if pause == math.inf else self._loop.call_later(pause, self._do_chores)

    def run(self, act: Act, *, cancel: bool) -> None:
        """Call `act`, and await what it returns. With `cancel`, a stop request cancels it: this raises
        Stopped. Raises the exceptions of `act` and of the handler of messages.
        """
        with self._stop.signals_wake() as fd:
            if fd is not None:
                self._loop.add_reader(fd, _drain, fd)
            failure: BaseException | None
            try:
                failure = self._runner.run(self._work(act, cancel=cancel))
            except asyncio.CancelledError as error:
                failure = error
            finally:
                if fd is not None:
                    self._loop.remove_reader(fd)
        if self._error is not None:
            raise self._error
        if isinstance(failure, asyncio.CancelledError) and cancel and self._stop.requested:
            raise Stopped(0)
        if failure is not None:
            raise failure

    async def _work(self, act: Act, *, cancel: bool) -> BaseException | None:
        """Do the work, and return its exception. If a SystemExit were raised here, it would end the loop
        before it has cleaned up.
        """
        self._main = asyncio.current_task() if cancel else None
        companions = [asyncio.create_task(self._attend(self._keep_alive))]
        companions += [
            asyncio.create_task(self._attend(functools.partial(self._read, *each))) for each in self._reading
        ]
        companions += [
            asyncio.create_task(self._attend(functools.partial(self._watch, *each))) for each in self._watched
        ]
        self._reading, self._watched = [], []
        try:
            result = act()
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError:
            raise  # asyncio.Runner makes a KeyboardInterrupt of the cancellation by Ctrl-C
        except BaseException as error:  # the user's code may raise anything
            return error
        finally:
            self._main = None
            for each in companions:
                each.cancel()
        return None

    async def _attend(self, companion: Callable[[], Awaitable[None]]) -> None:
        """Run a companion of the work. If the companion fails, the work is canceled and fails as well."""
        try:
            await companion()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # handlers of messages are the user's code
            self._error = error
            if self._main is not None:
                self._main.cancel()

    async def _keep_alive(self) -> None:
        while (pause := self._feed()) < math.inf:  # noqa: ASYNC110 - no event tells the time
            await asyncio.sleep(pause)

    async def _read(self, subscription: Subscription, handle: Handle) -> None:
        readable = asyncio.Event()
        self._loop.add_reader(subscription.fileno(), readable.set)
        try:
            while True:
                readable.clear()
                while (frame := subscription.receive()) is not None:
                    result = handle(frame)
                    if inspect.isawaitable(result):
                        await result
                    else:
                        # Any number of messages may wait, so let other asyncio tasks have their turn.
                        await asyncio.sleep(0)
                await readable.wait()
        finally:
            self._loop.remove_reader(subscription.fileno())

    async def _watch(self, fd: int, act: Callable[[], Awaitable[None]]) -> None:
        readable = asyncio.Event()
        self._loop.add_reader(fd, readable.set)
        try:
            while True:
                await readable.wait()
                readable.clear()
                await act()
        finally:
            self._loop.remove_reader(fd)

    def _on_stop(self) -> None:
        # Stop reading: the descriptor stays readable for ever.
        self._loop.remove_reader(self._stop.fd)
        self._stopping.set()
        for each in self._readable:
            each.set()
        if self._main is not None and not self._main_waits and not self._canceled:
            self._main.cancel()
        self._canceled = True

    async def next(
        self, source: TopicMessages, take: Callable[[], Message[Any] | None], seconds: float | None
    ) -> Message[Any] | None:
        """Return the next message, which `take` returns; None if none comes within `seconds`, or before the
        stop request.
        """
        # Let other asyncio tasks have their turn while messages wait.
        await asyncio.sleep(0)
        if self._stop.requested or (message := take()) is not None or source.subscription is None:
            return None if self._stop.requested else message
        if source.busy:
            raise RuntimeError("cannot iterate over messages: another iteration waits for the same topics")
        source.busy = True
        readable, fd = asyncio.Event(), source.subscription.fileno()
        self._readable.add(readable)
        self._loop.add_reader(fd, readable.set)
        until = None if seconds is None else self._loop.time() + seconds
        try:
            while (message := take()) is None:
                left = None if until is None else max(0.0, until - self._loop.time())
                if await self._wait(readable, left) or left == 0:
                    return None
                readable.clear()
            return message
        finally:
            self._loop.remove_reader(fd)
            self._readable.discard(readable)
            source.busy = False

    async def readable(self, fd: int, patience: float, report: Callable[[], None]) -> None:
        """Wait until a descriptor is readable. Call `report` if that takes longer than `patience` seconds."""
        readable = asyncio.Event()
        self._loop.add_reader(fd, readable.set)
        late = self._loop.call_later(patience, report)
        try:
            await readable.wait()
        finally:
            late.cancel()
            self._loop.remove_reader(fd)

    async def wait(self, seconds: float | None) -> bool:
        """Wait until the stop request or the timeout. Return True if there is a stop request."""
        return await self._wait(self._stopping, seconds)

    async def _wait(self, event: asyncio.Event, seconds: float | None) -> bool:
        """Wait until the event, which the stop request sets as well, or the timeout. Return True if there is
        a stop request.
        """
        own = self._main is not None and asyncio.current_task() is self._main
        self._main_waits = self._main_waits or own
        try:
            if not self._stop.requested:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await event.wait()
        finally:
            if own:
                self._main_waits = False
        if own and self._stop.requested:
            # The caller gets the answer even if the loop has not noticed the request yet.
            self._canceled = True
        return self._stop.requested

    async def in_thread(self, act: Callable[[], T]) -> T:
        """Call `act` in another thread, and let the loop run meanwhile."""
        return await asyncio.to_thread(act)

    def close(self) -> None:
        """Cancel the asyncio tasks that are left, wait for the threads of the loop's executor, and end the
        loop.
        """
        self._loop.remove_reader(self._stop.fd)
        self._runner.close()


def _drain(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(fd, 4096)
