"""The table of zmsvcctl's verbs and their arguments. The parser, the sections VERBS and OPTIONS of
zmsvcctl(1), and the completion of bash, zsh and fish are made from it (`make manual completion`).

core/access.py says who may give which order, and over which socket. CONTRIBUTING.md says how to add a verb.
"""

from __future__ import annotations

import argparse

TYPE_CHECKING = False  # As in client.py: an import of typing is too slow.
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Argument:
    """One argument of a verb, as argparse takes it.

    `completes` is what a shell offers for its value: `contexts`, `transactions`, `tasks`, `users`,
    `directories`, `files *.xml`, `context-files` (files or contexts), or the words themselves. The default is
    `choices`. `manual` is its text in the manual, with **bold** and *italic*
    words; the default is `help`.
    """

    def __init__(self, *flags: str, completes: str = "", manual: str = "", **settings: Any) -> None:
        self.flags = flags
        self.settings = settings
        self.completes = completes or " ".join(settings.get("choices", ()))
        self.manual = manual or f"{settings['help'][:1].upper()}{settings['help'][1:]}."

    @property
    def positional(self) -> bool:
        return not self.flags[0].startswith("-")

    @property
    def takes_value(self) -> bool:
        return self.settings.get("action") != "store_true"

    def add_to(self, parser: argparse.ArgumentParser, **more: Any) -> None:
        parser.add_argument(*self.flags, **{**self.settings, **more})


class VerbEntry:
    """One verb: its function as MODULE.FUNCTION in this room, a line about it, and its arguments."""

    def __init__(
        self,
        name: str,
        function: str,
        about: str,
        *options: Argument,
        group: str,
        manual: str = "",
        own_arguments: bool = False,
        json_lines: bool = False,
        waits: bool = False,
        pages: bool = False,
        local: str = "",
    ) -> None:
        self.name = name
        self.function = function
        self.about = about
        self.options = options
        self.group = group
        """Its subsection in the manual."""
        self.manual = manual or f"{about[:1].upper()}{about[1:]}."
        self.own_arguments = own_arguments
        """True if its module has `add_arguments(parser)`."""
        self.json_lines = json_lines
        """True if --json prints a line for each entry. Then an error is not printed as JSON, because it would
        be taken for an entry.
        """
        self.waits = waits
        """True if it waits for tasks, unless --no-block is given."""
        self.pages = pages
        """True if its answer goes through the pager."""
        self.local = local
        """Why it is refused with -H; empty if it is not."""
        self._without = {*(() if waits else ("--no-block",)), *(() if pages else ("--no-pager",))}

    def understands(self, option: Argument) -> bool:
        """Return False for an option that every verb accepts and that means nothing to this one. The help of
        the verb does not show it.
        """
        return not self._without.intersection(option.flags)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return int(text)


def _positive(text: str) -> int:
    if not (number := _number(text)):
        raise argparse.ArgumentTypeError("0 is too few")
    return number


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def _span(text: str) -> float:
    # Imported here for start-up time.
    from zmsvc.core.values import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _step(verb: str) -> Callable[[str], tuple[str, str]]:
    """Return a function that notes an event of `simulate`: the order of these options matters."""
    return lambda text: (verb, text)


GLOBAL = (
    Argument(
        "-c",
        "--context",
        metavar="NAME",
        completes="contexts",
        help="the context; the default is the only one that runs",
        manual="The context, by its name or its file. The default is the only one that runs.",
    ),
    Argument(
        "--json",
        action="store_true",
        help="answer as JSON",
        manual="Answer as JSON: one document on one line, which *zmsvcctl.schema.json* among the documents "
        "describes for each verb. **logs**, **events** and **watch** print a document a line. A verb that "
        "fails answers with *error* and *code* beside what it has done; those three then print nothing.",
    ),
    Argument(
        "-H",
        "--host",
        action="append",
        metavar="HOST",
        help="run this on another machine, over ssh: [USER@]HOST[:PORT], or several with commas",
        manual="Run the same command on another machine, over **ssh**(1). *HOST* is *[USER@]HOST[:PORT]*, or "
        "several of these with commas; it may be given again. See SEVERAL MACHINES.",
    ),
    Argument(
        "--host-timeout",
        type=_seconds,
        metavar="SECONDS",
        help="with -H: wait no longer for a host; 0 waits as long as it takes",
        manual="With **-H**: end the connection to a host that has not answered after so long; its exit "
        "status is 124. This time includes the connecting, and **--timeout** is the limit of the wait on the "
        "host itself. With 0 there is no limit. The default with **--timeout** is 30 s more than that. "
        "Without it the default is 30 s, but 10 minutes for a verb that waits for tasks, an hour for "
        "**restart --one-by-one**, and no limit for **-f** and **watch**.",
    ),
    Argument("--no-block", action="store_true", help="do not wait until an order is carried out"),
    Argument("--no-pager", action="store_true", help="do not use a pager"),
    Argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="wait no longer, and end with 124; 0 waits as long as it takes",
        manual="Wait no longer. What was ordered may go on. Without it, or with 0, an order takes as long as "
        "the limits of its tasks allow.",
    ),
)
"""Options of every verb. They may also stand before the verb."""

HELP = Argument(
    "-h",
    "--help",
    action="store_true",
    help="show the options and end",
    manual="Show all verbs, or the arguments of the verb before it.",
)
VERSION = Argument("--version", action="store_true", help="show the version and end")
"""argparse adds these two by itself."""

