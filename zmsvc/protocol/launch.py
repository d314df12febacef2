"""The launch of a task or of an auxiliary process. The supervisor sends it to the keeper, and the keeper to
the process itself.

The process that reads a launch may be of an earlier or a later release than the supervisor that wrote it.
So a field is never renamed or removed, and a new field has a default. A field with the name of an option of
`<service>` carries that option (supervisor/launch_spec.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from zmsvc.core.frozen import frozen


@frozen
class LaunchSpec:
    """One launch."""

    launch: int
    """The launch ID. The keeper forks at most one task for it."""
    context: str
    context_id: str
    transaction: str
    task: str
    """The ID of the task."""
    instance: str
    service_name: str
    service_type: str
    """Process, Command or Thread."""
    device_action: str
    description: str
    configuration: Mapping[str, Any]
    search: tuple[str, ...]
    """The directories in which the task looks for the code of its service."""
    command: tuple[str, ...]
    """The program of a Command and its arguments."""
    frontend: str
    """The endpoint at which the task subscribes."""
    backend: str
    """The endpoint at which the task publishes."""
    notify: str
    """The path of the socket to which the task sends its sd_notify datagrams."""
    log: str
    """`journal` or the path of a log file, with `+stderr` if the log goes to the terminal as well."""
    cause: Mapping[str, Any]
    uid: int | None = None
    """The user ID of `user`; None if that is the daemon's user. The keeper gives a task with another user ID
    another notify socket.
    """
    mark: int = 0
    """A number that only the processes of this launch carry, as their RLIMIT_LOCKS
    (host/kernel/process_marks.py). 0 if they carry none.
    """
    pidfile: str | None = None
    cgroup: str | None = None
    """The name of the directory of its control group below `tasks/`."""
    user: str | None = None
    group: str | None = None
    nice: int | None = None
    oom_score_adjust: int | None = None
    working_directory: str | None = None
    """The text of the option: a path or `~`, with a `-` before it if the directory may be missing."""
    umask: int | None = None
    stop_signal: str = "SIGTERM"
    """The signal that asks a Process task to end."""
    log_level: int | None = None
    """The priority of syslog(3) up to which the task logs. None is info."""
    no_new_privileges: bool = False
    drop_capabilities: bool = False
    """The keeper sets this if it has capabilities and is not root. Capabilities survive a change from one
    ordinary user to another, so the task drops them.
    """
    fresh: bool = False
    """True if the fork executes a new interpreter."""
    python: str | None = None
    """The path of that interpreter. None is the one of zmsvc."""
    own_environment: bool = False
    """The keeper sets this for a task of another user if a person started zmsvcd. Such a task inherits no
    variable that tells something about that person.
    """
    rlimits: Mapping[str, int] = field(default_factory=dict)
    memory_max: int | str = -1
    """Bytes, or a percentage as a text; -1 without a limit. The keeper sets this limit and the next ones
    on the control group.
    """
    memory_high: int | str = -1
    cpu_quota: int | None = None
    """Hundredths of a percent of one CPU."""
    cpu_weight: int | None = None
    """0 is idle."""
    tasks_max: int | str = -1
    io_weight: int | None = None
    memory_accounting: bool = False
    """True if the kernel should count the memory of the control group. Without it, or under a keeper that
    does not know this field, the supervisor measures the processes.
    """
    unset_limits: tuple[str, ...] = ()
    """The limits that the keeper could not set, with the reasons. The keeper adds them, and the task logs
    them.
    """
    listen: tuple[Mapping[str, Any], ...] = ()
    """The sockets that the keeper gives to the task, as `core.listening.ListenSocket.as_json`."""
    listen_names: tuple[str, ...] = ()
    """The names of these sockets. The process of the task adds those of its stored descriptors."""
    file_descriptor_store_max: int = 0
    """The number of descriptors that the task may store."""
    stored: int = 0
    """The number of stored descriptors, the last ones of `listen_names`. The process of the task adds it."""
    queue: tuple[Mapping[str, Any], ...] = ()
    """The queues of the task, as `core.message_queues.MessageQueue.as_json`."""
    expect: tuple[Mapping[str, Any], ...] = ()
    """The expected topics, as `core.expected_topics.ExpectedTopic.as_json`."""
    ready_topic: str = ""
    """The topic whose first message makes a task in Python ready. The watcher process watches that of a
    Command.
    """
    poison_action: str = "fail"
    """`core.poison.PoisonAction`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    environment_file: tuple[str, ...] = ()
    """The paths of files with variables, with a `-` before a path that may be missing. The task itself reads
    the files.
    """
    pass_environment: tuple[str, ...] = ()
    """The names of variables that the task inherits although `own_environment` is set."""
    watchdog: float = 0.0
    """Seconds. 0 if there is no watchdog."""
    serves: bool = False
    """True if the task binds an endpoint of its own. Then it needs the CURVE server key of the context."""
    barrier: bool = False
    """True if the task waits before its first step until the supervisor orders `OpenBarrier`. Under a keeper
    that does not know this field it does not wait.
    """
    curve: tuple[str, ...] | None = None
    """The CURVE keys of the task as a client, which the keeper adds: its public key, its secret key and the
    public key of the device.
    """
    allow: str | None = None
    """For a task that serves, the directory of the public keys that may connect. The keeper adds it."""
    members: str | None = None
    """For a task that serves, the file that names the users who may connect by tcp without keys."""
    file: str = ""
    """The path of the context file, for messages."""
    auxiliary_of: int = 0
    """Of an auxiliary process: the launch ID of its task. The keeper forks it only while that launch runs,
    and kills it when the main process has ended. 0 for a task. Since protocol 5.
    """
    auxiliary: str = ""
    """The name of the auxiliary process (`core.auxiliary_name.AuxiliaryName`)."""
    keys: str | None = None
    """The directory of the CURVE keys that a client of these endpoints needs; None if it needs none."""
    probe: Mapping[str, Any] = field(default_factory=dict)
    """The probe that the auxiliary process runs, as `core.probing.Probe.as_json`. Without one it executes
    `command`.
    """
    ready_line: str = ""
    """The pattern of `<ready line>`, or nothing. The keeper makes a pipe for the output of such a task, also
    if the context logs to the journal. Since protocol 5.
    """
    retained: tuple[str, ...] | None = None
    """The IDs of those LastValue tasks of the transaction that run or start. None if the context has no such
    task. Since protocol 5.
    """


