"""The snapshot of a context that `top` shows, from the answers to `status`: CPU usage is the difference
between two of them.
"""

from __future__ import annotations

from zmsvc.core.frozen import frozen
from zmsvc.ctl.status_reply import CauseStatus, ContextStatus, TaskStatus, UsageStatus
from zmsvc.ctl.top.rows import OpenTransaction, Snapshot, TaskRow
from zmsvc.host.kernel import process_usage, processes


@frozen
class _Sample:
    """The CPU seconds of a process until a moment of the monotonic clock."""

    process: tuple[int | None, int | None, int]
    """The launch, the PID and, where it is known, the start time: an answer about another process is not
    compared with this one.
    """
    seconds: float
    at: float


class Meter:
    """The meter of one `top`. `transaction` is the one that is shown, or None for all open ones."""

    def __init__(self, transaction: str | None = None) -> None:
        self._transaction = transaction
        self._samples: dict[tuple[str, str], _Sample] = {}

    def snapshot(self, status: ContextStatus, now: float) -> Snapshot:
        """Return the snapshot of an answer that came at `now`, a monotonic time."""
        shown = [each for each in status.transactions if each.open or self._transaction is not None]
        before, self._samples = self._samples, {}
        threads: dict[int, tuple[UsageStatus, int] | None] = {}
        rows = [
            self._row(each.id, task, now, before.get((each.id, task.id)), threads)
            for each in shown
            for task in each.tasks
        ]
        runs = [OpenTransaction(id=each.id, state=each.state) for each in shown]
        return Snapshot(name=status.name, rows=tuple(rows), runs=tuple(runs))

    def _row(
        self,
        transaction: str,
        task: TaskStatus,
        now: float,
        before: _Sample | None,
        looked: dict[int, tuple[UsageStatus, int] | None],
    ) -> TaskRow:
        usage, start = task.usage, 0
        if usage is None and (pid := task.local_pid) is not None:
            # A Thread task, whose process the supervisor does not measure, or an earlier release.
            if pid not in looked:
                looked[pid] = _look(pid)
            if (found := looked[pid]) is not None:
                usage, start = found
        cpu = None
        if usage is not None:
            sample = _Sample(process=(task.launch, task.pid, start), seconds=usage.cpu_seconds, at=now)
            self._samples[transaction, task.id] = sample
            cpu = _percent(before, sample)
        return TaskRow(
            transaction=transaction,
            task=task.id,
            instance=task.instance,
            state=task.state,
            sub=task.sub,
            pid=None if task.pid is None else _bounded(task.pid),
            cpu=cpu,
            rss=_bounded(usage.memory_bytes) if usage else None,
            threads=_bounded(usage.threads) if usage else None,
            missed=_bounded(task.missed),
            restarts=_bounded(task.restarts),
            cause=_cause_text(task.cause),
            source=task.cause.source if task.cause.by == "rule" else "",
        )


MOST = 1 << 60
"""The largest figure that is shown. Another user's program may answer with any number."""


def _bounded(figure: int) -> int:
    return min(max(0, figure), MOST)


def _percent(before: _Sample | None, after: _Sample) -> float | None:
    if before is None or before.process != after.process:
        return None
    # CPU times have the resolution of a clock tick. Over a shorter time the quotient would mean nothing.
    percent = 100 * max(0.0, after.seconds - before.seconds) / max(after.at - before.at, 0.01)
    return percent if percent < MOST else None


def _look(pid: int) -> tuple[UsageStatus, int] | None:
    """Return what a process uses, and its start time; None if it is gone or hidden."""
    try:
        fields = processes.stat_fields(pid)
    except OSError:
        return None
    if fields is None:
        return None
    start = int(fields[19])
    found = process_usage.of_process(pid, start)
    if found is None:
        return None
    used = {
        "cpu_seconds": found.cpu_seconds, "memory_bytes": found.memory_bytes, "threads": found.threads,
    }  # fmt: skip
    return UsageStatus(used), start


def _cause_text(cause: CauseStatus) -> str:
    match cause.by:
        case "rule":
            return f"{cause.trigger} of {cause.source}"
        case "operator":
            return "operator" if cause.uid is None else f"operator, uid {cause.uid}"
        case other:
            return other
