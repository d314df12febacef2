"""The channel between the keeper and the output process: the keeper sends the pipes of tasks, and the output
process reports the end of each, and the line that the keeper waits for.

The keeper has a copy of the reading end of each pipe until the output process reports its end. So a pipe
outlives an output process that dies, no task gets SIGPIPE, and the next output process gets every pipe again.
A closed channel is the order to read the rest and to end.

The output process is executed, so after an upgrade it may be newer or older than the keeper: each side
ignores messages that it does not know, and every added field has a default.
"""

from __future__ import annotations

from zmsvc.core.frozen import frozen
from zmsvc.protocol.codec import Codec


@frozen
class TakePipe:
    """Read a pipe to its end. The descriptor is sent with this message."""

    pipe: int
    """The number that the keeper has given the pipe."""
    identifier: str
    """The identifier of the log entries: the instance of the task."""
    pid: int
    """The process that got the writing end."""
    transaction: str = ""
    task: str = ""
    """The ID of the task; empty if several tasks share the process, whose records name their tasks."""
    line: str = ""
    """Report `LineSeen` for the first line in which this pattern occurs. Without one, search no line."""


@frozen
class Reopen:
    """Reopen the log file, which was renamed."""


@frozen
class Ping:
    """Answer with `Pong`."""


Order = TakePipe | Reopen | Ping

ORDERS = Codec[Order]({"take": TakePipe, "reopen": Reopen, "ping": Ping})


@frozen
class Ended:
    """No process has this pipe open for writing, and all of its content is in the log."""

    pipe: int


@frozen
class Pong:
    """The process reads its channel."""


@frozen
class LineSeen:
    """A line of this pipe has the pattern of `TakePipe`."""

    pipe: int


Report = Ended | Pong | LineSeen

REPORTS = Codec[Report]({"ended": Ended, "pong": Pong, "line-seen": LineSeen})
