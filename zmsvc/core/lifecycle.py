"""The life of one task as a table: for every sub-state the possible events, and for each event the next
sub-state and the act to perform.

A pair of sub-state and event that is not in the table changes nothing. So a late timer, a second READY=1 or a
repeated end does no harm. The engine derives the event from a fact; this table alone decides what follows.
`diagram()` draws the table. docs/lifecycle.mmd is its output, and a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto


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
    START_AFTER = "start-after"
    """Waits until the tasks in its `<after>` and `<requires>` are ready. This sub-state has no deadline."""
    UNPLACED = "unplaced"
    """Waits for a host: no host of its placement takes it. Its start_timeout does not run. It has a deadline,
    at which the clients that wait for its start get an answer.
    """
    LAUNCHING = "launching"
    """The keeper has the order to fork the task. This sub-state has no deadline: the limit for READY=1 runs
    from the fork.
    """
    START = "start"
    """The process exists and has not sent READY=1."""
    RUNNING = "running"
    RELOAD_SIGNAL = "reload-signal"
    """Has been sent its reload signal, and has not answered it by RELOADING=1 yet."""
    RELOAD_NOTIFY = "reload-notify"
    """Reloads its configuration: it has sent RELOADING=1, and not READY=1 yet."""
    RELOAD = "reload"
    """Its reload_command runs beside it."""
    STOP_AFTER = "stop-after"
    """Runs and is to be stopped, but first waits for the end of the tasks that have it in their `<after>` or
    `<requires>` and are being stopped, too. This sub-state has no deadline: each of those tasks has one.
    """
    STOP_SIGTERM = "stop-sigterm"
    STOP_SIGKILL = "stop-sigkill"
    FINAL_SIGTERM = "final-sigterm"
    """The main process has ended, and the processes that it left behind have been sent the stop signal."""
    FINAL_SIGKILL = "final-sigkill"
    """The main process has ended, and the processes that it left behind are being killed."""
    EXITED = "exited"
    """The task ended by itself, with status 0 or with one in its `success_exit_status`."""
    STOPPED = "stopped"
    """The task ended because it was stopped."""
    FAILED = "failed"


STATE_OF = {
    SubState.WAITING: State.INACTIVE,
    SubState.BACK_OFF: State.ACTIVATING,
    SubState.START_AFTER: State.ACTIVATING,
    SubState.UNPLACED: State.ACTIVATING,
    SubState.LAUNCHING: State.ACTIVATING,
    SubState.START: State.ACTIVATING,
    SubState.RUNNING: State.ACTIVE,
    SubState.RELOAD_SIGNAL: State.ACTIVE,
    SubState.RELOAD_NOTIFY: State.ACTIVE,
    SubState.RELOAD: State.ACTIVE,
    SubState.STOP_AFTER: State.DEACTIVATING,
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
START_PENDING = frozenset({SubState.BACK_OFF, SubState.START_AFTER, SubState.UNPLACED, SubState.LAUNCHING})
"""The task is to be started and has no process yet."""
LIVE = frozenset(
    {
        SubState.LAUNCHING,
        SubState.START,
        SubState.RUNNING,
        SubState.RELOAD_SIGNAL,
        SubState.RELOAD_NOTIFY,
        SubState.RELOAD,
        SubState.STOP_AFTER,
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
    START_LATER = "start-later"
    """A start that waits for other tasks."""
    STOP_LATER = "stop-later"
    """A stop that waits for other tasks."""
    RESTART_LATER = "restart-later"
    """As `STOP_LATER`, and the task is started again."""
    PROCEED = "proceed"
    """There is nothing left to wait for."""
    NO_HOST = "no-host"
    """A start for which no host of the placement is here."""
    DEPENDENCY = "dependency"
    """A required task has failed to start."""
    RESET = "reset"
    """The operator resets the failures of the task."""
    LAUNCHED = "launched"
    LAUNCH_FAILED = "launch-failed"
    READY = "ready"
    RELOAD = "reload"
    """The operator has the task read its configuration again, and the task reports the end of that."""
    RUN_RELOAD = "run-reload"
    """The operator has the reload_command of the task executed."""
    RELOAD_ENDED = "reload-ended"
    """The reload_command has ended."""
    RELOADING = "reloading"
    """The task has sent RELOADING=1."""
    UNHEALTHY = "unhealthy"
    """The probe of `<health>` has failed too often in a row."""
    SILENT = "silent"
    """The task has published nothing on an expected topic for too long."""
    MEMORY_EXCEEDED = "memory-exceeded"
    """The task uses more memory than its `memory_restart`."""
    DEADLINE = "deadline"
    LEFT_BEHIND = "left-behind"
    """The main process ended, and other processes of the task still exist."""
    LEFT_TO_KILL = "left-to-kill"
    """As `LEFT_BEHIND`, but the other processes are killed at once, without a stop signal."""
    ENDED_WELL = "ended-well"
    ENDED_AS_ASKED = "ended-as-asked"
    ENDED_BADLY = "ended-badly"


class Act(Enum):
    """The act of a transition: core.transitions has one function for each."""

    LAUNCH = auto()
    AWAIT_BACK_OFF = auto()
    AWAIT_START = auto()
    AWAIT_HOST = auto()
    REPORT_UNPLACED = auto()
    DEPENDENCY_FAILED = auto()
    START_LIMIT_HIT = auto()
    RESET_FAILED = auto()
    PROCESS_STARTED = auto()
    BE_READY = auto()
    SEND_RELOAD = auto()
    AWAIT_RELOADED = auto()
    BE_RELOADED = auto()
    RUN_RELOAD = auto()
    END_RELOAD = auto()
    RELOAD_TIMED_OUT = auto()
    AWAIT_STOP = auto()
    NOTE_PROCESS = auto()
    TERMINATE = auto()
    START_TIMED_OUT = auto()
    WATCHDOG_MISSED = auto()
    UNHEALTHY = auto()
    SILENT = auto()
    MEMORY_EXCEEDED = auto()
    KILL = auto()
    TERMINATE_OTHERS = auto()
    KILL_OTHERS = auto()
    RESTART_AFTER_STOP = auto()
    CANCEL_RESTART = auto()
    CANCEL_START = auto()
    FINISH = auto()
    REPORT_SURVIVOR = auto()


@dataclass(frozen=True, slots=True)
class Transition:
    """The sub-state to which an event leads, and the act of the transition."""

    to: SubState
    act: Act


Row = dict[TaskEvent, Transition]

_START: Row = {
    TaskEvent.START: Transition(SubState.LAUNCHING, Act.LAUNCH),
    TaskEvent.RESTART: Transition(SubState.LAUNCHING, Act.LAUNCH),
    TaskEvent.DELAY: Transition(SubState.BACK_OFF, Act.AWAIT_BACK_OFF),
    TaskEvent.LIMIT: Transition(SubState.FAILED, Act.START_LIMIT_HIT),
    TaskEvent.START_LATER: Transition(SubState.START_AFTER, Act.AWAIT_START),
    TaskEvent.NO_HOST: Transition(SubState.UNPLACED, Act.AWAIT_HOST),
}
_STOP: Row = {
    TaskEvent.STOP: Transition(SubState.STOP_SIGTERM, Act.TERMINATE),
    TaskEvent.RESTART: Transition(SubState.STOP_SIGTERM, Act.TERMINATE),
    TaskEvent.STOP_LATER: Transition(SubState.STOP_AFTER, Act.AWAIT_STOP),
    TaskEvent.RESTART_LATER: Transition(SubState.STOP_AFTER, Act.AWAIT_STOP),
}
_SETTLED: Row = {
    TaskEvent.ENDED_WELL: Transition(SubState.EXITED, Act.FINISH),
    TaskEvent.ENDED_AS_ASKED: Transition(SubState.STOPPED, Act.FINISH),
    TaskEvent.ENDED_BADLY: Transition(SubState.FAILED, Act.FINISH),
}
_END: Row = {
    TaskEvent.LEFT_BEHIND: Transition(SubState.FINAL_SIGTERM, Act.TERMINATE_OTHERS),
    TaskEvent.LEFT_TO_KILL: Transition(SubState.FINAL_SIGKILL, Act.KILL_OTHERS),
    **_SETTLED,
}


_RELOAD_LIMITS: Row = {
    TaskEvent.DEADLINE: Transition(SubState.RUNNING, Act.RELOAD_TIMED_OUT),
    TaskEvent.UNHEALTHY: Transition(SubState.STOP_SIGTERM, Act.UNHEALTHY),
    TaskEvent.SILENT: Transition(SubState.STOP_SIGTERM, Act.SILENT),
    TaskEvent.MEMORY_EXCEEDED: Transition(SubState.STOP_SIGTERM, Act.MEMORY_EXCEEDED),
}
_RELOAD: Row = {
    TaskEvent.RELOAD: Transition(SubState.RELOAD_SIGNAL, Act.SEND_RELOAD),
    TaskEvent.RUN_RELOAD: Transition(SubState.RELOAD, Act.RUN_RELOAD),
    **_RELOAD_LIMITS,
}


def _asked_while_stopping(here: SubState) -> Row:
    return {
        TaskEvent.START: Transition(here, Act.RESTART_AFTER_STOP),
        TaskEvent.RESTART: Transition(here, Act.RESTART_AFTER_STOP),
        TaskEvent.STOP: Transition(here, Act.CANCEL_RESTART),
    }


TABLE: dict[SubState, Row] = {
    SubState.WAITING: {**_START},
    SubState.EXITED: {**_START},
    SubState.STOPPED: {**_START},
    SubState.FAILED: {**_START, TaskEvent.RESET: Transition(SubState.WAITING, Act.RESET_FAILED)},
    SubState.BACK_OFF: {
        TaskEvent.START: Transition(SubState.LAUNCHING, Act.LAUNCH),
        TaskEvent.RESTART: Transition(SubState.LAUNCHING, Act.LAUNCH),
        TaskEvent.DEADLINE: Transition(SubState.LAUNCHING, Act.LAUNCH),
        TaskEvent.START_LATER: Transition(SubState.START_AFTER, Act.AWAIT_START),
        TaskEvent.NO_HOST: Transition(SubState.UNPLACED, Act.AWAIT_HOST),
        TaskEvent.STOP: Transition(SubState.STOPPED, Act.CANCEL_START),
        TaskEvent.RESET: Transition(SubState.BACK_OFF, Act.RESET_FAILED),
    },
    SubState.START_AFTER: {
        TaskEvent.START: Transition(SubState.START_AFTER, Act.AWAIT_START),
        TaskEvent.RESTART: Transition(SubState.START_AFTER, Act.AWAIT_START),
        TaskEvent.PROCEED: Transition(SubState.LAUNCHING, Act.LAUNCH),
        TaskEvent.NO_HOST: Transition(SubState.UNPLACED, Act.AWAIT_HOST),
        TaskEvent.DEPENDENCY: Transition(SubState.WAITING, Act.DEPENDENCY_FAILED),
        TaskEvent.STOP: Transition(SubState.STOPPED, Act.CANCEL_START),
    },
    SubState.UNPLACED: {
        TaskEvent.START: Transition(SubState.UNPLACED, Act.AWAIT_HOST),
        TaskEvent.RESTART: Transition(SubState.UNPLACED, Act.AWAIT_HOST),
        TaskEvent.PROCEED: Transition(SubState.LAUNCHING, Act.LAUNCH),
        TaskEvent.START_LATER: Transition(SubState.START_AFTER, Act.AWAIT_START),
        TaskEvent.DEADLINE: Transition(SubState.UNPLACED, Act.REPORT_UNPLACED),
        TaskEvent.STOP: Transition(SubState.STOPPED, Act.CANCEL_START),
    },
    SubState.LAUNCHING: {
        TaskEvent.LAUNCHED: Transition(SubState.START, Act.PROCESS_STARTED),
        TaskEvent.LAUNCH_FAILED: Transition(SubState.FAILED, Act.FINISH),
        **_STOP,
        **_END,
    },
    SubState.START: {
        TaskEvent.READY: Transition(SubState.RUNNING, Act.BE_READY),
        TaskEvent.DEADLINE: Transition(SubState.STOP_SIGTERM, Act.START_TIMED_OUT),
        TaskEvent.SILENT: Transition(SubState.STOP_SIGTERM, Act.SILENT),
        TaskEvent.MEMORY_EXCEEDED: Transition(SubState.STOP_SIGTERM, Act.MEMORY_EXCEEDED),
        **_STOP,
        **_END,
    },
    SubState.RUNNING: {
        TaskEvent.DEADLINE: Transition(SubState.STOP_SIGTERM, Act.WATCHDOG_MISSED),
        TaskEvent.UNHEALTHY: Transition(SubState.STOP_SIGTERM, Act.UNHEALTHY),
        TaskEvent.SILENT: Transition(SubState.STOP_SIGTERM, Act.SILENT),
        TaskEvent.MEMORY_EXCEEDED: Transition(SubState.STOP_SIGTERM, Act.MEMORY_EXCEEDED),
        TaskEvent.RELOAD: Transition(SubState.RELOAD_SIGNAL, Act.SEND_RELOAD),
        TaskEvent.RELOADING: Transition(SubState.RELOAD_NOTIFY, Act.AWAIT_RELOADED),
        TaskEvent.RUN_RELOAD: Transition(SubState.RELOAD, Act.RUN_RELOAD),
        **_STOP,
        **_END,
    },
    SubState.RELOAD: {
        TaskEvent.RELOAD_ENDED: Transition(SubState.RUNNING, Act.END_RELOAD),
        **_RELOAD_LIMITS,
        **_STOP,
        **_END,
    },
    SubState.RELOAD_SIGNAL: {
        TaskEvent.RELOADING: Transition(SubState.RELOAD_NOTIFY, Act.AWAIT_RELOADED),
        **_RELOAD,
        **_STOP,
        **_END,
    },
    SubState.RELOAD_NOTIFY: {
        TaskEvent.READY: Transition(SubState.RUNNING, Act.BE_RELOADED),
        **_RELOAD,
        **_STOP,
        **_END,
    },
    SubState.STOP_AFTER: {
        TaskEvent.LAUNCHED: Transition(SubState.STOP_AFTER, Act.NOTE_PROCESS),
        TaskEvent.LAUNCH_FAILED: Transition(SubState.STOPPED, Act.FINISH),
        TaskEvent.PROCEED: Transition(SubState.STOP_SIGTERM, Act.TERMINATE),
        **_asked_while_stopping(SubState.STOP_AFTER),
        **_END,
    },
    SubState.STOP_SIGTERM: {
        TaskEvent.LAUNCHED: Transition(SubState.STOP_SIGTERM, Act.TERMINATE),
        TaskEvent.LAUNCH_FAILED: Transition(SubState.STOPPED, Act.FINISH),
        TaskEvent.DEADLINE: Transition(SubState.STOP_SIGKILL, Act.KILL),
        **_asked_while_stopping(SubState.STOP_SIGTERM),
        **_END,
    },
    SubState.STOP_SIGKILL: {
        TaskEvent.LAUNCHED: Transition(SubState.STOP_SIGKILL, Act.KILL),
        TaskEvent.LAUNCH_FAILED: Transition(SubState.STOPPED, Act.FINISH),
        TaskEvent.DEADLINE: Transition(SubState.STOP_SIGKILL, Act.REPORT_SURVIVOR),
        **_asked_while_stopping(SubState.STOP_SIGKILL),
        **_END,
        TaskEvent.LEFT_BEHIND: Transition(SubState.FINAL_SIGKILL, Act.KILL_OTHERS),
    },
    SubState.FINAL_SIGTERM: {
        TaskEvent.DEADLINE: Transition(SubState.FINAL_SIGKILL, Act.KILL_OTHERS),
        **_asked_while_stopping(SubState.FINAL_SIGTERM),
        **_SETTLED,
    },
    SubState.FINAL_SIGKILL: {
        TaskEvent.DEADLINE: Transition(SubState.FINAL_SIGKILL, Act.REPORT_SURVIVOR),
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
        for cause, transition in row.items():
            edges.setdefault(transition.to, []).append(cause.value)
        lines.extend(
            f"    {names[sub]} --> {names[to]} : {', '.join(causes)}" for to, causes in edges.items()
        )
    return "\n".join(lines) + "\n"
