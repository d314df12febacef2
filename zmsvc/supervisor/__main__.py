"""Run a supervisor. The keeper starts it, with descriptors whose numbers are in the environment."""

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
from zmsvc.core.carried import Carried
from zmsvc.core.errors import ConfigError, ZmsvcError, reason
from zmsvc.core.model import Context
from zmsvc.core.resume import transactions_to_resume
from zmsvc.core.totals import Total
from zmsvc.core.world import World
from zmsvc.host import arguments, carried_file, crashpoint, paths
from zmsvc.host.bus import curve_keys
from zmsvc.host.complain import complain
from zmsvc.host.config import context_files, exposed_binds, separate_reader
from zmsvc.host.kernel import processes
from zmsvc.host.paths import Places
from zmsvc.host.python import interpreter
from zmsvc.host.state_file import StateFile
from zmsvc.host.systemd import journal
from zmsvc.keeper_client.children import Children
from zmsvc.protocol import OLDEST, PROTOCOL
from zmsvc.protocol.supervision import Hello
from zmsvc.supervisor import installed_version, start_notes
from zmsvc.supervisor.bus_start import BusStart
from zmsvc.supervisor.control import Control
from zmsvc.supervisor.control_requests import Requests
from zmsvc.supervisor.hosts_start import HostsStart
from zmsvc.supervisor.loop import Loop
from zmsvc.supervisor.memory_gauge import MemoryGauge
from zmsvc.supervisor.session import Session

log = logging.getLogger("zmsvc.supervisor")


def main() -> int:
    parser = arguments.parser("zmsvc.supervisor", "The supervisor of a context, run by zmsvcd.")
    parser.add_argument("--no-autostart", action="store_true")
    parser.add_argument("--transaction")
    parser.add_argument(
        installed_version.QUESTION, action="store_true", help="print version and protocols as JSON, and end"
    )
    parser.add_argument("context", nargs="?")
    args = parser.parse_args()
    if args.speaks:
        print(json.dumps({"version": __version__, "oldest": OLDEST, "protocol": PROTOCOL}))
        return 0
    # The keeper ends a hung supervisor with SIGABRT. Then the log shows where it hung.
    faulthandler.enable()
    # Otherwise each full collection would examine all that was imported, which stops the supervisor for 8 to
    # 15 ms.
    interpreter.freeze()
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
    fdstore = _inherited("ZMSVC_FDSTORE_FD") if "ZMSVC_FDSTORE_FD" in os.environ else None
    children = Children(_inherited("ZMSVC_KEEPER_FD"), _inherited("ZMSVC_NOTIFY_FD"), fdstore=fdstore)
    hello = children.greet()
    store = StateFile(places.state_file, trusted=hello.restarts > 0)
    try:
        for note in store.notes:
            log.warning("%s", note)
        curve = curve_keys.of_words(hello.curve)
        context = _context(places, store, hello, curve=curve is not None)
        crashpoint.reached("take over state")
        world = store.load(context, processes.boot_id())
        carried = _carried(store, world, hello)
        notes = [] if hello.restarts else _start_notes(store, world, hello, carried, curve=curve is not None)
        store.remember("path", context.path)
        store.remember("log", "journal" if target == "journal" else "file")
        loop = Loop(world, store, children, places, target, curve)
        loop.start_notes = notes
        _count_restarts(loop, hello)
        watchdog = _Watchdog(loop)
        try:
            return await _run(loop, hello, args, carried)
        finally:
            watchdog.cancel()
            loop.close_record()
    finally:
        store.close()


def _count_restarts(loop: Loop, hello: Hello) -> None:
    """Add to the total of restarts of the supervisor. The keeper counts them from its own start, and a
    supervisor that died before its first save has counted none.
    """
    keeper, _, counted = (loop.store.meta("restarts_counted") or "").rpartition(" ")
    # A person may have edited the state file.
    known = keeper == hello.epoch and counted.isascii() and counted.isdigit()
    more = hello.restarts - (int(counted) if known else 0)
    if more > 0:
        loop.count(Total.SUPERVISOR_RESTARTS, amount=more)
        loop.store.remember("restarts_counted", f"{hello.epoch} {hello.restarts}")


