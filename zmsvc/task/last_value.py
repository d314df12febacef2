"""The LastValue service: keep the last message of each sender and topic of its transaction, and send those
that a starting subscriber asks for.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from zmsvc.core import last_values, messages, wiring
from zmsvc.core.errors import ConfigError, ProtocolError
from zmsvc.core.last_values import LastValues, Request
from zmsvc.core.message_origin import origin_of
from zmsvc.host.sparse_log import SparseLog
from zmsvc.task.bus import Subscription
from zmsvc.task.frame_log import FrameLog
from zmsvc.task.inbox import topics_of
from zmsvc.task.inherited_descriptors import store_descriptor, stored_descriptors
from zmsvc.task.json_codec import codec
from zmsvc.task.sdk import FrameTask, TaskService

NAMES = ("last-values-1", "last-values-2")
"""The names of the two files in the descriptor store."""
_SLACK = 1 << 20
"""The messages that are still wanted are copied when the others have at least this many bytes."""
_PATIENCE = 2.0
"""Seconds in which an answer has to be sent. The subscriber waits no longer."""
_ANSWERING = 100
"""The number of answers that may wait for room in the queue to the device. Others are asked for again."""
_ANSWERED = 1000
"""The number of addresses that are remembered, so that a repeated request is not answered again."""


@dataclass(slots=True)
class _Answer:
    """An answer that is being sent."""

    frames: Iterator[bytes]
    until: float
    """The time after which the rest of it is not sent."""
    refused: bytes | None = None
    """The frame for which the queue had no room."""


class LastValueTask(FrameTask):
    """A task that keeps messages."""

    publishes = ()

    def __init__(self) -> None:
        self._topics = topics_of(self.config.get("subscribe") or (), "<subscribe>")
        own = f"{last_values.REQUEST}{self.transaction}:{self.service_id}"
        self._own_prefix = messages.prefix(own)
        self._given_up, self._too_large = SparseLog(self.log.warning), SparseLog(self.log.warning)
        self._ignored = SparseLog(self.log.warning)
        self._answered: OrderedDict[str, None] = OrderedDict()
        self._answers: deque[_Answer] = deque()
        self._waits = False
        """True while the first answer waits for room."""
        self._subscription: Subscription | None = None
        self._fds: list[int] = []

    def heard(self) -> tuple[str, ...]:
        return self._topics

    def prefixes(self) -> list[bytes]:
        if not self._topics:
            # An empty prefix covers the requests, too. But subscribers wait until the device has a
            # subscription to the topic of requests itself.
            return [b"", self._own_prefix]
        return [*map(messages.prefix, self._topics), self._own_prefix]

    def begin(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def setup(self) -> None:
        try:
            limits = last_values.retention(self.config)
        except ValueError as error:
            raise ConfigError([f"cannot keep last values: {error}"]) from None
        self._values = LastValues(limits)
        self._log = FrameLog(self._files())
        for place, frame in self._log.recover():
            if (key := self._key(frame)) is not None:
                self._put(key, place)

    def _files(self) -> list[int]:
        """Return the two files: those of an earlier process, as far as the store has them."""
        stored = dict(stored_descriptors())
        for name in NAMES:
            fd = os.dup(stored[name]) if name in stored else FrameLog.create()
            self._fds.append(fd)
            if name not in stored:
                store_descriptor(fd, name)
        return self._fds

    def _key(self, frame: bytes) -> last_values.Key | None:
        """Return the sender and the topic of a message that is to be kept; None for any other message."""
        of_topic, _, text = frame.partition(messages.SEPARATOR)
        topic = of_topic.decode(errors="replace")
        if wiring.is_own(topic) or (self._topics and topic not in self._topics):
            return None
        origin = origin_of(text, codec().decode)
        if origin is None or origin.recipient or origin.transaction not in ("", self.transaction):
            return None
        return origin.transaction, origin.sender, topic

    def on_frame(self, frame: bytes) -> None:
        if frame.startswith(self._own_prefix):
            self._take_request(frame)
        elif (key := self._key(frame)) is not None:
            self._keep(key, frame)

    def _keep(self, key: last_values.Key, frame: bytes) -> None:
        if not self._values.fits(len(frame)):
            # A subscriber must not take the message before this one for the last.
            self._values.remove(key)
            self._too_large.add(
                "Does not keep a message on %s of %d bytes: it is too large", key[2], len(frame)
            )
            return
        self._put(key, self._log.append(frame))
        if self._log.end > 2 * self._values.size + _SLACK:
            self._values.move(self._log.rewrite(dict(self._values.items())))

    def _put(self, key: last_values.Key, place: last_values.LogPosition) -> None:
        for _ in range(self._values.put(key, place)):
            self._given_up.add(
                "Gives up the message that has not been replaced for longest, because there are more than "
                "max_messages or max_bytes allow: a message on %s has come",
                key[2],
            )

    # --- requests

    def _take_request(self, frame: bytes) -> None:
        try:
            request = last_values.request_of(messages.decode(frame)[1])
        except ProtocolError as error:
            self._ignored.add("Ignored a message: %s", error)
            return
        subscription = self._subscription
        if subscription is None or request.address in self._answered:
            return
        # Do not wait for its subscription, which may never come: the subscriber asks again soon.
        prefix = messages.prefix(f"{last_values.ANSWER}{request.address}")
        if len(self._answers) < _ANSWERING and subscription.is_subscribed(prefix):
            self._answered[request.address] = None
            if len(self._answered) > _ANSWERED:
                self._answered.popitem(last=False)
            self._answers.append(_Answer(self._frames(request), time.monotonic() + _PATIENCE))
        # Send even without a new answer: reading the subscriptions has consumed the event that announces
        # room.
        self._send_answers()

    def _frames(self, request: Request) -> Iterator[bytes]:
        """Yield the frames of an answer. Each message is the last one at the time when it is sent."""
        count = 0
        for key, _ in last_values.selected(self._values, request.topics):
            place = self._values.place(key)
            message = b"" if place is None else self._log.read(place)
            if place is None or not self._is_message(message):
                self._values.remove(key)
                continue
            count += 1
            yield last_values.answer(request.address, self._header(request, last_values.RETAINED), message)
        yield last_values.end(request.address, self._header(request, last_values.END), count)

    def _send_answers(self) -> None:
        """Send as much as the queue to the device takes, and the rest when it has room again."""
        subscription = self._subscription
        assert subscription is not None
        while self._answers and self._send(self._answers[0], subscription):
            self._answers.popleft()
        if bool(self._answers) is not self._waits:
            self._waits = bool(self._answers)
            fd = subscription.confirmation_fileno()
            if self._waits:
                self._runtime.watch(fd, self._send_answers)
            else:
                self._runtime.unwatch(fd)

    @staticmethod
    def _send(answer: _Answer, subscription: Subscription) -> bool:
        """Send an answer. Return False if the queue is full before its end."""
        while time.monotonic() < answer.until:
            frame = answer.refused or next(answer.frames, None)
            if frame is None:
                break
            answer.refused = None if subscription.offer(frame) else frame
            if answer.refused is not None:
                return False
        return True

    @staticmethod
    def _is_message(frame: bytes) -> bool:
        """Return True for a whole message. Until a message is wanted, only its header is looked at."""
        try:
            messages.decode(frame, codec().decode)
        except ProtocolError:
            return False
        return True

    def _header(self, request: Request, action: str) -> messages.Body:
        return messages.header(
            transaction=self.transaction,
            service_id=self.service_id,
            action=action,
            service_name=ServiceLastValue.service_name,
            recipient=request.recipient,
        )

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


class ServiceLastValue(TaskService):
    """The service `LastValue`."""

    service_name = "last_value"
    task_class = LastValueTask
