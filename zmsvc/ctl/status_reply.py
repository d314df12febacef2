"""The answer to `status` as objects. A missing field, or a field of another type, gets a default: the
supervisor may be of another version, and no answer may end zmsvcctl with a traceback.
"""

from __future__ import annotations

TYPE_CHECKING = False  # As in client: an import of typing is too slow.
if TYPE_CHECKING:
    from zmsvc.ctl.client import Json

OPEN = frozenset({"active", "activating", "deactivating", "failed", "reloading"})
"""States of an open transaction. Other transactions are stopped."""


class LastExit:
    """The last end of a task."""

    __slots__ = ("at", "code", "reason", "signal")

    def __init__(self, data: Json) -> None:
        self.code = _number(data.get("code"))
        self.signal = _text(data.get("signal"))
        self.reason = _text(data.get("reason"))
        self.at = _text(data.get("at"))


class CauseStatus:
    """The cause of the last launch of a task."""

    __slots__ = ("by", "source", "trigger", "uid")

    def __init__(self, data: Json) -> None:
        self.by = _text(data.get("by"))
        self.uid = _number(data.get("uid"))
        sources = objects(data.get("sources"))
        last = sources[-1] if sources else {}
        self.source = _text(last.get("task"))
        """The task whose rule has started this one; empty if it was no rule."""
        self.trigger = _text(last.get("trigger"))


class UsageStatus:
    """The resources that the process of a task uses."""

    __slots__ = ("cpu_seconds", "memory_bytes", "threads")

    def __init__(self, data: Json) -> None:
        seconds = data.get("cpu_seconds")
        # A number of JSON may be too large for a float.
        known = seconds if isinstance(seconds, int | float) and abs(seconds) < 1e12 else 0
        self.cpu_seconds = float(known)
        self.memory_bytes = _number(data.get("memory_bytes")) or 0
        self.threads = _number(data.get("threads")) or 0


class TaskStatus:
    """One task of one transaction."""

    __slots__ = (
        "action",
        "cause",
        "cgroup",
        "description",
        "disabled",
        "dropped",
        "entry",
        "exit",
        "health",
        "health_text",
        "held",
        "host",
        "id",
        "instance",
        "last",
        "last_host",
        "launch",
        "left",
        "missed",
        "pid",
        "poisoned",
        "requires",
        "restarts",
        "since",
        "state",
        "status",
        "stored",
        "sub",
        "usage",
        "user",
    )

    def __init__(self, data: Json) -> None:
        self.id = _text(data.get("id"))
        self.instance = _text(data.get("instance"))
        self.description = _text(data.get("description"))
        self.state = _text(data.get("state"))
        self.sub = _text(data.get("sub"))
        self.action = _text(data.get("action"))
        self.pid = _number(data.get("pid"))
        self.host = _text(data.get("host"))
        """The other host on which it runs; empty: that of the context."""
        self.launch = _number(data.get("launch"))
        last = data.get("last")
        self.last_host = _text(last.get("host")) if isinstance(last, dict) else ""
        """If the context does not run: the other host on which the task may still run."""
        self.last = f"{_text(last.get('state'))} ({_text(last.get('sub'))})" if isinstance(last, dict) else ""
        """If the context does not run, the state of the task in the state file, provided that the task cannot
        be in that state any more.
        """
        self.since = _text(data.get("since"))
        self.restarts = _number(data.get("restarts")) or 0
        self.exit = LastExit(data["exit"]) if isinstance(data.get("exit"), dict) else None
        self.cause = CauseStatus(cause if isinstance(cause := data.get("cause"), dict) else {})
        self.usage = UsageStatus(usage) if isinstance(usage := data.get("usage"), dict) else None
        """None if it was not asked for, or is not known."""
        self.status = _text(data.get("status"))
        self.left = bool(data.get("ended"))
        self.user = _text(data.get("user"))
        self.cgroup = _text(data.get("cgroup"))
        self.entry = data.get("entry") is True
        requires = data.get("requires")
        self.requires = [*map(_text, requires)] if isinstance(requires, list) else []
        self.health = _text(data.get("health"))
        self.health_text = _text(data.get("health_text"))
        self.held = data.get("held") is True
        self.disabled = data.get("disabled") is True
        self.dropped = _number(data.get("dropped")) or 0
        self.missed = _number(data.get("missed")) or 0
        self.poisoned = _number(data.get("poisoned")) or 0
        self.stored = _number(data.get("stored_descriptors")) or 0

    @property
    def local_pid(self) -> int | None:
        """The PID if the process is on the host of the context. On another host the number means nothing."""
        return None if self.host else self.pid


