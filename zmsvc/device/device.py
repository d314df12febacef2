"""Device: XSUB for publishers, XPUB for subscribers, libzmq's proxy between them, in an order of start and
stop that loses nothing.

The proxy runs in a thread without the interpreter's lock. Python forwards messages only in the moment of an
ordered stop.
"""

from __future__ import annotations

import math
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import zmq

from zmsvc.core.errors import ZmsvcError
from zmsvc.device.admission import Admission, places
from zmsvc.device.guard import MAX_MEMORY, MAX_SUBSCRIPTIONS, Guard
from zmsvc.device.missed_orders import MissedOrders
from zmsvc.device.peers import Peers
from zmsvc.device.pulse import Pulse
from zmsvc.device.watch import SIGNALS, DeviceEvents
from zmsvc.host.bus import socket_options
from zmsvc.host.bus.curve_keys import Curve
from zmsvc.host.bus.endpoints import address
from zmsvc.host.bus.loopback_gate import LoopbackGate
from zmsvc.host.bus.socket_options import Context, Socket, is_readable
from zmsvc.host.bus.zap import KeyHandler, ZapHandler

_GRACE_S = 1.0
"""How long publishers are kept waiting for subscribers at a restart."""
_QUIET_MS = 20
"""Silence that is taken for the end of what somebody had to say."""
_SILENCE_MS = 250
"""Silence after which those who are still missing are not waited for: they may never have subscribed, or
are gone.
"""
_TOLD = 1000
"""Subscriptions that are taken at once before the clock, signals and connections have their turn again: a
flood of them has no end.
"""
_LINGER_MS = 1000
_JOIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    """What the device is told. The listening sockets are duplicates of somebody else's (the keeper's),
    which outlive it.
    """

    front: socket.socket
    back: socket.socket
    hwm: int = socket_options.DEVICE_HWM
    expect: int = 0
    """Subscriptions that there were before a restart; publishers are let in when they are back, after 1 s
    at the latest.
    """
    heartbeat_s: float = socket_options.HEARTBEAT_S
    curve: Curve | None = None
    """For tcp; an ipc endpoint is guarded by the mode and owner of its file."""
    allow: Path | None = None
    """The directory of the public keys that may connect, where CURVE is used."""
    members: Path | None = None
    """The file that says which users may connect by tcp where no keys are used; None: everybody who can."""
    memory: int = MAX_MEMORY
    """Bytes of memory from which on the connections are ended that fill it."""
    own: tuple[socket.socket | None, socket.socket | None] = (None, None)
    """More listening sockets for front and back, in the runtime directory: the context's own tasks need no
    gate and no keys there.
    """


