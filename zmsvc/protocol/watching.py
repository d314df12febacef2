"""The channel between the keeper and the watcher process: the keeper passes on which topics of Commands the
supervisor wants to be watched, and the watcher process reports what it finds.

The watcher process is executed, so after an upgrade it may be newer or older than the keeper: each side
ignores messages that it does not know, and every added field has a default.
"""

from __future__ import annotations

from zmsvc.core.frozen import frozen
from zmsvc.protocol.codec import Codec
from zmsvc.protocol.output import Ping, Pong
from zmsvc.protocol.supervision import TopicHeard, TopicSilent, WatchTopics


@frozen
class Keys:
    """The CURVE keys of the context, as `host.bus.curve_keys.words`; None if it has none. They come first."""

    curve: tuple[str, ...] | None = None


Order = Keys | WatchTopics | Ping

ORDERS = Codec[Order]({"keys": Keys, "watch": WatchTopics, "ping": Ping})

Report = TopicHeard | TopicSilent | Pong

REPORTS = Codec[Report]({"heard": TopicHeard, "silent": TopicSilent, "pong": Pong})
