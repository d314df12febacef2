"""The life of one task as a table: for every sub-state, the possible events, where each leads, and the act to
perform.

A pair of sub-state and event that is not in the table changes nothing. So a late timer, a second READY=1 or a
repeated end is harmless by construction. The engine derives the event from a fact; this table alone decides
what follows. `diagram()` draws the table. docs/lifecycle.mmd is its output, and a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """The state of a task, in systemd's words for the state of a unit."""

    INACTIVE = "inactive"
    ACTIVATING = "activating"
    ACTIVE = "active"
    DEACTIVATING = "deactivating"
    FAILED = "failed"


class SubState(StrEnum):
    """The sub-state, which the table works on; `STATE_OF` maps it to the state that is shown with it."""

    WAITING = "waiting"
    """Not started yet in this transaction. A rule or an order can start it."""
    BACK_OFF = "back-off"
    """Waits for the end of its restart delay."""
    LAUNCHING = "launching"
    """The keeper has the order to fork the task. This sub-state has no deadline: the limit for READY=1 runs
    from the fork.
    """
    START = "start"
    """The process exists and has not sent READY=1."""
    RUNNING = "running"
    STOP_SIGTERM = "stop-sigterm"
    STOP_SIGKILL = "stop-sigkill"
    FINAL_SIGTERM = "final-sigterm"
    """The main process has ended. The processes that it left behind were asked to end."""
    FINAL_SIGKILL = "final-sigkill"
    """The main process has ended. The processes that it left behind are being killed."""
    EXITED = "exited"
    """The task ended by itself, with status 0 or as its `success_exit_status` allows."""
    STOPPED = "stopped"
    """The task ended because it was stopped."""
    FAILED = "failed"


STATE_OF = {
    SubState.WAITING: State.INACTIVE,
    SubState.BACK_OFF: State.ACTIVATING,
    SubState.LAUNCHING: State.ACTIVATING,
    SubState.START: State.ACTIVATING,
    SubState.RUNNING: State.ACTIVE,
    SubState.STOP_SIGTERM: State.DEACTIVATING,
    SubState.STOP_SIGKILL: State.DEACTIVATING,
    SubState.FINAL_SIGTERM: State.DEACTIVATING,
    SubState.FINAL_SIGKILL: State.DEACTIVATING,
    SubState.EXITED: State.INACTIVE,
    SubState.STOPPED: State.INACTIVE,
    SubState.FAILED: State.FAILED,
}

RESTING = frozenset({SubState.WAITING, SubState.EXITED, SubState.STOPPED, SubState.FAILED})
"""The task does not run and will not start by itself."""
LIVE = frozenset(
    {
        SubState.LAUNCHING,
        SubState.START,
        SubState.RUNNING,
        SubState.STOP_SIGTERM,
        SubState.STOP_SIGKILL,
        SubState.FINAL_SIGTERM,
        SubState.FINAL_SIGKILL,
    }
)
"""The task has a process, or may have one."""


