"""Run a supervisor: made by the keeper, from descriptors in the environment; nobody starts it by hand."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import json
import logging
import os
import socket
import sys
from typing import Any

from zmsvc import __version__
from zmsvc.core import checks, messages
from zmsvc.core.errors import ConfigError, ZmsvcError, reason
from zmsvc.core.events import Fact
from zmsvc.core.model import Context
from zmsvc.host import crashpoint, paths
from zmsvc.host.bus import curve_keys, members, sockets
from zmsvc.host.complain import complain
from zmsvc.host.config import exposed_binds, reader
from zmsvc.host.kernel import linux
from zmsvc.host.paths import Places
from zmsvc.host.store import Store
from zmsvc.host.systemd import journal
from zmsvc.protocol import OLDEST, PROTOCOL
from zmsvc.protocol.supervision import Hello, ReplaceDevice, RunDevice
from zmsvc.supervisor import installed
from zmsvc.supervisor.bus import ECHO, Bus
from zmsvc.supervisor.children import Children
from zmsvc.supervisor.control import Control
from zmsvc.supervisor.launch_spec import own_endpoints
from zmsvc.supervisor.loop import Loop
from zmsvc.supervisor.requests import Requests
from zmsvc.supervisor.session import Session

BUS_TIMEOUT = 15.0
"""Seconds that the device has to come up when the context starts."""
BUS_MOMENT = 0.5
"""Seconds that a supervisor which takes over waits for it."""
log = logging.getLogger("zmsvc.supervisor")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="zmsvc.supervisor", description="The supervisor of a context, run by zmsvcd."
    )
    parser.add_argument("--no-autostart", action="store_true")
    parser.add_argument("--transaction")
    parser.add_argument(
        installed.QUESTION, action="store_true", help="print version and protocols as JSON, and end"
    )
    parser.add_argument("context", nargs="?")
    args = parser.parse_args()
    if args.speaks:
        print(json.dumps({"version": __version__, "oldest": OLDEST, "protocol": PROTOCOL}))
        return 0
    # The keeper ends a supervisor that hangs by SIGABRT: where it hung is then in the log.
    faulthandler.enable()
    try:
        return asyncio.run(_supervise(args))
    except ConfigError as error:
        complain("\n".join(error.faults))
        return 2
    except ZmsvcError as error:
        complain(f"zmsvcd: {error}")
        return 1
    except OSError as error:
        complain(f"zmsvcd: cannot supervise {args.context}: {reason(error)}")
        return 1


async def _supervise(args: argparse.Namespace) -> int:
    places = paths.places(args.context)
    target = os.environ.get("ZMSVC_LOG", "stderr")
    journal.configure(identifier=f"zmsvc-{places.name}", fields={"ZMSVC_CONTEXT": places.name}, target=target)
    children = Children(_inherited("ZMSVC_KEEPER_FD"), _inherited("ZMSVC_NOTIFY_FD"))
    hello = children.greet()
    store = Store(places.state_file, trusted=hello.restarts > 0)
    try:
        for note in store.notes:
            log.warning("%s", note)
        curve = curve_keys.of_words(hello.curve)
        context = _context(places, store, hello, curve=curve is not None)
        for warning in checks.warnings(context, curve=curve is not None) if not hello.restarts else ():
            log.warning("%s: %s", context.path, warning)
        crashpoint.reached("take over state")
        world = store.load(context, linux.boot_id())
        store.remember("log", "journal" if target == "journal" else "file")
        loop = Loop(world, store, children, places, target, curve)
        beat = _Watchdog(loop)
        try:
            return await _run(loop, hello, args)
        finally:
            beat.cancel()
    finally:
        store.close()


def _inherited(variable: str) -> socket.socket:
    sock = socket.socket(fileno=int(os.environ.pop(variable)))
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock


def _context(places: Places, store: Store, hello: Hello, *, curve: bool) -> Context:
    """The context file. A supervisor that takes over uses the text that its predecessor ran with: a crash
    is no reload.
    """
    text = (store.context_text(hello.epoch) if hello.restarts else None) or reader.read(places.config_file)
    context = reader.parse(text, path=str(places.config_file), name=places.name)
    faults = [] if curve else exposed_binds.refused(context)
    if not hello.restarts:
        # Tasks that run must not end for this: they reach the bus in another way.
        faults = sorted([*faults, *exposed_binds.unreachable(context, curve=curve)])
    if faults:
        raise ConfigError([f"{context.path}:{line}: {words}" for line, words in faults])
    return context


class _Watchdog:
    """Shows life at half the time that is allowed between two signs of it. It comes from the loop: a hang
    is not hidden.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._every = int(os.environ.get("WATCHDOG_USEC", "30000000")) / 2e6
        self._beat()

    def _beat(self) -> None:
        self._loop.notifier.watchdog()
        self._next = asyncio.get_running_loop().call_later(self._every, self._beat)

    def cancel(self) -> None:
        self._next.cancel()


