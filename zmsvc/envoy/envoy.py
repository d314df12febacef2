"""The envoy: what the keeper of this host reports goes to the supervisor of the context, whose orders go to
the keeper. It decides nothing about tasks.

It may die at any line: the keeper starts the next one, and keeps every end until the supervisor has saved it.
While the connection is cut, the tasks go on, and the envoy keeps their notifications.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import assert_never

import zmq

from zmsvc import __version__
from zmsvc.core import facts as ft
from zmsvc.core.errors import ProtocolError, UsageError
from zmsvc.envoy.held_launches import HeldLaunches
from zmsvc.envoy.line import Line
from zmsvc.envoy.own_launches import completed
from zmsvc.envoy.unsaved_facts import MOST, MOST_BYTES, UnsavedFacts
from zmsvc.host.paths import Places
from zmsvc.host.sparse_log import SparseLog
from zmsvc.host.systemd.queued_notifier import QueuedNotifier
from zmsvc.keeper_client.children import Children, children_and_ends
from zmsvc.keeper_client.remains import kill_remains
from zmsvc.protocol import PROTOCOL, PROTOCOL_BARRIER, hosts
from zmsvc.protocol import supervision as sv
from zmsvc.protocol.launch import LaunchSpec

GREETINGS = 1 << 20
"""The most greetings of one envoy. Those of the next envoy have higher numbers."""
LEAVE_S = 20.0
"""Seconds in which the tasks have to move to other hosts when this keeper is to end."""
RENEW_S = 10.0
"""Seconds without a connection after which the envoy connects with a new socket. libzmq tries again every
0.25 s by itself.
"""
GRACE_S = 10.0
"""Seconds that the tasks have to end after SIGTERM if no supervisor is there to move them."""

LIMITS = f"{MOST} facts and {MOST_BYTES >> 20} MiB of results"

log = logging.getLogger(__name__)


class Envoy:
    """One envoy. It is the listener and the notify policy of its `Children`."""

    def __init__(
        self, host: str, children: Children, hello: sv.Hello, places: Places, log_target: str, line: Line
    ) -> None:
        self._host, self._children, self._hello, self._line = host, children, hello, line
        self._places, self._log_target = places, log_target
        self._loop = asyncio.get_running_loop()
        living, ends = children_and_ends(hello)
        self._held = HeldLaunches(living, ends)
        self._unsaved = UnsavedFacts()
        self._admitted: set[int] = set()
        self._notifier = QueuedNotifier()
        self._greeting = hello.restarts * GREETINGS
        self._run = ""
        """The run of the supervisor that has answered; empty while none has."""
        self._accepted = False
        """True while that supervisor has taken our greeting."""
        self._orders = 0
        """The number of its last order."""
        self._heard_at = self._loop.time()
        self._cut = False
        """True if the supervisor has been silent for so long that tasks must not wait for it."""
        self._greeted_at = -hosts.BEAT
        self._connected = False
        self._connected_at = self._loop.time()
        """The last time at which there was a connection, or at which the socket was renewed."""
        self._listens = False
        self._next_beat: asyncio.TimerHandle | None = None
        self._leaving_until: float | None = None
        self._asked_to_end = False
        self._shown = ""
        self._refused = SparseLog(log.warning)
        self._has_dropped = False
        """True if facts were dropped since the connection was cut."""
        self._over = asyncio.Event()
        children.context_mark, children.notify_policy = places.context_mark, self

    # --- what `Children` asks

    def admits_all(self, launch: int) -> bool:
        return launch in self._admitted

    def store_of(self, launch: int) -> tuple[str, int]:
        return f"launch {launch}", 0

    def backlog(self, waiting: bool) -> None:
        keeper = self._children.keeper.fileno()
        if waiting:
            self._loop.add_writer(keeper, self._children.send_orders)
        else:
            self._loop.remove_writer(keeper)

    def wake(self) -> None:
        # A thread may call this after the end of the loop.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._read)

    # --- the work

    async def run(self) -> None:
        """Work until the keeper is gone or has to end."""
        self._children.listener = self
        self.backlog(self._children.waiting)
        self._notifier.ready()
        self._loop.add_reader(self._line.fileno(), self._receive)
        self._beat()
        self._receive()
        if self._hello.stopping:
            # An envoy that was killed has begun it.
            self._begin_to_leave(now=False)
        try:
            await self._over.wait()
        finally:
            if self._next_beat is not None:
                self._next_beat.cancel()
            self._loop.remove_reader(self._line.fileno())
            self._listen()
            self._line.close()
        self._children.finish()

    @property
    def _reads(self) -> bool:
        """True if this is the time to read what the keeper reports and what tasks say."""
        return not self._over.is_set() and (self._cut or (self._accepted and not self._unsaved.on_their_way))

    def _listen(self) -> None:
        """Wait for the sockets of keeper and tasks only when they are read: otherwise they would wake this
        process again and again.
        """
        if self._reads is self._listens:
            return
        self._listens = self._reads
        for source in (self._children.keeper, self._children.notify):
            if self._listens:
                self._loop.add_reader(source.fileno(), self._read)
            else:
                self._loop.remove_reader(source.fileno())

    def _beat(self) -> None:
        """Speak each second: a supervisor that has just begun knows no host before it hears of it."""
        # First: no exception is to end the beats.
        self._next_beat = self._loop.call_later(hosts.BEAT, self._beat)
        # This process may have been stopped: what has come meanwhile counts as heard.
        self._receive()
        now = self._loop.time()
        self._renew_in_time(now)
        if self._accepted and now - self._heard_at > hosts.SILENCE:
            self._begin_again("no supervisor is heard any more")
        self._cut = not self._accepted and now - self._heard_at > hosts.SILENCE
        self._speak()
        self._read()
        self._leave_in_time(now)
        self._show("" if self._accepted else f"{self._host} waits for the supervisor of the context")
        self._notifier.watchdog()

    def _renew_in_time(self, now: float) -> None:
        if self._connected:
            self._connected_at = now
        elif now - self._connected_at > RENEW_S:
            self._connected_at = now
            self._loop.remove_reader(self._line.fileno())
            try:
                self._line.renew()
            except (zmq.ZMQError, UsageError) as error:
                log.warning("%s: cannot connect with a new socket: %s", self._host, error)
            self._loop.add_reader(self._line.fileno(), self._receive)

    def _speak(self) -> None:
        if self._accepted:
            self._say(
                hosts.Alive(
                    host=self._host,
                    run=self._run,
                    greeting=self._greeting,
                    facts=self._unsaved.numbered,
                    leaving=self._leaving_until is not None,
                    dropped=self._unsaved.dropped,
                )
            )
        elif self._loop.time() - self._greeted_at >= hosts.BEAT:
            self._run = ""
            self._say(hosts.Call(host=self._host, protocol=hosts.HOST_PROTOCOL, version=__version__))

    def _show(self, status: str) -> None:
        status = status or f"{self._host} is connected; {len(self._held.children)} processes"
        if status != self._shown:
            self._shown = status
            self._notifier.status(status)

    def _say(self, message: hosts.Said) -> None:
        self._line.send(hosts.encode_said(message))
        # libzmq handles what has come when we send, and does not announce it again.
        self._loop.call_soon(self._receive)

    # --- facts up

    def _read(self) -> None:
        """Read what the keeper reports and what tasks say. While the supervisor has facts of ours, the others
        stay where they are.
        """
        if self._reads:
            self._keep(self._children.facts())
        for request in self._children.take_requests():
            if isinstance(request, sv.StopAll):
                self._begin_to_leave(now=request.now)
            else:
                self._make_way()
        if self._children.lost:
            log.error("The keeper is gone: its tasks end (systemd restarts its unit)")
            kill_remains(
                self._children.outside,
                {child.pid for child in self._held.children},
                self._places,
                self._loop.time,
            )
            self._over.set()
            return
        if self._cut:
            # Datagrams that were only peeked at would fill the socket, and then every task would wait.
            self._children.discard_peeked()
        self._send_facts()
        self._listen()

    def _keep(self, facts: list[ft.Fact]) -> None:
        found = []
        for fact in facts:
            told = _of_this_host(fact)
            self._held.take(told)
            found.append(told)
        before = self._unsaved.dropped
        self._unsaved.add(found, cut=self._cut)
        if self._unsaved.dropped > before and not self._has_dropped:
            self._has_dropped = True
            log.warning("%s drops what its tasks say: it keeps %s, and is not connected", self._host, LIMITS)

    def _send_facts(self) -> None:
        if not self._accepted or self._unsaved.on_their_way:
            return
        for number, facts in self._unsaved.messages():
            self._say(
                hosts.Facts(
                    host=self._host, run=self._run, greeting=self._greeting, number=number, facts=facts
                )
            )

    # --- words and orders of the supervisor

    def _receive(self) -> None:
        while not self._over.is_set() and (data := self._line.receive()) is not None:
            try:
                message = hosts.decode_told(data)
            except ProtocolError as error:
                self._refused.add("Cannot read a message of the supervisor: %s", error)
                continue
            match message:
                case hosts.Word():
                    self._hear(message)
                case hosts.Ordered():
                    self._obey(message)
                case _:
                    assert_never(message)
        if self._over.is_set():
            return
        # A supervisor that has just begun knows no host before it hears of it.
        before, self._connected = self._connected, self._line.is_connected
        if self._connected and not before:
            self._speak()
        if self._line.has_message:
            # It came during the question.
            self._loop.call_soon(self._receive)

    def _hear(self, word: hosts.Word) -> None:
        if word.refusal:
            self._refused.add("The supervisor does not take %s: %s", self._host, word.refusal)
            return
        if not self._accepted:
            if word.run != self._run:
                self._greet(word.run)
            elif word.greeting == self._greeting:
                self._admitted.update(word.admit_all)
                self._accept()
            return
        self._heard_at = self._loop.time()
        if (word.run, word.greeting, word.orders) != (self._run, self._greeting, self._orders):
            self._begin_again("the supervisor asks for a greeting")
            self._greet(word.run)
            return
        self._unsaved.confirm(word.taken)
        if not len(self._unsaved):
            self._children.discard_peeked()
        self._read()

    def _greet(self, run: str) -> None:
        self._run, self._greeted_at = run, self._loop.time()
        self._greeting += 1
        ends = self._held.ends
        self._say(
            hosts.Greeting(
                host=self._host,
                run=run,
                epoch=self._hello.epoch,
                greeting=self._greeting,
                keeper_protocol=min(PROTOCOL, self._hello.protocol),
                children=self._held.children,
                exits=tuple(end.launch for end in ends),
            )
        )

    def _accept(self) -> None:
        """Begin to work for a supervisor that has taken our greeting: tell the ends behind what tasks have
        said before.
        """
        self._heard_at = self._loop.time()
        log.info("The supervisor of %s takes the facts of %s", self._places.name, self._host)
        self._accepted = True
        self._orders = 0
        self._keep(self._children.facts(all_said=True))
        self._cut = False
        if self._has_dropped:
            self._has_dropped = False
            log.warning(
                "%s has dropped %d facts of its tasks since its start", self._host, self._unsaved.dropped
            )
        self._unsaved.begin_again()
        ends = [end for end in self._held.ends if not self._unsaved.has_end(end.launch)]
        pids = {end.launch: end.pid for end in self._hello.ends}
        # The process has ended, so it needs no start time to identify it.
        self._unsaved.put_first(
            [
                ft.TaskLaunched(launch=end.launch, pid=pids[end.launch], start_time=0)
                for end in ends
                if end.launch in pids
            ]
        )
        self._unsaved.add(list(ends), cut=False)
        self._read()

    def _begin_again(self, why: str) -> None:
        log.warning("%s: %s", self._host, why)
        self._run, self._accepted = "", False
        self._unsaved.begin_again()

    def _obey(self, ordered: hosts.Ordered) -> None:
        if not self._accepted:
            return
        if (ordered.run, ordered.greeting, ordered.number) != (self._run, self._greeting, self._orders + 1):
            self._begin_again("an order of the supervisor is missing")
            return
        self._heard_at = self._loop.time()
        self._orders = ordered.number
        self._carry_out(ordered.order)

    def _carry_out(self, order: hosts.HostOrder) -> None:
        children = self._children
        match order:
            case LaunchSpec():
                self._held.is_to_launch(order.launch, auxiliary=order.auxiliary_of > 0)
                children.tell(completed(order, self._places, self._log_target))
            case sv.SignalTask():
                if not order.all:
                    children.ask_to_end(order.launch, order.signal, order.rest)
                elif children.knows_signal(order.signal):
                    children.tell(order)
            case sv.SetMain() | sv.KillTask():
                children.tell(order)
            case sv.OpenBarrier():
                if children.protocol >= PROTOCOL_BARRIER:
                    children.tell(order)
            case sv.Acknowledge():
                self._held.acknowledge(order.launch)
                self._admitted.discard(order.launch)
                children.forget(order.launch)
                self._leave_in_time(self._loop.time())
            case hosts.AdmitAll():
                self._admitted.add(order.launch)
            case _:
                assert_never(order)

    # --- the end of the keeper

    def _begin_to_leave(self, *, now: bool) -> None:
        """Let the tasks end before the keeper ends: the supervisor moves them to other hosts."""
        at = self._loop.time()
        if self._leaving_until is None:
            self._leaving_until = at + LEAVE_S
            log.warning("%s leaves: its tasks have %g s to move to other hosts", self._host, LEAVE_S)
            self._notifier.stopping()
            self._speak()
        if now:
            self._leaving_until = at
        self._leave_in_time(at)

    def _make_way(self) -> None:
        """End in favor of an envoy from the installed files. SIGHUP to the keeper orders this."""
        self._children.tell(sv.Reexec())
        self._over.set()

    def _leave_in_time(self, now: float) -> None:
        if self._leaving_until is None or self._over.is_set():
            return
        if self._cut and not self._asked_to_end:
            # No supervisor is heard that could move the tasks.
            self._asked_to_end = True
            self._leaving_until = min(self._leaving_until, now + GRACE_S)
            for child in self._held.children:
                self._children.ask_to_end(child.launch, "SIGTERM", "SIGTERM")
        untold = not self._cut and (self._held.ends or len(self._unsaved))
        if now >= self._leaving_until or not (self._held.children or untold):
            self._children.tell(sv.Leave(status=0))
            self._over.set()


def _of_this_host(fact: ft.Fact) -> ft.TaskFact:
    """Return a fact as another host understands it, which has another monotonic clock."""
    if isinstance(fact, ft.TaskReloading):
        return ft.TaskReloading(launch=fact.launch)
    assert isinstance(fact, ft.TaskFact)
    return fact
