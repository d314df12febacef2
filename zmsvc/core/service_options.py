"""The options of `<service>`, each declared once: a field whose default is `option(...)` declares an option.
Pure.

These declarations make the reader, the schema, the manual, the answer of a reload and the launch of a task.
CONTRIBUTING.md says how to add one.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import MISSING, field, fields, replace
from enum import StrEnum
from typing import Any, TypeVar

from zmsvc.core.expected_topics import ExpectedTopic
from zmsvc.core.frozen import frozen
from zmsvc.core.listening import MAX_STORED, ListenSocket
from zmsvc.core.message_queues import MessageQueue, QueuePolicy
from zmsvc.core.option_kinds import (
    ADDRESS,
    CPU_QUOTA,
    CPU_WEIGHT,
    DIRECTORY,
    EXIT_STATUS,
    EXPECT,
    HEALTH,
    LOG_LEVEL,
    MEMORY,
    MODE,
    OPTIONAL_FILE,
    OWNER,
    PATH,
    PLACEMENT,
    READY,
    SIGNAL,
    SIZE,
    SOCKET_NAME,
    TASK,
    TASKS,
    TIME_LIMIT,
    TIME_SPAN,
    TOPIC,
    VARIABLE,
    WORDS,
    YES_NO,
    Fields,
    Kind,
    Several,
    Variables,
    any_of,
    choice,
    whole_number,
)
from zmsvc.core.placement import Placement
from zmsvc.core.poison import PoisonAction
from zmsvc.core.probing import Probe, Ready


class ServiceType(StrEnum):
    """The way in which a task service runs."""

    PROCESS = "Process"
    THREAD = "Thread"
    COMMAND = "Command"


class KillMode(StrEnum):
    """Which processes of a task get a stop signal before SIGKILL."""

    CONTROL_GROUP = "control-group"
    """All processes: in a Command all at once; in a task in Python the other processes when the main one has
    ended.
    """
    MIXED = "mixed"
    """The main process alone."""


class Restart(StrEnum):
    """The ends after which a task starts again, in systemd's words."""

    NO = "no"
    ON_FAILURE = "on-failure"
    ON_ABNORMAL = "on-abnormal"
    ON_WATCHDOG = "on-watchdog"
    ALWAYS = "always"


class NotifyAccess(StrEnum):
    """The processes of a task whose notifications (sd_notify) count for the task."""

    MAIN = "main"
    EXEC = "exec"
    """The same as MAIN, because zmsvc executes no command for a task but its program."""
    ALL = "all"


class FailureAction(StrEnum):
    """The action when a task has failed and nothing starts it again."""

    NONE = "none"
    STOP = "stop"
    """Stop the transaction of the task."""
    EXIT = "exit"
    """Stop all tasks, and end the daemon with `FAILURE_STATUS`."""


FAILURE_STATUS = 9
"""The exit status of zmsvcd after `failure_action` exit. The unit lists it in RestartPreventExitStatus=."""

