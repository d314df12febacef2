"""The checks that need more than one element of a context file: faults between elements, and warnings about
legal but unlikely settings. Pure. host/config finds the faults of single elements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from zmsvc.core import rule_conditions, shell, topics
from zmsvc.core.access import ANYONE, BUS, MAY_CONNECT, BusAccess
from zmsvc.core.back_off import least_times
from zmsvc.core.frozen import frozen
from zmsvc.core.listening import MAX_SOCKETS
from zmsvc.core.model import Action, Context, Rule, TaskDefinition, Trigger
from zmsvc.core.monitoring import monitoring
from zmsvc.core.service_options import OPTIONS, Restart, ServiceType
from zmsvc.core.similar import similar_id
from zmsvc.core.values import (
    TRUE,
    BoundEndpoints,
    Endpoint,
    apart,
    collide,
    endpoint,
    part_of,
    quote,
    reaches,
    seconds,
)
from zmsvc.core.wiring import is_own

_STARTING = (Action.START, Action.RESTART)
_WHILE_IT_RUNS = (Trigger.ON_START, Trigger.ON_UPDATE, Trigger.ON_RECOVER)
_RESERVED_VARIABLES = frozenset({"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"})
"""Variables by which a task and its supervisor communicate. A file that sets them cuts the task off."""

_STATE_TYPES = ("", "on_start", "start_now", "on_update", "on_fail", "on_exit")
"""The words that zmicroservices wrote. Only the first two start a task with its transaction."""


_NAMED = 5
"""Number of tasks that a warning names."""
_HINTS = 50
"""The number of unknown IDs for which a similar one is searched, among up to 1,000. A search takes 2 ms."""


@frozen
class Fault:
    """A fault and its place: an `element` of the context, the task with this index in the file, or the rule
    with this index of that task, or of the context if there is no task.
    """

    text: str
    element: str = ""
    task: int | None = None
    rule: int | None = None
    option: str = ""
    """The option of the task that has the fault, and the word in it."""
    word: str = ""
    number: int | None = None
    """The index of the option among several of this name, if a word does not tell which one it is."""
    other: int | None = None
    """The index of another task that the fault is about. Its place is shown, too."""
    other_number: int | None = None
    """The index of the option of the other task among several of this name, as in `number`."""
    other_element: str = ""
    """The element of the context that the fault is about as well."""


@frozen
class ConfigWarning:
    """A legal setting that is probably a mistake, and its place: a line of the file if it is known, otherwise
    a task or one of its rules, or an element of the context.
    """

    text: str
    line: int = 0
    task: str = ""
    rule: Rule | None = None
    element: str = ""
    setting: str = ""
    """The element of the task's <configuration>."""
    file: str = ""
    """The file of the line. Empty for the context file itself."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.file else f"line {self.line}"
        return f"{where}: {self.text}" if self.line else self.text

    def in_file(self, path: str) -> str:
        """Return the warning with `FILE:LINE` before it, or with `FILE` if no line is known. `path` is the
        context file.
        """
        return f"{self.file or path}{f':{self.line}' if self.line else ''}: {self.text}"


def faults(
    tasks: Sequence[TaskDefinition],
    binds: Mapping[str, Endpoint],
    any_fail: Sequence[Rule] = (),
    of_hosts: Endpoint | None = None,
) -> list[Fault]:
    """Return every fault between elements. `binds` maps the names of elements to their endpoints, as far as
    those could be read; `any_fail` has the rules of the context, `of_hosts` is the bind of its `<hosts>`.
    """
    known = KnownTasks(tasks)
    return [
        *_repeated(tasks),
        *_sockets(tasks, binds, of_hosts),
        *_calls(tasks, any_fail, known),
        *_order(tasks, known),
        *_binds(binds),
    ]


class KnownTasks:
    """The indexes of the tasks of a file by their IDs, and the hints for unknown IDs."""

    def __init__(self, tasks: Sequence[TaskDefinition]) -> None:
        self.indexes = {task.id: index for index, task in reversed([*enumerate(tasks)])}
        self._hints = _HINTS

    def expected_for(self, name: str) -> str:
        """Return what was expected in place of an unknown ID, with a similar one if there is one."""
        self._hints -= 1
        hint = similar_id(name, self.indexes) if self._hints >= 0 else ""
        return f"expected the id of a task of this context{hint}"


def _repeated(tasks: Sequence[TaskDefinition]) -> Iterator[Fault]:
    seen: dict[str, int] = {}
    for index, task in enumerate(tasks):
        if task.id in seen:
            yield Fault(
                text=f"the id {quote(task.id)} is taken by a task before it, expected one of its own",
                task=index,
                other=seen[task.id],
            )
        elif task.id:  # A task without an ID has a fault of its own already.
            seen[task.id] = index


class _SocketOwner(NamedTuple):
    """The owner of a socket: a `<listen>` of a task, the bus, or `<hosts>`."""

    text: str
    task: int | None = None
    number: int | None = None
    element: str = ""


def _sockets(
    tasks: Sequence[TaskDefinition], binds: Mapping[str, Endpoint], of_hosts: Endpoint | None
) -> Iterator[Fault]:
    """Yield each socket of `<listen>` that another task, the bus or `<hosts>` has as well."""
    taken: BoundEndpoints[_SocketOwner] = BoundEndpoints()
    for name, place in binds.items():
        if name.endswith("Bind"):
            taken.add(place, _SocketOwner(f"the {name} of the bus", element=name))
    if of_hosts is not None:
        taken.add(of_hosts, _SocketOwner(f"the bind {of_hosts} of <hosts>", element="hosts"))
    for index, task in enumerate(tasks):
        if len(task.listen) > MAX_SOCKETS:
            text = f"the task has {len(task.listen)} <listen>, expected at most {MAX_SOCKETS}"
            yield Fault(text=text, task=index, option="listen", number=MAX_SOCKETS)
        for number, each in enumerate(task.listen):
            place = each.endpoint
            other = taken.first_collision(place)
            if other is not None:
                text = f"<listen> {each.address} collides with {other.text}, expected an address of its own"
                yield Fault(
                    text=text,
                    task=index,
                    option="listen",
                    number=number,
                    other=other.task,
                    other_number=other.number,
                    other_element=other.element,
                )
            taken.add(place, _SocketOwner(f"<listen> of {task.id}", index, number))
            if each.path is None and (each.mode, each.user, each.group) != (0o660, None, None):
                text = (
                    f"<listen> {each.address} has a mode, user or group, which are for the path of a Unix "
                    f"socket, expected none"
                )
                yield Fault(text=text, task=index, option="listen", number=number)


def _calls(tasks: Sequence[TaskDefinition], any_fail: Sequence[Rule], known: KnownTasks) -> Iterator[Fault]:
    rules: list[tuple[int | None, Sequence[Rule]]] = [(None, any_fail)]
    rules += [(index, task.rules) for index, task in enumerate(tasks)]
    for index, of_one in rules:
        for number, rule in enumerate(of_one):
            if rule.call not in known.indexes:
                text = f"{rule.trigger} calls {quote(rule.call)}, {known.expected_for(rule.call)}"
                yield Fault(text=text, task=index, rule=number)


def _order(tasks: Sequence[TaskDefinition], known: KnownTasks) -> Iterator[Fault]:
    """Yield the tasks in `<after>` and `<requires>` that do not exist, and the rings."""
    for index, task in enumerate(tasks):
        for option, names in (("after", task.after), ("requires", task.requires)):
            for name in dict.fromkeys(names):
                if name not in known.indexes:
                    text = f"<{option}> names {quote(name)}, {known.expected_for(name)}"
                    yield Fault(text=text, task=index, option=option, word=name)
    before = {task.id: [name for name in task.predecessors if name in known.indexes] for task in tasks}
    for ring in rings(before):
        index = known.indexes[ring[0]]
        option = "after" if ring[1] in tasks[index].after else "requires"
        words = " after ".join(ring)
        text = f"ring of <after> and <requires>: {words}, expected an order in which each task can start"
        yield Fault(text=text, task=index, option=option, word=ring[1])


def rings(before: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Yield rings, each as IDs from a task to itself; no task is in two of them. `before` has the tasks that
    come before a task. The time is proportional to their number.
    """
    following: dict[str, list[str]] = {task: [] for task in before}
    for task, names in before.items():
        for name in names:
            following[name].append(task)
    waits_for = {task: len(names) for task, names in before.items()}
    left = set(before)

    def remove(tasks: list[str]) -> None:
        """Remove these tasks, and then each task that waits for no remaining one."""
        left.difference_update(tasks)
        for task in tasks:
            for name in following[task]:
                waits_for[name] -= 1
                if not waits_for[name] and name in left:
                    left.remove(name)
                    tasks.append(name)

    remove([task for task, number in waits_for.items() if not number])
    others = {task: iter(names) for task, names in before.items()}
    for start in before:
        # Each remaining task waits for another remaining one, so a walk from a task to one before it, and so
        # on, comes to a ring. When the ring has been removed, the walk continues from what is left of its
        # way.
        way, places = [start], {start: 0}
        while way:
            if way[-1] not in left:
                del places[way.pop()]
                continue
            name = next(name for name in others[way[-1]] if name in left)
            if name in places:
                ring = [*way[places[name] :], name]
                yield ring
                remove(ring[1:])
            else:
                places[name] = len(way)
                way.append(name)