async def _open_bus(loop: Loop, *, again: bool) -> list[Fact]:
    """Have the device run and be heard by it. Gives what happened meanwhile.

    At the first start there is no context without a bus: raises ZmsvcError. A supervisor that takes over has
    tasks to look after and waits only a moment: the device comes back by itself.
    """
    endpoints, curve = loop.world.context.endpoints, loop.curve is not None
    try:
        members.write(loop.places.members_file, loop.world.context)
    except OSError as error:
        # A full disk must not keep a supervisor from its tasks; the file of the one before it stays.
        log.warning(
            "Cannot write %s, so tasks of other users may not reach the bus by tcp: %s",
            loop.places.members_file,
            reason(error),
        )
    crashpoint.reached("tell device")
    loop.children.tell(
        RunDevice(
            front=sockets.safe_bind(endpoints.front_bind, curve=curve),
            back=sockets.safe_bind(endpoints.backend_bind, curve=curve),
            hwm=sockets.DEVICE_HWM,
            # Our own subscriptions after a restart of the device, the last is to what was unheard; those of
            # tasks come in the same moment.
            expect=len(messages.TOPICS) + 1,
        )
    )
    limit = BUS_MOMENT if again else BUS_TIMEOUT
    early: list[Fact] = []
    try:
        async with asyncio.timeout(limit):
            await _device_ready(loop, early, again=again)
            _open_sockets(loop)
            loop.bus = _bus(loop)
            await loop.bus.attach()
    except TimeoutError:
        if not again:
            what = "answer" if loop.children.device.ready else "come up"
            raise ZmsvcError(
                f"cannot start {loop.places.name}: the device does not {what} within {limit:g} s"
            ) from None
        log.warning("The device does not answer yet: what happens now is not told on the bus")
    if loop.bus is None:
        # The keeper holds the sockets, whether the device answers or not.
        _open_sockets(loop)
        loop.bus = _bus(loop)
    return early


def _open_sockets(loop: Loop) -> None:
    loop.granted, problems = members.open_sockets(loop.places, loop.world.context)
    for problem in problems:
        log.warning("%s: %s", loop.world.context.path, problem)


def _bus(loop: Loop) -> Bus:
    endpoints = own_endpoints(loop.world.context, loop.places)
    return Bus(
        endpoints,
        loop.store.origin(),
        loop.order,
        lambda: loop.world,
        loop.curve,
        lambda: _device_hangs(loop),
    )


def _device_hangs(loop: Loop) -> None:
    device = loop.children.device
    if device.pid is not None and device.ready:
        log.error("The device hangs: it forwarded nothing for %g s, and the keeper replaces it", ECHO)
        loop.children.tell(ReplaceDevice(pid=device.pid))


async def _device_ready(loop: Loop, early: list[Fact], *, again: bool) -> None:
    keeper, running = loop.children.keeper.fileno(), asyncio.get_running_loop()
    news = asyncio.Event()
    running.add_reader(keeper, news.set)
    try:
        while not loop.children.device.ready:
            problem = loop.children.device.problem
            if problem and not again:
                raise ZmsvcError(f"cannot start {loop.places.name}: {problem}")
            await news.wait()
            news.clear()
            early += loop.children.facts()
            if loop.children.lost:
                raise ZmsvcError("the keeper is gone")
    finally:
        running.remove_reader(keeper)


async def _run(loop: Loop, hello: Hello, args: argparse.Namespace) -> int:
    early = await _open_bus(loop, again=hello.restarts > 0)
    requests = Requests(loop, _about(hello))
    control = Control(_inherited("ZMSVC_CONTROL_FD"), requests.table())
    session = Session(loop, control, lambda: _reload(requests))
    await session.live(hello, early, autostart=not args.no_autostart, transaction=args.transaction)
    return 0


def _about(hello: Hello) -> dict[str, Any]:
    """Return what `status` says of the processes around this supervisor."""
    return {
        "keeper_pid": os.getppid(),
        "restarts": hello.restarts,
        "cgroup": hello.cgroup,
        "supervisor_version": __version__,
        "keeper_version": hello.version,
        "protocol": min(PROTOCOL, hello.protocol),
    }


async def _reload(requests: Requests) -> None:
    """Do what SIGHUP asks for. The log file comes first: the administrator who has moved it finds the
    outcome in the new one.
    """
    journal.reopen()
    answer = await requests.reload()
    if answer["ok"]:
        log.info("Reloaded: %s", answer["data"])
    else:
        log.error("%s", answer["error"])


if __name__ == "__main__":
    sys.exit(main())