def _inherited(variable: str) -> socket.socket:
    sock = socket.socket(fileno=int(os.environ.pop(variable)))
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock


def _context(places: Places, store: StateFile, hello: Hello, *, curve: bool) -> Context:
    """Read the files of the context. A supervisor that takes over uses the texts that its predecessor read,
    because a crash is not a reload.
    """
    path = places.config_file
    files = (store.context_files(hello.epoch, path) if hello.restarts else None) or context_files.read(path)
    context = separate_reader.parse(files, path=path, name=places.name)
    faults = [] if curve else exposed_binds.refused(context)
    if not hello.restarts:
        # A supervisor that takes over does not check this: running tasks must not end because of such a
        # fault, and they reach the bus in another way.
        faults = sorted([*faults, *exposed_binds.unreachable(context, curve=curve)])
    if faults:
        raise ConfigError([f"{context.path}:{line}: {words}" for line, words in faults])
    return context


def _carried(store: StateFile, world: World, hello: Hello) -> Carried | None:
    """Return what another host has written down. Return None if a supervisor of this keeper has started the
    context already, or if an earlier run has taken this same file: its own decisions since then are newer.
    """
    path = os.environ.get(carried_file.VARIABLE)
    if not path or world.keeper_id == hello.epoch:
        return None
    found = carried_file.read(path)
    if store.meta("resumed_from") == found.stamp:
        log.info("%s resumes its own state, because an earlier run has taken %s", world.context.name, path)
        return None
    # This is saved together with the first decisions, so a crash cannot apply the file twice.
    store.remember("resumed_from", found.stamp)
    return found.carried


def _start_notes(
    store: StateFile, world: World, hello: Hello, carried: Carried | None, *, curve: bool
) -> list[str]:
    """Log the messages for the person who starts the context, and return them for the keeper."""
    context = world.context
    warnings = start_notes.warnings(context, curve=curve)
    for warning in warnings:
        log.warning("%s", warning)
    names = transactions_to_resume(world, hello.epoch, carried)
    announcement = (
        start_notes.resumption(context, names, store.meta("path"))
        if carried is None
        else start_notes.resumption(context, names, None, host=carried.host)
    )
    if announcement:
        log.info("%s", announcement)
    return start_notes.for_keeper(context, warnings, announcement)


class _Watchdog:
    """The timer that sends the supervisor's WATCHDOG=1 to the keeper, twice within the keeper's limit. It
    runs in the event loop, so a loop that hangs sends none.
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


async def _run(loop: Loop, hello: Hello, args: argparse.Namespace, carried: Carried | None) -> int:
    bus_start = BusStart(loop, takes_over=hello.restarts > 0)
    await bus_start.run()
    requests = Requests(loop, _about(hello))
    control = Control(_inherited("ZMSVC_CONTROL_FD"), requests.table())
    gauge = MemoryGauge(loop, hello.cgroup)
    hosts = HostsStart(loop)
    try:
        hosts.begin(takes_over=hello.restarts > 0)
        await Session(loop, control, requests).run(
            hello,
            bus_start.early,
            autostart=not args.no_autostart,
            transaction=args.transaction,
            carried=carried,
        )
    finally:
        gauge.close()
        hosts.close()
    return 0


def _about(hello: Hello) -> dict[str, Any]:
    """Return the part of `status` that concerns the keeper and this supervisor."""
    return {
        "keeper_pid": os.getppid(),
        "restarts": hello.restarts,
        "cgroup": hello.cgroup,
        "supervisor_version": __version__,
        "keeper_version": hello.version,
        "protocol": min(PROTOCOL, hello.protocol),
    }


if __name__ == "__main__":
    sys.exit(main())
