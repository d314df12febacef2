"""One task's life as a table: for every state, what may happen in it, where it leads and what is to be done.

The law: a (state, cause) pair that is not in the table changes nothing. So a late timer, a second READY or an exit that was
told twice is harmless by construction. The engine works out the cause from a fact; this table alone says what follows.
`diagram()` draws the table; docs/lifecycle.mmd is its output and a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """systemd's words for the state of a unit."""

    INACTIVE = "inactive"
    ACTIVATING = "activating"
    ACTIVE = "active"
    DEACTIVATING = "deactivating"
    FAILED = "failed"


class Sub(StrEnum):
    """The state proper; `STATE_OF` gives the state that is shown with it."""

    WAITING = "waiting"
    """Not started yet in this transaction: a rule or an order will."""
    BACK_OFF = "back-off"
    """To be started again when its delay is over."""
    LAUNCHING = "launching"
    """The keeper was told to fork it. It has no deadline: the time to READY=1 is watched from when the process is there."""
    START = "start"
    """The process is there and has not said READY=1."""
    RUNNING = "running"
    STOP_SIGTERM = "stop-sigterm"
    STOP_SIGKILL = "stop-sigkill"
    FINAL_SIGTERM = "final-sigterm"
    """The main process has ended; what it left behind was asked to end."""
    FINAL_SIGKILL = "final-sigkill"
    """The main process has ended; what it left behind is being killed."""
    EXITED = "exited"
    """It ended by itself, with status 0."""
    STOPPED = "stopped"
    """It ended because it was asked to."""
    FAILED = "failed"


STATE_OF = {
    Sub.WAITING: State.INACTIVE,
    Sub.BACK_OFF: State.ACTIVATING,
    Sub.LAUNCHING: State.ACTIVATING,
    Sub.START: State.ACTIVATING,
    Sub.RUNNING: State.ACTIVE,
    Sub.STOP_SIGTERM: State.DEACTIVATING,
    Sub.STOP_SIGKILL: State.DEACTIVATING,
    Sub.FINAL_SIGTERM: State.DEACTIVATING,
    Sub.FINAL_SIGKILL: State.DEACTIVATING,
    Sub.EXITED: State.INACTIVE,
    Sub.STOPPED: State.INACTIVE,
    Sub.FAILED: State.FAILED,
}

RESTING = frozenset({Sub.WAITING, Sub.EXITED, Sub.STOPPED, Sub.FAILED})
"""Nothing runs and nothing will by itself."""
LIVE = frozenset(
    {Sub.LAUNCHING, Sub.START, Sub.RUNNING, Sub.STOP_SIGTERM, Sub.STOP_SIGKILL, Sub.FINAL_SIGTERM, Sub.FINAL_SIGKILL}
)
"""There is a process, or there may be one."""


