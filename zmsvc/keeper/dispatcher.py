"""The selector of the keeper and its callbacks. No callback gets an event of a closed object, and no
exception leaves this module.

One `select` returns many events. The callback of one event may close the object of a later event, and a new
object may have the same descriptor number by then. So each event is compared with the current registration
before its callback runs.
"""

from __future__ import annotations

import contextlib
import selectors
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from zmsvc.host.complain import complain
from zmsvc.keeper.machine import KeeperMachine

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
PAUSE = 1.0
"""Seconds for which a descriptor without `drop` is ignored after its callback has raised."""


@dataclass(slots=True, eq=False)
class _Watch:
    """One registered descriptor."""

    fd: int
    call: Callable[[], object]
    drop: Callable[[], object] | None
    events: int
    muted_until: float | None = None


class Dispatcher:
    """A table of descriptors with a callback for each, which is called when the descriptor is ready."""

    def __init__(self, machine: KeeperMachine) -> None:
        self._machine = machine
        self._selector = machine.selector()
        self._watches: dict[int, _Watch] = {}
        self._muted: dict[int, _Watch] = {}
        """Registrations that are ignored for a while, by descriptor."""

    def watch(
        self,
        fd: int,
        call: Callable[[], object],
        *,
        drop: Callable[[], object] | None = None,
        events: int = READ,
    ) -> None:
        """Call `call` whenever `fd` is ready. If `call` raises, `drop` is called, which closes the object
        that owns `fd`.

        Raises OSError if the kernel cannot watch another descriptor.
        """
        self.unwatch(fd)
        watch = _Watch(fd, call, drop, events)
        self._selector.register(fd, events, watch)
        self._watches[fd] = watch

    def unwatch(self, fd: int) -> None:
        """Stop watching this descriptor. Call this before closing it."""
        watch = self._watches.pop(fd, None)
        self._muted.pop(fd, None)
        if watch is not None and watch.muted_until is None:
            self._forget(fd)

    def _forget(self, fd: int) -> None:
        with contextlib.suppress(KeyError, ValueError, OSError):
            self._selector.unregister(fd)

    def watched(self, fd: int) -> bool:
        """Return True if this descriptor is watched."""
        return fd in self._watches

    def expect(self, fd: int, events: int) -> None:
        """Change the events for which a watched descriptor is ready."""
        watch = self._watches.get(fd)
        if watch is None or watch.events == events:
            return
        watch.events = events
        if watch.muted_until is None:
            self._selector.modify(fd, events, watch)

    def due(self) -> float | None:
        """Return the time by which `turn` has to be called."""
        return min(
            (watch.muted_until for watch in self._muted.values() if watch.muted_until is not None),
            default=None,
        )

    def turn(self, timeout: float | None) -> None:
        """Wait until a descriptor is ready, and call the callbacks."""
        self._unmute()
        for watch in self._ready(timeout):
            if self._watches.get(watch.fd) is watch and watch.muted_until is None:
                self._call(watch)

    def _ready(self, timeout: float | None) -> list[_Watch]:
        try:
            return [key.data for key, _ in self._selector.select(timeout)]
        except InterruptedError:
            return []
        except (OSError, ValueError):
            complain(f"zmsvcd: cannot wait for events, trying again\n{traceback.format_exc()}")
        self._renew()
        return []

    def _renew(self) -> None:
        """Replace the selector. All descriptors are ignored for a pause and then registered again."""
        with contextlib.suppress(OSError, ValueError):
            self._selector.close()
        try:
            self._selector = self._machine.selector()
        except OSError:
            # An epoll needs a descriptor, and the process may have none left. poll(2) needs none.
            self._selector = selectors.PollSelector()
        for watch in self._watches.values():
            self._mute(watch)

    def _mute(self, watch: _Watch) -> None:
        watch.muted_until = self._machine.now() + PAUSE
        self._muted[watch.fd] = watch

    def _call(self, watch: _Watch) -> None:
        if attempt(watch.call) or self._watches.get(watch.fd) is not watch:
            return
        if watch.drop is not None:
            self.unwatch(watch.fd)
            attempt(watch.drop)
        else:
            self._forget(watch.fd)
            self._mute(watch)

    def _unmute(self) -> None:
        if not self._muted:
            return
        now = self._machine.now()
        for watch in [
            watch
            for watch in self._muted.values()
            if watch.muted_until is not None and watch.muted_until <= now
        ]:
            try:
                self._selector.register(watch.fd, watch.events, watch)
                watch.muted_until = None
                del self._muted[watch.fd]
            except (OSError, ValueError, KeyError):
                self._mute(watch)


def attempt(call: Callable[[], object]) -> bool:
    """Call `call` and log its exception. Return False if it raised.

    The `except` is broad because the keeper is the parent of every process of the context: if the keeper
    ends, all of them end.
    """
    try:
        call()
    except Exception:
        complain(f"zmsvcd: internal error of the keeper, which continues\n{traceback.format_exc()}")
        return False
    return True
