"""The matches by which journalctl finds the entries of a context and its tasks, but no entry that another
user has written in their name.

Any user may write any field into the journal, except fields that begin with an underscore, which journald
takes from the kernel. So each match names the user of the entry, and the unit if the context runs in one.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterable, Mapping, Sequence

from zmsvc.core.errors import ZmsvcError
from zmsvc.core.owners import numeric_id
from zmsvc.ctl.status_reply import ContextStatus
from zmsvc.host.paths import Places


class Writers:
    """The users that write entries of a context: the daemon's UID, the UID of each task with a `<user>`, and
    the field that names the unit.
    """

    __slots__ = ("daemon", "name", "tasks", "unit")

    def __init__(self, name: str, daemon: int, tasks: Mapping[str, int], unit: str) -> None:
        self.name = name
        self.daemon = daemon
        self.tasks = {task: uid for task, uid in tasks.items() if uid != daemon}
        self.unit = unit


def writers(status: ContextStatus | None, places: Places, daemon: int | None) -> Writers:
    """Return the writers. If the context runs, the kernel reports the UID of the supervisor, and the
    supervisor the rest. Otherwise they come from the directories and the file of the context.
    """
    if status is not None:
        users = {task.id: task.user for each in status.transactions for task in each.tasks if task.user}
        owner = _owner(places) if daemon is None else daemon
        return Writers(
            places.name,
            owner,
            _numbers(users),
            _unit(status.keeper_pid, places.name) if status.keeper_pid else "",
        )
    return Writers(places.name, _owner(places), _numbers(_users(places)), "")


def _owner(places: Places) -> int:
    for directory in (places.runtime, places.state):
        try:
            return directory.stat().st_uid
        except OSError:
            continue
    return os.geteuid()


def _users(places: Places) -> dict[str, str]:
    # Imported here for start-up time: only the log of a context that does not run needs its file.
    from zmsvc.host.config import reader

    try:
        return {task.id: task.user for task in reader.load(places.config_file).tasks.values() if task.user}
    except ZmsvcError:
        return {}


def _numbers(users: Mapping[str, str]) -> dict[str, int]:
    found = {}
    for task, user in users.items():
        uid = numeric_id(user)
        try:
            found[task] = pwd.getpwnam(user).pw_uid if uid is None else uid
        except KeyError:
            continue
    return found


def _unit(keeper: int | None, name: str) -> str:
    """Return the field that names the unit of a keeper, from its control group; empty if it runs in no unit
    of zmsvc.
    """
    try:
        with open(f"/proc/{keeper}/cgroup") as file:
            group = file.read()
    except OSError:
        return ""
    if not re.search(rf"/zmsvc@{re.escape(name)}\.service(/|$)", group, re.MULTILINE):
        return ""
    return "_SYSTEMD_USER_UNIT" if re.search(r"/user@\d+\.service/", group) else "_SYSTEMD_UNIT"


def matches(of: Writers, transaction: str | None, tasks: Sequence[str], cgroups: Iterable[str]) -> list[str]:
    """Return journalctl's matches: entries with the fields of zmsvc, and lines that other programs wrote from
    the tasks' cgroups.
    """
    unit = [f"{of.unit}=zmsvc@{of.name}.service"] if of.unit else []
    fields = [
        f"ZMSVC_CONTEXT={of.name}",
        *([f"ZMSVC_TRANSACTION={transaction}"] if transaction else []),
        *unit,
    ]
    found = [[*fields, *(f"ZMSVC_TASK={task}" for task in tasks), f"_UID={of.daemon}"]]
    # These are entries that a task of another user writes itself. The entries of the supervisor about it are
    # in the group above.
    found += [
        [*fields, f"ZMSVC_TASK={task}", f"_UID={uid}"]
        for task, uid in of.tasks.items()
        if not tasks or task in tasks
    ]
    if not transaction and not tasks:
        # These are all entries of the unit, since lines of its keeper and device on stderr have no field. Any
        # user may have a user unit of this name.
        found += [
            [f"_SYSTEMD_UNIT=zmsvc@{of.name}.service"],
            [f"_SYSTEMD_UNIT=zmsvc-host@{of.name}.service"],
            [f"_SYSTEMD_USER_UNIT=zmsvc@{of.name}.service", f"_UID={of.daemon}"],
        ]
    elif groups := [f"_SYSTEMD_CGROUP={in_journal(path)}" for path in cgroups]:
        found.append(groups)
    return [word for number, group in enumerate(found) for word in (["+"] if number else []) + group]


def in_journal(cgroup: str) -> str:
    """Return a cgroup as journald writes it: the path below the root of the hierarchy."""
    for mount in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
        if cgroup.startswith(mount + "/"):
            return cgroup[len(mount) :]
    return cgroup
