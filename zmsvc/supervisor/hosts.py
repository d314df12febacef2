"""The envoys of other hosts: what they say becomes facts, and the effects for their tasks become orders.

This module decides nothing about tasks. A silent host is one from which nothing is heard. Only the cluster
knows whether it is off (cluster_news.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, assert_never

import zmq

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.errors import ConfigError, ProtocolError
from zmsvc.core.facts import Fact
from zmsvc.core.hosts import Host, HostState
from zmsvc.core.service_options import NotifyAccess
from zmsvc.core.world import World
from zmsvc.host import crashpoint, ids
from zmsvc.host.bus import curve_keys, endpoints, socket_options
from zmsvc.host.bus.curve_keys import Curve
from zmsvc.host.bus.zap import KeyHandler
from zmsvc.host.paths import Places
from zmsvc.host.sparse_log import SparseLog
from zmsvc.protocol import hosts as wire
from zmsvc.protocol import supervision as sv
from zmsvc.protocol.launch import LaunchSpec
from zmsvc.supervisor.cluster_news import ClusterNews
from zmsvc.supervisor.launch_spec import (
    NOT_IN_FILE,
    auxiliary_spec,
    dropped_options,
    for_another_host,
    spec_of,
)

BATCH = 256
"""Messages that are received at once, before tasks and the control socket get a turn."""
MOST_HOSTS = 1000
"""Hosts that may be connected. Their names come from envoys that have an admitted key."""

log = logging.getLogger(__name__)


class Decider(Protocol):
    """The part of the supervisor that decides: loop.py."""

    places: Places

    @property
    def world(self) -> World: ...

    def take(self, *facts: Fact) -> None: ...

    def remember_leaving(self, host: str, *, leaving: bool) -> None:
        """Save that the keeper of a host is to end, for the next supervisor."""

    def is_leaving(self, host: str) -> bool: ...


@dataclass(slots=True)
class _Session:
    """The state of a connection since its envoy has greeted."""

    peer: bytes
    """The address of its connection within the socket."""
    epoch: str
    greeting: int
    keeper_protocol: int
    heard_at: float
    ordered: int = 0
    """The number of the last order."""
    received: int = 0
    """The number of the last message with facts."""
    taken: int = 0
    """The number of the last one that was acted on."""
    broken: bool = False
    """True if a message is missing: the envoy has to greet again."""
    silent: bool = False
    left: bool = False
    """True if its keeper is to end."""
    dropped: int = 0
    """The number of facts that its envoy has dropped."""

    @property
    def is_open(self) -> bool:
        """True while orders reach the envoy, as far as it is known."""
        return not (self.broken or self.silent)


class Hosts:
    """The connections to the envoys of one supervisor. Raises ConfigError, ZmsvcError if it cannot listen."""

    def __init__(self, supervisor: Decider, bind: str, curve: Curve | None) -> None:
        self._supervisor = supervisor
        self._loop = asyncio.get_running_loop()
        self._run = ids.transaction_id()
        self._sessions: dict[str, _Session] = {}
        self._unforgotten: list[tuple[str, int]] = []
        self._refused = SparseLog(log.warning)
        self._pause: asyncio.TimerHandle | None = None
        self._next_beat: asyncio.TimerHandle | None = None
        self._cluster = ClusterNews(supervisor, self._silent_hosts)
        server = _server_keys(supervisor.places, curve)
        self._context = socket_options.context()
        # The handler comes first: libzmq asks it about each connection.
        self._zap = KeyHandler(self._context, curve_keys.clients(supervisor.places.keys), log.warning)
        self._socket = socket_options.hosts(self._context, server)
        try:
            with endpoints.listen(bind) as listener:
                socket_options.bind(self._socket, listener)
        except BaseException:
            self.close()
            raise
        self._loop.add_reader(socket_options.fileno(self._zap.socket), self._admit)
        self._loop.add_reader(socket_options.fileno(self._socket), self._receive)
        self._next_beat = self._loop.call_later(wire.BEAT, self._beat)

    def close(self, linger: int = 0) -> None:
        """Hear nothing more of other hosts. Orders on their way have `linger` milliseconds."""
        if self._socket.closed:
            return
        for sock in (self._zap.socket, self._socket):
            self._loop.remove_reader(socket_options.fileno(sock))
        if self._next_beat is not None:
            self._next_beat.cancel()
        self._cluster.close()
        if self._pause is not None:
            self._pause.cancel()
        self._socket.close(linger)
        self._zap.close()
        self._context.term()

    # --- words of envoys

    def _admit(self) -> None:
        self._zap.answer(complete=True)

    def _receive(self) -> None:
        """Receive the waiting messages. ZMQ's descriptor announces a change only once, so a timer goes on
        with the rest.
        """
        if self._pause is not None or self._socket.closed:
            return
        began = self._loop.time()
        for _ in range(BATCH):
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            if len(frames) == 2:
                self._take(frames[0].bytes, str(frames[1].get("User-Id")), frames[1].bytes)
        self._pause = self._loop.call_later(self._loop.time() - began, self._receive_on)

    def _receive_on(self) -> None:
        self._pause = None
        self._receive()

    def _take(self, peer: bytes, key: str, data: bytes) -> None:
        try:
            message = wire.decode_said(data)
        except ProtocolError as error:
            self._refused.add("Cannot read a message of the key %s: %s", key, error)
            return
        if key not in (message.host, curve_keys.OWN):
            why = f"its key is {key}.key, expected {message.host}.key in {curve_keys.clients(self._keys)}"
            self._refused.add("The envoy of %s is refused: %s", message.host, why)
            self._say(peer, wire.Word(run=self._run, refusal=why))
            return
        match message:
            case wire.Call():
                self._called(peer, message)
            case wire.Greeting():
                self._greeted(peer, message)
            case wire.Facts() | wire.Alive():
                self._heard(peer, message)
            case _:
                assert_never(message)

    @property
    def _keys(self) -> Path:
        return self._supervisor.places.keys

    def _called(self, peer: bytes, call: wire.Call) -> None:
        why = ""
        if call.protocol != wire.HOST_PROTOCOL:
            why = f"zmsvc {call.version} there speaks another protocol: install the same release on all hosts"
        elif call.host not in self._sessions and len(self._sessions) >= MOST_HOSTS:
            why = f"there are {MOST_HOSTS} hosts already"
        if why:
            self._refused.add("The envoy of %s is refused: %s", call.host, why)
        self._say(peer, wire.Word(run=self._run, refusal=why))

    def _greeted(self, peer: bytes, said: wire.Greeting) -> None:
        session = self._sessions.get(said.host)
        known = self._supervisor.world.hosts.get(said.host, Host())
        late = session is not None and session.epoch == said.epoch and said.greeting <= session.greeting
        if said.run != self._run or late or not known.is_news(said.epoch, said.greeting):
            self._say(peer, wire.Word(run=self._run))
            return
        self._sessions[said.host] = session = _Session(
            peer=peer,
            epoch=said.epoch,
            greeting=said.greeting,
            keeper_protocol=said.keeper_protocol,
            heard_at=self._loop.time(),
        )
        log.info("%s has joined: %d processes run there", said.host, len(said.children))
        self._speak(session, admit_all=tuple(self._admitting_all(said.host)))
        self._supervisor.take(
            ft.HostJoined(
                host=said.host,
                epoch=said.epoch,
                greeting=said.greeting,
                children=said.children,
                exits=frozenset(said.exits),
            )
        )
        self._end_of_leave(said.host, said.epoch)

    def _admitting_all(self, host: str) -> Iterable[int]:
        """Yield the launches of a host of which every process may notify for its task."""
        world = self._supervisor.world
        for (_, name), task in world.tasks.items():
            if task.host == host and task.live and _admits_all(world, name):
                yield task.launch

    def _heard(self, peer: bytes, said: wire.Facts | wire.Alive) -> None:
        session = self._sessions.get(said.host)
        if (
            session is None
            or (said.run, said.greeting) != (self._run, session.greeting)
            or session.broken
            or session.silent
        ):
            self._say(peer, wire.Word(run=self._run))
            return
        session.heard_at, session.peer = self._loop.time(), peer
        if isinstance(said, wire.Alive):
            if said.dropped > session.dropped:
                session.dropped = said.dropped
                log.warning("%s has dropped %d facts of its tasks since its start", said.host, said.dropped)
            session.broken = said.facts != session.received
            if session.broken:
                self._say(peer, wire.Word(run=self._run))
            elif said.leaving and not session.left:
                session.left = True
                self._move_tasks_from(said.host)
            return
        if said.number != session.received + 1:
            session.broken = True
            self._say(peer, wire.Word(run=self._run))
            return
        session.received = said.number
        self._supervisor.take(
            *(ft.OnHost(host=said.host, epoch=session.epoch, fact=fact) for fact in said.facts)
        )

    def _move_tasks_from(self, host: str) -> None:
        """Drain a host whose keeper is to end. Its next keeper ends the drain."""
        known = self._supervisor.world.hosts.get(host)
        if known is None or known.drained:
            return
        log.warning("%s leaves: its tasks move to other hosts", host)
        self._supervisor.remember_leaving(host, leaving=True)
        self._supervisor.take(ft.DrainRequested(host=host, drained=True, origin=ft.Origin(by="signal")))

    def _end_of_leave(self, host: str, epoch: str) -> None:
        known = self._supervisor.world.hosts.get(host)
        if known is not None and known.epoch != epoch and self._supervisor.is_leaving(host):
            self._supervisor.remember_leaving(host, leaving=False)
            self._supervisor.take(ft.DrainRequested(host=host, drained=False, origin=ft.Origin(by="signal")))

    # --- words of this supervisor

    def _say(self, peer: bytes, message: wire.Told) -> None:
        self._send(peer, wire.encode_told(message))

    def _send(self, peer: bytes, data: bytes) -> None:
        try:
            self._socket.send_multipart([peer, data], zmq.DONTWAIT)
        except zmq.ZMQError as error:
            # Its numbers tell the envoy that something is missing.
            self._refused.add("Cannot send to an envoy: %s", error)
        # libzmq handles what has come when we send, and does not announce it again.
        self._loop.call_soon(self._receive)

    def _speak(self, session: _Session, *, admit_all: tuple[int, ...] = ()) -> None:
        self._say(
            session.peer,
            wire.Word(
                run=self._run,
                greeting=session.greeting,
                orders=session.ordered,
                taken=session.taken,
                admit_all=admit_all,
            ),
        )

    def _beat(self) -> None:
        """Speak to each host, and note those that are silent."""
        # First: no exception is to end the beats.
        self._next_beat = self._loop.call_later(wire.BEAT, self._beat)
        # This process may have been stopped: what has come meanwhile counts as heard.
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._receive()
        now = self._loop.time()
        for host, session in self._sessions.items():
            if not session.silent and now - session.heard_at > wire.SILENCE:
                session.silent = True
                log.warning("Nothing is heard from %s for %.1f s", host, now - session.heard_at)
                self._supervisor.take(
                    ft.HostSilent(host=host, epoch=session.epoch, greeting=session.greeting)
                )
            if session.is_open:
                self._speak(session)
        self._cluster.follow()

    def turn_ended(self, *, saved: bool) -> None:
        """Confirm the facts that the turn has acted on, and acknowledge ends that are in the state file."""
        for session in self._sessions.values():
            if session.is_open and session.taken < session.received:
                session.taken = session.received
                self._speak(session)
        unforgotten, self._unforgotten = (self._unforgotten, []) if saved else ([], self._unforgotten)
        for host, launch in unforgotten:
            self._order(host, sv.Acknowledge(launch=launch))

    # --- effects

    def perform(self, effect: fx.ProcessOrder | fx.Forget) -> None:
        """Send an effect for a task of another host as an order. If the host is not here, nothing is sent:
        the core gives the order again when the host has joined.
        """
        match effect:
            case fx.Launch() | fx.LaunchAuxiliary():
                self._launch(effect)
            case fx.Terminate():
                order = sv.SignalTask(launch=effect.launch, signal=effect.signal, rest=effect.others)
                self._order(effect.host, order)
            case fx.SendSignal():
                self._order(
                    effect.host, sv.SignalTask(launch=effect.launch, signal=effect.signal, all=effect.all)
                )
            case fx.SetMain():
                self._order(
                    effect.host,
                    sv.SetMain(launch=effect.launch, pid=effect.pid, start_time=effect.start_time),
                )
            case fx.KillAll():
                # Its stacks would need another answer of that host: it is killed at once.
                self._order(effect.host, sv.KillTask(launch=effect.launch))
            case fx.OpenBarrier():
                self._order(effect.host, sv.OpenBarrier(launches=effect.launches))
            case fx.Forget():
                self._unforgotten.append((effect.host, effect.launch))
            case _:
                assert_never(effect)

    def _order(self, host: str, order: wire.HostOrder) -> str:
        """Send an order. Return the reason if it can never be sent. If the host is not here, nothing is sent:
        the core gives the order again.
        """
        session = self._sessions.get(host)
        if session is None or not session.is_open:
            return ""
        number = session.ordered + 1
        data = wire.encode_told(
            wire.Ordered(run=self._run, greeting=session.greeting, number=number, order=order)
        )
        if len(data) > wire.MAX_BYTES:
            # libzmq would close the connection of the envoy.
            return f"the order has {len(data)} bytes, and another host takes at most {wire.MAX_BYTES}"
        crashpoint.reached("order to a host")
        session.ordered = number
        self._send(session.peer, data)
        return ""

    def _launch(self, effect: fx.Launch | fx.LaunchAuxiliary) -> None:
        world, host, session = self._supervisor.world, effect.host, self._sessions.get(effect.host)
        task = world.tasks.get(effect.key)
        of = effect.of if isinstance(effect, fx.LaunchAuxiliary) else effect.launch
        if session is None or task is None or (task.launch, task.host) != (of, host):
            # Another fact of the same turn has ended this launch.
            return
        made = self._launch_or_reason(effect, session.keeper_protocol)
        why = made if isinstance(made, str) else ""
        if isinstance(made, LaunchSpec):
            if isinstance(effect, fx.Launch) and _admits_all(world, effect.key[1]):
                self._order(host, wire.AdmitAll(launch=effect.launch))
            why = self._order(host, made)
        if why:
            fact = ft.LaunchFailed(launch=effect.launch, why=why)
            self._supervisor.take(ft.OnHost(host=host, epoch=session.epoch, fact=fact))

    def _launch_or_reason(
        self, effect: fx.Launch | fx.LaunchAuxiliary, keeper_protocol: int
    ) -> LaunchSpec | str:
        """Return the launch of an effect, or the reason why there is none."""
        world, places = self._supervisor.world, self._supervisor.places
        service = world.context.tasks.get(effect.key[1])
        if service is None:
            return NOT_IN_FILE
        if dropped := dropped_options(service, keeper_protocol):
            options = ", ".join(f"<{name}>" for name in dropped)
            return f"the keeper of an earlier zmsvc on {effect.host} does not know {options}: restart it"
        if isinstance(effect, fx.Launch):
            spec: LaunchSpec | None = spec_of(world, effect.key, places, "", ())
        else:
            spec = auxiliary_spec(world, effect, places, "", ())
        return NOT_IN_FILE if spec is None else for_another_host(spec, world.context)

    # --- questions

    def dropped(self) -> dict[str, int]:
        """Return the number of facts that the envoys of hosts have dropped since their starts."""
        return {host: session.dropped for host, session in self._sessions.items()}

    # --- the cluster

    def _silent_hosts(self) -> list[str]:
        """Return the hosts of which it is not known whether they run anything."""
        world = self._supervisor.world
        names = dict.fromkeys((*world.context.hosts, *world.hosts))
        return [name for name in names if world.hosts.get(name, Host()).state is HostState.SILENT]


def _admits_all(world: World, task: str) -> bool:
    service = world.context.tasks.get(task)
    return service is not None and service.notify_access is NotifyAccess.ALL


def _server_keys(places: Places, curve: Curve | None) -> Curve:
    """Return the pair of the context as a server. Raises ConfigError."""
    if curve is None:
        raise ConfigError(
            [
                f"cannot listen for hosts of {places.name}: it has no CURVE keys, and without them anybody "
                f"could be such a host (zmsvcctl -c {places.name} keys make)"
            ]
        )
    pair = curve_keys.load_curve(places.keys / f"{curve_keys.SERVER}{curve_keys.SECRET}")
    if pair.public != curve.server_public:
        raise ConfigError(
            [f"cannot listen for hosts of {places.name}: its CURVE keys were replaced; restart the context"]
        )
    return pair
