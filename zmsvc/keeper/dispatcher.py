"""The keeper's selector and the calls behind it: no event of an object that is gone, and no exception, gets
further than this.

One `select` returns many events, and the call for one may close the object of the next, whose number a new
object may have by then. So each event is compared with what is registered when its turn comes.
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
"""Seconds for which a descriptor is not looked at after its call has failed, where nothing can be dropped
for it.
"""


@dataclass(slots=True, eq=False)
class _Watch:
    """One registration."""

    fd: int
    call: Callable[[], object]
    drop: Callable[[], object] | None
    events: int
    muted_until: float | None = None


class Dispatcher:
    """Calls what is registered for a descriptor when it is ready."""

    def __init__(self, outside: KeeperMachine) -> None:
        self._outside = outside
        self._selector = outside.selector()
        self._watches: dict[int, _Watch] = {}
        self._muted: dict[int, _Watch] = {}
        """Those that are not looked at for a while, by descriptor."""

    def watch(
        self,
        fd: int,
        call: Callable[[], object],
        *,
        drop: Callable[[], object] | None = None,
        events: int = READ,
    ) -> None:
        """Call `call` whenever `fd` is ready. When that raises, `drop` is called, which ends what `fd`
        belongs to.

        Raises OSError when the kernel has no room for it.
        """
        self.unwatch(fd)
        watch = _Watch(fd, call, drop, events)
        self._selector.register(fd, events, watch)
        self._watches[fd] = watch

    def unwatch(self, fd: int) -> None:
        """Call nothing for this descriptor any more. To be called before it is closed."""
        watch = self._watches.pop(fd, None)
        self._muted.pop(fd, None)
        if watch is not None and watch.muted_until is None:
            self._forget(fd)

    def _forget(self, fd: int) -> None:
        with contextlib.suppress(KeyError, ValueError, OSError):
            self._selector.unregister(fd)

    def watched(self, fd: int) -> bool:
        """Tell whether something is called for this descriptor."""
        return fd in self._watches

    def expect(self, fd: int, events: int) -> None:
        """Wait for these events of a descriptor that is watched."""
        watch = self._watches.get(fd)
        if watch is None or watch.events == events:
            return
        watch.events = events
        if watch.muted_until is None:
            self._selector.modify(fd, events, watch)

    def due(self) -> float | None:
        """Return when `turn` has to be called at the latest."""
        return min(
            (watch.muted_until for watch in self._muted.values() if watch.muted_until is not None),
            default=None,
        )

    def turn(self, timeout: float | None) -> None:
        """Wait until something is ready, and call what is registered for it."""
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
            complain(f"zmsvcd: cannot wait for events, trying it anew\n{traceback.format_exc()}")
        self._renew()
        return []

    def _renew(self) -> None:
        """Have another selector; each watch that it takes is looked at again after a pause."""
        with contextlib.suppress(OSError, ValueError):
            self._selector.close()
        try:
            self._selector = self._outside.selector()
        except OSError:
            # An epoll takes a descriptor, of which none may be left; poll(2) takes none.
            self._selector = selectors.PollSelector()
        for watch in self._watches.values():
            self._mute(watch)

    def _mute(self, watch: _Watch) -> None:
        watch.muted_until = self._outside.now() + PAUSE
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
        now = self._outside.now()
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
    """Call it, and log what it raises; False when it has raised.

    A broad except: the keeper is the parent of every process of the context, and all of them end with it.
    """
    try:
        call()
    except Exception:
        complain(f"zmsvcd: the keeper has met an error and goes on\n{traceback.format_exc()}")
        return False
    return True