RELOAD_SIGNAL = "ZMSVC_RELOAD_SIGNAL"
"""The variable in the environment of a Process with the name of its reload signal. A variable reaches the
task also under an older keeper, which would drop a field.
"""
AUXILIARY_GROUP = ".zmsvc-"
"""The beginning of the name of the control group of an auxiliary process. The group is in that of its task,
whose limits apply to both.
"""

LISTEN = "listen."
"""The name of a socket of `<listen>` in an order, before its number."""


def _is_socket(name: str) -> bool:
    return name.startswith(LISTEN)


@frozen
class Descriptors:
    """The open files that go with a launch. The numbers are valid in the process that has the object."""

    cgroup: int | None = None
    """The directory of its control group."""
    exec_gate: int | None = None
    """A pipe that closes when the program of a Command has been executed. If the exec failed, the reason is
    in the pipe.
    """
    shared_line: int | None = None
    """The connection to the keeper of a process that tasks share."""
    curve_server: int | None = None
    """The secret CURVE key of the device, for a task that serves."""

    gate: int | None = None
    """The task waits here for a byte. It ends if the pipe closes without one."""
    barrier: int | None = None
    """The task waits here before its first step, until there is a byte or the pipe closes."""
    output: int | None = None
    """The pipe that becomes standard output and standard error if the output process reads them."""
    store: int | None = None
    """The connection to the fdstore process, over which the task gets its stored descriptors."""
    listen: tuple[int, ...] = ()
    """The sockets of `<listen>`, in the order of the file, and then the stored descriptors."""

    def given(self) -> dict[str, int]:
        """Return the descriptors that are present, by name."""
        found = {
            "cgroup": self.cgroup,
            "exec_gate": self.exec_gate,
            "shared_line": self.shared_line,
            "curve_server": self.curve_server,
            "gate": self.gate,
            "barrier": self.barrier,
            "output": self.output,
            "store": self.store,
        }
        sockets = {f"{LISTEN}{at}": fd for at, fd in enumerate(self.listen)}
        return {name: fd for name, fd in found.items() if fd is not None} | sockets

    @classmethod
    def named(cls, given: Mapping[str, int]) -> Descriptors:
        """Return the descriptors with the names of `given`."""
        sockets = tuple(given[f"{LISTEN}{at}"] for at in range(sum(map(_is_socket, given))))
        return cls(**{name: fd for name, fd in given.items() if not _is_socket(name)}, listen=sockets)
