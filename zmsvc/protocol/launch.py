"""What a launch is told: a task of the file, its transaction and its cause. It goes from the supervisor by
way of the keeper to the task.

The process that reads it may be of an earlier release than the one that wrote it, so a field is never renamed
or removed, and a new one has a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """One launch."""

    launch: int
    """The number of the launch. One number is forked once."""
    context: str
    context_id: str
    transaction: str
    task: str
    """The id of the task."""
    instance: str
    service_name: str
    service_type: str
    """Process, Command or Thread."""
    device_action: str
    description: str
    configuration: Mapping[str, Any]
    search: tuple[str, ...]
    """Directories in which the service is looked for."""
    command: tuple[str, ...]
    """Program and arguments of a Command."""
    frontend: str
    """Where the task subscribes."""
    backend: str
    """Where the task publishes."""
    notify: str
    """Path of the socket that takes its sd_notify datagrams."""
    log: str
    """`journal`, or a file, with `+stderr` when it goes to the terminal as well."""
    cause: Mapping[str, Any]
    uid: int | None = None
    """User ID of `user`, where that is not the daemon's own: the keeper gives such a task another notify
    socket.
    """
    mark: int = 0
    """A number that all processes of the launch show, and no others of the machine
    (host/kernel/process_marks.py); 0: none.
    """
    pidfile: str | None = None
    cgroup: str | None = None
    """Name of its control group's directory below `tasks/`."""
    user: str | None = None
    group: str | None = None
    nice: int | None = None
    stop_signal: str = "SIGTERM"
    """Asks a Process task to end."""
    log_level: int | None = None
    """The priority of syslog(3) up to which the task logs; None: info."""
    no_new_privileges: bool = False
    drop_capabilities: bool = False
    """The keeper adds, where it is not root and has capabilities all the same: a change of user from an
    ordinary one leaves them.
    """
    fresh: bool = False
    """A new interpreter takes the place of the fork."""
    own_environment: bool = False
    """The keeper adds, for a task of another user when a person started zmsvcd: the task inherits nothing
    that tells of that person.
    """
    rlimits: Mapping[str, int] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    watchdog: float = 0.0
    """Seconds; 0 is no watchdog."""
    serves: bool = False
    """Whether the task binds an endpoint of its own, so that it needs the context's CURVE server key."""
    curve: tuple[str, ...] | None = None
    """The keeper adds its CURVE client keys: public, secret, and the device's public key."""
    allow: str | None = None
    """The keeper adds, for a task that serves, the directory of the public keys that may connect."""
    members: str | None = None
    """For a task that serves: the file that says which users may connect by tcp without keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptors:
    """Open files that go with a launch. The numbers are those of the process that has the object."""

    cgroup: int | None = None
    """Directory of its control group."""
    exec_gate: int | None = None
    """Closes when the program of a Command has been executed; a byte in it says that it was not."""
    shared_line: int | None = None
    """Line to the keeper of a process that tasks share."""
    curve_server: int | None = None
    """The device's secret CURVE key, for a task that serves."""

    gate: int | None = None
    """The task waits until a byte comes here, and ends when none does."""
    output: int | None = None
    """The pipe that becomes standard output and standard error, where the context does not log to the
    journal.
    """

    def given(self) -> dict[str, int]:
        """Return those that are there, by name."""
        found = {
            "cgroup": self.cgroup,
            "exec_gate": self.exec_gate,
            "shared_line": self.shared_line,
            "curve_server": self.curve_server,
            "gate": self.gate,
            "output": self.output,
        }
        return {name: fd for name, fd in found.items() if fd is not None}
