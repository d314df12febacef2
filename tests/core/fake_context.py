"""A whole context on a simulated kernel: the real keeper and the real supervisor, with simulated tasks,
zygote, device and clients.

`run` draws from the seed which process goes on next. `settle` lets all of them finish their work, without
further faults.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import os
import select
import selectors
import signal
import socket
import struct
from asyncio import events as asyncio_events
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fake_kernel import Crash, KeeperPort, Kernel, Process, Shuffled, SupervisorPort, launch_mark

from zmsvc.core import facts as ft
from zmsvc.core.access import Verb
from zmsvc.core.errors import ProtocolError
from zmsvc.core.model import Context
from zmsvc.host import paths, seqpacket
from zmsvc.host.state_file import StateFile
from zmsvc.host.systemd import datagrams
from zmsvc.keeper.keeper import Keeper
from zmsvc.keeper.launch_record import LaunchRecord
from zmsvc.keeper.listeners import Listeners
from zmsvc.keeper_client.children import Children
from zmsvc.protocol import forking, sharing, watching
from zmsvc.protocol import supervision as sv
from zmsvc.protocol.launch import LaunchSpec
from zmsvc.protocol.output import Ping, Pong
from zmsvc.supervisor.loop import Loop
from zmsvc.supervisor.session import Session

BOOT = "boot"
START_S = 0.1
"""Seconds from the execution of a supervisor until it does something."""
ZYGOTE_S = 0.2


@dataclass(eq=False)
class Order:
    """An order of a client, who sends it to one supervisor after the other until one answers."""

    verb: Verb
    tasks: tuple[str, ...]
    at: float
    answered: float | None = None


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with the kernel's clock. Each call runs one turn."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        super().__init__(Shuffled(kernel, faulty=False))

    def time(self) -> float:
        return self._kernel.now

    def due(self) -> float | None:
        """Return the time at which it has something to do; None if it has not."""
        if self._ready or selectors.DefaultSelector.select(self._selector, 0):  # type: ignore[attr-defined]
            return self._kernel.now
        waiting = [handle.when() for handle in self._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
        return min(waiting, default=None)

    def once(self) -> None:
        asyncio_events._set_running_loop(self)
        try:
            self._run_once()  # type: ignore[attr-defined]
        finally:
            asyncio_events._set_running_loop(None)

    def _write_to_self(self) -> None:
        """Do nothing: no other thread runs."""


class OldKeeper(Children):
    """The messages of a supervisor under a keeper of an earlier protocol."""

    spoken = 2

    def greet(self) -> sv.Hello:
        hello = super().greet() if self.spoken else _unintroduced(super().greet, self)
        return replace(hello, protocol=self.spoken)


def _unintroduced(greet: Callable[[], sv.Hello], children: Children) -> sv.Hello:
    hello = greet()
    children._unsent.clear()
    return hello


class Speaker:
    """The notifications of the supervisor to systemd."""

    def __init__(self, kernel: Kernel, pid: int) -> None:
        self._say = partial(kernel.say, "keeper", pid)

    def notify(self, *lines: str) -> None:
        self._say(*lines)

    def watchdog(self) -> None:
        self._say("WATCHDOG=1")

    def status(self, text: str) -> None:
        self._say(f"STATUS={text}")

    def stopping(self) -> None:
        self._say("STOPPING=1")

    def reloading(self) -> None:
        raise NotImplementedError

    def ready(self) -> None:
        raise NotImplementedError


class Clients:
    """The control socket of one supervisor."""

    def __init__(self, house: FakeContext, loop: Loop) -> None:
        self._house, self._loop = house, loop
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_open = False

    async def open(self) -> None:
        self.is_open = True
        self.take()

    async def close(self) -> None:
        self.is_open = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def take(self) -> None:
        for order in self._house.orders:
            if order.answered is None:
                task = asyncio.ensure_future(self._ask(order))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _ask(self, order: Order) -> None:
        request = ft.Requested(
            verb=order.verb,
            origin=ft.Origin(by="operator", uid=0),
            request=self._loop.next_request(),
            transaction="T",
            tasks=order.tasks,
        )
        await self._loop.ask(request)
        order.answered = self._house.kernel.now


class SupervisorProcess:
    """The real supervisor, on a loop of its own."""

    def __init__(
        self, house: FakeContext, process: Process, environment: Mapping[str, str], protocol: int
    ) -> None:
        self.house, self.process, self.protocol = house, process, protocol
        self.keeper = socket.socket(fileno=int(environment["ZMSVC_KEEPER_FD"]))
        self.notify = socket.socket(fileno=int(environment["ZMSVC_NOTIFY_FD"]))
        os.close(int(environment["ZMSVC_CONTROL_FD"]))
        process.fds.clear()
        process.gone = self._gone
        self.begins = house.kernel.now + START_S
        self.aio: VirtualLoop | None = None
        self.loop: Loop | None = None
        self.clients: Clients | None = None
        self.store: StateFile | None = None
        self.reserved: datagrams.ReservedDescriptor | None = None
        self.main: asyncio.Task[None] | None = None

    def due(self) -> float | None:
        if self.process.stopped:
            return None
        if self.aio is not None:
            return self.aio.due()
        readable = select.select([self.keeper], [], [], 0)[0]
        return self.begins if readable else None

    def run(self) -> None:
        kernel = self.house.kernel
        try:
            if self.aio is None:
                self.aio = VirtualLoop(kernel)
                self.main = self.aio.create_task(self._live())
            self.aio.once()
            assert self.main is not None
            if self.main.done():
                self.end(status=0)
        except Crash:
            kernel.counts["the supervisor is killed"] += 1
            self.end(number=signal.SIGKILL)
        except ProtocolError:
            self.end(status=1)

    def end(self, **how: int) -> None:
        """End the process. An error of the supervisor is an error of the test."""
        failed = (
            self.main is not None
            and self.main.done()
            and not self.main.cancelled()
            and self.main.exception() is not None
        )
        self.house.kernel.exit(self.process, **how)
        if failed and "number" not in how:
            assert self.main is not None
            self.main.result()

    def _gone(self) -> None:
        """Drop everything that the process would still do."""
        if self.aio is not None:
            for task in asyncio.all_tasks(self.aio):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                work = task.get_coro()
                if inspect.iscoroutine(work) and inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
                    work.close()
            self.aio._ready.clear()  # type: ignore[attr-defined]
            self.aio._scheduled.clear()  # type: ignore[attr-defined]
            self.aio.close()
        if self.loop is not None:
            self.loop.close_record()
        if self.store is not None:
            self.store.close()
        self.keeper.close()
        self.notify.close()
        if self.reserved is not None:
            self.reserved.give_up()
        self.house.supervisors.remove(self)

    async def _live(self) -> None:
        house, kernel = self.house, self.house.kernel
        children = OldKeeper(self.keeper, self.notify, SupervisorPort(kernel))
        children.spoken = self.protocol
        self.reserved = children._spare
        hello = children.greet()
        self.store = StateFile(house.places.state_file, trusted=hello.restarts > 0)
        loop = self.loop = Loop(
            self.store.load(house.context, BOOT),
            self.store,
            children,
            house.places,
            "stderr",
            notifier=Speaker(kernel, self.process.pid),
        )
        ends = house.context.endpoints
        children.tell(sv.RunDevice(front=ends.publish_bind, back=ends.subscribe_bind, hwm=1, expect=0))
        self.clients = Clients(house, loop)
        self._beat()
        await Session(loop, self.clients, self).run(hello, [], autostart=True, transaction="T")

    def _beat(self) -> None:
        assert self.loop is not None
        assert self.aio is not None
        self.loop.notifier.watchdog()
        self.aio.call_later(15.0, self._beat)

    async def reload_by_signal(self) -> None:
        assert self.loop is not None
        await self.loop.ask(ft.ContextReloaded(context=self.house.context, request=self.loop.next_request()))

    def reexec(self) -> None:
        """Do the same as the order `reexec`."""
        if self.loop is not None and self.aio is not None and not self.loop.over.is_set():
            self.house.kernel.counts["reexec"] += 1
            self.loop.children.tell(sv.Reexec())
            self.loop.over.set()


def _order_on(line: socket.socket) -> tuple[bytes, list[int]] | None:
    """Return the next packet of the keeper with its descriptors, b"" if the keeper is gone; None if no packet
    waits.
    """
    try:
        data, ancillary, _, _ = line.recvmsg(forking.PACKET, 1024, socket.MSG_CMSG_CLOEXEC)
    except BlockingIOError:
        return None
    except ConnectionError:
        return b"", []
    return data, [fd for _, _, each in ancillary for fd in struct.unpack(f"{len(each) // 4}i", each)]


class Zygote:
    """Forks tasks, and sometimes dies meanwhile."""

    def __init__(self, house: FakeContext, process: Process, arguments: list[str]) -> None:
        self.house, self.process = house, process
        line, self.gate = (int(arguments[arguments.index(name) + 1]) for name in ("--line", "--gate"))
        self.line = socket.socket(fileno=line)
        self.line.setblocking(False)
        process.fds.remove(line)
        process.socks.append(self.line)
        self.begins = house.kernel.now + ZYGOTE_S
        self.greeted = False
        process.act = self.act

    def act(self) -> bool:
        kernel = self.house.kernel
        if not self.greeted:
            if kernel.now < self.begins:
                return False
            self.greeted = True
            return self._say(forking.encode_hello("sim"))
        order = _order_on(self.line)
        if order is None:
            return False
        data, came = order
        if not data:
            kernel.exit(self.process, status=0)
            return True
        self._fork(data, came)
        return True

    def _fork(self, data: bytes, came: list[int]) -> None:
        kernel = self.house.kernel
        spare = forking.read_spare(data, came)
        if spare is not None:
            self._fork_spare(spare.line)
            return
        spec, fds = forking.read_launch(data, came)
        if kernel.faults and kernel.chance(0.05):
            for fd in fds.given().values():
                os.close(fd)
            self._say(forking.encode_answer(forking.NotForked(number=errno.EAGAIN)))
            return
        marks = frozenset({self.house.places.context_mark, launch_mark(spec.launch)})
        task = kernel.fork(kernel.keeper, spec.service_type, marks)
        # The task waits at its own gate.
        assert fds.gate is not None
        task.fds = [fds.gate, *(fd for fd in fds.given().values() if fd != fds.gate)]
        Task(self.house, task, spec, fds.exec_gate, fds.shared_line, fds.gate)
        if kernel.faults and kernel.chance(0.05):
            kernel.counts["the zygote dies before its answer"] += 1
            kernel.exit(self.process, number=signal.SIGKILL)
            return
        self._say(forking.encode_answer(forking.Forked(pid=task.pid)))

    def _fork_spare(self, line: int) -> None:
        kernel = self.house.kernel
        if kernel.faults and kernel.chance(0.05):
            os.close(line)
            self._say(forking.encode_answer(forking.NotForked(number=errno.EAGAIN)))
            return
        process = kernel.fork(kernel.keeper, "spare", frozenset({self.house.places.context_mark}))
        SpareTask(self.house, process, line)
        if kernel.faults and kernel.chance(0.05):
            kernel.exit(self.process, number=signal.SIGKILL)
            return
        self._say(forking.encode_answer(forking.Forked(pid=process.pid)))

    def _say(self, data: bytes) -> bool:
        try:
            self.line.send(data)
        except OSError:
            self.house.kernel.exit(self.process, status=0)
        return True


class SpareTask:
    """Warms up for a while, and then waits for the launch of the task that it becomes."""

    def __init__(self, house: FakeContext, process: Process, line: int) -> None:
        self.house, self.process = house, process
        self.line = socket.socket(fileno=line)
        self.line.setblocking(False)
        process.socks.append(self.line)
        house.kernel.later(0.02, self._is_warm)
        process.act = self.act

    def _is_warm(self) -> None:
        if self.process.alive:
            with contextlib.suppress(OSError):
                self.line.send(forking.SPARE_IS_READY)

    def act(self) -> bool:
        kernel = self.house.kernel
        order = _order_on(self.line)
        if order is None:
            return False
        data, came = order
        if not data:
            kernel.exit(self.process, status=0)
            return True
        spec, fds = forking.read_launch(data, came)
        kernel.counts["a spare task becomes a task"] += 1
        self.process.kind = spec.service_type
        self.process.marks |= {launch_mark(spec.launch)}
        self.process.fds = [*fds.given().values()]
        Task(self.house, self.process, spec, fds.exec_gate, fds.shared_line)
        return True


class Watcher:
    """Reports the first message of each task that is ready by one, and sometimes silence."""

    def __init__(self, house: FakeContext, process: Process, arguments: list[str]) -> None:
        self.house, self.process = house, process
        line = int(arguments[arguments.index("--line") + 1])
        self.line = socket.socket(fileno=line)
        self.line.setblocking(False)
        process.fds.remove(line)
        process.socks.append(self.line)
        process.act = self.act
        self.watches: dict[int, watching.WatchTopics] = {}

    def act(self) -> bool:
        try:
            order = seqpacket.receive_message(self.line, watching.ORDERS)
        except BlockingIOError:
            return False
        if order is None:
            self.house.kernel.exit(self.process, status=0)
        elif isinstance(order, watching.WatchTopics):
            self._watch(order)
        elif isinstance(order, Ping):
            self._say(Pong())
        return True

    def _watch(self, order: watching.WatchTopics) -> None:
        kernel = self.house.kernel
        self.watches.pop(order.launch, None)
        if order.ready or order.expect:
            self.watches[order.launch] = order
        if order.ready and order.has_process:
            kernel.later(0.05, lambda: self._say(watching.TopicHeard(launch=order.launch, topic=order.ready)))
        elif order.expect and kernel.faults and kernel.chance(0.05):
            kernel.counts["a task is silent"] += 1
            topic = str(order.expect[0]["topic"])
            kernel.later(0.2, lambda: self._say(watching.TopicSilent(launch=order.launch, topic=topic)))

    def _say(self, report: watching.Report) -> None:
        if self.process.alive:
            try:
                seqpacket.send(self.line, watching.REPORTS.encode(report))
            except OSError:
                return


class Task:
    """The main process of a launch, or one that several share."""

    def __init__(
        self,
        house: FakeContext,
        process: Process,
        spec: LaunchSpec,
        exec_gate: int | None,
        line: int | None,
        gate: int | None = None,
    ) -> None:
        self.house, self.process, self.spec = house, process, spec
        self.gate, self.exec_gate = gate, exec_gate
        self.line = line
        self.members: dict[int, str] = {}
        self.state = "gate"
        if gate is not None:
            os.set_blocking(gate, False)
        if line is not None:
            os.set_blocking(line, False)
        process.act = self.act
        house.tasks[process.pid] = self

    def act(self) -> bool:
        if self.state == "gate":
            return self._pass_gate()
        if self.state == "launch":
            return self._launch()
        return self.line is not None and self._obey()

    def _pass_gate(self) -> bool:
        kernel = self.house.kernel
        try:
            # A spare task has no gate: the keeper knows its PID.
            if self.gate is not None and not os.read(self.gate, 1):
                kernel.counts["a task finds its gate closed"] += 1
                kernel.exit(self.process, status=203)
                return True
        except BlockingIOError:
            return False
        self.state = "launch"
        if self.line is None and not self.spec.auxiliary:
            self.house.begins(self.spec.launch, self.spec.task, self.process)
        return True

    def _launch(self) -> bool:
        kernel = self.house.kernel
        self.state = "runs"
        if self.exec_gate is not None:
            if kernel.faults and kernel.chance(0.2):
                kernel.counts["a program is not executed"] += 1
                if kernel.chance(0.5):
                    os.write(self.exec_gate, b"cannot execute it: No such file or directory")
                kernel.exit(self.process, status=203)
                return True
            self.process.executed = True
            os.close(self.exec_gate)
            self.process.fds.remove(self.exec_gate)
        elif self.line is None:
            # An auxiliary process may say so, too: that has no meaning.
            self.say("READY=1")
        if self.spec.auxiliary == "ready":
            kernel.later(0.05, lambda: kernel.exit(self.process, status=0))
        return True

    def say(self, *lines: str) -> None:
        self.house.kernel.say("tasks", self.process.pid, *lines)

    def _obey(self) -> bool:
        """Start and stop members, if this is a shared process."""
        kernel = self.house.kernel
        assert self.line is not None
        with socket.socket(fileno=os.dup(self.line)) as line:
            try:
                order = seqpacket.receive_message(line, sharing.ORDERS)
            except BlockingIOError:
                return False
            match order:
                case None:
                    kernel.exit(self.process, status=0)
                case sharing.StartMember(spec=spec):
                    self.members[spec.launch] = spec.task
                    self.house.begins(spec.launch, spec.task, self.process)
                    self.say("READY=1", f"X_ZMSVC_TASK={spec.task}")
                case sharing.StopMember(launch=launch):
                    if launch in self.members and not self.process.deaf:
                        self.member_ends(launch, 0)
        return True

    def member_ends(self, launch: int, status: int) -> None:
        assert self.line is not None
        del self.members[launch]
        with socket.socket(fileno=os.dup(self.line)) as line:
            try:
                seqpacket.send(
                    line, sharing.REPORTS.encode(sharing.MemberEnded(launch=launch, status=status))
                )
            except OSError:
                return


class FakeContext:
    """All processes of one context."""

    def __init__(self, seed: int, folder: Path, context: Context) -> None:
        self.places = paths.Places(
            name="Sim", config_file=folder / "Context-Sim.xml", runtime=folder / "run", state=folder / "state"
        )
        for directory in (self.places.runtime, self.places.state):
            directory.mkdir()
        self.context = context
        self.kernel = Kernel(seed, self.places.notify_socket, self.places.runtime / "keeper.sock")
        self.kernel.execute = {
            "zmsvc.zygote": lambda process, _, arguments: void(Zygote(self, process, arguments)),
            "zmsvc.supervisor": self._supervise,
            "zmsvc.watcher": lambda process, _, arguments: void(Watcher(self, process, arguments)),
            "zmsvc.device": lambda process, _environment, _arguments: self.kernel.later(
                0.1, lambda: self.kernel.say("keeper", process.pid, "READY=1") if process.alive else None
            ),
        }
        self.supervisors: list[SupervisorProcess] = []
        self.tasks: dict[int, Task] = {}
        self.orders: list[Order] = []
        self.protocols = (2,)
        """Each supervisor and each keeper speaks one of these, chosen at random."""
        self.names_mains = False
        """True if tasks name other processes of theirs as the main one."""
        self.held_back = 0
        """The number of turns in which the keeper lets others go first."""
        self.forked: Counter[tuple[int, int]] = Counter()
        self.keepers = 0
        self._start_keeper()

    # --- the keeper

    def _start_keeper(self) -> None:
        self.keepers += 1
        port = KeeperPort(self.kernel)
        # zmsvcd does this before anything else.
        port.kill_each(SupervisorPort(self.kernel).belonging((), self.places.context_mark))
        self.listeners = Listeners(self.places)
        self.keeper = Keeper(self.places, self.listeners, [], None, None, port)
        self.observe(self.keeper)
        # A daemon that cannot start reports the reason and ends; systemd starts it again.
        faults, self.kernel.faults = self.kernel.faults, 0.0
        self.keeper.begin()
        self.kernel.faults = faults

    def observe(self, keeper: Keeper) -> None:
        """Count events that can only be seen inside the keeper."""
        dispatcher, counts = keeper._dispatcher, self.kernel.counts
        ready = dispatcher._ready

        def counted(timeout: float | None) -> Any:
            for watch in ready(timeout):
                counts["an event comes after its object"] += dispatcher._watches.get(watch.fd) is not watch
                yield watch

        dispatcher._ready = counted  # type: ignore[assignment, method-assign]
        table = keeper._process_table
        become_main = table._become_main

        def main_counted(record: LaunchRecord, pid: int, started: int) -> None:
            counts["another process is the main one"] += 1
            become_main(record, pid, started)

        table._become_main = main_counted  # type: ignore[method-assign]

    def keeper_call(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Crash:
            self.kernel.counts["the keeper is killed"] += 1
            self._keeper_dies()

    def _keeper_dies(self) -> None:
        crashes, self.kernel.crashes = self.kernel.crashes, 0.0
        for supervisor in [*self.supervisors]:
            supervisor.end(number=signal.SIGKILL)
        self.kernel.keeper_dies()
        self._close_keeper()
        self._start_keeper()
        self.kernel.crashes = crashes

    def _close_keeper(self) -> None:
        keeper = self.keeper
        for fd, watch in [*keeper._dispatcher._watches.items()]:
            keeper._dispatcher.unwatch(fd)
            if getattr(watch.call, "func", None) == keeper._process_table._named_main_ended:
                os.close(fd)
        keeper._dispatcher._selector.close()
        for sock in (
            self.listeners.control,
            self.listeners.notify,
            self.listeners.keeper,
            *keeper._device._listening,
        ):
            sock.close()
        if keeper._supervisor.conn is not None:
            keeper._supervisor.conn.close()
        if keeper._zygote._channel is not None:
            keeper._zygote._channel.close()
            os.close(keeper._zygote._common_gate)
        for record in keeper._process_table._records.values():
            if record.exec_pipe is not None:
                os.close(record.exec_pipe)
        for process in keeper._process_table._shared_processes._by_transaction.values():
            process.close()
        os.close(self.listeners._lock)

    def close(self) -> None:
        for supervisor in [*self.supervisors]:
            supervisor.end(number=signal.SIGKILL)
        self._close_keeper()
        self.kernel.close()

    # --- the others

    def _supervise(self, process: Process, environment: Mapping[str, str], _arguments: list[str]) -> None:
        self.supervisors.append(
            SupervisorProcess(self, process, environment, self.kernel.random.choice(self.protocols))
        )

    def begins(self, launch: int, task: str, process: Process) -> None:
        """Note that a task begins its work: from now on it counts."""
        self.forked[self.keepers, launch] += 1
        assert self.forked[self.keepers, launch] == 1, f"launch {launch} runs twice"
        others = [
            each.process.pid
            for each in self.tasks.values()
            if each.process.alive
            and each.process is not process
            and each.state == "runs"
            and each.spec.task == task
            and each.line is None
            and not each.spec.auxiliary
        ]
        assert not others, f"{task} has two processes"

    def order(self, verb: Verb, *tasks: str) -> Order:
        made = Order(verb, tasks, self.kernel.now)
        self.orders.append(made)
        for supervisor in self.supervisors:
            if supervisor.clients is not None and supervisor.clients.is_open and supervisor.aio is not None:
                supervisor.aio.call_soon(partial(_take, supervisor.clients, made))
        return made

    # --- who is next

    def keeper_due(self) -> float | None:
        watches = self.keeper._dispatcher._selector
        if selectors.DefaultSelector.select(watches, 0) or self._child_has_ended():
            return self.kernel.now
        timeout = self.keeper.timeout()
        return None if timeout is None else self.kernel.now + timeout

    def _keeper_turn(self) -> None:
        if self._child_has_ended():
            self.keeper.handle_signals([signal.SIGCHLD])
        self.keeper.turn()

    def _child_has_ended(self) -> bool:
        return any(
            process.end is not None and process.parent == self.kernel.keeper
            for process in self.kernel.processes.values()
        )

    def one(self) -> bool:
        """Run one process that has work. Return False if all of them wait for a time."""
        kernel = self.kernel
        choices: list[Callable[[], object]] = []
        due = self.keeper_due()
        keeper = due is not None and due <= kernel.now
        if keeper and self.held_back <= 0:
            choices.append(lambda: self.keeper_call(self._keeper_turn))
        self.held_back -= 1
        for supervisor in self.supervisors:
            due = supervisor.due()
            if due is not None and due <= kernel.now:
                choices.append(supervisor.run)
        if kernel.timers and kernel.timers[0][0] <= kernel.now:
            choices.append(kernel.ring)
        kernel.random.shuffle(choices)
        actors = [process for process in kernel.processes.values() if process.alive and not process.stopped]
        kernel.random.shuffle(actors)
        for process in actors[: 1 if choices else None]:
            if process.act():
                return True
        if not choices:
            # No other process can go on, so the keeper need not wait any more.
            self.held_back = 0
            return keeper
        choices[0]()
        return True

    def wait(self, most: float) -> bool:
        """Advance the clock to the next alarm, but by no more than these seconds. Return False when no
        alarm is set.
        """
        kernel = self.kernel
        due = [self.keeper_due(), *(supervisor.due() for supervisor in self.supervisors)]
        due += [kernel.timers[0][0]] if kernel.timers else []
        due += [each.begins for each in self.supervisors if each.aio is None]
        times = [at for at in due if at is not None and at > kernel.now]
        zygotes = [process.act.__self__.begins for process in kernel.living("zygote")]  # type: ignore[attr-defined]
        times += [at for at in zygotes if at > kernel.now]
        if not times or min(times) > kernel.now + most:
            kernel.now += most
            return False
        kernel.now = min(times)
        return True

    def run_for(self, seconds: float) -> None:
        """Run everything that happens in this time."""
        until = self.kernel.now + seconds
        for _ in range(200_000):
            while self.one():
                pass
            if self.kernel.now >= until:
                return
            self.wait(until - self.kernel.now)
        raise AssertionError("it never comes to rest")


def _take(clients: Clients, order: Order) -> None:
    if clients.is_open and order.answered is None:
        asyncio.ensure_future(clients._ask(order))  # noqa: RUF006 - the loop's own tasks hold it


def void(_made: object) -> None:
    """An object to which a weak reference is possible."""
