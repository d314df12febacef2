"""Open the bus of a context to the users that core/access.py names: write the members file for the device
(bus_users.py), and give the users of tasks access to the sockets.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from zmsvc.core.model import Context
from zmsvc.host import directories, user_ids
from zmsvc.host.kernel import acl
from zmsvc.host.paths import Places


def write(file: Path, context: Context) -> None:
    """Write the members file for a context. Raises OSError."""
    users = sorted({task.user for task in context.tasks.values() if task.user})
    directories.write_new(file, json.dumps({"access": context.bus_access, "users": users}), 0o640)
    # A Monitor task of another user reads the file, too. On a file system without ACLs it cannot, and then it
    # accepts fewer users.
    with contextlib.suppress(OSError):
        acl.admit(file, other_users(users))


def open_sockets(places: Places, context: Context) -> tuple[frozenset[int], list[str]]:
    """Let the user of each task open the sockets of the bus. Users that the context file no longer names lose
    that permission. Return the users that can open all of the sockets, and the problems to report to the
    operator.
    """
    uids = other_users(task.user for task in context.tasks.values() if task.user)
    problems = []
    for path in _sockets(places, context):
        try:
            acl.admit(path, uids)
        except FileNotFoundError:
            continue
        except OSError as error:
            if uids:
                group = directories.group(os.getegid())
                problems.append(
                    f"the <user> of a task cannot be given access to {path}: {error.strerror}; with "
                    f"<group>{group}</group> the task reaches it"
                )
    return frozenset() if problems else uids, problems


def _sockets(places: Places, context: Context) -> Iterator[Path]:
    """Yield the socket files of the bus: the ipc endpoints of the context file, and the sockets of the
    context's own tasks.
    """
    yield from (places.subscribe_socket, places.publish_socket)
    for place in (context.endpoints.publish_bind, context.endpoints.subscribe_bind):
        if place.startswith("ipc://"):
            path = Path(place.removeprefix("ipc://"))
            if path not in (places.subscribe_socket, places.publish_socket):
                yield path


def other_users(users: Iterable[str]) -> frozenset[int]:
    """Return the IDs of these users without the daemon's own user."""
    return frozenset(uid for user in users if (uid := user_ids.number(user)) is not None) - {os.geteuid()}
