"""The reports of tasks about poison messages: the quarantine gets them, unless there are too many. Pure.

The task itself decides whether it goes on. The quarantine is a table beside the history (host/quarantine.py).
"""

from __future__ import annotations

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core import poison
from zmsvc.core.draft import Draft
from zmsvc.core.task_key import Key


def take_report(draft: Draft, key: Key, fact: ft.MessagePoisoned) -> None:
    """Take a report. Its number counts all such messages of the launch, reported or not."""
    task = draft.tasks[key]
    if fact.number <= task.poisoned:
        return  # A predecessor has read this report, and died before it discarded the datagram.
    since = draft.now - task.poison_tokens_at if task.poison_tokens_at else None
    tokens = poison.refilled(task.poison_tokens, since, poison.BURST)
    kept = fact.message if tokens >= 1.0 else None
    draft.change(
        key, poisoned=fact.number, poison_tokens=tokens - 1.0 if kept else tokens, poison_tokens_at=draft.now
    )
    lost = fact.number - task.poisoned - (1 if kept else 0)
    draft.emit(fx.Quarantine(key=key, launch=fact.launch, number=fact.number, lost=lost, message=kept))
    if kept:
        draft.record(
            key,
            "quarantined",
            topic=kept.topic,
            sender=kept.sender,
            sequence=kept.sequence,
            message=kept.error,
            number=fact.number,
        )