TRANSACTION = Argument("--transaction", metavar="ID", completes="transactions", help="the transaction")
TASK = Argument(
    "--task",
    action="append",
    default=[],
    metavar="TASK_ID",
    completes="tasks",
    help="a task; may be given again",
)
TASKS = Argument("tasks", nargs="*", default=[], metavar="TASK_ID", completes="tasks", help="a task")
SOME_TASKS = Argument("tasks", nargs="+", metavar="TASK_ID", completes="tasks", help="a task")
SELECTION = (TRANSACTION, TASK, TASKS)
NO_TRIGGERS = Argument("--no-triggers", action="store_true", help="fire no rules")
FOLLOW = Argument(
    "-f",
    "--follow",
    action="store_true",
    help="go on with new entries",
    manual="Go on with new entries, until Ctrl-C.",
)
LINES = Argument(
    "-n",
    "--lines",
    type=_number,
    metavar="N",
    help="show the last N only",
    manual="Show the last *N* only: for **status** lines, otherwise entries, which may have several lines.",
)
NOW = (
    "**enable**: start the tasks as well. **disable**: stop those that run. **keys revoke**: end the "
    "connections that are open, too; without a *CLIENT* do nothing else."
)
ALL = (
    "**signal**: to every process of the tasks, not to the main ones alone. **quarantine drop**: all "
    "messages."
)
QUIET = Argument(
    "-q",
    "--quiet",
    action="store_true",
    help="print nothing; the exit status is the answer",
    manual="**is-active**, **is-failed**, **is-enabled**: print nothing. The exit status is the answer.",
)
SINCE = Argument(
    "--since",
    metavar="TIME",
    completes="today yesterday",
    help="show only newer entries; a time such as '-2h', 'yesterday' or '2026-11-29 10:00'",
    manual="Only newer entries. A time as in **systemd.time**(7), such as **2026-11-29 10:00**, "
    "**10:00**, **yesterday**, **-2h** or **5min ago**.",
)
AT = (
    "**status**: show the tasks at this time, which is as with **--since**. **simulate**: the time after the "
    "start, such as **5s**, at which the events that follow happen. Without it an event happens as soon as "
    "no process is about to be ready or to end. A back-off is not waited for: a task that waits in one does "
    "not run, and **--at** names a time after it."
)
OUTPUT = (
    "**logs**: the format of the log, as **journalctl**(1) has them. **report**: the file; the default is "
    "*zmsvc-report-NAME-TIME.tar.gz* in the current directory."
)
UNTIL = (
    "**logs**: only older entries. **replay**: end at this time, and show the tasks then. The time is as "
    "with **--since**."
)
LEVELS = "emerg alert crit err warning notice info debug"
ENDPOINT = Argument(
    "--endpoint",
    metavar="URL",
    help="the endpoint of a context on another machine; -c names the context whose keys are used",
    manual="**watch**, **send**: the endpoint of a context on another machine, its frontend to subscribe or "
    "its backend to publish. The keys are those of the context that **-c** names, see **keys join**.",
)
KEYS = Argument(
    "--keys",
    metavar="DIR",
    completes="directories",
    help="with --endpoint: the CURVE keys to connect with, if they are not the context's",
    manual="With **--endpoint**: the directory of the keys, if they are not those of a context.",
)

ORDERS = "Orders"
STATE = "State and history"
MESSAGES = "Messages"
FILES = "Context files"
INSTALLATION = "Installation"

