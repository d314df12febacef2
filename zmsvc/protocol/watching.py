"""The channel between the keeper and the watcher process: the keeper passes on which topics of Commands the
supervisor wants to be watched, and the watcher process reports what it finds. `WatchTopics`, `TopicHeard` and
`TopicSilent` are also messages between keeper and supervisor (`supervision`).

The watcher process is executed, so after an upgrade it may be newer or older than the keeper: each side
ignores messages that it does not know, and every added field has a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zmsvc.core.frozen import frozen
from zmsvc.protocol.codec import Codec
from zmsvc.protocol.output import Ping, Pong


@frozen
class Keys:
    """The CURVE keys of the context, as `host.bus.curve_keys.words`; None if it has none. They come first."""

    curve: tuple[str, ...] | None = None


@frozen
class WatchTopics:
    """Watch these topics of a launch in place of those that were watched before. Without topics, watch it no
    longer. `TopicHeard` and `TopicSilent` follow; the same order again repeats them. Since protocol 5.
    """

    launch: int
    transaction: str = ""
    task: str = ""
    endpoint: str = ""
    """The endpoint at which to subscribe."""
    ready: str = ""
    """The topic whose first message is to be reported, or nothing."""
    has_process: bool = False
    """False before the fork: the first message is then reported after the next order."""
    expect: tuple[Mapping[str, Any], ...] = ()
    """The topics on which silence is to be reported, each as `core.expected_topics.Expectation.as_json`."""


Order = Keys | WatchTopics | Ping

ORDERS = Codec[Order]({"keys": Keys, "watch": WatchTopics, "ping": Ping})


@frozen
class TopicHeard:
    """A launch has published its first message on the topic `ready` of `WatchTopics`. Since protocol 5."""

    launch: int
    topic: str


@frozen
class TopicSilent:
    """A launch has published nothing on a topic in `expect` of `WatchTopics` for too long. Since protocol
    5.
    """

    launch: int
    topic: str


Report = TopicHeard | TopicSilent | Pong

REPORTS = Codec[Report]({"heard": TopicHeard, "silent": TopicSilent, "pong": Pong})