class HostStatus:
    """Another host of the context."""

    __slots__ = ("drained", "dropped", "name", "since", "state", "tasks")

    def __init__(self, data: Json) -> None:
        self.name = _text(data.get("name"))
        self.state = _text(data.get("state"))
        self.since = _text(data.get("since"))
        self.drained = data.get("drained") is True
        self.tasks = _number(data.get("tasks")) or 0
        self.dropped = _number(data.get("dropped")) or 0


class TransactionStatus:
    """One run of the context."""

    __slots__ = ("id", "resumes", "since", "state", "tasks")

    def __init__(self, data: Json) -> None:
        self.id = _text(data.get("id"))
        self.state = _text(data.get("state"))
        # A supervisor of an earlier release sends only `opened`.
        self.since = _text(data.get("since")) or _text(data.get("opened"))
        self.resumes = data.get("resumes") is True
        """True if the context does not run, and its next start resumes this transaction."""
        self.tasks = [TaskStatus(each) for each in objects(data.get("tasks"))]

    @property
    def open(self) -> bool:
        return self.state in OPEN


class ContextStatus:
    """One context and its processes."""

    __slots__ = (
        "curve",
        "device_pid",
        "device_restarts",
        "dropped",
        "file",
        "file_digest",
        "hosts",
        "id",
        "keeper_pid",
        "keeper_version",
        "log",
        "name",
        "pid",
        "publish_endpoint",
        "restarts",
        "since",
        "state",
        "subscribe_endpoint",
        "supervisor_version",
        "transactions",
        "unsaved",
        "zygote_version",
    )  # fmt: skip

    def __init__(self, data: Json) -> None:
        self.name = _text(data.get("name"))
        self.id = _text(data.get("id"))
        self.pid = _number(data.get("pid"))
        self.keeper_pid = _number(data.get("keeper_pid"))
        self.device_pid = _number(data.get("device_pid"))
        self.restarts = _number(data.get("restarts")) or 0
        self.device_restarts = _number(data.get("device_restarts")) or 0
        self.state = _text(data.get("state"))
        self.since = _text(data.get("since"))
        self.curve = data.get("curve") is True
        """True if tcp clients need CURVE keys."""
        self.subscribe_endpoint = _text(data.get("frontend"))
        self.publish_endpoint = _text(data.get("backend"))
        self.file = _text(data.get("file"))
        self.file_digest = _text(data.get("file_digest"))
        self.log = _text(data.get("log"))
        self.unsaved = _text(data.get("unsaved"))
        self.supervisor_version = _text(data.get("supervisor_version"))
        self.keeper_version = _text(data.get("keeper_version"))
        self.zygote_version = _text(data.get("zygote_version"))
        dropped = data.get("dropped")
        counts = dropped if isinstance(dropped, dict) else {}
        self.dropped = {
            str(what): count for what, count in counts.items() if isinstance(count, int) and count
        }
        self.hosts = [HostStatus(each) for each in objects(data.get("hosts"))]
        self.transactions = [TransactionStatus(each) for each in objects(data.get("transactions"))]

    @property
    def tasks(self) -> list[TaskStatus]:
        return [task for each in self.transactions for task in each.tasks]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def objects(value: object) -> list[Json]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def all_active(context: ContextStatus, *, transaction: bool, task: bool) -> bool:
    """Return True if everything that was asked for is active. `transaction` and `task` are True if one was
    named.

    A named task must be active itself. In a transaction, a task that waits for a rule or has ended
    successfully does not count. In a whole context, stopped transactions do not count as long as another one
    is open.
    """
    asked = context.transactions if transaction else [each for each in context.transactions if each.open]
    tasks = [each for one in asked for each in one.tasks]
    if task:
        return bool(tasks) and all(each.state == "active" for each in tasks)
    if context.transactions and not any(each.open for each in asked):
        return False
    if context.state not in ("active", "reloading") and not transaction:
        return False
    return all(each.state == "active" or _at_rest(each) for each in tasks)


def _at_rest(task: TaskStatus) -> bool:
    """Return True if the task need not run, because it has finished its work, or because only a rule starts
    it (and another one may have stopped it since).
    """
    return task.state == "inactive" and (task.sub == "exited" or not task.entry or task.disabled)


def unit_file_state(disabled: bool, entry: bool) -> str:
    """Return systemd's word for whether a task starts with its transaction: enabled, disabled or static."""
    if disabled:
        return "disabled"
    return "enabled" if entry else "static"