class Device:
    """One run: `start`, `watch` until told to stop, `stop`. `report` takes the rare line for people, `say`
    one for the keeper.
    """

    def __init__(
        self, settings: DeviceSettings, report: Callable[[str], None], say: Callable[[str], None]
    ) -> None:
        self._settings = settings
        # One I/O thread: the gate relies on the order in which that tells what happens.
        self._context: Context = zmq.Context(1)
        self._front = socket_options.front(self._context, hwm=settings.hwm)
        self._back = socket_options.back(self._context, hwm=settings.hwm, heartbeat_s=settings.heartbeat_s)
        self._handler = _handler(self._context, settings, report)
        self._unheard = MissedOrders(self._context, self._front, self._back)
        listening = (settings.front, settings.back, *settings.own)
        tcp = any(each is not None and each.family != socket.AF_UNIX for each in listening)
        self._admission = Admission(places(), tcp=tcp)
        peers = Peers(self._admission), Peers(self._admission)
        self._guard = Guard(self._admission, *peers, settings.memory, report)
        pulse = Pulse(listening, say)
        self._watch = DeviceEvents(
            self._front, self._back, self._handler, self._unheard, peers, self._guard, pulse, report, say
        )
        self._order, self._ear = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        self._ear.bind("inproc://order")
        self._order.connect("inproc://order")
        self._proxy = threading.Thread(target=self._forward, name="proxy", daemon=True)

    def start(self) -> None:
        """Subscribers first: a publisher pours out what it has queued as soon as it is let in."""
        self._watch.catch_signals()
        self._bind(self._back, self._settings.own[1], self._settings.back)
        self._front.send(b"\x01" + socket_options.SENTINEL)
        if self._settings.expect:
            for subscription in self._wait_for_subscribers():
                self._front.send(subscription)
        self._unheard.connect()
        self._bind(self._front, self._settings.own[0], self._settings.front)
        # Signals belong to the main thread: only there do they end a wait.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._proxy.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._guard.start()

    def _bind(self, made: Socket, own: socket.socket | None, listening: socket.socket) -> None:
        """Bind both; only what is bound second, and is tcp, is guarded."""
        if own is not None:
            socket_options.bind(made, own)
        if address(listening).startswith("tcp://"):
            socket_options.enable_zap(made, self._settings.curve, gate=self._handler is not None)
        socket_options.bind(made, listening)

    def watch(self) -> None:
        """Until SIGTERM or SIGINT. Raises ZmsvcError when the proxy ends by itself."""
        while not self._watch.stopping:
            self._watch.turn()

    def stop(self) -> None:
        """Stop the proxy, cut publishers off (they queue from here on), forward what they had sent, see it
        off to subscribers.

        Raises ZmsvcError when libzmq hangs; then nothing can be forwarded, and its context cannot be closed.
        """
        self._guard.stop()
        if not self._watch.works():
            raise ZmsvcError("cannot stop in order: libzmq hangs in a descriptor that another user has sent")
        self._order.send(
            b"TERMINATE"
        )  # The only safe order but STATISTICS: libzmq 4.3.5 has PAUSE and RESUME swapped.
        self._proxy.join(_JOIN_S)
        if self._proxy.is_alive():
            raise ZmsvcError(f"cannot stop in order: libzmq's proxy did not end within {_JOIN_S:.0f} s")
        # The sockets are ours again: until here only the proxy's thread was allowed to touch them.
        self._watch.close()
        self._admission.close()
        self._unheard.close()
        for listening in (self._settings.front, self._settings.own[0]):
            if listening is not None:
                self._front.unbind(address(listening))
        while self._front.poll(_QUIET_MS):
            self._back.send_multipart(self._front.recv_multipart(copy=False), copy=False)
        self._back.close(_LINGER_MS)
        for rest in (self._front, self._order, self._ear):
            rest.close(0)
        if self._handler:
            self._handler.close()
        self._context.term()

    def _wait_for_subscribers(self) -> set[bytes]:
        """The distinct subscriptions of those who were expected: each once, because XSUB counts them.

        A connection alone says nothing: a subscriber sends its subscriptions anew when its own thread comes
        by its socket.
        """
        subscriptions: set[bytes] = set()
        count, until = 0, time.monotonic() + _GRACE_S
        self._back.setsockopt(
            zmq.XPUB_VERBOSE, 1
        )  # Or equal subscriptions of two subscribers would be told, and count, once.
        with self._watch.also(self._back):
            # Of more than the guard lets there be some are a flood's, of which publishers need not know.
            while (
                not self._watch.stopping
                and len(subscriptions) <= MAX_SUBSCRIPTIONS
                and (left := until - time.monotonic()) > 0
            ):
                quiet = (
                    _QUIET_MS if count >= self._settings.expect else _SILENCE_MS if count else _GRACE_S * 1000
                )
                if not self._watch.turn(math.ceil(min(quiet, left * 1000))):
                    break
                for _ in range(_TOLD):
                    if not is_readable(self._back):
                        break
                    told, count = socket_options.parse_subscription(self._back.recv()), count + 1
                    if told is not None and told[0]:
                        subscriptions.add(b"\x01" + told[1])
                    elif told is not None:
                        subscriptions.discard(b"\x01" + told[1])
        self._back.setsockopt(zmq.XPUB_VERBOSE, 0)
        return subscriptions

    def _forward(self) -> None:
        try:
            zmq.proxy_steerable(self._front, self._back, None, self._ear)
        finally:
            self._watch.proxy_ended()


def _handler(ctx: Context, settings: DeviceSettings, report: Callable[[str], None]) -> ZapHandler | None:
    """What judges tcp connections: by key, by user, or nothing."""
    if settings.allow:
        return KeyHandler(ctx, settings.allow, report)
    if settings.members and any(
        address(each).startswith("tcp://") for each in (settings.front, settings.back)
    ):
        return LoopbackGate(ctx, settings.members, report)
    return None
