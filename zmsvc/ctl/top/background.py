"""The work of `top` beside the screen, in threads of its own, since a supervisor may hang: looks at the
context, orders, and the text of the pane.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from zmsvc.core.errors import ZmsvcError, reason
from zmsvc.ctl.top.cursor import Pane, UserOrder
from zmsvc.ctl.top.rows import Snapshot

MAX_ORDERS = 8
"""The number of orders that may be under way."""
SECOND = 0.2
"""Seconds until the second look, which is the first that has the CPU usage."""
SLOW = 3.0
"""Seconds after which a missing answer is reported."""

Wake = Callable[[], None]
"""A function that has the screen drawn again."""


class Watch:
    """Looks at the context every `interval` seconds."""

    def __init__(self, look: Callable[[], Snapshot], interval: float, wake: Wake) -> None:
        self._look = look
        self._interval = interval
        self._wake = wake
        self._again = threading.Event()
        self.first = threading.Event()
        """Set when the first look has ended."""
        self.snapshot: Snapshot | None = None
        """The content of the last answer; None before the first one."""
        self.error: Exception | None = None
        """Why the last look failed; None if it did not."""
        self._answered = self._asked = time.monotonic()
        self._waiting = True

    def start(self) -> None:
        threading.Thread(target=self._run, name="zmsvc-top-watch", daemon=True).start()

    def look_again(self) -> None:
        """Let the next look begin now."""
        self._again.set()

    def trouble(self, now: float) -> str:
        """Return why the snapshot is not current; empty if it is."""
        if self.error is not None:
            return _text(self.error)
        if self._waiting and now - self._asked > SLOW:
            return f"the supervisor has not answered for {now - self._asked:.0f} s"
        return ""

    def age(self, now: float) -> float:
        """Return the seconds since the last answer."""
        return now - self._answered

    def is_late(self) -> bool:
        """Return True if the text of `trouble` changes with time."""
        return self.error is not None or self._waiting

    def _run(self) -> None:
        pause = SECOND
        while True:
            self._asked, self._waiting = time.monotonic(), True
            try:
                self.snapshot = self._look()
            except Exception as error:
                # A damaged answer may cause any error, and the next look may go well.
                self.error = error
            else:
                self.error, self._answered = None, time.monotonic()
            self._waiting = False
            self.first.set()
            self._wake()
            self._again.wait(pause)
            self._again.clear()
            pause = self._interval


class Orders:
    """The orders of the user. `give` sends one and returns its outcome, or raises ZmsvcError."""

    def __init__(self, give: Callable[[UserOrder], str], wake: Wake) -> None:
        self._give = give
        self._wake = wake
        self._lock = threading.Lock()
        self._under_way: list[UserOrder] = []
        self._last: tuple[str, bool] = ("", False)

    def begin(self, order: UserOrder) -> None:
        """Send an order in the background."""
        with self._lock:
            if len(self._under_way) >= MAX_ORDERS:
                self._last = (f"cannot {order.text}: {MAX_ORDERS} orders are under way", True)
                return
            self._under_way.append(order)
            self._last = ("", False)
        threading.Thread(target=self._run, args=(order,), name="zmsvc-top-order", daemon=True).start()

    def message(self) -> tuple[str, bool]:
        """Return the last outcome, or which orders are under way; and whether that is a failure."""
        with self._lock:
            text, bad = self._last
            if not self._under_way:
                return text, bad
            more = len(self._under_way) - 1
            under_way = f"{self._under_way[-1].text} ..." + (f" and {more} more" if more else "")
            return f"{text}; {under_way}" if text else under_way, bad

    def unfinished(self) -> list[str]:
        """Return the orders that are under way."""
        with self._lock:
            return [order.text for order in self._under_way]

    def _run(self, order: UserOrder) -> None:
        try:
            outcome, bad = f"{order.text}: {self._give(order)}", False
        except Exception as error:
            # A damaged answer may cause any error. The order may have failed, and the user has to see that.
            outcome, bad = _text(error), True
        with self._lock:
            self._under_way.remove(order)
            self._last = (outcome, bad)
        self._wake()


Subject = tuple[Pane, str, str]
"""A pane, and the transaction and task that it is about."""


class Reader:
    """The text of the pane, read again every `interval` seconds. `read` returns the lines about a subject, or
    raises ZmsvcError.
    """

    def __init__(self, read: Callable[[Subject], Sequence[str]], interval: float, wake: Wake) -> None:
        self._read = read
        self._interval = interval
        self._wake = wake
        self._changed = threading.Event()
        self._wanted: Subject | None = None
        self._found: tuple[Subject, tuple[str, ...]] | None = None

    def start(self) -> None:
        threading.Thread(target=self._run, name="zmsvc-top-pane", daemon=True).start()

    def want(self, subject: Subject | None) -> None:
        """Say what the pane is about; None while it is closed."""
        if subject != self._wanted:
            self._wanted = subject
            self._changed.set()

    def lines(self) -> tuple[str, ...] | None:
        """Return the text about the wanted subject; None as long as it is not there."""
        found = self._found
        return found[1] if found is not None and found[0] == self._wanted else None

    def _run(self) -> None:
        while True:
            subject = self._wanted
            if subject is not None:
                try:
                    lines = tuple(self._read(subject)) or ("there is nothing",)
                except Exception as error:
                    # A damaged answer or log may cause any error, and the table goes on.
                    lines = (_text(error),)
                self._found = subject, lines
                self._wake()
            self._changed.wait(None if subject is None else self._interval)
            self._changed.clear()


def _text(error: Exception) -> str:
    if isinstance(error, ZmsvcError):
        return str(error)
    return reason(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
