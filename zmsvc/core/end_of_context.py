"""The end of a context that has tasks on other hosts. Nothing is known about the tasks of a silent host, so
a stop waits for them only for a while. When the context moves to another host of a cluster, it waits for no
other host: the tasks there run on, and the next supervisor adopts them.
"""

from __future__ import annotations

from dataclasses import replace

from zmsvc.core.draft import Draft
from zmsvc.core.hosts import Host, HostState
from zmsvc.core.lifecycle import TABLE, TaskEvent
from zmsvc.core.pending_requests import resolve
from zmsvc.core.silent_hosts import STOP_WAIT, is_left, is_silent
from zmsvc.core.task_key import Key


def hand_over(draft: Draft) -> None:
    """Let the tasks on other hosts run on for the next supervisor. This one takes no more facts of them,
    since no rule fires while a context stops.
    """
    draft.hands_over = True
    draft.note_silence()
    draft.record(("", ""), "handed-over", tasks=_named(draft, [*draft.load]))


def limit_wait(draft: Draft, host: str | None = None) -> None:
    """Let the stop of the context wait for STOP_WAIT from now on for this host, or for each that is silent. A
    task that stops after others has no deadline before it is asked to stop.
    """
    for key, task in draft.tasks.items():
        waits = task.host == host if host is not None else is_silent(draft, task)
        if waits and not is_left(draft, task.host) and TaskEvent.DEADLINE in TABLE[task.sub_state]:
            draft.change(key, deadline=draft.now + STOP_WAIT)


def rest_deadline(draft: Draft, key: Key) -> None:
    """Let the deadline of a task on a silent host pass without effect: it is not known whether the task has
    kept it. The clients that wait for the task get an answer. A stop of the context goes on without the host.
    """
    name = draft.tasks[key].host
    if not draft.stopping or draft.hands_over:
        _rest(draft, key, f"nothing is heard from its host {name}")
        return
    _give_up(draft, name)
    for other in draft.load:
        known = draft.hosts.get(other, Host())
        if known.state is HostState.SILENT and not known.given_up and draft.now - known.since >= STOP_WAIT:
            _give_up(draft, other)


def _give_up(draft: Draft, name: str) -> None:
    draft.put_host(name, replace(draft.hosts.get(name, Host()), given_up=True))
    draft.record(("", ""), "host-given-up", host=name, tasks=_named(draft, [name]))
    why = f"nothing is heard from its host {name}, where it may run until the context starts again"
    for key in [key for key, task in draft.tasks.items() if task.host == name]:
        _rest(draft, key, why)


def _rest(draft: Draft, key: Key, why: str) -> None:
    draft.change(key, deadline=None)
    resolve(draft, key, why)


def _named(draft: Draft, hosts: list[str]) -> list[str]:
    return sorted({key[1] for key, task in draft.tasks.items() if task.host in hosts})