class Cause(StrEnum):
    """What happened, as far as the table can see."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    DELAY = "delay"
    """A rule wants it started again, but not at once."""
    LIMIT = "limit"
    """A rule wants it started more often than its start limit allows."""
    RESET = "reset"
    """The operator forgives its failures."""
    LAUNCHED = "launched"
    LAUNCH_FAILED = "launch-failed"
    READY = "ready"
    DEADLINE = "deadline"
    LEFT_BEHIND = "left-behind"
    """The main process ended and others of the task are still there."""
    LEFT_TO_KILL = "left-to-kill"
    """The same, and they are not to be asked to end first."""
    ENDED_WELL = "ended-well"
    ENDED_AS_ASKED = "ended-as-asked"
    ENDED_BADLY = "ended-badly"


class Act(StrEnum):
    """What is done on a transition: one function each in core.acts."""

    LAUNCH = "launch"
    RELAUNCH_LATER = "relaunch-later"
    GIVE_UP = "give-up"
    FORGIVE = "forgive"
    ARRIVE = "arrive"
    BE_READY = "be-ready"
    TERMINATE = "terminate"
    START_TIMED_OUT = "start-timed-out"
    WATCHDOG_MISSED = "watchdog-missed"
    KILL = "kill"
    ASK_REST = "ask-rest"
    KILL_REST = "kill-rest"
    START_AFTERWARDS = "start-afterwards"
    STAY_STOPPED = "stay-stopped"
    FORGET_DELAY = "forget-delay"
    SETTLE = "settle"
    REPORT_SURVIVOR = "report-survivor"


@dataclass(frozen=True, slots=True)
class Move:
    """Where a cause leads, and what is done on the way."""

    to: Sub
    act: Act


Row = dict[Cause, Move]

_START: Row = {
    Cause.START: Move(Sub.LAUNCHING, Act.LAUNCH),
    Cause.RESTART: Move(Sub.LAUNCHING, Act.LAUNCH),
    Cause.DELAY: Move(Sub.BACK_OFF, Act.RELAUNCH_LATER),
    Cause.LIMIT: Move(Sub.FAILED, Act.GIVE_UP),
}
_SETTLED: Row = {
    Cause.ENDED_WELL: Move(Sub.EXITED, Act.SETTLE),
    Cause.ENDED_AS_ASKED: Move(Sub.STOPPED, Act.SETTLE),
    Cause.ENDED_BADLY: Move(Sub.FAILED, Act.SETTLE),
}
_END: Row = {
    Cause.LEFT_BEHIND: Move(Sub.FINAL_SIGTERM, Act.ASK_REST),
    Cause.LEFT_TO_KILL: Move(Sub.FINAL_SIGKILL, Act.KILL_REST),
    **_SETTLED,
}


def _asked_while_stopping(here: Sub) -> Row:
    return {
        Cause.START: Move(here, Act.START_AFTERWARDS),
        Cause.RESTART: Move(here, Act.START_AFTERWARDS),
        Cause.STOP: Move(here, Act.STAY_STOPPED),
    }


TABLE: dict[Sub, Row] = {
    Sub.WAITING: {**_START},
    Sub.EXITED: {**_START},
    Sub.STOPPED: {**_START},
    Sub.FAILED: {**_START, Cause.RESET: Move(Sub.WAITING, Act.FORGIVE)},
    Sub.BACK_OFF: {
        Cause.START: Move(Sub.LAUNCHING, Act.LAUNCH),
        Cause.RESTART: Move(Sub.LAUNCHING, Act.LAUNCH),
        Cause.DEADLINE: Move(Sub.LAUNCHING, Act.LAUNCH),
        Cause.STOP: Move(Sub.STOPPED, Act.FORGET_DELAY),
        Cause.RESET: Move(Sub.BACK_OFF, Act.FORGIVE),
    },
    Sub.LAUNCHING: {
        Cause.LAUNCHED: Move(Sub.START, Act.ARRIVE),
        Cause.LAUNCH_FAILED: Move(Sub.FAILED, Act.SETTLE),
        Cause.STOP: Move(Sub.STOP_SIGTERM, Act.TERMINATE),
        Cause.RESTART: Move(Sub.STOP_SIGTERM, Act.TERMINATE),
        **_END,
    },
    Sub.START: {
        Cause.READY: Move(Sub.RUNNING, Act.BE_READY),
        Cause.DEADLINE: Move(Sub.STOP_SIGTERM, Act.START_TIMED_OUT),
        Cause.STOP: Move(Sub.STOP_SIGTERM, Act.TERMINATE),
        Cause.RESTART: Move(Sub.STOP_SIGTERM, Act.TERMINATE),
        **_END,
    },
    Sub.RUNNING: {
        Cause.DEADLINE: Move(Sub.STOP_SIGTERM, Act.WATCHDOG_MISSED),
        Cause.STOP: Move(Sub.STOP_SIGTERM, Act.TERMINATE),
        Cause.RESTART: Move(Sub.STOP_SIGTERM, Act.TERMINATE),
        **_END,
    },
    Sub.STOP_SIGTERM: {
        Cause.LAUNCHED: Move(Sub.STOP_SIGTERM, Act.TERMINATE),
        Cause.LAUNCH_FAILED: Move(Sub.STOPPED, Act.SETTLE),
        Cause.DEADLINE: Move(Sub.STOP_SIGKILL, Act.KILL),
        **_asked_while_stopping(Sub.STOP_SIGTERM),
        **_END,
    },
    Sub.STOP_SIGKILL: {
        Cause.LAUNCHED: Move(Sub.STOP_SIGKILL, Act.KILL),
        Cause.LAUNCH_FAILED: Move(Sub.STOPPED, Act.SETTLE),
        Cause.DEADLINE: Move(Sub.STOP_SIGKILL, Act.REPORT_SURVIVOR),
        **_asked_while_stopping(Sub.STOP_SIGKILL),
        **_END,
        Cause.LEFT_BEHIND: Move(Sub.FINAL_SIGKILL, Act.KILL_REST),
    },
    Sub.FINAL_SIGTERM: {
        Cause.DEADLINE: Move(Sub.FINAL_SIGKILL, Act.KILL_REST),
        **_asked_while_stopping(Sub.FINAL_SIGTERM),
        **_SETTLED,
    },
    Sub.FINAL_SIGKILL: {
        Cause.DEADLINE: Move(Sub.FINAL_SIGKILL, Act.REPORT_SURVIVOR),
        **_asked_while_stopping(Sub.FINAL_SIGKILL),
        **_SETTLED,
    },
}


def diagram() -> str:
    """The table as a mermaid state diagram, edges between the same two states joined."""
    lines = ["stateDiagram-v2", "    [*] --> waiting"]
    names = {sub: sub.value.replace("-", "_") for sub in Sub}
    for sub in Sub:
        lines.append(f'    state "{sub.value} ({STATE_OF[sub].value})" as {names[sub]}')
    for sub, row in TABLE.items():
        edges: dict[Sub, list[str]] = {}
        for cause, move in row.items():
            edges.setdefault(move.to, []).append(cause.value)
        lines.extend(f"    {names[sub]} --> {names[to]} : {', '.join(causes)}" for to, causes in edges.items())
    return "\n".join(lines) + "\n"
