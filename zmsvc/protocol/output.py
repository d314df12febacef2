"""The line between the keeper and the output process: the keeper hands over the pipes of tasks, the output
process tells which have ended.

The keeper keeps a copy of each pipe's reading end until it is told that the pipe has ended. So a pipe
outlives an output process that dies, no task gets SIGPIPE, and the next output process is given every pipe
again. A closed line is the order to read what there is and to end.

The output process is executed, so an upgrade may bring one that is newer or older than the keeper: a message
that one side does not know is passed over, and every field that is added has a default.
"""

from __future__ import annotations

from dataclasses import dataclass

from zmsvc.protocol.codec import Codec


@dataclass(frozen=True, slots=True, kw_only=True)
class TakePipe:
    """Read the pipe whose descriptor comes beside this, to its end."""

    pipe: int
    """The keeper's number for it."""
    identifier: str
    """What its lines are called by: the task's instance."""
    pid: int
    """The process that was started with it."""
    transaction: str = ""
    task: str = ""
    """Empty where several tasks share the process: each of their records names its task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reopen:
    """Open the log file anew: it was renamed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """Answer with `Pong`."""


Order = TakePipe | Reopen | Ping

ORDERS = Codec[Order]({"take": TakePipe, "reopen": Reopen, "ping": Ping})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """No process has this pipe open for writing, and all that was in it is written."""

    pipe: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong:
    """The output process reads what it is sent."""


Report = Ended | Pong

REPORTS = Codec[Report]({"ended": Ended, "pong": Pong})
