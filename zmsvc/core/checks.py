"""What one element of a context file cannot show by itself: faults between elements, and warnings about
what is legal but odd. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zmsvc.core import shell
from zmsvc.core.access import ANYONE, BUS, MAY_CONNECT
from zmsvc.core.model import Action, BusAccess, Context, Rule, ServiceType, TaskService, Trigger
from zmsvc.core.monitoring import monitoring
from zmsvc.core.values import TRUE, Endpoint, apart, collide, endpoint, quote, reaches, seconds

_STARTING = (Action.START, Action.RESTART)
_OURS = frozenset({"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"})
"""Variables by which a task and its supervisor find each other; a file that sets them makes the task deaf
or mute.
"""

_STATE_TYPES = ("", "on_start", "start_now", "on_update", "on_fail", "on_exit")
"""What zmicroservices wrote; only the first two words start a task with its transaction."""


_NAMED = 5
"""Tasks that a warning names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong, and where: the `element` of the context, or of the task with this index in the file,
    or its rule of this index.
    """

    text: str
    element: str = ""
    task: int | None = None
    rule: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Odd:
    """What is legal but probably not meant, and where: on this line, or else at this task or this element
    of the context.
    """

    text: str
    line: int = 0
    task: str = ""
    element: str = ""

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


def faults(tasks: Sequence[TaskService], binds: Mapping[str, Endpoint]) -> list[Fault]:
    """Every fault between elements. `binds` has what was readable of the four endpoints, by their
    elements' names.
    """
    return [*_repeated(tasks), *_calls(tasks), *_binds(binds)]


def _repeated(tasks: Sequence[TaskService]) -> Iterator[Fault]:
    seen: set[str] = set()
    for index, task in enumerate(tasks):
        if task.id in seen:
            yield Fault(
                text=f"the id {quote(task.id)} is taken by a task before it, expected one of its own",
                task=index,
            )
        # A task without an id has been told so already.
        seen |= {task.id} - {""}


def _calls(tasks: Sequence[TaskService]) -> Iterator[Fault]:
    known = {task.id for task in tasks}
    for index, task in enumerate(tasks):
        for number, rule in enumerate(task.rules):
            if rule.call not in known:
                text = f"{rule.trigger} calls {quote(rule.call)}, expected the id of a task of this file"
                yield Fault(text=text, task=index, rule=number)


def _binds(binds: Mapping[str, Endpoint]) -> Iterator[Fault]:
    collided = [
        *_twice(binds, "FrontEndEndpoint", "BackendEndpoint"),
        *_twice(binds, "FrontBind", "BackendBind"),
    ]
    yield from collided
    told = {fault.element for fault in collided}
    pairs = (
        ("FrontBind", "BackendEndpoint", "FrontEndEndpoint"),
        ("BackendBind", "FrontEndEndpoint", "BackendEndpoint"),
    )
    for bound, connected, other in pairs:
        if (
            bound in told
            or bound not in binds
            or connected not in binds
            or reaches(binds[connected], binds[bound])
        ):
            continue
        swapped = other in binds and reaches(binds[other], binds[bound])
        hint = " (are FrontBind and BackendBind swapped?)" if swapped else ""
        wanted = _expected(binds[connected])
        text = (
            f"{bound} {binds[bound]} is not where {connected} {binds[connected]} leads, expected "
            f"{wanted}{hint}"
        )
        yield Fault(text=text, element=bound)


def _twice(binds: Mapping[str, Endpoint], first: str, second: str) -> Iterator[Fault]:
    if first in binds and second in binds and collide(binds[first], binds[second]):
        text = f"{second} {binds[second]} collides with {first} {binds[first]}, expected another port or path"
        yield Fault(text=text, element=second)


def _expected(connected: Endpoint) -> str:
    return (
        str(connected)
        if connected.scheme == "ipc"
        else f"port {connected.port}, as in tcp://*:{connected.port}"
    )


def warnings(context: Context, *, curve: bool = False) -> list[str]:
    """What is legal but probably not meant, one line each. `curve` says whether there are keys, so that
    only who has one comes in.
    """
    return [str(each) for each in odd(context, curve=curve)]


def odd(context: Context, *, curve: bool = False) -> list[Odd]:
    """The same with the places in the file."""
    tasks = context.tasks
    found = [Odd(line=line, text=text) for line, text in context.passed_over]
    found += [*_binds_apart(context, curve=curve), *_open_bus(context, curve=curve), *_privileged(tasks)]
    found += [*_never_started(tasks), *_rings(tasks)]
    for task in tasks.values():
        found += [
            Odd(task=task.id, text=f"{task.id}: {text}") for text in (*_odd_rules(task), *_odd_settings(task))
        ]
    return [*found, *_torn_threads(tasks.values())]


def _binds_apart(context: Context, *, curve: bool) -> Iterator[Odd]:
    ends = context.endpoints
    for name, bound, connected in (
        ("FrontBind", ends.front_bind, ends.backend),
        ("BackendBind", ends.backend_bind, ends.frontend),
    ):
        place, other = endpoint(bound, bind=True), endpoint(connected, bind=False)
        if place.wildcard and not curve:
            text = (
                f"{name} {bound} means every address of this machine, and without CURVE keys the loopback "
                f"address alone, because whoever "
                f"reaches it could give orders: tcp://127.0.0.1:{place.port} or an ipc:// path is enough "
                f"for one machine, "
                f"for others zmsvcctl keys make"
            )
            yield Odd(element=name, text=text)
        if apart(other, place):
            yield Odd(
                element=name,
                text=f"{name} {bound} is another address than {connected}, where it is looked for",
            )


def who_may_connect(context: Context, *, curve: bool) -> list[str]:
    """Return lines about the bus and the Monitors: who may connect, and so give the orders that the bus
    knows, and read what is told.
    """
    orders = f"give orders ({', '.join(BUS['context'])}) and read configurations"
    lines = [
        f"bus: {who} may connect to {' and '.join(places)}, {orders}"
        for who, places in _admitted(
            context, [context.endpoints.backend, context.endpoints.frontend], curve=curve
        )
    ]
    for task in context.tasks.values():
        tcp = [place for place in monitored(task) if place.startswith("tcp://")]
        for who, places in _admitted(context, tcp, curve=curve):
            lines.append(
                f"{task.id}: {who} may connect to {' and '.join(places)} and read what tasks use of the "
                f"machine"
            )
    return lines


def monitored(task: TaskService) -> list[str]:
    """Return the endpoints that a Monitor service binds; of any other task none."""
    settings = (
        [task.configuration.get(tag) for tag in ("service", "publisher")]
        if task.instance == "Monitor"
        else []
    )
    places = [each.get("endpoint") for each in settings if isinstance(each, Mapping)]
    return [place for place in places if isinstance(place, str) and place.startswith(("tcp://", "ipc://"))]


def _admitted(context: Context, places: Iterable[str], *, curve: bool) -> Iterator[tuple[str, list[str]]]:
    """Who may connect to which of these places; a socket with a file needs no keys and is open to nobody
    else.
    """
    local = ANYONE if context.bus_access is BusAccess.ANYONE else MAY_CONNECT
    groups: dict[str, list[str]] = {}
    for place in places:
        ipc = place.startswith("ipc://")
        groups.setdefault(
            MAY_CONNECT if ipc else "each client that has an allowed key" if curve else local, []
        ).append(place)
    yield from groups.items()


def _open_bus(context: Context, *, curve: bool) -> Iterator[Odd]:
    if context.bus_access is not BusAccess.ANYONE or curve:
        return
    places = [context.endpoints.backend, context.endpoints.frontend]
    if any(place.startswith("tcp://") for place in places):
        orders = ", ".join(BUS["context"])
        text = (
            f'bus_access="anyone": {ANYONE} may give orders ({orders}) at {places[0]} and read '
            f"configurations at {places[1]}; "
            f'bus_access="members" lets only {MAY_CONNECT} connect'
        )
        yield Odd(element="Context", text=text)
    for task in context.tasks.values():
        for place in monitored(task):
            if place.startswith("tcp://"):
                text = (
                    f'{task.id}: bus_access="anyone": {ANYONE} may read at {place} what tasks use of the '
                    f"machine"
                )
                yield Odd(task=task.id, text=text)


def _privileged(tasks: Mapping[str, TaskService]) -> Iterator[Odd]:
    """Tell of tasks that become root without being asked: because another task has a user of its own."""
    with_user = [task.id for task in tasks.values() if task.user]
    without = [task.id for task in tasks.values() if not task.user]
    if with_user and without:
        named = (
            f"{', '.join(without[:_NAMED])}{', ...' if len(without) > _NAMED else ''} "
            f"{'have' if len(without) > 1 else 'has'}"
        )
        text = (
            f"{named} no <user>, while {with_user[0]} has one: zmsvcd must run as root, or with "
            f"capabilities that make it as good as root, "
            f"and each task without a <user> runs as the same user"
        )
        yield Odd(task=without[0], text=text)


def _never_started(tasks: Mapping[str, TaskService]) -> Iterator[Odd]:
    reached = {task.id for task in tasks.values() if task.entry}
    if not reached:
        yield Odd(
            text=(
                "no task starts with its transaction: every state type is something else than on_start and "
                "start_now"
            )
        )
    waiting = list(reached)
    while waiting:
        called = {rule.call for rule in tasks[waiting.pop()].rules if rule.action in _STARTING} - reached
        reached |= called
        waiting += called
    callers = Counter(rule.call for task in tasks.values() for rule in task.rules if rule.action in _STARTING)
    for task in tasks.values():
        if task.id not in reached:
            why = "only tasks that nothing starts call it" if callers[task.id] else "no rule starts it"
            yield Odd(task=task.id, text=f"{task.id}: it waits for a rule, and {why}")


def _odd_rules(task: TaskService) -> Iterator[str]:
    for rule, times in Counter(task.rules).items():
        if times > 1:
            yield f"the rule {_words(rule)} is there {times} times"
        if rule.call != task.id:
            continue
        if rule.action is Action.STOP:
            what = (
                "it stops itself"
                if rule.trigger in (Trigger.ON_START, Trigger.ON_UPDATE)
                else "it has ended by then"
            )
            yield f"the rule {_words(rule)} is about the task itself: {what}"
        elif rule.action is Action.START and rule.trigger in (Trigger.ON_START, Trigger.ON_UPDATE):
            yield f"the rule {_words(rule)} is about the task itself, which runs by then: it does nothing"


def _odd_settings(task: TaskService) -> Iterator[str]:
    for name in sorted(_OURS & task.environment.keys()):
        yield f"its environment sets {name}, which zmsvc sets itself: the supervisor would not hear the task"
    if task.service_type is not ServiceType.COMMAND and not task.fresh:
        for name in sorted(name for name in task.environment if read_at_start(name)):
            way = (
                "<fresh>yes</fresh>"
                if task.service_type is ServiceType.PROCESS
                else "a Process with <fresh>yes</fresh>"
            )
            yield (
                f"its environment sets {name}, which a program reads when it begins: a forked task has it "
                f"in vain, {way} does not"
            )
    if problem := _cannot_start(task):
        yield problem
    if task.instance == "Monitor" and _stores(task):
        yield (
            "it is a Monitor that is to store records in a database, which zmsvc does not do: subscribe to "
            "it and store them"
        )
    if (kind := _state_type(task)) not in _STATE_TYPES:
        yield f"its state type {quote(kind)} is none of {', '.join(_STATE_TYPES[1:])}: it waits for a rule"
    if task.service_type is ServiceType.COMMAND:
        yield from shell.warnings(task.configuration.get("command"))
    if task.service_type is ServiceType.COMMAND and task.limits.watchdog:
        yield "it is a Command with a watchdog: a program that does not say WATCHDOG=1 to sd_notify is killed"
    if task.service_type is ServiceType.THREAD and task.stop_signal != "SIGTERM":
        yield "it is a Thread task, which no signal stops: its <stop_signal> has no effect"


_LIBC = ("LD_", "MALLOC_", "GLIBC_TUNABLES")
"""Variables that the dynamic linker and libc read once, when a program begins."""


def read_at_start(name: str) -> bool:
    """Tell whether a variable has no effect any more in an interpreter that runs. TZ, PYTHONPATH and the
    locale are made to have it.
    """
    return name.startswith(_LIBC) or (
        name.startswith("PYTHON") and name not in ("PYTHONPATH", "PYTHONBREAKPOINT")
    )


def _cannot_start(task: TaskService) -> str:
    """Return what a task of Python finds wrong with its configuration when it starts, as far as zmsvc
    reads it.
    """
    if task.service_type is ServiceType.COMMAND:
        return ""
    try:
        if task.instance == "Monitor":
            monitoring(task.configuration)
    except ValueError as error:
        return f"it is a Monitor that cannot start: {error}"
    try:
        seconds(task.configuration.get("interval", "0"))
    except ValueError:
        return (
            f"its interval {quote(str(task.configuration['interval']))} is no time, such as 0.5 or 500ms: a "
            f"looped task cannot start"
        )
    return ""


def _stores(task: TaskService) -> bool:
    options = task.configuration.get("monitor_options")
    wanted = options.get("store_records") if isinstance(options, Mapping) else None
    return "db_connection" in task.configuration or str(wanted or "").strip().lower() in TRUE


def _state_type(task: TaskService) -> str:
    found: Any = task.source
    for key in ("Task", "state", "type"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found.strip() if isinstance(found, str) else ""


def _torn_threads(tasks: Iterable[TaskService]) -> Iterator[Odd]:
    threads = [task for task in tasks if task.service_type is ServiceType.THREAD]
    for name in ("user", "group", "nice", "log_level", "no_new_privileges", "rlimits"):
        if any(getattr(task, name) != getattr(threads[0], name) for task in threads):
            ids = ", ".join(task.id for task in threads)
            yield Odd(
                task=threads[0].id, text=f"the Thread tasks {ids} share one process, but differ in {name}"
            )


def _rings(tasks: Mapping[str, TaskService]) -> Iterator[Odd]:
    for group in _knots(tasks):
        ring = _shortest(tasks, group)
        if ring:
            yield Odd(
                task=group[0],
                text=f"ring of rules, which is legal but may go round for ever: {' '.join(ring)}",
            )


def _edges(task: TaskService) -> Iterator[Rule]:
    """The rules by which one task's fate starts another. That a failing task starts itself again is what
    on_fail is for.
    """
    for rule in task.rules:
        # A start of itself while it runs does nothing and is warned about elsewhere.
        idle = rule.action is Action.START and rule.trigger in (Trigger.ON_START, Trigger.ON_UPDATE)
        if rule.action in _STARTING and not (
            rule.call == task.id and (idle or rule.trigger is Trigger.ON_FAIL)
        ):
            yield rule


def _knots(tasks: Mapping[str, TaskService]) -> list[list[str]]:
    """Tarjan's strongly connected components in the file's order, without recursion: a file may chain
    thousands of tasks.
    """
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    loose: set[str] = set()
    knots: list[list[str]] = []
    for root in tasks:
        if root in order:
            continue
        path = [(root, _edges(tasks[root]))]
        while path:
            here, rules = path[-1]
            if here not in order:
                order[here] = low[here] = len(order)
                stack.append(here)
            for rule in rules:
                if rule.call not in order:
                    path.append((rule.call, _edges(tasks[rule.call])))
                    break
                if rule.call not in loose:
                    low[here] = min(low[here], order[rule.call])
            else:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[here])
                if low[here] == order[here]:
                    knot = [stack.pop()]
                    while knot[-1] != here:
                        knot.append(stack.pop())
                    loose.update(knot)
                    knots.append(knot[::-1])
    return sorted(knots, key=lambda knot: order[knot[0]])


def _shortest(tasks: Mapping[str, TaskService], group: list[str]) -> list[str]:
    """A shortest ring through the group's first task, as words; empty when it is in none."""
    start, inside = group[0], set(group)
    came: dict[str, tuple[str, Rule]] = {}
    level = [start]
    while level and start not in came:
        following: list[str] = []
        for here in level:
            for rule in _edges(tasks[here]):
                if rule.call in inside and rule.call not in came:
                    came[rule.call] = (here, rule)
                    following.append(rule.call)
        level = following
    words: list[str] = []
    here = start
    while here in came and (not words or here != start):
        before, rule = came[here]
        words[:0] = [f"-[{rule.trigger}: {rule.action}]->", here]
        here = before
    return [start, *words] if words else []


def _words(rule: Rule) -> str:
    return f"{rule.trigger}: {rule.action} {rule.call}"
