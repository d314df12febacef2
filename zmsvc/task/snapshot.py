"""Give a starting subscriber the last messages that were published before it subscribed: ask each LastValue,
and collect the answers. Imported only in a context that has a LastValue.

The answers come by the same subscription as the messages themselves, in the order in which the device has
forwarded them. So all that was published before the end of an answer, and is perhaps in it, is known by then.
"""

from __future__ import annotations

import collections
import logging
import os
from collections.abc import Collection

from zmsvc.core import last_values, messages
from zmsvc.core.errors import ProtocolError
from zmsvc.core.last_values import Request, RetainedSnapshot
from zmsvc.core.message_origin import MessageOrigin, origin_of
from zmsvc.host.sparse_log import SparseLog
from zmsvc.protocol.launch import LaunchSpec
from zmsvc.task.bus import Subscription
from zmsvc.task.inbox import RetainedFrame
from zmsvc.task.json_codec import codec

PATIENCE = 2.0
"""Seconds to wait for all answers."""
AGAIN = 0.05
"""Seconds until a LastValue that has not answered is asked again. It may be about to start."""
QUIET = 0.2
"""Seconds without an answer after which the task no longer waits for the LastValues of other transactions.
This is short, because a client may have invented such a LastValue, and a slow one looks the same.
"""


class PrecededSubscription(Subscription):
    """A subscription that returns the retained messages first. When it is confirmed, call `begin`, then `ask`
    and `read` until nothing more is to come or PATIENCE has passed, then `finish`.
    """

    def __init__(
        self, spec: LaunchSpec, topics: Collection[str], *, every_transaction: bool, log: logging.Logger
    ) -> None:
        self._topics = frozenset(topics)
        self._every_transaction = every_transaction
        self._own = {f"{spec.transaction}:{task}" for task in spec.retained or ()}
        self._answered_at = 0.0
        self._request = Request(
            topics=tuple(self._topics),
            # An address is answered once. No other client can know it, and ask, before this task does.
            address=f"{spec.transaction}:{spec.task}:{os.urandom(16).hex()}",
            recipient=spec.task,
        )
        self._header = messages.header(
            transaction=spec.transaction,
            service_id=spec.task,
            action="request",
            service_name=spec.service_name or spec.instance,
        )
        self._answers = messages.prefix(f"{last_values.ANSWER}{self._request.address}")
        self._ignored, self._log = SparseLog(log.warning), log
        self._subscription: Subscription | None = None
        self._snapshot = RetainedSnapshot(())
        self._first: collections.deque[bytes] = collections.deque()

    @property
    def prefixes(self) -> list[bytes]:
        """The prefixes of the answers."""
        return [self._answers]

    def attach(self, subscription: Subscription) -> None:
        """Read from this subscription, which has `prefixes` as well."""
        self._subscription = subscription

    def begin(self, now: float) -> None:
        """Find the LastValues to ask. The device has confirmed the subscription."""
        self._answered_at = now
        assert self._subscription is not None
        asked = [*self._own]
        if self._every_transaction:
            start = last_values.REQUEST.encode()
            known = self._subscription.subscriptions(start)
            names = (each[len(start) :].removesuffix(messages.SEPARATOR) for each in known)
            asked += last_values.chosen(each.decode(errors="replace") for each in names)
        self._snapshot = RetainedSnapshot(asked)

    def ask(self) -> None:
        """Ask the LastValues that have not answered."""
        assert self._subscription is not None
        for each in self._snapshot.pending:
            topic = f"{last_values.REQUEST}{each}"
            if self._subscription.is_subscribed(messages.prefix(topic)):
                self._subscription.offer(messages.encode(topic, self._request.body(self._header)))

    def read(self, now: float) -> bool:
        """Read what has come. Return True if more is to come."""
        assert self._subscription is not None
        while self._snapshot.pending and not self._snapshot.full:
            frame = self._subscription.receive()
            if frame is None:
                own = self._snapshot.pending & self._own
                return bool(own) or now < self._answered_at + QUIET
            self._take(frame, now)
        return False

    def _take(self, frame: bytes, now: float) -> None:
        if not frame.startswith(self._answers):
            self._add(frame, retained=False)
            return
        try:
            answer = last_values.answer_of(frame[len(self._answers) :])
        except ProtocolError as error:
            self._ignored.add("Ignored a message: %s", error)
            return
        self._answered_at = now
        if answer.frame is None:
            self._snapshot.end(answer.sender)
        else:
            self._add(answer.frame, retained=True)

    def _add(self, frame: bytes, *, retained: bool) -> None:
        topic, _, text = frame.partition(messages.SEPARATOR)
        name = topic.decode(errors="replace")
        # A number that a silent sender repeats stays in its place among the messages.
        if not retained or name in self._topics:
            origin = origin_of(text, codec().decode) or MessageOrigin()
            self._snapshot.add(name, origin, frame, retained=retained)

    def finish(self) -> None:
        """Put the messages in their order, and end the subscription to answers."""
        assert self._subscription is not None
        if own := self._snapshot.pending & self._own:
            self._log.warning("Begins without all retained messages: %s", ", ".join(sorted(own)))
        if others := len(self._snapshot.pending - self._own):
            # Any client can invent their names, so the log has none.
            self._log.warning(
                "Begins without all retained messages: %d LastValues of other transactions do not answer",
                others,
            )
        self._first.extend(map(RetainedFrame, self._snapshot.retained()))
        self._first.extend(self._snapshot.live())
        self._snapshot = RetainedSnapshot(())
        self._subscription.unsubscribe(self._answers)

    def receive(self) -> bytes | None:
        if self._first:
            return self._first.popleft()
        assert self._subscription is not None
        return self._subscription.receive()

    def fileno(self) -> int:
        assert self._subscription is not None
        return self._subscription.fileno()

    def close(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
