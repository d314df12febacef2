"""The waits of tasks for a host, decided at the end of a step: a task goes on when a host takes it."""

from __future__ import annotations

from zmsvc.core.draft import Draft
from zmsvc.core.host_choice import host_for
from zmsvc.core.lifecycle import SubState, TaskEvent
from zmsvc.core.ordering import awaited_starts, unmet
from zmsvc.core.task_key import Key
from zmsvc.core.transitions import apply


def settle(draft: Draft) -> None:
    """Launch each task that a host takes now, after changes of hosts or of tasks on them."""
    everything, draft.hosts_changed = draft.hosts_changed, False
    moved, draft.moved = draft.moved, {}
    keys = draft.tasks if everything else [other for key in moved for other in _concerned(draft, key)]
    for key in list(keys):
        task = draft.tasks.get(key)
        if task is not None and task.sub_state is SubState.UNPLACED and host_for(draft, key) is not None:
            # While it waited for a host, a task before it may have been stopped or started again.
            waits = bool(awaited_starts(draft, key)) or unmet(draft, key) is not None
            apply(draft, key, TaskEvent.START_LATER if waits else TaskEvent.PROCEED)


def _concerned(draft: Draft, key: Key) -> list[Key]:
    """Return the tasks whose choice of a host depends on the host of this one. A task that runs on the same
    host as others stays away from the tasks that one of them is apart from.
    """
    transaction, task = key
    apart = draft.context.apart.get(task, ())
    near = {other for each in apart for other in draft.context.together.get(each, ())}
    names = dict.fromkeys((*draft.context.together.get(task, ()), *apart, *sorted(near)))
    return [(transaction, name) for name in names]
