"""The device's process: arguments, descriptor limit, run. Nothing else: what it does is in device.py."""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import socket
import sys
import threading
from pathlib import Path

from zmsvc.core.errors import ConfigError, UsageError, ZmsvcError
from zmsvc.device.device import Device, DeviceSettings
from zmsvc.device.guard import MAX_MEMORY
from zmsvc.host.bus import curve_keys, socket_options
from zmsvc.host.bus.endpoints import listen
from zmsvc.host.complain import complain
from zmsvc.host.kernel import linux
from zmsvc.host.systemd.notify import Notifier

_END_S = 2.0
"""Seconds that an ordered end may take; 1 s of it is for subscribers that read slowly."""


def main(arguments: list[str] | None = None) -> int:
    """Run the device until SIGTERM; the exit status."""
    parsed = _parser().parse_args(arguments)
    if os.environ.get("NOTIFY_SOCKET"):
        # A keeper that is killed before this line has another process be the parent; one of 1.0 does not name
        # itself.
        linux.die_with_parent(int(os.environ.get("ZMSVC_KEEPER", os.getppid())))
    if os.geteuid() and linux.has_capabilities():
        # Those of the unit are there to give tasks their users. Where a filter forbids it, what is lost is a
        # second wall.
        with contextlib.suppress(OSError):
            linux.drop_capabilities()
    try:
        _run(_settings(parsed), Notifier())
    except ZmsvcError as error:
        _log(str(error))
        return 2 if isinstance(error, UsageError | ConfigError) else 1
    return 0


def _run(settings: DeviceSettings, notifier: Notifier) -> None:
    def report(text: str) -> None:
        _log(text)
        notifier.status(text)

    _raise_descriptor_limit()
    device = Device(settings, report, notifier.notify)
    device.start()
    notifier.ready()
    try:
        device.watch()
        notifier.stopping()
        _bound_the_end()
        device.stop()
    except ZmsvcError as error:
        _log(str(error))
        # Not by a return: the interpreter would close libzmq's context, which may hang, or wait for a flood.
        os._exit(1)


def _bound_the_end() -> None:
    """End this process in any case. A peer may go on sending, or hang libzmq, and the context's end must
    not wait for it.
    """
    last = threading.Timer(_END_S, os._exit, (1,))
    last.daemon = True
    last.start()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m zmsvc.device", description="The forwarder of a context.")
    parser.add_argument("--front", required=True, metavar="ENDPOINT", help="where publishers connect")
    parser.add_argument("--back", required=True, metavar="ENDPOINT", help="where subscribers connect")
    parser.add_argument("--front-fd", type=int, metavar="N", help="a listening socket for --front")
    parser.add_argument("--back-fd", type=int, metavar="N", help="a listening socket for --back")
    # A keeper gives these by the environment, since after a downgrade the device is one that does not know
    # them.
    given = os.environ.get
    own, members = (
        "another one for publishers, that needs neither key nor gate",
        "which users may connect by tcp without keys",
    )
    parser.add_argument(
        "--own-front-fd", type=int, default=given("ZMSVC_OWN_FRONT_FD"), metavar="N", help=own
    )
    parser.add_argument(
        "--own-back-fd",
        type=int,
        default=given("ZMSVC_OWN_BACK_FD"),
        metavar="N",
        help="the same for subscribers",
    )
    parser.add_argument("--members", type=Path, default=given("ZMSVC_MEMBERS"), metavar="FILE", help=members)
    parser.add_argument(
        "--hwm", type=int, default=socket_options.DEVICE_HWM, help="messages queued for a peer"
    )
    memory = "bytes of memory from which on connections are ended that fill it"
    parser.add_argument(
        "--memory", type=int, default=given("ZMSVC_DEVICE_MEMORY", MAX_MEMORY), metavar="BYTES", help=memory
    )
    parser.add_argument(
        "--expect", type=int, default=0, metavar="N", help="subscriptions to wait for before publishers"
    )
    parser.add_argument("--heartbeat", type=float, default=socket_options.HEARTBEAT_S, metavar="SECONDS")
    parser.add_argument("--curve", type=Path, metavar="FILE", help="the device's key pair, for tcp")
    parser.add_argument("--allow", type=Path, metavar="DIR", help="the public keys (*.key) that may connect")
    return parser


def _settings(given: argparse.Namespace) -> DeviceSettings:
    if bool(given.curve) != bool(given.allow):
        # With keys but no list, everyone who knows the public key could give orders.
        raise UsageError("cannot use --curve without --allow, nor --allow without --curve")
    return DeviceSettings(
        front=_listener(given.front, given.front_fd),
        back=_listener(given.back, given.back_fd),
        hwm=given.hwm,
        expect=given.expect,
        memory=given.memory,
        heartbeat_s=given.heartbeat,
        curve=curve_keys.load_curve(given.curve) if given.curve else None,
        allow=given.allow,
        members=given.members,
        own=(_own(given.own_front_fd), _own(given.own_back_fd)),
    )


def _own(fd: int | None) -> socket.socket | None:
    return None if fd is None else _listener("the context's own tasks", fd)


def _listener(endpoint: str, fd: int | None) -> socket.socket:
    if fd is None:
        return listen(endpoint)
    try:
        os.set_inheritable(fd, False)
        return socket.socket(fileno=fd)
    except OSError as error:
        raise UsageError(f"cannot use descriptor {fd} for {endpoint}: {error.strerror}") from error


def _raise_descriptor_limit() -> None:
    """Each subscriber takes two descriptors, each publisher one, and nothing here uses select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _log(text: str) -> None:
    complain(f"zmsvc device: {text}")


if __name__ == "__main__":
    sys.exit(main())