class TaskEvent(StrEnum):
    """An event in the life of a task, as the table distinguishes them."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    DELAY = "delay"
    """A rule starts the task again, but after a delay."""
    LIMIT = "limit"
    """A rule starts the task more often than its start limit allows."""
    RESET = "reset"
    """The operator resets the failures of the task."""
    LAUNCHED = "launched"
    LAUNCH_FAILED = "launch-failed"
    READY = "ready"
    DEADLINE = "deadline"
    LEFT_BEHIND = "left-behind"
    """The main process ended, and other processes of the task still exist."""
    LEFT_TO_KILL = "left-to-kill"
    """As `LEFT_BEHIND`, but the other processes are killed without being asked to end first."""
    ENDED_WELL = "ended-well"
    ENDED_AS_ASKED = "ended-as-asked"
    ENDED_BADLY = "ended-badly"


class Act(StrEnum):
    """The act of a transition: core.transitions has one function for each."""

    LAUNCH = "launch"
    BACK_OFF_AND_LAUNCH = "relaunch-later"
    START_LIMIT_HIT = "give-up"
    RESET_FAILED = "forgive"
    PROCESS_STARTED = "arrive"
    BE_READY = "be-ready"
    TERMINATE = "terminate"
    START_TIMED_OUT = "start-timed-out"
    WATCHDOG_MISSED = "watchdog-missed"
    KILL = "kill"
    TERMINATE_REST = "ask-rest"
    KILL_REST = "kill-rest"
    RESTART_AFTER_STOP = "start-afterwards"
    CANCEL_RESTART = "stay-stopped"
    CANCEL_BACK_OFF = "forget-delay"
    FINISH = "settle"
    REPORT_SURVIVOR = "report-survivor"


@dataclass(frozen=True, slots=True)
class Move:
    """The sub-state to which an event leads, and the act of the transition."""

    to: SubState
    act: Act


Row = dict[TaskEvent, Move]

_START: Row = {
    TaskEvent.START: Move(SubState.LAUNCHING, Act.LAUNCH),
    TaskEvent.RESTART: Move(SubState.LAUNCHING, Act.LAUNCH),
    TaskEvent.DELAY: Move(SubState.BACK_OFF, Act.BACK_OFF_AND_LAUNCH),
    TaskEvent.LIMIT: Move(SubState.FAILED, Act.START_LIMIT_HIT),
}
_SETTLED: Row = {
    TaskEvent.ENDED_WELL: Move(SubState.EXITED, Act.FINISH),
    TaskEvent.ENDED_AS_ASKED: Move(SubState.STOPPED, Act.FINISH),
    TaskEvent.ENDED_BADLY: Move(SubState.FAILED, Act.FINISH),
}
_END: Row = {
    TaskEvent.LEFT_BEHIND: Move(SubState.FINAL_SIGTERM, Act.TERMINATE_REST),
    TaskEvent.LEFT_TO_KILL: Move(SubState.FINAL_SIGKILL, Act.KILL_REST),
    **_SETTLED,
}


def _asked_while_stopping(here: SubState) -> Row:
    return {
        TaskEvent.START: Move(here, Act.RESTART_AFTER_STOP),
        TaskEvent.RESTART: Move(here, Act.RESTART_AFTER_STOP),
        TaskEvent.STOP: Move(here, Act.CANCEL_RESTART),
    }


TABLE: dict[SubState, Row] = {
    SubState.WAITING: {**_START},
    SubState.EXITED: {**_START},
    SubState.STOPPED: {**_START},
    SubState.FAILED: {**_START, TaskEvent.RESET: Move(SubState.WAITING, Act.RESET_FAILED)},
    SubState.BACK_OFF: {
        TaskEvent.START: Move(SubState.LAUNCHING, Act.LAUNCH),
        TaskEvent.RESTART: Move(SubState.LAUNCHING, Act.LAUNCH),
        TaskEvent.DEADLINE: Move(SubState.LAUNCHING, Act.LAUNCH),
        TaskEvent.STOP: Move(SubState.STOPPED, Act.CANCEL_BACK_OFF),
        TaskEvent.RESET: Move(SubState.BACK_OFF, Act.RESET_FAILED),
    },
    SubState.LAUNCHING: {
        TaskEvent.LAUNCHED: Move(SubState.START, Act.PROCESS_STARTED),
        TaskEvent.LAUNCH_FAILED: Move(SubState.FAILED, Act.FINISH),
        TaskEvent.STOP: Move(SubState.STOP_SIGTERM, Act.TERMINATE),
        TaskEvent.RESTART: Move(SubState.STOP_SIGTERM, Act.TERMINATE),
        **_END,
    },
    SubState.START: {
        TaskEvent.READY: Move(SubState.RUNNING, Act.BE_READY),
        TaskEvent.DEADLINE: Move(SubState.STOP_SIGTERM, Act.START_TIMED_OUT),
        TaskEvent.STOP: Move(SubState.STOP_SIGTERM, Act.TERMINATE),
        TaskEvent.RESTART: Move(SubState.STOP_SIGTERM, Act.TERMINATE),
        **_END,
    },
    SubState.RUNNING: {
        TaskEvent.DEADLINE: Move(SubState.STOP_SIGTERM, Act.WATCHDOG_MISSED),
        TaskEvent.STOP: Move(SubState.STOP_SIGTERM, Act.TERMINATE),
        TaskEvent.RESTART: Move(SubState.STOP_SIGTERM, Act.TERMINATE),
        **_END,
    },
    SubState.STOP_SIGTERM: {
        TaskEvent.LAUNCHED: Move(SubState.STOP_SIGTERM, Act.TERMINATE),
        TaskEvent.LAUNCH_FAILED: Move(SubState.STOPPED, Act.FINISH),
        TaskEvent.DEADLINE: Move(SubState.STOP_SIGKILL, Act.KILL),
        **_asked_while_stopping(SubState.STOP_SIGTERM),
        **_END,
    },
    SubState.STOP_SIGKILL: {
        TaskEvent.LAUNCHED: Move(SubState.STOP_SIGKILL, Act.KILL),
        TaskEvent.LAUNCH_FAILED: Move(SubState.STOPPED, Act.FINISH),
        TaskEvent.DEADLINE: Move(SubState.STOP_SIGKILL, Act.REPORT_SURVIVOR),
        **_asked_while_stopping(SubState.STOP_SIGKILL),
        **_END,
        TaskEvent.LEFT_BEHIND: Move(SubState.FINAL_SIGKILL, Act.KILL_REST),
    },
    SubState.FINAL_SIGTERM: {
        TaskEvent.DEADLINE: Move(SubState.FINAL_SIGKILL, Act.KILL_REST),
        **_asked_while_stopping(SubState.FINAL_SIGTERM),
        **_SETTLED,
    },
    SubState.FINAL_SIGKILL: {
        TaskEvent.DEADLINE: Move(SubState.FINAL_SIGKILL, Act.REPORT_SURVIVOR),
        **_asked_while_stopping(SubState.FINAL_SIGKILL),
        **_SETTLED,
    },
}


def diagram() -> str:
    """Return the table as a mermaid state diagram. Edges between the same two sub-states are joined."""
    lines = ["stateDiagram-v2", "    [*] --> waiting"]
    names = {sub: sub.value.replace("-", "_") for sub in SubState}
    for sub in SubState:
        lines.append(f'    state "{sub.value} ({STATE_OF[sub].value})" as {names[sub]}')
    for sub, row in TABLE.items():
        edges: dict[SubState, list[str]] = {}
        for cause, move in row.items():
            edges.setdefault(move.to, []).append(cause.value)
        lines.extend(
            f"    {names[sub]} --> {names[to]} : {', '.join(causes)}" for to, causes in edges.items()
        )
    return "\n".join(lines) + "\n"
