"""Complete a launch of the supervisor with what only this host knows: paths and user IDs."""

from __future__ import annotations

import os
from dataclasses import replace

from zmsvc.host import paths, user_ids
from zmsvc.host.kernel import process_marks
from zmsvc.host.paths import Places
from zmsvc.protocol.launch import LaunchSpec


def completed(spec: LaunchSpec, places: Places, log_target: str) -> LaunchSpec:
    """Return a launch as the keeper of this host takes it."""
    uid = None if spec.user is None else user_ids.number(spec.user)
    group = "" if spec.pidfile is None else f"{spec.transaction}:{spec.task}"
    return replace(
        spec,
        notify=str(places.notify_socket),
        mark=process_marks.limit_value(places.context_mark, spec.launch),
        log=log_target,
        pidfile=f"{places.runtime}/{group}.pid" if group else None,
        uid=uid if uid != os.geteuid() else None,
        search=spec.search or tuple(map(str, paths.service_path())),
        keys=None if spec.keys is None else str(places.keys),
        members=None if spec.members is None else str(places.members_file),
    )
