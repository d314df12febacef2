"""The consequences of failures, decided at the end of a step, when all rules have fired: a task that no rule
has started again has failed for good.
"""

from __future__ import annotations

from zmsvc.core import requests
from zmsvc.core.draft import Draft
from zmsvc.core.lifecycle import SubState
from zmsvc.core.model import Trigger
from zmsvc.core.service_options import FAILURE_STATUS, FailureAction
from zmsvc.core.task_key import Key
from zmsvc.core.transitions import fire


def settle(draft: Draft) -> None:
    """Fire the context's rules for each task that has failed in this step, and perform the failure actions of
    those that have failed for good.
    """
    while draft.failed:
        key = next(iter(draft.failed))
        failure = draft.failed.pop(key)
        if failure.task.rules_suppressed:
            continue
        fire(draft, key, Trigger.ON_ANY_FAIL, source=failure.task)
        if not failure.task.stopped_by_operator and _for_good(draft, key):
            draft.amend(failure.record, for_good=True)
            _act(draft, key)


def _for_good(draft: Draft, key: Key) -> bool:
    task, transaction = draft.tasks.get(key), draft.transactions.get(key[0])
    return (
        task is not None
        and task.sub_state is SubState.FAILED
        and transaction is not None
        and transaction.open
        and not draft.stopping
    )


def _act(draft: Draft, key: Key) -> None:
    service = draft.service(key)
    action = service.failure_action if service else FailureAction.NONE
    if action is FailureAction.NONE:
        return
    draft.record(key, "failure-action", action=action.value)
    by = f"the failure action of {key[1]}"
    if action is FailureAction.STOP:
        requests.close(draft, key[0], by)
    else:
        draft.stopping, draft.exit_status = True, FAILURE_STATUS
        requests.stop_all(draft, list(draft.tasks), by)