def _binds(binds: Mapping[str, Endpoint]) -> Iterator[Fault]:
    collided = [
        *_collisions(binds, "FrontEndEndpoint", "BackendEndpoint"),
        *_collisions(binds, "FrontBind", "BackendBind"),
    ]
    yield from collided
    reported = {fault.element for fault in collided}
    pairs = (
        ("FrontBind", "BackendEndpoint", "FrontEndEndpoint"),
        ("BackendBind", "FrontEndEndpoint", "BackendEndpoint"),
    )
    for bound, connected, other in pairs:
        if (
            bound in reported
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


def _collisions(binds: Mapping[str, Endpoint], first: str, second: str) -> Iterator[Fault]:
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
    """Return the warnings, one line each. `curve` is True if the context has keys, so that only clients with
    a key may connect.
    """
    return [str(each) for each in config_warnings(context, curve=curve)]


def logged_warnings(context: Context, *, curve: bool) -> list[str]:
    """Return the warnings as the log has them, each with its file."""
    return [each.in_file(context.path) for each in config_warnings(context, curve=curve)]


def config_warnings(context: Context, *, curve: bool = False) -> list[ConfigWarning]:
    """Return the warnings with their places in the file."""
    tasks = context.as_written
    found = [ConfigWarning(line=line, text=text) for line, text in context.passed_over]
    for part in context.parts:
        found += [ConfigWarning(file=part.path, line=line, text=text) for line, text in part.passed_over]
    found += [*_binds_apart(context, curve=curve), *_open_bus(context, curve=curve), *_privileged(tasks)]
    found += [*_unreachable(context), *_rule_cycles(tasks), *_placements(context)]
    for task in tasks.values():
        found += [
            ConfigWarning(task=task.id, rule=rule, text=f"{task.id}: {text}")
            for rule, text in _rule_warnings(task)
        ]
        found += [
            ConfigWarning(task=task.id, setting=setting, text=f"{task.id}: {text}")
            for setting, text in _configuration_warnings(task)
        ]
        found += [ConfigWarning(task=task.id, text=f"{task.id}: {text}") for text in _setting_warnings(task)]
    return [*found, *_differing_threads(tasks.values())]


def _placements(context: Context) -> Iterator[ConfigWarning]:
    """Yield warnings about hosts that no task may have, and about tasks that will wait for one."""
    if context.listed.names and not context.placed:
        text = "<hosts> lists hosts, and no task has a <placement>: all run on the host of the context"
        yield ConfigWarning(element="hosts", text=text)
    if context.listed.endpoint and endpoint(context.listed.endpoint, bind=False).local:
        text = f"the endpoint {context.listed.endpoint} of <hosts> leads each host to itself"
        yield ConfigWarning(element="hosts", text=text)
    for task in context.as_written.values():
        if task.placement is None or task.id not in task.placement.apart:
            continue
        number, hosts = task.replicas or 1, len(task.placement.hosts or context.hosts)
        if number > hosts:
            text = (
                f"{task.id}: {number} replicas keep apart from each other and may run on {hosts} "
                f"{'host' if hosts == 1 else 'hosts'}, so {number - hosts} of them will wait"
            )
            yield ConfigWarning(task=task.id, text=text)


def _binds_apart(context: Context, *, curve: bool) -> Iterator[ConfigWarning]:
    ends = context.endpoints
    for name, bound, connected in (
        ("FrontBind", ends.publish_bind, ends.publish_endpoint),
        ("BackendBind", ends.subscribe_bind, ends.subscribe_endpoint),
    ):
        bound_endpoint, other = endpoint(bound, bind=True), endpoint(connected, bind=False)
        name = context.element_of_bind(name)
        if bound_endpoint.wildcard and not curve:
            text = (
                f"{name} {bound} means every address of this machine. Without CURVE keys zmsvc binds the "
                f"loopback address alone, because any client could give orders. "
                f"tcp://127.0.0.1:{bound_endpoint.port} or an ipc:// path is enough for one machine; several "
                f"machines need zmsvcctl keys make"
            )
            yield ConfigWarning(element=name, text=text)
        if apart(other, bound_endpoint):
            yield ConfigWarning(
                element=name,
                text=f"{name} {bound} is another address than {connected}, to which clients connect",
            )


def who_may_connect(context: Context, *, curve: bool) -> list[str]:
    """Return lines that name the clients which may connect to the bus and to the Monitors. These clients can
    give orders on the bus, and receive all that is published.
    """
    orders = f"give orders ({', '.join(BUS['context'])}) and read configurations"
    lines = [
        f"bus: {who} may connect to {' and '.join(places)}, {orders}"
        for who, places in _may_connect(
            context, [context.endpoints.publish_endpoint, context.endpoints.subscribe_endpoint], curve=curve
        )
    ]
    for task in context.as_written.values():
        tcp = [address for address in monitor_endpoints(task) if address.startswith("tcp://")]
        for who, places in _may_connect(context, tcp, curve=curve):
            lines.append(
                f"{task.id}: {who} may connect to {' and '.join(places)} and read what tasks use of the "
                f"machine"
            )
    return lines


def monitor_endpoints(task: TaskDefinition) -> list[str]:
    """Return the endpoints that a Monitor service binds, and none for any other task."""
    settings = (
        [task.configuration.get(tag) for tag in ("service", "publisher")]
        if task.instance == "Monitor"
        else []
    )
    places = [each.get("endpoint") for each in settings if isinstance(each, Mapping)]
    return [
        address for address in places if isinstance(address, str) and address.startswith(("tcp://", "ipc://"))
    ]


def _may_connect(context: Context, places: Iterable[str], *, curve: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield each group of clients that may connect, with those of the endpoints that are open to it. An ipc
    socket needs no keys: its file mode keeps other users out.
    """
    local = ANYONE if context.bus_access is BusAccess.ANYONE else MAY_CONNECT
    groups: dict[str, list[str]] = {}
    for address in places:
        ipc = address.startswith("ipc://")
        groups.setdefault(
            MAY_CONNECT if ipc else "each client that has an allowed key" if curve else local, []
        ).append(address)
    yield from groups.items()


def _open_bus(context: Context, *, curve: bool) -> Iterator[ConfigWarning]:
    if context.bus_access is not BusAccess.ANYONE or curve:
        return
    places = [context.endpoints.publish_endpoint, context.endpoints.subscribe_endpoint]
    if any(address.startswith("tcp://") for address in places):
        orders = ", ".join(BUS["context"])
        text = (
            f'bus_access="anyone": {ANYONE} may give orders ({orders}) at {places[0]} and read '
            f"configurations at {places[1]}; "
            f'bus_access="members" lets only {MAY_CONNECT} connect'
        )
        yield ConfigWarning(element="Context", text=text)
    for task in context.as_written.values():
        for address in monitor_endpoints(task):
            if address.startswith("tcp://"):
                text = (
                    f'{task.id}: bus_access="anyone": {ANYONE} may read at {address} what tasks use of the '
                    f"machine"
                )
                yield ConfigWarning(task=task.id, text=text)


def _privileged(tasks: Mapping[str, TaskDefinition]) -> Iterator[ConfigWarning]:
    """Warn of tasks that run as root only because another task has a user of its own."""
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
        yield ConfigWarning(task=without[0], text=text)


def _started_by(task: TaskDefinition) -> list[str]:
    """Return the tasks that this one starts, by its rules or because it requires them."""
    return [*(rule.call for rule in task.rules if rule.action in _STARTING), *task.requires]


def _unreachable(context: Context) -> Iterator[ConfigWarning]:
    tasks = context.as_written
    reached = {task.id for task in tasks.values() if task.entry}
    if not reached:
        yield ConfigWarning(
            text=("no task starts with its transaction: no <state> has the type on_start or start_now")
        )
    else:
        reached |= {rule.call for rule in context.on_any_fail if rule.action in _STARTING}
    waiting = list(reached)
    while waiting:
        called = {*_started_by(tasks[waiting.pop()])} - reached
        reached |= called
        waiting += called
    callers = Counter(name for task in tasks.values() for name in _started_by(task))
    for task in tasks.values():
        if task.id not in reached:
            why = "only tasks that nothing starts call it" if callers[task.id] else "no rule starts it"
            yield ConfigWarning(task=task.id, text=f"{task.id}: it waits for a rule, and {why}")


def _rule_warnings(task: TaskDefinition) -> Iterator[tuple[Rule, str]]:
    """Yield each warning about a rule, with the rule."""
    rules = Counter(task.rules)
    needed = _needed(task)
    for rule, times in rules.items():
        if times > 1:
            yield rule, f"the rule {_words(rule)} occurs {times} times"
        for why in rule_conditions.vain(rule, task):
            yield rule, f"the rule {_words(rule)} names an end that cannot happen: {why}"
        plain = replace(rule, when=(), after=None)
        if plain != rule and plain in rules:
            yield rule, f"the rule {_words(rule)} has no effect beside the rule {_words(plain)}"
        if rule.after is not None and rule.trigger is Trigger.ON_FAIL and needed:
            least = needed[rule.after.count - 1]
            if least > rule.after.within:
                text = (
                    f"the rule {_words(rule)} is about {rule.after.count} failures within "
                    f"{rule.after.within:g} s, and the delays between restarts of the task by its own rule "
                    f"take {least:g} s"
                )
                yield rule, text
        if rule.call == task.id and (why := _useless(rule)):
            yield rule, f"the rule {_words(rule)} is about the task itself{why}"


def _useless(rule: Rule) -> str:
    """Return why a rule by which a task calls itself has no use; empty if it has one."""
    if rule.action is Action.STOP:
        return ": it stops itself" if rule.trigger in _WHILE_IT_RUNS else ": it has already ended"
    if rule.action is Action.START and rule.trigger in _WHILE_IT_RUNS:
        return ", which already runs: it does nothing"
    return ""


def _needed(task: TaskDefinition) -> list[float]:
    """Return the shortest times in seconds from the first to the last of 1, 2, 3 ... failures, up to the
    highest number that a rule counts. Empty if the task has no rule that restarts it, or none that counts
    failures.
    """
    counts = [rule.after.count for rule in task.rules if rule.after and rule.trigger is Trigger.ON_FAIL]
    return least_times(task.limits, max(counts)) if counts and _restarts_itself(task) else []


def _restarts_itself(task: TaskDefinition) -> bool:
    return any(
        rule.trigger is Trigger.ON_FAIL and rule.call == task.id and rule.action in _STARTING
        for rule in task.rules
    )


def _configuration_warnings(task: TaskDefinition) -> Iterator[tuple[str, str]]:
    """Yield the name and the warning of each setting in the <configuration> of a task that zmsvc itself
    reads.
    """
    if task.service_type is ServiceType.COMMAND:
        for text in shell.warnings(task.configuration.get("command")):
            yield "command", text
    elif problem := _bad_interval(task):
        yield "interval", problem
    if task.retains:
        for name in topics.as_list(task.configuration.get("subscribe") or ()):
            if isinstance(name, str) and is_own(name):
                yield (
                    "subscribe",
                    f"its <subscribe> {quote(name)} is a topic of zmsvc itself, and a LastValue keeps no "
                    f"message of those",
                )


def _setting_warnings(task: TaskDefinition) -> Iterator[str]:
    yield from variable_warnings(task, task.environment, "its environment")
    if problem := _bad_monitor(task):
        yield problem
    if task.instance == "Monitor" and _wants_database(task):
        yield (
            "it is a Monitor with a database for its records, which zmsvc does not support: subscribe to it "
            "and store them"
        )
    if (kind := _state_type(task)) not in _STATE_TYPES:
        yield f"its state type {quote(kind)} is none of {', '.join(_STATE_TYPES[1:])}: it waits for a rule"
    yield from _memory_warnings(task)
    if task.service_type is ServiceType.COMMAND and task.limits.watchdog:
        yield "it is a Command with a watchdog: a program that does not say WATCHDOG=1 to sd_notify is killed"
    if task.service_type is ServiceType.THREAD and (
        names := [str(each) for each in task.success_exit_status if isinstance(each, str)]
    ):
        yield (
            f"it is a Thread task, which no signal ends alone: {', '.join(names)} in its "
            f"<success_exit_status> has no effect"
        )
    if task.service_type is ServiceType.THREAD and task.stop_signal != "SIGTERM":
        yield "it is a Thread task, which no signal stops: its <stop_signal> has no effect"


def _memory_warnings(task: TaskDefinition) -> Iterator[str]:
    """Yield warnings about limits of memory that have no effect because of another limit."""
    if _reaches(task.memory_high, task.memory_max):
        yield "its <memory_high> is not below its <memory_max>: it has no effect"
    if _reaches(task.memory_restart, task.memory_max):
        yield "its <memory_restart> is not below its <memory_max>: the kernel kills the task before"


def _reaches(limit: int | str, most: int | str) -> bool:
    """Return True if a limit is at least the other one, as far as that is known without the machine."""
    if -1 in (limit, most) or isinstance(limit, int) is not isinstance(most, int):
        return False
    return part_of(limit, 10_000) >= part_of(most, 10_000)


def variable_warnings(task: TaskDefinition, names: Collection[str], origin: str) -> Iterator[str]:
    """Yield warnings about variables of a task with these names. `origin` begins the sentence of a warning,
    for example `its environment`.
    """
    for name in sorted(_RESERVED_VARIABLES.intersection(names)):
        yield f"{origin} sets {name}, which zmsvc sets itself: notifications would not arrive"
    if task.service_type is not ServiceType.COMMAND and not task.fresh:
        for name in sorted(name for name in names if read_at_start(name)):
            way = (
                "<fresh>yes</fresh>"
                if task.service_type is ServiceType.PROCESS
                else "a Process with <fresh>yes</fresh>"
            )
            yield (
                f"{origin} sets {name}, which a program reads only at its start: it does not affect a "
                f"forked task, use {way}"
            )


_LIBC = ("LD_", "MALLOC_", "GLIBC_TUNABLES")
"""Variables that the dynamic linker and libc read once, when a program starts."""


def read_at_start(name: str) -> bool:
    """Return True if only an interpreter that starts reads this variable. TZ, PYTHONPATH and the locale are
    not among them, since zmsvc applies those itself.
    """
    return name.startswith(_LIBC) or (
        name.startswith("PYTHON") and name not in ("PYTHONPATH", "PYTHONBREAKPOINT")
    )


def _bad_monitor(task: TaskDefinition) -> str:
    """Return the fault of the configuration of a Monitor that could not start."""
    if task.service_type is not ServiceType.COMMAND and task.instance == "Monitor":
        try:
            monitoring(task.configuration)
        except ValueError as error:
            return f"it is a Monitor that cannot start: {error}"
    return ""


def _bad_interval(task: TaskDefinition) -> str:
    """Return the fault of an interval with which a task in Python could not start."""
    try:
        seconds(task.configuration.get("interval", "0"))
    except ValueError:
        return (
            f"its interval {quote(str(task.configuration['interval']))} is not a time, such as 0.5 or 500ms: "
            f"a looped task cannot start"
        )
    return ""


def _wants_database(task: TaskDefinition) -> bool:
    options = task.configuration.get("monitor_options")
    wanted = options.get("store_records") if isinstance(options, Mapping) else None
    return "db_connection" in task.configuration or str(wanted or "").strip().lower() in TRUE


def _state_type(task: TaskDefinition) -> str:
    found: Any = task.source
    for key in ("Task", "state", "type"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found.strip() if isinstance(found, str) else ""


def _differing_threads(tasks: Iterable[TaskDefinition]) -> Iterator[ConfigWarning]:
    threads = [task for task in tasks if task.service_type is ServiceType.THREAD]
    for option in OPTIONS:
        if not option.per_process:
            continue
        if any(getattr(task, option.field) != getattr(threads[0], option.field) for task in threads):
            ids = ", ".join(task.id for task in threads)
            yield ConfigWarning(
                task=threads[0].id,
                text=f"the Thread tasks {ids} share one process, but differ in {option.name}",
            )


def _rule_cycles(tasks: Mapping[str, TaskDefinition]) -> Iterator[ConfigWarning]:
    for group in _strong_components(tasks):
        ring = _shortest_cycle(tasks, group)
        if ring:
            yield ConfigWarning(
                task=group[0], text=f"ring of rules, which is legal but may run forever: {' '.join(ring)}"
            )


def _edges(task: TaskDefinition) -> Iterator[Rule]:
    """Yield the rules by which a task starts tasks. A task that restarts itself on failure is left out, since
    that is the purpose of on_fail; so is one with `restart` always.
    """
    for rule in task.rules:
        # A rule that starts its own task while it runs does nothing; another check warns of it.
        idle = rule.action is Action.START and rule.trigger in _WHILE_IT_RUNS
        # A task that on_recover restarts has not failed, so it does not recover again.
        meant = rule.trigger in (Trigger.ON_FAIL, Trigger.ON_RECOVER) or (
            rule.trigger is Trigger.ON_EXIT and task.restart is Restart.ALWAYS
        )
        if rule.action in _STARTING and not (rule.call == task.id and (idle or meant)):
            yield rule


def _strong_components(tasks: Mapping[str, TaskDefinition]) -> list[list[str]]:
    """Return the strongly connected components in the order of the file, by Tarjan's algorithm. It does not
    recurse, because a file may chain thousands of tasks.
    """
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    finished: set[str] = set()
    components: list[list[str]] = []
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
                if rule.call not in finished:
                    low[here] = min(low[here], order[rule.call])
            else:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[here])
                if low[here] == order[here]:
                    component = [stack.pop()]
                    while component[-1] != here:
                        component.append(stack.pop())
                    finished.update(component)
                    components.append(component[::-1])
    return sorted(components, key=lambda component: order[component[0]])


def _shortest_cycle(tasks: Mapping[str, TaskDefinition], group: list[str]) -> list[str]:
    """Return a shortest cycle through the first task of the group as text, or an empty text if the task is in
    no cycle.
    """
    start, inside = group[0], set(group)
    reached_from: dict[str, tuple[str, Rule]] = {}
    level = [start]
    while level and start not in reached_from:
        following: list[str] = []
        for here in level:
            for rule in _edges(tasks[here]):
                if rule.call in inside and rule.call not in reached_from:
                    reached_from[rule.call] = (here, rule)
                    following.append(rule.call)
        level = following
    words: list[str] = []
    here = start
    while here in reached_from and (not words or here != start):
        before, rule = reached_from[here]
        words[:0] = [f"-[{rule.trigger}: {rule.action}]->", here]
        here = before
    return [start, *words] if words else []


def _words(rule: Rule) -> str:
    conditions = f", {rule.conditions}" if rule.when or rule.after else ""
    return f"{rule.trigger}: {rule.action} {rule.call}{conditions}"