VERBS = (
    VerbEntry(
        "start",
        "verbs.orders.order",
        "start tasks; without an ID in a new transaction, whose ID is printed",
        *SELECTION,
        group=ORDERS,
        waits=True,
        manual="""\
Start the named tasks, or all entry tasks of a transaction. Without an *ID* a new transaction is opened,
and its ID is printed, alone on a line; but tasks that are named without an *ID* are started in the only
transaction that is open. A transaction that is opened beside others is announced on stderr: it is a second
copy of every task. If another client's restart or stop overtakes the start before the task is ready, the
answer says so and names that order, and the exit status is 1.""",
    ),
    VerbEntry(
        "stop",
        "verbs.orders.order",
        "stop tasks with all that they started, or whole transactions",
        *SELECTION,
        NO_TRIGGERS,
        group=ORDERS,
        waits=True,
        manual="""\
Stop the named tasks, with every process that they have started; without tasks a whole transaction, and
without an *ID* all of them. The answer names each task that had to be killed because it did not end, and
every process beside the main one that was asked to end, or killed; see *kill_mode* in **zmsvc.xml**(5).
The stop of a task fires its *on_exit* rules, except one that would start that same task again; the stop of
a whole transaction fires none. A named task is held: no rule starts it until an operator starts or
restarts it, also after **exit** and after a reboot. A whole transaction that was stopped is opened by a
start or restart that names it; then no task of it is held.

A start that comes before the task has ended wins: the stop says “started again meanwhile by ...” and ends
with 1.""",
    ),
    VerbEntry(
        "restart",
        "verbs.orders.restart",
        "stop tasks and start them again",
        *SELECTION,
        NO_TRIGGERS,
        Argument(
            "--one-by-one",
            action="store_true",
            help="restart a task when the one before it is ready, and stop at the first that is not",
            manual="**restart**: restart a task when the one before it is ready, and stop at the first that "
            "is not.",
        ),
        group=ORDERS,
        waits=True,
        manual="""\
Stop and start again. The restart of one task fires its *on_exit* rules as its stop does.

With **--one-by-one** the named tasks, or without one all that run, are restarted one after the other: in
their order, or that of the file, in each open transaction or the named one. Each has to be ready before the
next one is stopped. A task that requires another one is restarted together with that one, and only once. At
the first that does not come back **zmsvcctl** ends with its exit status (1, or 124 after **--timeout**, which
is for each task), and names those that were not restarted.""",
    ),
    VerbEntry(
        "signal",
        "verbs.orders.send_signal",
        "send a signal to tasks",
        TRANSACTION,
        Argument(
            "--all",
            action="store_true",
            help="to every process of the tasks, not to the main ones alone",
            manual=ALL,
        ),
        Argument(
            "signal",
            metavar="SIGNAL",
            completes="HUP INT QUIT USR1 USR2 TERM KILL CONT STOP WINCH",
            help="the signal: HUP, SIGHUP or 1",
        ),
        SOME_TASKS,
        group=ORDERS,
        manual="""\
Send a signal (**HUP**, **SIGHUP** or **1**) to the main process of each named task that runs, in all open
transactions or in the named one. A signal differs from a stop: a task that the signal ends has failed with
the reason *signal*, and its *on_fail* rules fire; if it then exits with status 0, the reason is *exited*.
The order is refused, and nothing is sent, if one of the tasks does not run, or is a Thread, which shares its
process with other tasks. The history has the signal and the user. The answer comes when the signal is on its
way; it does not say what the task made of it. A task that **STOP** has suspended cannot end itself: send
**CONT** before a stop, or the stop kills it after its *stop_timeout*. If it has a *watchdog*, it misses
that.""",
    ),
    VerbEntry(
        "status",
        "verbs.status.status",
        "show the context, its transactions and tasks",
        *SELECTION,
        LINES,
        Argument(
            "--at",
            metavar="TIME",
            completes="today yesterday",
            help="show them at this time, from the record",
            manual=AT,
        ),
        group=STATE,
        pages=True,
        manual="""\
Show the context with its transactions and tasks as a tree: state and sub-state, PID, the time since when,
memory, restarts and the last exit. If the context file, or a file that adds tasks to it, has changed and is
not reloaded, it says so. Where supervisor, keeper or zygote (the process that tasks are forked
from) run another release than the installed one, it shows that release and the command that renews them.
Of failed tasks, and of named ones, it also shows the last lines of the log (5, or *N*). Memory is each
task's own and its share of what it shares with others; with more than 64 processes it is the resident
memory, marked **rss**. Of a context with **<hosts>** it also shows these hosts (see **cluster**), and on
which of them a task runs; a task there has no figure of memory.

Of a context that does not run it shows the state file, says so on stderr, and ends with 3. A task that was
not at rest is *dead* now, with its last state; with **--json** that is in *last*.

With **--at** it shows what the record has of that time: the context needs **<record>** in its file, see
**zmsvc.xml**(5). The PIDs are those of that time. Root and the daemon's user can read the record.

A task that waits for a rule, or has ended as it should, does not count against the exit status, unless it
is named. A stopped transaction does not count either, as long as another one goes on.""",
    ),
    VerbEntry(
        "top",
        "verbs.top.top",
        "show what tasks use of the machine, again and again",
        *SELECTION,
        Argument(
            "--sort",
            choices=("cpu", "rss", "pid", "id", "state", "missed", "restarts"),
            default="cpu",
            help="the column to sort by",
        ),
        Argument(
            "--interval", type=_seconds, default=2.0, metavar="SECONDS", help="the time between two tables"
        ),
        Argument("--once", action="store_true", help="print one table, as without a terminal"),
        group=STATE,
        manual="""\
Show what tasks use of the machine, as a table that is drawn again and again until **q** or Ctrl-C; without
a terminal, on a terminal of the type *dumb*, or with **--once**, print it once.

On a terminal, keys work on the table: the arrow keys select a task, **/** filters, **P**, **M** and others
sort, **t** shows a tree by transaction or by cause, **l** the log of the selected task, and **w** why it is
in its state. **s** starts it, **x** stops it, **r** restarts it, and **k** sends it a signal; zmsvcctl asks
before it sends an order that ends a process, and shows the outcome of orders at the bottom. **?** lists all
keys. Failed tasks are bold and have a mark of their own, also without colors. CPU and memory are those of the
main process; with **--once** the number of its other processes is shown, too.""",
    ),
    VerbEntry(
        "list",
        "verbs.status.contexts",
        "show contexts, known and running",
        group=STATE,
        manual="""\
Show contexts: those that have a file in the directory of context files, that run, or that have run and
left a state file.""",
    ),
    VerbEntry(
        "is-active",
        "verbs.state_queries.is_active",
        "print the states of tasks, and end with 0 if one is active",
        *SELECTION,
        QUIET,
        group=STATE,
        manual="""\
Print the state of each named task on a line of its own (active, inactive, activating, deactivating, failed),
or the state of the named transaction, or without both that of the context. The exit status is 0 if at least
one of them is active, else 3, as with **systemctl**. An unknown task is printed as inactive, and stderr says
that there is none; the exit status is 4 if all named tasks are unknown. A task that several open transactions
have is printed once for each. Of a context that does not run the states are read from its state file, and
stderr says so.""",
    ),
    VerbEntry(
        "is-failed",
        "verbs.state_queries.is_failed",
        "print the states of tasks, and end with 0 if one has failed",
        *SELECTION,
        QUIET,
        group=STATE,
        manual="""\
Print the states as **is-active** does. The exit status is 0 if at least one of them is failed, else 1, or 4
if all named tasks are unknown, as with **systemctl**.""",
    ),
    VerbEntry(
        "is-enabled",
        "verbs.state_queries.is_enabled",
        "print whether tasks start with a transaction, and end with 0 if one does",
        SOME_TASKS,
        QUIET,
        group=STATE,
        manual="""\
Print for each named task whether it starts with a transaction: *enabled*; *disabled* after **disable**; or
*static* if its *state* in the file is not of the type *on_start*, so that rules and orders alone start it.
The exit status is 0 if at least one of them is enabled or static, else 1, or 4 if all named tasks are unknown
(*not-found*), as with **systemctl**.""",
    ),
    VerbEntry(
        "show",
        "verbs.show.show",
        "print the properties of tasks or of the context, as NAME=VALUE",
        TRANSACTION,
        Argument(
            "-p",
            "--property",
            action="append",
            default=[],
            metavar="NAME",
            completes="ActiveState SubState MainPID NRestarts StatusText Result ExecMainStatus ExitReason",
            help="only these properties; may be given again, or have several with commas",
            manual="**show**: only these properties. May be given again, or have several with commas.",
        ),
        Argument(
            "--value",
            action="store_true",
            help="print the values without the names",
            manual="**show**: print the values without the names.",
        ),
        TASKS,
        group=STATE,
        manual="""\
Print the properties of the named tasks, or without one those of the context, as lines of *NAME*=*VALUE*, like
**systemctl show**. Tasks are separated by an empty line; a task that several open transactions have is
printed once for each. The values are those of **status --json**. Names that systemd has too mean the same:
ActiveState, SubState, MainPID, NRestarts, StatusText, StateChangeTimestamp, Result, ExecMainCode,
ExecMainStatus, ExecMainExitTimestamp, UnitFileState, NeedDaemonReload, ControlGroup. **-p** prints them in
the order in which it names them. What is unknown is empty; MainPID is 0 if there is none. An unknown *NAME*
is an error, and the exit status 2. Of a context that does not run the state file is shown, and stderr says
so.""",
    ),
    VerbEntry(
        "why",
        "verbs.why.why",
        "say why tasks are in their states, and what to do",
        TRANSACTION,
        SOME_TASKS,
        group=STATE,
        pages=True,
        manual="""\
Explain the state of each named task. Below its state are the reasons why it does not run, with the time at
which they end: a back-off, a start limit, tasks that it comes after, an operator's **stop** or **disable**, a
stopped transaction. *Because* has the chain of causes, newest first: the end of the task, the rule that
stopped or started it, the task that fired the rule, with its exit and its last update, and so on to the user
who gave an order, the start of the context, or a message on the bus. *Rules* has the rules that would start
it, and the states of the tasks that have them. Then come the last lines of the log of the task that failed,
and the commands that help. The chain is made of the history; if that does not reach back far enough, it says
so. Of a context that does not run the state file is read, and stderr says so.""",
    ),
    VerbEntry(
        "stack",
        "verbs.stack.stack",
        "show where the threads of a Python task are",
        TRANSACTION,
        SOME_TASKS,
        group=STATE,
        manual="""\
Have each named task write the stacks of all its threads to its log, and print them. This also works while the
task hangs, and does not disturb it. It is for tasks of the type Process that run: a Command is not a Python
task, and a Thread shares its process and its log with others.""",
    ),
    VerbEntry(
        "wait",
        "verbs.state_queries.wait",
        "wait until tasks are active, inactive or failed",
        TRANSACTION,
        Argument(
            "--for",
            dest="state",
            required=True,
            choices=("active", "inactive", "failed"),
            help="the state to wait for",
            manual="**wait**: the state to wait for.",
        ),
        SOME_TASKS,
        group=STATE,
        manual="""\
Wait until all named tasks are in a state at the same time, and end with 0; after **--timeout** with 124, and
without it wait as long as it takes. Without an *ID* a task may be of any open transaction; while none is
open, it is inactive. The supervisor answers when the state changes. A state in which the task does not stay
counts only while **status** could show it: a task that a rule restarts at once after a failure is not
*failed* meanwhile. The wait goes on with the next supervisor if this one is replaced. A context that does not
run changes no state: if the state file has another one, the exit status is 5.""",
    ),
    VerbEntry(
        "metrics",
        "verbs.metrics.metrics",
        "print metrics for Prometheus, write them to a file, or serve them",
        TRANSACTION,
        Argument(
            "--openmetrics",
            action="store_true",
            help="print the format OpenMetrics 1.0, not Prometheus's own",
            manual="**metrics**: print the format OpenMetrics 1.0. The default is the text format of "
            "Prometheus, which **promtool** and **node_exporter** read.",
        ),
        Argument(
            "--output",
            metavar="FILE",
            completes="files *",
            help="write to this file, for the textfile collector of node_exporter",
            manual="**metrics**: write to this file, which is replaced as a whole. The textfile collector of "
            "**node_exporter** reads *NAME***.prom**.",
        ),
        Argument(
            "--listen",
            metavar="ADDRESS:PORT|systemd",
            completes="127.0.0.1:9649 systemd",
            help="serve them over HTTP, on a loopback address or on the sockets that systemd has passed",
            manual="**metrics**: serve them over HTTP as */metrics*, on a loopback address or on the sockets "
            "that systemd has passed.",
        ),
        Argument(
            "--allow",
            action="append",
            default=[],
            metavar="USER",
            completes="users",
            help="with --listen: answer programs of this user, too; may be given again",
            manual="**metrics --listen**: answer programs of this user, too. May be given again.",
        ),
        group=STATE,
        manual="""\
Print the metrics of all contexts that run or have a file, or of the named one; the section METRICS lists
them. With **--output** they are written to a file. With **--listen** they are served to programs of root, of
the user of **zmsvcctl** itself and of the users of **--allow**; the kernel tells the user of each connection.
It needs the rights of **status**, and shows no more than that. With the *ID* of a transaction only its gauges
are shown, with the label *transaction*. The units *zmsvc-metrics.timer* (for the textfile collector) and
*zmsvc-exporter.socket* (HTTP on 127.0.0.1:9649, for the user prometheus) are installed and not enabled.""",
    ),
    VerbEntry(
        "logs",
        "verbs.logs.logs",
        "show the log of a context, a transaction or tasks",
        *SELECTION,
        FOLLOW,
        LINES,
        Argument(
            "-o",
            "--output",
            metavar="FORMAT",
            completes="$(journalctl --output=help 2>/dev/null)",
            help="the format, as journalctl has them",
            manual=OUTPUT,
        ),
        SINCE,
        Argument(
            "--until",
            metavar="TIME",
            completes="today yesterday",
            help="show only older entries",
            manual=UNTIL,
        ),
        Argument(
            "-p",
            "--priority",
            metavar="LEVEL",
            completes=LEVELS,
            help="show only entries of this level or worse (err, 3), or of a range (err..info)",
            manual="Only entries of this level or worse, by name (**emerg**, **alert**, **crit**, **err**, "
            "**warning**, **notice**, **info**, **debug**) or number (0 to 7); or of a range: "
            "**err..info**. A line of another program is info, unless it begins with a prefix like "
            "**<3>**, as in **sd-daemon**(3).",
        ),
        Argument(
            "-g",
            "--grep",
            metavar="PATTERN",
            help="show only entries whose text matches this regular expression",
            manual="Only entries whose text matches this regular expression. A pattern without a capital "
            "letter ignores case; with **-n** the newest entry comes first.",
        ),
        Argument(
            "-r",
            "--reverse",
            action="store_true",
            help="show the newest first",
            manual="The newest entry first.",
        ),
        Argument(
            "--show-query",
            action="store_true",
            help="print the command that finds the same, and end",
            manual="Print the command that finds the same, of **journalctl**(1) or, for the file, of "
            "**awk**(1), and end.",
        ),
        group=STATE,
        pages=True,
        json_lines=True,
        manual="""\
Show the log of the selected tasks: by **journalctl**(1) with the right matches, or from the daemon's own
file if the context does not log to the journal. If several tasks of one instance are selected, which
**journalctl** would show alike, each line of the journal has its *TRANSACTION/TASK* before the colon; a
line of the file always has it. The log of a context that does not run is shown as well, and stderr says
where it comes from. A task or a transaction that the context does not have any more is announced on
stderr, and its log shown. The log of a task on another host is there, and stderr says how to show it. For the
file, **-o** knows **cat** and **json**.""",
    ),
    VerbEntry(
        "events",
        "verbs.events.events",
        "show the history of what happened to tasks",
        *SELECTION,
        FOLLOW,
        LINES,
        SINCE,
        Argument(
            "--event",
            action="append",
            default=[],
            metavar="EVENT",
            completes="failed stopped started launching stopping rule rule-refused requested back-off",
            help="only events of this name; may be given again",
            manual="**events**: only events of this name, such as **failed** or **requested**. May be given "
            "again.",
        ),
        Argument(
            "--tree",
            action="store_true",
            help="show each event below the one that has caused it",
            manual="**events**: show each event below the one that has caused it, with its name indented.",
        ),
        group=STATE,
        json_lines=True,
        manual="""\
Show the history of what happened to tasks, and why: the last 1,000 events, or *N*, or all since a *TIME*.
With **--tree** each event is below the one that has caused it: an order, a rule, the end of another task. The
state file keeps the last 100,000. If the context does not run, they are read from the state file, and stderr
says so. With **--json** each event is a line of its own. To remove the history, remove the state file while
the context does not run.""",
    ),
    VerbEntry(
        "watch",
        "verbs.bus.watch",
        "print every message on the bus",
        TRANSACTION,
        Argument(
            "--topic",
            action="append",
            default=[],
            metavar="TOPIC",
            completes="context control monitor process state",
            help="only messages of this topic; may be given again",
        ),
        Argument(
            "--count",
            type=_positive,
            metavar="N",
            help="end after N messages",
            manual="End after *N* messages.",
        ),
        ENDPOINT,
        KEYS,
        group=MESSAGES,
        json_lines=True,
        manual="""\
Print every message on the bus when it comes, each on a line, until Ctrl-C.""",
    ),
    VerbEntry(
        "send",
        "verbs.bus.send",
        "publish a message, and wait until the device has it",
        Argument("topic", metavar="TOPIC", help="the message's topic"),
        Argument(
            "message", nargs="?", metavar="JSON|-", help="the message; - or nothing: from standard input"
        ),
        ENDPOINT,
        KEYS,
        group=MESSAGES,
        manual="""\
Publish a message, and return when the device has it. Without *JSON* it is read from standard input. If the
topic has no subscriber, stderr says so; that is not a failure.""",
    ),
    VerbEntry(
        "publish",
        "verbs.bus.publish",
        "in a program of a task: publish a message of this task",
        Argument("topic", metavar="TOPIC", help="the message's topic"),
        Argument(
            "message", nargs="?", metavar="JSON|-", help="its content; - or nothing: from standard input"
        ),
        group=MESSAGES,
        local="it is for a program of a task",
        manual="""\
Publish a message of the task to which this process belongs, with the standard header around this content,
and return when the device has it. It is for scripts of a Command: it finds the bus and the task in its
environment (see **zmsvc-task**(7)), and sends no request to the supervisor. The message has no number.""",
    ),
    VerbEntry(
        "update",
        "verbs.update.update",
        "in a program of a task: report a result of this task",
        Argument(
            "items",
            nargs="*",
            metavar="KEY=VALUE",
            help="an item of the result; a VALUE that is not JSON is a text",
        ),
        group=MESSAGES,
        local="it is for a program of a task",
        manual="""\
Report a result of the task to which this process belongs, as *update* of a Python task does: the supervisor
publishes it as a **control** message with the action *updated*, and the rules of *on_update* fire. A *VALUE*
that is JSON, such as 20.5, true or {"a": 1}, is that value. Any other is a text, and so is JSON in quotes,
as in **'version="1.10"'**. It is for scripts of a Command: it finds the task in its environment, and needs no
**<notify_access>**. It returns when the supervisor has saved the result.""",
    ),
    VerbEntry(
        "quarantine",
        "verbs.quarantine.run",
        "list and show messages that tasks could not handle, send them again, or drop them",
        Argument(
            "--transaction",
            metavar="ID",
            completes="transactions",
            help="list: only of this transaction; send: for the task in this one",
        ),
        Argument("--all", action="store_true", help="drop: all messages", manual=ALL),
        Argument(
            "action",
            nargs="?",
            choices=("list", "show", "send", "drop"),
            default="list",
            metavar="list|show|send|drop",
            help="the action; the default is list",
        ),
        Argument(
            "what",
            nargs="*",
            default=[],
            metavar="TASK_ID|N",
            completes="tasks",
            help="list: a task; otherwise the number of a message in the list",
        ),
        group=MESSAGES,
        manual="""\
List the messages that tasks could not handle: *on_message* has raised an exception, or the content did not
fit; see *poison_action* in **zmsvc.xml**(5). **show** prints one with its traceback. **send** publishes it
again, for that task alone: it has that task as *recipient* in its header, and no number. Other tasks of the
SDK ignore it, but every other subscriber to the topic receives it again. The task hears it under the
conditions of any message: it runs, and in the transaction of the sender, unless **--transaction** names
another one. **drop** removes messages.

The quarantine is in the state file. It has the last 100 messages of each task up to 4 MiB, and 1,000 of the
context up to 32 MiB. A message of more than 256 KiB is not kept, but its traceback is. A task reports 20 at
once, then 10 per second. The list says how many are lost. Of a context that does not run **list** and
**show** read the state file, and stderr says so.""",
    ),
    VerbEntry(
        "check",
        "verbs.check.check",
        "find all faults of context files, and warn",
        Argument("files", nargs="*", metavar="FILE", completes="files *.xml", help="a context file"),
        Argument(
            "--prove",
            action="store_true",
            help="try all failures in all states, and show a counter-example",
            manual="Also try what may happen to the tasks, in each state that they can reach, and show a "
            "counter-example.",
        ),
        group=FILES,
        local="it reads files of this machine",
        manual="""\
Find every fault of context files, each as *FILE:LINE*, and warn of what is legal but probably a mistake,
with its line if it concerns a place in the file. The modules of a service are compiled, and none is run.
The settings class of a task is read from its source, and each value that it refuses is a fault, as far as the
source shows it without being run. So is a **<subscribe>** without a topic.
The files in *Context-NAME.d* are checked with *Context-NAME.xml*, whichever of them is named. Without *FILE*
it is the file of the selected context: **zmsvcctl -c Shop check**.

With **--prove** the decisions of the daemon run on a simulated machine, as with **simulate**: in each state
that the tasks can reach each of them fails, ends or reports an update, all Thread tasks fail together, and
the supervisor dies. Three claims are proven or have a counter-example, and the exit status is 1 then: each
task can start; no rules fire each other for ever; after any single failure each important task that was
active is active again (see *important* in **zmsvc.xml**(5)). A counter-example is shown as events in time,
with the lines of the rules and what helps. Tasks that differ only in their names are tried once.

The proof assumes that events come one at a time: when what follows from the one before has happened, and no
back-off and no start limit counts it any more. A rule with *after* is tried at the first event that it
counts and at the last one. A process that is started gets ready, unless a rule
distinguishes failed starts, and it ends at its stop signal. All tasks run on one host: a *placement* is left
out. Orders of operators and of the bus, reloads, and
failures of the machine or of the keeper are not tried. The number of decisions is bounded. If the bound is
reached first, the result says so and says what has been tried. Nothing is proven then, and the exit status is
0 unless there is a counter-example.""",
    ),
    VerbEntry(
        "graph",
        "verbs.graph.graph",
        "draw tasks, rules and messages, with their states if the context runs",
        TRANSACTION,
        Argument(
            "what",
            metavar="FILE|NAME",
            completes="context-files",
            help="a context file, or the name of a context",
        ),
        Argument(
            "--format",
            choices=("dot", "mermaid", "svg"),
            default="dot",
            help="the language of the drawing; svg needs graphviz",
            manual="The language of the drawing. **svg** needs the program **dot**(1) of Graphviz.",
        ),
        group=FILES,
        manual="""\
Draw tasks and rules. A line that ends in a circle leads from a task to one in its *after* or *requires*.
Thick arrows are the messages that **wiring** knows without listening. For the *NAME* of a context that runs,
tasks have the colors of their states. With **--json** tasks, rules, order and topics are there as data, too;
the *id* of a rule stays the same as long as the rule does.""",
    ),
    VerbEntry(
        "wiring",
        "verbs.wiring.wiring",
        "show who publishes which messages to whom",
        TRANSACTION,
        Argument(
            "what",
            metavar="FILE|NAME",
            nargs="?",
            completes="context-files",
            help="a context file, or the name of a context",
        ),
        Argument(
            "--for",
            dest="span",
            type=_span,
            metavar="SPAN",
            help="listen for so long, such as 10s; 0 does not listen; the default is 2s",
            manual="Listen for so long, such as 10s. 0 does not listen. The default is 2s.",
        ),
        Argument(
            "--format",
            choices=("text", "dot", "mermaid", "svg"),
            default="text",
            help="a table, or the language of a drawing; svg needs graphviz",
            manual="A table, or the language of a drawing. **svg** needs the program **dot**(1) of Graphviz.",
        ),
        group=FILES,
        manual="""\
Show each topic with its publishers and its subscribers. The classes of tasks name topics in *topics* and
*publishes*, and the context file in **<subscribe>**; the classes are read from their source. If the context
runs, **wiring** also listens to all messages, and shows their rate and their size with the topic on average.
It names topics without a subscriber, topics without a publisher, and senders that lie about their name: the
task that they name does not exist, has no process, or has another launch, or two senders have one name. A
client that uses the name of a running task, and no numbers, is not noticed. *other clients* are Commands and
programs that belong to no task. A task publishes the topics of its **<expect>** and **<ready>**, also a
Command, and *zmsvc* is their subscriber if no task hears them. The messages of zmsvc itself are left out.""",
    ),
    VerbEntry(
        "simulate",
        "verbs.simulate.simulate",
        "show what a context would do, without a process",
        Argument("file", metavar="FILE", completes="files *.xml", help="a context file"),
        Argument(
            "--at",
            dest="steps",
            action="append",
            default=[],
            type=_step("at"),
            metavar="SPAN",
            help="the time after the start at which the events that follow happen",
            manual=AT,
        ),
        Argument(
            "--fail",
            dest="steps",
            action="append",
            default=[],
            type=_step("fail"),
            metavar="TASK[=REASON]",
            completes="tasks",
            help="a task fails: exit-code[:N], signal[:NAME], oom-kill, watchdog, unhealthy, silent, "
            "memory-limit, lost, or at its next start: not-ready, cannot-launch",
            manual="**simulate**: a task fails, with the reason **exit-code**[**:***N*], "
            "**signal**[**:***NAME*], **oom-kill**, **watchdog**, **unhealthy**, **silent**, "
            "**memory-limit** or **lost**; or at its next start with **not-ready** or **cannot-launch**.",
        ),
        Argument(
            "--exit",
            dest="steps",
            action="append",
            default=[],
            type=_step("exit"),
            metavar="TASK",
            completes="tasks",
            help="a task ends by itself with status 0",
            manual="**simulate**: a task ends by itself with status 0.",
        ),
        Argument(
            "--update",
            dest="steps",
            action="append",
            default=[],
            type=_step("update"),
            metavar="TASK",
            completes="tasks",
            help="a task reports an update",
            manual="**simulate**: a task reports an update.",
        ),
        Argument(
            "--kill",
            dest="steps",
            action="append",
            default=[],
            type=_step("kill"),
            metavar="supervisor|device|TASK",
            completes="supervisor device",
            help="the supervisor, the device or a task is killed",
            manual="**simulate**: the supervisor, the device or a task is killed.",
        ),
        Argument(
            "--script",
            metavar="FILE",
            completes="files *",
            help="a file with such events, one on each line, as `fail TASK`; they come first",
            manual="**simulate**: a file with such events, one on each line without the dashes. They come "
            "before those of the command line.",
        ),
        Argument(
            "--for",
            dest="duration",
            type=_span,
            metavar="SPAN",
            help="the time that is simulated; the default is 10min",
            manual="**simulate**: the time that is simulated. The default is **10min**.",
        ),
        Argument(
            "--matrix",
            action="store_true",
            help="simulate each failure of each task, one at a time",
            manual="**simulate**: simulate each failure of each task, one at a time.",
        ),
        Argument(
            "--expect",
            action="append",
            default=[],
            metavar="TEXT",
            help="'after fail(TASK): active(TASK) within 5s'; may be given again",
            manual="**simulate**: what has to hold within a time after an event. May be given again.",
        ),
        group=FILES,
        local="it reads files of this machine",
        manual="""\
Run a context file on a simulated machine, by the same decisions as in the daemon and under a clock that
does not wait. Nothing is started, and no daemon is needed. The events of the command line and of
**--script** happen in their order. It prints what would happen as **events** does, with seconds after the
start, then the state of each task at the end, and the durations that it assumes. An event that cannot
happen, such as the failure of a task that does not run, is an error with exit status 2.

With **--matrix** each failure of each task that runs after the start is simulated alone, and each that a
rule names by *when*. A failure that a rule counts by *after* is repeated until the rule fires. A line shows
which tasks are down at the end, how often which tasks were started, after how many seconds all were
active again, and which are started again and again, with the number of starts per minute.

With **--expect** the rules of a context are tested like code. An expectation is **after**
*EVENT*(*TASK*)**:** *CONDITION* [**and** *CONDITION*]... **within** *SPAN*. *EVENT* is **fail**,
**exit**, **update** or **kill**, with a task as above; *CONDITION* is [**not**] **active**, **inactive**
or **failed**(*TASK*). It is tried on a run of its own, in which its event happens when all entry tasks
are active, and it holds if all conditions hold at the same moment within the time. Otherwise the exit
status is 1, and what happened is printed. Without events and **--matrix** the expectations of
*Context-NAME.expect* beside the file are tried as well, one on each line.""",
    ),
    VerbEntry(
        "report",
        "verbs.report.report",
        "pack what is known about a context into one file, to find out what happened",
        Argument(
            "-o",
            "--output",
            metavar="FILE",
            completes="files *.tar.gz",
            help="the file; the default is zmsvc-report-NAME-TIME.tar.gz",
            manual=OUTPUT,
        ),
        Argument("--yes", action="store_true", help="write the file without a question"),
        Argument("name", nargs="?", metavar="NAME", completes="contexts", help="the context"),
        group=STATE,
        local="it writes a file where it runs",
        manual="""\
Pack the context file, the record, the history, the state, the end of the log and the versions of the programs
into a *FILE* that only its owner can read. It prints the list of the contents and asks before it writes. The
values of **<environment>** and comments of the context file are left out, and such values of six characters
or more are replaced in the other files as well. Files of keys are never read. The updates that tasks have
reported, and what they have logged, are in the report: look at it before you give it to others. A part that
cannot be read is named, and left out.""",
    ),
    VerbEntry(
        "replay",
        "verbs.replay.replay",
        "run a record again, and show the tasks at any moment",
        Argument(
            "--until",
            metavar="TIME",
            completes="today yesterday",
            help="end at this time, and show the tasks then",
            manual=UNTIL,
        ),
        Argument(
            "--step",
            action="store_true",
            help="show each fact and the decisions that followed",
            manual="**replay**: show each fact and the decisions that followed.",
        ),
        Argument("file", metavar="FILE", completes="files *.tar.gz", help="a file that report has written"),
        group=STATE,
        local="it reads files of this machine",
        pages=True,
        manual="""\
Run the facts that a supervisor has recorded through the decisions of this zmsvc, and show the tasks as
**status** would have shown them, at the end or at a *TIME*. Nothing is started, and the file is not unpacked.
Then it says where this zmsvc decides otherwise than the one that has recorded the facts; the exit status is
1 then. After the first difference others follow from it, up to the next snapshot of the record. A record of
another format is refused, with exit status 2.""",
    ),
    VerbEntry(
        "keys",
        "verbs.keys.run",
        "show CURVE keys, make them, and say who may connect",
        Argument(
            "action",
            nargs="?",
            choices=("list", "make", "join", "allow", "revoke"),
            default="list",
            metavar="list|make|join|allow|revoke",
            help="the action; the default is list",
        ),
        Argument(
            "what",
            nargs="?",
            metavar="DIR|FILE|CLIENT",
            completes="files *.key",
            help="make: a new directory, for a client elsewhere; join: the server's public key file, on a "
            "machine that only connects; "
            "allow: a public key file; revoke: the name of a client",
        ),
        Argument(
            "--now", action="store_true", help="revoke: end the connections that are open, too", manual=NOW
        ),
        group=FILES,
        local="it is about the keys of this machine",
        manual="""\
Show the CURVE keys of a context: the public key of its device, and the clients that may connect. **make**
makes them, so that tcp endpoints can be reached from other machines: from the next start of the context
on, only a client with an allowed key can connect to any of its tcp endpoints. With a *DIR* it makes this
new directory for a client elsewhere, with a key of its own that may connect; copied there as
*~/.config/zmsvc/keys/NAME* it is found by **zmsvcctl** and the old commands, or by their **--keys**.
**join** makes the keys of a machine that only connects, and runs no context of this name: a pair of its
own, whose secret never leaves it, beside the public key of the device in *FILE*, which is *server.key* in
the directory of the machine that runs the context. It prints the command that allows this machine there.
Clients on this machine (**watch** and **send** with **--endpoint**, the old commands) need nothing else of
that machine, and never the secret of the server. **allow** lets a client connect whose public key is in a
*FILE* that it has made itself. **revoke** takes the right back, for later connections; with **--now** each
connection to the bus and to a Monitor ends as well: the device is restarted (**restart-device**), and
clients that may connect do so again by themselves. None of this needs a restart of the context.""",
    ),
    VerbEntry(
        "cluster",
        "verbs.cluster.run",
        "give a context to a cluster of Pacemaker, check a host, drain it, and show where it runs",
        Argument(
            "action",
            choices=("check", "give", "take", "commands", "status", "drain", "undrain"),
            metavar="check|give|take|commands|status|drain|undrain",
            help="the action",
        ),
        Argument(
            "host_name",
            nargs="?",
            metavar="HOST",
            completes="hosts",
            help="drain, undrain: a host of the context's <hosts>",
            manual="**cluster drain**, **cluster undrain**: a host in the *hosts* of the context.",
        ),
        Argument(
            "--ip",
            metavar="ADDRESS/PREFIX",
            help="commands: an address that moves with the context",
            manual="**cluster commands**: an address that moves with the context, such as **10.0.0.9/24**.",
        ),
        Argument(
            "--shared",
            metavar="DEVICE",
            completes="files *",
            help="commands: the disk of the state directory, which moves with the context",
            manual="**cluster commands**: the disk of the state directory, which moves with the context, "
            "such as */dev/drbd1*.",
        ),
        Argument(
            "--fstype",
            metavar="TYPE",
            help="commands: the type of the file system on that disk; the default is ext4",
            manual="**cluster commands**: the type of the file system on the disk of **--shared**. The "
            "default is **ext4**.",
        ),
        group=INSTALLATION,
        manual="""\
Run a context in a cluster of Pacemaker, which starts it on another host when one fails; see
**ocf_zmsvc_context**(7) and *docs/cluster.md*. **check** examines this host: the context file, the services,
the keys, the unit, the resource agent and the fencing of the cluster, and prints the facts that have to be
the same on all hosts; with **-H** it compares them. The exit status is 1 if the context cannot run on a host.
**give** lets only the agent of the cluster start the context on this host, and disables the unit; **take**
undoes both. **commands** prints the commands of **pcs**(8) that make the context a resource, and those that
run *zmsvc-host@NAME.service* on the hosts of its *hosts*; it runs none.
**status** shows where the contexts run, with the reason if one is degraded or has failed; the exit status is
3 if one does not run. Of a context that runs here, it also shows the hosts of its tasks: **joined**,
**silent** (nothing is heard from it, so nothing is decided), **lost** (it is off for certain),
**not joined**, and **drained**.

**drain** moves the tasks with a *placement* away from *HOST*, before you work on it: each is stopped there
and started on another of its hosts, in the order of *after* and *requires*, and no rules fire. A task for
which there is no other host waits, and the exit status is 1. Until **undrain** no task is started there;
**undrain** moves nothing back. Both are for the host that runs the context.""",
        waits=True,
    ),
    VerbEntry(
        "units",
        "verbs.units.run",
        "print the systemd units with the paths of this installation, or install them",
        Argument(
            "--user",
            action="store_true",
            help="the unit of a user's own service manager",
            manual="**units**: those of the user's own service manager, **systemctl --user**.",
        ),
        Argument(
            "--install",
            action="store_true",
            help="put them where systemd looks for them",
            manual="**units**: put them where systemd looks for them.",
        ),
        group=INSTALLATION,
        local="it is about the installation of this machine",
        manual="""\
Print the systemd units with the paths of this installation, as **systemctl cat** does; with **--install**
put them into */usr/local/lib*, or those of **--user** into *$XDG_CONFIG_HOME/systemd/user*, and print the
commands that have to follow. This is for an installation by pip or pipx: a distribution's package and
**make install** bring their units along. The system's unit runs contexts as the user zmsvc, so it is
refused for an installation in a home directory.""",
    ),
    VerbEntry(
        "create",
        "create.command.run",
        "make services and their context file",
        group=FILES,
        local="it writes files of this machine",
        own_arguments=True,
        manual="""\
Make services and their context file; **zmsvcctl create --help** lists its options. The context is that of
**--context_name**, or of **-c**. Without **--service_path** the files go into the directories in which
**zmsvcd** *NAME* looks: */etc/zmsvc* and */etc/zmsvc/services*, or those of the user. With **--command**
*'PROGRAM ARGUMENT...'* the service is a Command that runs a program, named after it unless **--task_id** says
otherwise; a rule starts it again after a failure, unless **--restart no** is given.""",
    ),
    VerbEntry(
        "import",
        "imports.command.run",
        "make a context out of the file of Supervisor or another manager",
        Argument(
            "--name",
            metavar="NAME",
            help="the name of the context; the default is that of the file",
            manual="**import**: the name of the context. The default is that of the file.",
        ),
        Argument(
            "--restart",
            choices=("no", "on-failure", "always"),
            help="after which ends tasks start again, whatever the file says",
            manual="**import**: after which ends tasks start again, whatever the file says.",
        ),
        Argument(
            "file",
            metavar="FILE",
            completes="files *",
            help="supervisord.conf, circus.ini, a Procfile or NAME.service",
        ),
        group=FILES,
        local="it reads files of this machine",
        manual="""\
Print a context of Commands that runs the programs of a file of Supervisor or Circus, of a Procfile, or of a
service unit of systemd. Each program is a task; where the file says nothing about restarts, a rule restarts
it after a failure. Each thing that a context file cannot say, or says in another way, is a line
*FILE:LINE: warning: ...* on stderr. The exit status is 0 all the same, and 2 for a file that cannot be read.
Nothing is started and no file is written. Files that the file includes are read as well.""",
    ),
    VerbEntry(
        "exit",
        "verbs.orders.leave",
        "stop all tasks and end the context's daemon",
        Argument("--home", action="store_true", help="leave the tasks on other hosts to the next supervisor"),
        group=ORDERS,
        waits=True,
        manual="""\
Stop all tasks, and end the context's daemon. The next start resumes the transactions that were open. With
**--home** the tasks on other hosts run on, and the next start with the same state adopts them: the resource
agent moves a context with a shared disk in this way.

A task on another host from which nothing is heard is waited for, for ten seconds; then the answer names it
and ends with 1, and so does the log. It may run there until the context starts again, which stops it first.

No signal ends a process that waits in the kernel (state D, for a disk or a file system that does not
answer). Ten seconds after SIGKILL the answer names its task and ends with 1. The daemon stays until the
process has ended, and meanwhile refuses all orders but **exit**: its next start could not promise that
each task runs once. Under systemd that ends with *TimeoutStopSec* (90 s), and the unit has failed;
elsewhere SIGKILL to the *keeper_pid* of **status --json** ends it.""",
    ),
    VerbEntry(
        "reload",
        "verbs.orders.reload",
        "read the context file again, and change what differs; with tasks, have these reload",
        *SELECTION,
        Argument(
            "--dry-run",
            action="store_true",
            help="print what would stop and start, in order, and change nothing",
            manual="**reload**: print which tasks would stop, restart and start, in this order, then what "
            "differs, and change nothing. The exit status is 2 for a bad file, 1 for one that a reload would "
            "refuse.",
        ),
        group=ORDERS,
        waits=True,
        manual="""\
Without a task: read the context file again and change what differs. A bad file changes nothing. The answer
comes when removed tasks have ended and added or changed ones have started. If a task failed, the answer says
so and the exit status is 1, and the file is in effect all the same. With **--no-block** the answer does not
wait for tasks. Rules, limits and the like take effect at once without a restart of the task, and a **state**
of another type when its transaction starts the next time. A changed task that waits for its back-off starts
at once. A task that does not run takes its changes when it is started the next time. A failed task stays
failed, as with **systemctl daemon-reload**: if the file has changed for it, stderr names it and the command
that starts it.

With tasks: have these read their own configuration again, and leave the context file alone. Each gets its
*reload_signal*, or its *reload_command* is executed, in all open transactions or in the named one. The order
is refused, and nothing is sent, if one of the tasks has neither or is not active. The answer comes when the
signal is on its way; of a Command with **<notify>reload</notify>** it waits until the program says that it
has reloaded, and it waits for the end of a *reload_command*, see **zmsvc.xml**(5). If the command fails, or
this takes longer than *start_timeout*, the exit status is 1 and the task goes on.""",
    ),
    VerbEntry(
        "reset-failed",
        "verbs.orders.order",
        "forget failures, and the start limits that they reached",
        *SELECTION,
        group=ORDERS,
        manual="""\
Forget the failures in a row that lengthen the back-off, the starts that the start limit counts, and the
events that rules with *after* have counted.""",
    ),
    VerbEntry(
        "forget",
        "verbs.orders.order",
        "forget stopped transactions, which can then no longer be started again",
        TRANSACTION,
        group=ORDERS,
        manual="""\
Forget a stopped transaction, or all of them: **status** shows it no longer, and it cannot be started
again. Its history stays. Without this the 64 transactions that were stopped last are kept.""",
    ),
    VerbEntry(
        "enable",
        "verbs.orders.switch",
        "let disabled tasks start with a transaction again",
        SOME_TASKS,
        Argument("--now", action="store_true", help="start the tasks as well", manual=NOW),
        group=ORDERS,
        waits=True,
        manual="""\
Take back a **disable**. The tasks start with the next start of a transaction; with **--now** they are started
at once, as by **start**. A task whose *state* in the
file is not of the type *on_start* cannot be enabled.""",
    ),
    VerbEntry(
        "disable",
        "verbs.orders.switch",
        "let tasks no longer start with a transaction",
        SOME_TASKS,
        Argument("--now", action="store_true", help="stop those that run", manual=NOW),
        group=ORDERS,
        waits=True,
        manual="""\
Let tasks no longer start with any transaction of the context: not with its start or restart, and not when a
reload adds them. A task that runs goes on; with **--now** it is stopped, as by **stop**. A rule, an order
that names the task, and the start of a task that requires it start it; a rule starts no task that a **stop**
holds. This lasts until **enable**, also after **exit** and after a reboot; **status** shows it. A whole
context is enabled at boot by **systemctl enable zmsvc@NAME**.""",
    ),
    VerbEntry(
        "reexec",
        "verbs.orders.reexec",
        "replace the supervisor, as after an upgrade; tasks go on",
        group=ORDERS,
        manual="""\
Replace the supervisor, as after an upgrade. Tasks go on. First the running supervisor asks the installed
one which protocols it speaks with the keeper, which goes on as well. If the installed one does not run, or
speaks no protocol of this keeper, the order is refused and the running supervisor stays.""",
    ),
)

HIDDEN = (
    VerbEntry(
        "words",
        "verbs.words.words",
        "print the names that a shell offers for completion",
        Argument("kind", choices=("contexts", "transactions", "tasks", "hosts"), help="the kind of names"),
        TRANSACTION,
        group=STATE,
    ),
)
"""Verbs for programs that are part of zmsvc: no help, manual or completion has them, and they may change."""

EPILOG = """\
Exit status: 0 done (status: all active), 1 the order failed, 2 usage or bad file, 3 status, is-active: not
active, 4 no such context, transaction or task, 5 cannot reach the supervisor, 124 timed out.
"""