RLIMITS = (
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice",
    "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip
"""The resource limits of setrlimit(2) that Python's `resource` has."""

EVERY_TYPE = tuple(ServiceType)
IN_PYTHON = (ServiceType.PROCESS, ServiceType.THREAD)


@frozen
class Option:
    """One option of `<service>`."""

    name: str
    """The name of its element."""
    field: str
    """The name of the field that holds the value, in `Limits` or `ServiceOptions`, and in `LaunchSpec` if the
    task or the keeper applies the option.
    """
    kind: Kind
    default: Any
    summary: str
    """One or more plain sentences for the schema and the manual."""
    manual: str = ""
    """More text for the manual, in mdoc."""
    default_words: str = ""
    """The default in the manual, where it is not a fixed value."""
    types: Collection[ServiceType] = EVERY_TYPE
    """The types of service that may have the option."""
    otherwise: str = ""
    """The reason why other types may not have the option. It follows the name of the type: `which chooses
    itself ...`.
    """
    in_place: Collection[ServiceType] = ()
    """The types of service for which a reload changes the option while the process goes on. For other types
    the reload restarts the task.
    """
    per_process: bool = False
    """True if all Thread tasks of a transaction have one value of this option, because they share a process.
    """
    protocol: int = 0
    """The first protocol between supervisor and keeper (`zmsvc.protocol`) whose launch has this option; 0 for
    an option of zmsvc 1.0, and for one that no launch has. An older keeper would drop the option, so a task
    with it does not start under one (supervisor/launch_spec.py).
    """


def option(kind: Kind, default: Any = MISSING, *, factory: Any = MISSING, name: str = "", **rest: Any) -> Any:
    """Declare a field of a dataclass as an option. The arguments are those of `Option`. The element has the
    name of the field, unless `name` names another one. `factory` makes a default that is not hashable.
    """
    made = factory() if default is MISSING else default
    declared = Option(name=name, field="", kind=kind, default=made, **rest)
    metadata = {"option": declared}
    if default is MISSING:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


@functools.cache
def options_of(holder: type) -> tuple[Option, ...]:
    """Return the options that a dataclass declares, in their order."""
    return tuple(
        replace(declared, field=each.name, name=declared.name or each.name)
        for each in fields(holder)
        if (declared := each.metadata.get("option"))
    )


@frozen
class Limits:
    """Time limits and back-off of a task, in seconds. 0 for `start_timeout`, `stop_timeout` or `watchdog` is
    no limit.
    """

    start_timeout: float = option(
        TIME_LIMIT,
        90.0,
        summary="The time that the task has until it is ready.",
        manual="""
            While it starts or stops, a task may ask for more time with EXTEND_TIMEOUT_USEC of
            .Xr sd_notify 3 .
            """,
        in_place=EVERY_TYPE,
    )
    stop_timeout: float = option(
        TIME_LIMIT,
        10.0,
        summary=(
            "The time that the task has to end. Processes that are left then get SIGKILL. A Python task "
            "first writes the stacks of its threads to its log, for 250 ms."
        ),
        in_place=EVERY_TYPE,
    )
    watchdog: float = option(
        TIME_LIMIT,
        0.0,
        summary=(
            "The longest time between two WATCHDOG=1 of the task. A task that takes longer gets SIGABRT and "
            "has failed."
        ),
        manual="""
            A task in Python says WATCHDOG=1 of
            .Xr sd_notify 3
            by itself, as long as it does not hang.
            """,
    )
    restart_delay: float = option(
        TIME_SPAN,
        0.1,
        summary="The delay before a failed task is started again by its own rule.",
        manual="""
            The delay is doubled with each failure in a row, up to
            .Li restart_max_delay .
            Up to a tenth is added to it, so that tasks which failed together do not start together.
            After a run of 10 s, or of
            .Li restart_max_delay
            where that is longer, the delay is the first one again.
            Starts by rules that follow each other more quickly than the delay are slowed in the same way, and
            .Xr zmsvcctl 1
            .Li status
            says so.
            """,
        in_place=EVERY_TYPE,
    )
    restart_max_delay: float = option(
        TIME_SPAN,
        60.0,
        summary="The longest delay between starts by rules.",
        manual="""
            If the file gives only one of the two delays, and the default of the other does not fit, the other
            is equal to it.
            """,
        in_place=EVERY_TYPE,
    )
    start_limit_burst: int = option(
        whole_number(0, 1_000_000),
        0,
        summary="The number of starts by rules that are allowed within start_limit_interval. 0: no limit.",
        manual="""
            Without a limit the delay alone slows a ring of rules.
            """,
        in_place=EVERY_TYPE,
    )
    start_limit_interval: float = option(
        TIME_SPAN, 60.0, summary="The time in which start_limit_burst counts starts.", in_place=EVERY_TYPE
    )


@frozen
class ServiceOptions:
    """The values of all options of a task."""

    limits: Limits = field(default_factory=Limits)
    restart: Restart | None = option(
        choice(Restart, "is not a way to restart"),
        None,
        summary="The ends after which the task starts again by itself.",
        default_words="as the rules in <state> say",
        manual="""
            As Restart= in
            .Xr systemd.service 5 .
            It is short for rules in
            .Li <state>
            that restart the task itself, with their delays and limits:
            .Li on-failure
            for one in
            .Li <on_fail> ,
            .Li always
            for one in
            .Li <on_fail>
            and one in
            .Li <on_exit> .
            .Li on-abnormal
            is
            .Li on-failure
            without the reasons
            .Li exit-code
            and
            .Li cannot-launch ;
            .Li on-watchdog
            is
            .Li on-failure
            for the reason
            .Li watchdog
            alone.
            .Li no
            says that there is no such rule.
            A task that was asked to stop does not start again.
            A rule of the same trigger that says otherwise about the task itself is a fault of the file; one
            that says the same is allowed.
            """,
        in_place=EVERY_TYPE,
    )
    replicas: int | None = option(
        whole_number(1, 1000),
        None,
        summary="The number of tasks that run from this element.",
        default_words="one task, without a number",
        manual="""
            With
            .Li <replicas>3</replicas> ,
            the element of ts_100 makes the tasks ts_100@1, ts_100@2 and ts_100@3, each with a process, a
            state, a control group and log lines of its own.
            A task finds its number in
            .Ev ZMSVC_REPLICA ,
            and in Python in
            .Li self.replica .
            The ID ts_100 names all of them: in the
            .Li <call>
            of a rule, in the verbs of
            .Xr zmsvcctl 1
            and in orders on the bus.
            A rule of ts_100 that calls ts_100 itself, such as a restart when it fails, calls the one that the
            rule fires for and none of the others.
            A reload that changes the number starts the added tasks or stops those that are left over; the
            others go on.
            Added ones start if the transaction starts the task or if one of the others runs, but not if an
            operator has stopped all others.
            """,
        in_place=EVERY_TYPE,
    )
    ready: Ready | None = option(
        READY,
        None,
        summary="What makes the task ready: the first success of a probe, a message, or a line of output.",
        default_words="none: the task is ready when its program runs",
        manual="""
            The probes are those of
            .Li <health> .
            The first one runs as soon as the process of the task exists, and the next ones 1 s after the end
            of the one before (interval).
            A probe that takes longer than 10 s (timeout) has failed.
            If none succeeds within
            .Li start_timeout ,
            the task has failed (reason
            .Li not-ready ) .
            READY=1 of the program itself is then ignored.
            .Pp
            With
            .Li topic
            alone the task is ready at its first message on that topic of the bus; see
            .Li <expect>
            for which messages count.
            A task in Python may have this, and no other probe.
            .Bd -literal
            <ready tcp="127.0.0.1:6379"/>
            <ready topic="temperature"/>
            <ready line="listening on port [0-9]+"/>
            .Ed
            .Pp
            With
            .Li line ,
            which only a Command may have,
            the task is ready when its program has written a whole line to its standard output or standard
            error in which this regular expression of Python's re occurs.
            .Li ^
            is the start of a line and
            .Li $
            its end.
            A priority such as
            .Li <3>
            at the start of the line is not part of it.
            Only the first 4096 bytes of a line are searched, and bytes that are not UTF-8 are replaced.
            Many programs write whole lines into a pipe only when much text has gathered, unless told
            otherwise.
            A program that ends right after the line may count as one that was not ready.
            If the search in the lines that were read together takes longer than 500 ms of CPU time, the log
            says so and no further line of this process is searched.
            If the context logs to the journal, the output of such a task goes through the output process of
            the context, which writes each line with the fields of the task to the journal.
            """,
        protocol=5,
    )
    expect: tuple[ExpectedTopic, ...] = option(
        EXPECT,
        (),
        summary="A topic on which the task has to publish at least once in that time.",
        default_words="none",
        manual="""
            A task that is silent on the topic for longer has failed (reason
            .Li silent ) :
            it gets its stop signal, and its rules of
            .Li <on_fail>
            act.
            The time begins when the task is ready, and again with each of its messages.
            .Pp
            In a task in Python each
            .Fn publish
            counts, and no message is read for it.
            For the Commands of a context the process
            .Nm zmsvc-watcher
            subscribes to these topics.
            A message counts if its header names this task, or no task
            .Pq Li service_transaction , service_id ,
            unless its
            .Li launch
            is that of another launch
            .Pq Ev ZMSVC_LAUNCH .
            While that process has no connection to the device, the time stands; when it connects again, or is
            started again after its end, the time begins again.
            .Bd -literal
            <expect topic="temperature" within="30s"/>
            .Ed
            """,
        protocol=5,
    )
    health: Probe | None = option(
        HEALTH,
        None,
        summary="A probe that runs at intervals while the task runs.",
        default_words="none",
        manual="""
            .Li exec
            is a program that exits with status 0 if the task is healthy; no shell reads it.
            .Li tcp
            is an address that accepts a connection, and
            .Li http
            one that answers a GET request with a status from 200 to 399.
            The address is localhost (if only a port is given, too), or an IP address, in brackets for IPv6;
            other names are not looked up.
            .Pp
            The other attributes have the meaning and the defaults that they have in HEALTHCHECK of Docker.
            The first probe runs 30 s
            .Pq Li interval
            after the task has become ready, and each further one as long after the end of the one before.
            A probe that takes longer than 30 s
            .Pq Li timeout
            has failed, and its process group is killed.
            A failed probe makes the task unhealthy, and a successful one makes it healthy again;
            .Ql zmsvcctl status ,
            the journal and
            .Ql zmsvcctl events
            say so.
            After 3
            .Pq Li retries
            failures in a row the task has failed (reason
            .Li unhealthy ) :
            it gets its stop signal, and its rules of
            .Li <on_fail>
            act.
            Failures in the first 0 s
            .Pq Li start_period
            do not count, until a probe has succeeded.
            .Bd -literal
            <health exec="redis-cli ping" interval="10s" timeout="2s"/>
            <health http="http://127.0.0.1:8080/healthz" start_period="1min"/>
            .Ed
            .Pp
            A process beside the task runs the probes: as the user of the task, in its working directory, with
            its environment and
            .Ev MAINPID ,
            and in a control group below that of the task, whose limits apply to both.
            It is killed with the task, and does not count as a process of it.
            If it ends by itself, it is started again after a delay, which the journal says; this does not
            end the task.
            """,
        types=(ServiceType.PROCESS, ServiceType.COMMAND),
        otherwise="which shares its process with other tasks",
        protocol=5,
    )
    memory_restart: int | str = option(
        MEMORY,
        -1,
        summary="The memory of the task above which it is restarted.",
        manual="""
            The supervisor measures the memory every 2 s and stops a task that uses more.
            The task has then failed (reason
            .Li memory-limit ) ,
            its rules of
            .Li <on_fail>
            act, and it starts again even if none of them says so, with the delays and limits of such a rule.
            A task whose memory grows faster needs
            .Li memory_max
            as well.
            The memory is that of the control group without the page cache.
            Where the memory controller is missing it is the PSS of all processes in the control group, and
            without control groups that of the main process and its descendants.
            """,
        types=(ServiceType.PROCESS, ServiceType.COMMAND),
        otherwise="whose memory is that of all tasks in its process",
        in_place=(ServiceType.PROCESS, ServiceType.COMMAND),
    )
    listen: tuple[ListenSocket, ...] = option(
        Several(
            value=ADDRESS,
            attributes={
                "name": SOCKET_NAME,
                "mode": MODE,
                "user": OWNER,
                "group": OWNER,
                "backlog": whole_number(1, 65535),
            },
            make=lambda address, **values: ListenSocket(address=address, **values),
        ),
        (),
        summary="A socket that the keeper opens, holds and gives to the task.",
        manual="""
            As ListenStream= in
            .Xr systemd.socket 5 :
            a port of every address of the machine, an address and a port, an absolute path, or a name after
            @ for an abstract socket; tcp:// or ipc:// may be before it.
            An IPv6 address is in brackets.
            Host names are not looked up.
            .Pp
            The task gets the sockets as
            .Xr sd_listen_fds 3
            says: from descriptor 3 on, in the order of the file, with
            .Ev LISTEN_FDS ,
            .Ev LISTEN_PID
            and
            .Ev LISTEN_FDNAMES .
            .Li name
            is as FileDescriptorName= of systemd, by default the ID of the task in the file.
            In Python,
            .Fn zmsvc.task.listen_sockets
            returns them.
            .Pp
            The socket stays open while the task restarts, by a rule, an order or a reload, and while the
            supervisor is replaced: connections wait and none is refused.
            All replicas of the task, and its runs in several transactions, share it.
            It is closed when no such task runs, or waits for the delay of a restart, any more; the file of a
            Unix socket is then removed.
            .Pp
            The keeper opens the socket, as the user of
            .Xr zmsvcd 8 ,
            when the task is started.
            If it cannot, this task alone fails (reason
            .Li cannot-launch ) .
            A port below 1024 needs root or CAP_NET_BIND_SERVICE.
            The directories of a Unix socket are made if they are missing, with mode 0755; the file has
            .Li mode ,
            by default 0660, and the user and the group of the daemon unless
            .Li user
            and
            .Li group
            name others.
            Those who may write to it may connect.
            A file of a socket at which no process listens is replaced, any other file never.
            .Ql zmsvcctl check
            warns of an address that is in use now.
            """,
        types=(ServiceType.PROCESS, ServiceType.COMMAND),
        otherwise="which shares its process with other tasks",
        protocol=5,
    )
    queue: tuple[MessageQueue, ...] = option(
        Several(
            value=whole_number(1, 100_000),
            attributes={"topic": TOPIC, "policy": choice(QueuePolicy, "is not a policy")},
            make=lambda mark, **values: MessageQueue(mark=mark, **values),
        ),
        (),
        summary="The number of messages that wait in the process of the task for one of its topics.",
        manual="""
            It is for
            .Li topic ,
            or for all topics without a queue of their own.
            When so many wait,
            .Li policy
            says which one is dropped:
            .Li drop-newest
            (the default) the one that has just come,
            .Li drop-oldest
            the one that has waited longest;
            with
            .Li last
            only the last message of each sender waits, and the number is that of senders.
            .Li missed
            of the next message counts what was dropped; except with
            .Li last
            the log says so as well.
            .Pp
            The process fills its queues between two messages that it handles.
            While it handles one, up to 20,000 more wait in ZeroMQ, and 100,000 in the device.
            Without this option these are the only queues.
            """,
        types=IN_PYTHON,
        otherwise="which subscribes itself",
        default_words="those of ZeroMQ alone",
        protocol=5,
    )
    poison_action: PoisonAction = option(
        choice(PoisonAction, "is not an action at a poison message"),
        PoisonAction.FAIL,
        summary="The action when the task cannot handle a message of the bus.",
        manual="""
            So it is if
            .Li on_message
            or the body of a loop over
            .Li messages
            raises an exception, or if the content does not fit.
            With
            .Li fail
            the task fails, and its rules fire.
            With
            .Li set-aside
            it goes on with the next message; a loop that an exception has left cannot go on.
            A retained message (see LastValue) is always set aside, since a restarted task would get it again.
            Either way the quarantine of the context gets the message with its traceback; see
            .Ql quarantine
            in
            .Xr zmsvcctl 1 .
            """,
        types=IN_PYTHON,
        otherwise="which handles messages itself",
        protocol=5,
    )
    file_descriptor_store_max: int = option(
        whole_number(0, MAX_STORED),
        0,
        summary="How many descriptors the task may store, as FileDescriptorStoreMax= of systemd.",
        manual="""
            The next process of the task gets what an earlier one has stored: a connection of a client, or a
            memory file with state, outlives a crash.
            With 0, the default, nothing is stored; the log says that a descriptor was refused.
            .Pp
            The task sends a descriptor with
            .Li FDSTORE=1
            as
            .Xr sd_pid_notify_with_fds 3
            says, with a name in
            .Li FDNAME= ,
            by default
            .Li stored ,
            and removes those of a name with
            .Li FDSTOREREMOVE=1 .
            In Python,
            .Fn zmsvc.task.store_descriptor ,
            .Fn zmsvc.task.stored_descriptors
            and
            .Fn zmsvc.task.remove_stored_descriptors
            do that.
            A descriptor that is stored already is not stored again.
            A socket or a pipe is removed from the store when its other end is closed
            (EPOLLHUP or EPOLLERR), unless it was sent with
            .Li FDPOLL=0 .
            Of a TCP connection that is so when both sides have shut it down, or after an error; so a task
            removes one that its client has closed.
            .Pp
            The next process gets the descriptors after the sockets of
            .Li <listen> ,
            in the order in which they were stored, in the same variables.
            They stay in the store, so each further process gets them, too.
            The store is kept while the task restarts, by a rule, an order or a reload, and while the
            supervisor is replaced.
            It is emptied when the task does not run, and does not wait for the delay of a restart, any more,
            and when the context ends.
            So it survives
            .Ql systemctl reload
            and an upgrade of the supervisor, and
            .Ql systemctl restart
            begins with an empty one.
            Each replica, and each run in another transaction, has a store of its own.
            .Pp
            A process of its own, zmsvc-fdstore, holds the descriptors: if it is killed, they are lost.
            A context stores 4,096 descriptors at most.
            .Ql zmsvcctl show
            has their number (NFileDescriptorStore).
            """,
        types=(ServiceType.PROCESS, ServiceType.COMMAND),
        otherwise="which shares its process with other tasks",
        protocol=5,
    )
    user: str | None = option(
        OWNER,
        None,
        summary="The user that the task runs as, with all groups of that user and no others.",
        default_words="the user of the daemon",
        manual="""
            The task cannot change back.
            A number that the user database does not know is a user without a name, in
            .Li <group>
            or else in the group of the same number, in no other group, and with HOME=/.
            A name that this machine does not know is a warning of
            .Ql zmsvcctl check ,
            and keeps this task alone from being started (reason
            .Li cannot-launch ) .
            Only root can start a task as another user; the unit says how.
            The user of a task may connect to the bus.
            Where a file system knows no access lists, the log says so, and the task needs the daemon's group
            as its
            .Li <group>
            to reach an ipc endpoint.
            A task without
            .Li <user>
            runs as the user of the daemon, which is root or has capabilities if other tasks have a
            .Li <user> .
            .Ql zmsvcctl check
            and the log warn of such tasks.
            When a person starts
            .Xr zmsvcd 8
            and no service manager does, a task with
            .Li <user>
            inherits of the environment only PATH, LANG, LC_*, TZ and the variables of zmsvc that name
            directories (ZMSVC_CONFIG_DIR and others); HOME, USER, LOGNAME and SHELL are those of its user.
            """,
        per_process=True,
    )
    group: str | None = option(
        OWNER,
        None,
        summary="The group that the task runs as.",
        default_words="the group of its user",
        per_process=True,
    )
    nice: int | None = option(
        whole_number(-20, 19),
        None,
        summary="The nice value of the task.",
        default_words="that of the daemon",
        per_process=True,
    )
    oom_score_adjust: int | None = option(
        whole_number(-1000, 1000),
        None,
        summary=(
            "The adjustment of the score by which the kernel selects a process to kill when memory runs out."
        ),
        default_words="that of the daemon",
        manual=r"""
            See
            .Li oom_score_adj
            in
            .Xr proc 5 :
            \-1000 exempts the task, and with 1000 the kernel kills it first.
            Only root can give a value that is lower than that of the daemon.
            Where the kernel refuses a value, the task starts without it and logs a warning.
            """,
        per_process=True,
        protocol=4,
    )
    working_directory: str | None = option(
        DIRECTORY,
        None,
        summary="The directory in which the task begins.",
        default_words="/",
        manual=r"""
            As WorkingDirectory= in
            .Xr systemd.exec 5 :
            the task changes to the directory as its own user, and
            .Li ~
            is the home directory of that user.
            If it cannot, this task alone fails (reason
            .Li cannot-launch ) ;
            after a
            .Li \-
            it starts in
            .Pa /
            instead.
            The relative path of a program leads from the working directory.
            .Ql zmsvcctl check
            warns of a directory that is missing on this machine.
            """,
        per_process=True,
        protocol=4,
    )
    umask: int | None = option(
        MODE,
        None,
        summary="The permissions that files and directories which the task makes do not have.",
        default_words="that of the daemon",
        manual="""
            See
            .Xr umask 2 .
            The umask of the daemon is UMask= of its unit, or that of the person who starts it.
            """,
        per_process=True,
        protocol=4,
    )
    kill_mode: KillMode = option(
        choice(KillMode, "is not a kill mode"),
        KillMode.CONTROL_GROUP,
        summary=(
            "The processes that are asked to end, by a stop and when the main process has ended by itself."
        ),
        manual="""
            With
            .Li control-group ,
            every process of a Command gets the stop signal at once; of a task in Python the main process gets
            it first, and when that has ended, the processes that it left get SIGTERM.
            With
            .Li mixed ,
            the main process alone gets the signal; the processes that it leaves when it ends are killed.
            With either, every process that is still there after
            .Li stop_timeout
            gets SIGKILL, and the task has ended only when none is left.
            So a stop may take up to
            .Li stop_timeout
            where a child ignores SIGTERM.
            The answer of
            .Xr zmsvcctl 1
            and the history name each of these processes, with the signal that asked it and whether it was
            killed.
            Without control groups the keeper finds them by descent, session and a mark in their environment.
            """,
        in_place=EVERY_TYPE,
    )
    notify_access: NotifyAccess = option(
        choice(NotifyAccess, "does not say who may notify"),
        NotifyAccess.MAIN,
        summary="The processes of the task that may speak for it by sd_notify.",
        manual="""
            .Li main
            is the main process,
            .Li exec
            the same, since
            .Xr zmsvcd 8
            runs no other commands for a task, and
            .Li all
            every process that is descended from the main one.
            A result that
            .Xr zmsvcctl 1 update
            reports is accepted from every process of the task.
            MAINPID= names another process of the same task as the main one, whose end is from then on the end
            of the task; a process of another task is refused.
            So nginx and gunicorn replace their master on SIGUSR2 when the new one, or a script, says MAINPID=
            with
            .Li all .
            When the new main process ends before its parent does, the parent is the main process again.
            """,
        in_place=EVERY_TYPE,
    )
    stop_signal: str = option(
        SIGNAL,
        "SIGTERM",
        summary="The signal that asks the main process to end.",
        manual="""
            With
            .Li control-group
            every process of a Command gets it.
            nginx and php-fpm finish what they do on QUIT, PostgreSQL ends its sessions on INT.
            A Thread task is asked in another way: the option has no effect on it.
            """,
        # A Process installs a handler for the signal when it starts; the supervisor sends it to a Command.
        in_place=(ServiceType.COMMAND,),
        protocol=1,
    )
    reload_signal: str = option(
        SIGNAL,
        "",
        summary="The signal that has the main process read its configuration again.",
        manual="""
            .Ql zmsvcctl reload TASK
            sends it.
            As with Type=notify-reload in
            .Xr systemd.service 5 ,
            a task with
            .Li <notify>reload</notify>
            then says RELOADING=1 with MONOTONIC_USEC, and READY=1 when it has reloaded;
            .Nm zmsvcctl
            waits for that, for as long as
            .Li start_timeout
            allows, and meanwhile the
            .Li watchdog
            rests.
            Without it, the order is done when the signal is on its way.
            Of a Process it calls
            .Fn on_reload ,
            see
            .Xr zmsvc-task 7 .
            A Process without that method needs a handler for the signal, since otherwise most signals end it.
            """,
        default_words="none; HUP with <notify>reload</notify>",
        types=(ServiceType.PROCESS, ServiceType.COMMAND),
        otherwise="which shares its process with other tasks",
        # A Process installs a handler for the signal when it starts.
        in_place=(ServiceType.COMMAND,),
    )
    reload_command: tuple[str, ...] = option(
        WORDS,
        (),
        summary="The program that has the task read its configuration again, in place of a signal.",
        manual="""
            .Ql zmsvcctl reload TASK
            runs it beside the task: as the user of the task, in its working directory and control group, with
            its environment and the variable MAINPID.
            The order is done when the program has ended.
            An exit status other than 0 is a failure of the order and not of the task.
            After
            .Li start_timeout
            the program is killed, and meanwhile the
            .Li watchdog
            of the task rests.
            No variable is replaced in the arguments, but
            .Ql /bin/sh -c 'kill -USR1 $MAINPID'
            does that.
            """,
        types=(ServiceType.PROCESS, ServiceType.COMMAND),
        otherwise="which shares its process with other tasks",
        in_place=(ServiceType.PROCESS, ServiceType.COMMAND),
    )
    success_exit_status: tuple[int | str, ...] = option(
        Several(value=EXIT_STATUS, separated=True),
        (),
        summary="Exit statuses and signals that are a clean end of the main process, besides status 0.",
        manual="""
            As SuccessExitStatus= in
            .Xr systemd.service 5 ,
            without its names of statuses and with no signal that is clean by itself.
            A number is an exit status and never a signal:
            .Li <success_exit_status>3 75 SIGKILL</success_exit_status> .
            After a clean end the rules of
            .Li <on_exit>
            act and those of
            .Li <on_fail>
            do not, and its reason is
            .Li exited .
            A task that misses its watchdog, that the kernel kills when memory runs out, that cannot be
            launched, or that ends before it is ready has failed all the same.
            An exception ends a task in Python with status 1.
            """,
        in_place=EVERY_TYPE,
    )
    after: tuple[str, ...] = option(
        Several(value=TASK, separated=True),
        (),
        summary="Tasks of the same transaction after which this one starts and before which it stops.",
        manual="""
            As After= in
            .Xr systemd.unit 5 :
            if one of these tasks is being started, or is to be started again after a failure, the start of
            this task waits until it is ready.
            A task that is not being started is not waited for, and one that fails for good or is stopped is
            not waited for any longer.
            A stop goes the other way round: if this task and one of these are being stopped, the other one is
            asked to end when this one has ended.
            So the stop of a transaction takes the sum of the stop timeouts along a chain at most; give
            TimeoutStopSec= of the unit as much.
            Meanwhile
            .Xr zmsvcctl 1
            .Li status
            shows
            .Li start-after
            or
            .Li stop-after
            and the tasks that are waited for.
            The order holds for orders, rules, restarts, reloads, and starts of the context; tasks that a
            reload removes are asked to end at once.
            .Li start_timeout
            counts from the fork, as always.
            A ring is a fault of the file.
            """,
        in_place=EVERY_TYPE,
    )
    requires: tuple[str, ...] = option(
        Several(value=TASK, separated=True),
        (),
        summary="Tasks of the same transaction without which this one does not start.",
        manual="""
            As Requires= and After= in
            .Xr systemd.unit 5
            together: a start of this task, by whatever, starts these tasks as well, and waits until each of
            them is ready.
            If one fails to start and no rule starts it again, this task is not started; its status says so,
            it has not failed, and none of its rules fires.
            A rule starts no task that an operator has stopped, so this task is not started then either.
            A required task that has ended well since the transaction was started has done its work: it is
            not started again.
            .Pp
            An order that stops or restarts a required task does the same to this one.
            A required task that fails or ends by itself later, or that a rule stops or restarts, does not
            affect this one, which runs on; a rule of the required task such as
            .Li <on_fail>
            with the action restart and this task in
            .Li <call>
            restarts it, too.
            """,
        in_place=EVERY_TYPE,
    )
    placement: Placement | None = option(
        PLACEMENT,
        None,
        summary="The other hosts of a cluster on which the task may run.",
        default_words="the task runs on the host of the context",
        manual="""
            The names are those of
            .Li <hosts> .
            The task runs on the first
            .Li host
            that is there and takes tasks; without any
            .Li host ,
            it runs on that one of
            .Li <hosts>
            which has the fewest tasks of the context.
            It never shares a host with the tasks in
            .Li apart ,
            and always has the host of those in
            .Li with ,
            whichever of them starts first; so a task runs at one time and on one host only.
            Replicas that keep
            .Li apart
            from their own ID run on a host each.
            .Bd -literal
            <placement>
              <host>h2</host><host>h3</host>
              <apart>ts_2</apart>
            </placement>
            .Ed
            .Pp
            A task for which no host is there waits
            .Pq Li unplaced
            and starts when one joins; its
            .Li start_timeout
            begins then.
            When its host is lost, and the cluster has made certain that it is off, the task has failed
            (reason
            .Li lost ) ,
            and its rules of
            .Li <on_fail>
            act: a restart takes place on another host.
            A task that runs stays where it is until then, or until
            .Ql zmsvcctl cluster drain
            moves it.
            Files, services, programs and users that the task needs have to be on each host.
            .Pp
            Such a task has no
            .Li <listen> ,
            .Li <file_descriptor_store_max>
            or
            .Li <memory_restart> ,
            and is a Process or a Command.
            """,
    )
    important: bool | None = option(
        YES_NO,
        None,
        summary="The task has to be active again after any single failure.",
        default_words="yes for all tasks that start with their transaction, if no task says yes",
        manual=r"""
            .Ql zmsvcctl check \-\-prove
            tries each failure and finds those after which an important task stays down.
            Nothing else depends on this option.
            .Li no
            says that the task may stay down.
            """,
        in_place=EVERY_TYPE,
    )
    failure_action: FailureAction = option(
        choice(FailureAction, "is not a failure action"),
        FailureAction.NONE,
        summary="The action when the task has failed for good.",
        manual=r"""
            A task has failed for good if it has failed, and none of the rules that fire then starts it again;
            so has a task that its start limit keeps from being started.
            .Li stop
            stops its transaction, as
            .Ql zmsvcctl stop \-\-transaction
            does.
            .Li exit
            stops all tasks, and
            .Xr zmsvcd 8
            ends with status 9: systemd does not restart the unit, the unit has failed, and its OnFailure=
            acts.
            The next start of the context resumes the transactions.
            The rules of the failure fire first; but a task that they start is stopped with all others, so a
            person is notified by OnFailure= here.
            Nothing follows where no rules fire: while the transaction or the context is being stopped, and
            if an operator has stopped the task.
            """,
        in_place=EVERY_TYPE,
    )
    log_level: int | None = option(
        LOG_LEVEL,
        None,
        summary="The level up to which the task logs.",
        default_words="info",
        manual="""
            As in LogLevelMax= of
            .Xr systemd.exec 5 ;
            Python's
            .Li error
            and
            .Li critical
            are known as well.
            The option sets the level of Python's root logger; a logger with a level of its own keeps that.
            A Command itself chooses what it prints.
            """,
        types=IN_PYTHON,
        otherwise="which chooses itself what it prints",
        per_process=True,
        protocol=1,
    )
    no_new_privileges: bool = option(
        YES_NO,
        False,
        summary=(
            "The programs that the task executes gain no privileges by setuid bits or file capabilities."
        ),
        default_words="yes for a task with <user>, else no",
        manual="""
            See
            .Li PR_SET_NO_NEW_PRIVS
            in
            .Xr prctl 2 .
            The unit says NoNewPrivileges=yes, so under it the answer is yes for every task.
            """,
        per_process=True,
        protocol=1,
    )
    environment: Mapping[str, str] = option(
        Variables(),
        factory=dict,
        summary="Variables of the environment of the task.",
        manual="""
            Messages, status and logs leave them out.
            The configuration is published on the bus, so a password belongs here, or into a file that the
            task reads; the context file may then be of mode 0640 and group zmsvc.
            .Xr zmsvcd 8
            keeps a copy of the context file in its state file, so each task that runs as the daemon's user
            can read the variables of all others; a secret that they must not read belongs into a file of
            another
            .Li <user> .
            A secret of the unit
            .Pq Li LoadCredential= , see Xr systemd.exec 5
            is in the directory
            .Ev CREDENTIALS_DIRECTORY
            for each task without another
            .Li <user> .
            A task in Python is forked from an interpreter that runs already.
            TZ, PYTHONPATH, LANG and LC_* have their effect all the same; a module that zmsvc has imported
            before stays.
            Variables that the interpreter, libc or the dynamic linker reads only when it begins
            (PYTHONWARNINGS, PYTHONHASHSEED, LD_LIBRARY_PATH and the like) have no effect unless the task is
            .Li fresh ;
            .Li zmsvcctl check
            warns of them.
            .Pp
            A Command in Python prints in blocks of 8 kB, since its output is not a terminal, and loses the
            last one when it is killed:
            .Li <PYTHONUNBUFFERED>1</PYTHONUNBUFFERED>
            has each line written at once.
            zmsvc does not set it for all Commands: it costs a program that prints much a system call a line,
            and the programs that this one runs inherit it.
            """,
    )
    environment_file: tuple[str, ...] = option(
        Several(value=OPTIONAL_FILE),
        (),
        summary="A file with variables of the environment of the task.",
        manual=r"""
            As EnvironmentFile= in
            .Xr systemd.exec 5 ,
            but without wildcards: NAME=value on each line, comments after # or ;, and values in quotes or
            not.
            A variable of a file overrides that of
            .Li <environment> ,
            and a later file overrides an earlier one.
            The task reads the files at each start, before it changes its user; so a file of root with mode
            0600 serves where the daemon is root.
            A file that another user could replace, such as one in the home directory of the user of the
            task, is read as that user instead: no link in its place leads to a secret of root.
            Thread tasks of a transaction share a process, which reads the files of the first one when it
            starts.
            No message, status, log or state file has their values.
            If a file is missing or cannot be read, or a line is wrong, this task alone fails (reason
            .Li cannot-launch ) ,
            and its status names the file and the line, but nothing of the text.
            A file after a
            .Li \-
            may be missing.
            .Ql zmsvcctl check
            warns of the files that it cannot read.
            The variables act on a task in Python like those of
            .Li <environment> .
            """,
        per_process=True,
        protocol=4,
    )
    pass_environment: tuple[str, ...] = option(
        Several(value=VARIABLE, separated=True),
        (),
        summary="Variables of the daemon that the task inherits even if it runs as another user.",
        manual="""
            As PassEnvironment= in
            .Xr systemd.exec 5 .
            A task inherits all variables of the daemon but those of
            .Xr sd_notify 3
            and the like, except a task with
            .Li <user>
            when a person has started
            .Xr zmsvcd 8
            (see there).
            A variable that the daemon does not have is left out;
            .Li <environment>
            and
            .Li <environment_file>
            override those that are inherited.
            """,
        per_process=True,
        protocol=4,
    )
    fresh: bool = option(
        YES_NO,
        False,
        summary="The task begins in a new interpreter, where all of its environment has its effect.",
        manual="""
            A start then costs 0.16 s of CPU time, where a fork costs a few milliseconds, and the task 13 MB
            of memory, where a fork has about 3 MB of its own (measured with Python 3.11).
            """,
        types=(ServiceType.PROCESS,),
        protocol=1,
    )
    python: str | None = option(
        PATH,
        None,
        summary="The interpreter in which the task runs, such as that of a virtual environment.",
        default_words="the interpreter of zmsvcd",
        manual=r"""
            The fork of the task executes it, so the task is also
            .Li fresh .
            zmsvc has to be installed for this interpreter, in this release or in another one that has this
            option.
            If the interpreter cannot be executed, or cannot import
            .Li zmsvc.task ,
            this task alone fails (reason
            .Li cannot-launch ) .
            .Ql zmsvcctl check
            warns of an interpreter that is missing on this machine; it does not run it.
            """,
        types=(ServiceType.PROCESS,),
        protocol=5,
    )
    rlimits: Mapping[str, int] = option(
        Fields(names=RLIMITS, value=SIZE),
        factory=dict,
        name="limits",
        summary="Resource limits of the task, by the names of setrlimit(2) in lower case, without RLIMIT_.",
        manual="""
            .Li <limits><nofile>1024</nofile></limits>
            lets the task have 1024 open files.
            """,
        per_process=True,
    )
    memory_max: int | str = option(
        MEMORY,
        -1,
        summary="The memory that all processes of the task may use together.",
        manual="""
            As MemoryMax= in
            .Xr systemd.resource-control 5 :
            if the kernel cannot reclaim enough, it kills a process of the task (reason
            .Li oom-kill ) .
            .Pp
            This option and the following ones are limits of the control group of the task, with systemd's
            units.
            The keeper writes them before the task runs.
            They need a control group for each task, so
            .Xr zmsvcd 8
            has to run in a unit with
            .Li Delegate=yes ,
            and the machine needs the controller
            .Pq memory, cpu, pids or io
            in cgroup v2.
            A user's own service manager usually has no io controller.
            A task whose limit cannot be set starts without it and logs a warning;
            .Ql zmsvcctl check
            warns of a controller that the machine lacks.
            Thread tasks of a transaction share a process and so one control group: the limits are those of
            the task that starts first.
            """,
        per_process=True,
        protocol=5,
    )
    memory_high: int | str = option(
        MEMORY,
        -1,
        summary="The memory of the task above which the kernel slows it down and reclaims its memory.",
        manual="""
            As MemoryHigh= in
            .Xr systemd.resource-control 5 .
            """,
        per_process=True,
        protocol=5,
    )
    cpu_quota: int | None = option(
        CPU_QUOTA,
        None,
        summary="The CPU time that all processes of the task may use together.",
        default_words="no limit",
        manual="""
            As CPUQuota= in
            .Xr systemd.resource-control 5 :
            200% is the time of two CPUs.
            """,
        per_process=True,
        protocol=5,
    )
    cpu_weight: int | None = option(
        CPU_WEIGHT,
        None,
        summary="The weight by which the task shares the CPUs with the other tasks of its context.",
        default_words="100",
        manual="""
            As CPUWeight= in
            .Xr systemd.resource-control 5 :
            .Li idle
            lets the task run only when no other task of the context needs the CPU.
            """,
        per_process=True,
        protocol=5,
    )
    tasks_max: int | str = option(
        TASKS,
        -1,
        summary="The number of processes and threads that the task may have.",
        manual="""
            As TasksMax= in
            .Xr systemd.resource-control 5 .
            A Python task that is connected to the bus has three threads.
            """,
        per_process=True,
        protocol=5,
    )
    io_weight: int | None = option(
        whole_number(1, 10_000),
        None,
        summary=(
            "The weight by which the task shares the bandwidth of block devices with the other tasks of its "
            "context."
        ),
        default_words="100",
        manual="""
            As IOWeight= in
            .Xr systemd.resource-control 5 .
            It has an effect where the kernel has the controller iocost or the I/O scheduler is BFQ.
            """,
        per_process=True,
        protocol=5,
    )


OPTIONS = (*options_of(Limits), *options_of(ServiceOptions))


def types_of(option: Option) -> str:
    """Return the types of service that may have an option, as a phrase."""
    return "a task in Python" if set(option.types) == {*IN_PYTHON} else f"a {any_of(option.types)}"


@functools.cache
def _in_place(holder: type, kind: ServiceType) -> Mapping[str, Any]:
    """Return the defaults of the options that a reload changes in place, by field."""
    return {each.field: each.default for each in options_of(holder) if kind in each.in_place}


Holder = TypeVar("Holder", bound=Limits | ServiceOptions)


def without_in_place(holder: Holder, kind: ServiceType) -> Holder:
    """Return a copy of a dataclass with options. In the copy, each option that a reload changes in place for
    this type of service has its default. If the copies of an old and a new definition are equal, the process
    may go on.
    """
    holder_type: type = type(holder)
    return replace(holder, **_in_place(holder_type, kind))
