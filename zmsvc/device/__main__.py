"""Run the device's process: arguments, descriptor limit, start and end. The device itself is in device.py."""

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
from zmsvc.device.memory_guard import MAX_MEMORY
from zmsvc.host import arguments
from zmsvc.host.bus import curve_keys, socket_options
from zmsvc.host.bus.endpoints import listen
from zmsvc.host.complain import complain
from zmsvc.host.kernel import linux
from zmsvc.host.systemd.notify import Notifier

_END_S = 2.0
"""Seconds that an orderly end may take, 1 s of it for subscribers that read slowly."""


def main(argv: list[str] | None = None) -> int:
    """Run the device until SIGTERM, and return the exit status."""
    parsed = _parser().parse_args(argv)
    if os.environ.get("NOTIFY_SOCKET"):
        # If the keeper was killed before this line, another process is the parent by now. A keeper of zmsvc
        # 1.0 does not set ZMSVC_KEEPER.
        linux.die_with_parent(int(os.environ.get("ZMSVC_KEEPER", os.getppid())))
    if os.geteuid() and linux.has_capabilities():
        # The unit has capabilities to change the user of tasks, which the device does not need. If a seccomp
        # filter forbids it to drop them, only a second line of defense is lost.
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
    # While this thread waits for the keeper, the events of connections fill their queue, and the bus stops.
    notifier.never_wait()
    try:
        device.watch()
        notifier.stopping()
        _bound_the_end()
        device.stop()
    except ZmsvcError as error:
        _log(str(error))
        # Do not return: the interpreter would close the context of libzmq, which may hang, or take as long as
        # a flood of messages lasts.
        os._exit(1)


def _bound_the_end() -> None:
    """End this process after _END_S in any case: a peer that goes on sending, or hangs libzmq, must not delay
    the context's end.
    """
    last = threading.Timer(_END_S, os._exit, (1,))
    last.daemon = True
    last.start()


def _parser() -> argparse.ArgumentParser:
    parser = arguments.parser("python -m zmsvc.device", "The forwarder of a context.")
    parser.add_argument("--front", required=True, metavar="ENDPOINT", help="where publishers connect")
    parser.add_argument("--back", required=True, metavar="ENDPOINT", help="where subscribers connect")
    parser.add_argument("--front-fd", type=int, metavar="N", help="a listening socket for --front")
    parser.add_argument("--back-fd", type=int, metavar="N", help="a listening socket for --back")
    # The keeper passes these in the environment: after a downgrade it starts a device that does not know the
    # options.
    variable = os.environ.get
    own, members = (
        "another listening socket for publishers, without keys or user check",
        "the file of the users that may connect by tcp without keys",
    )
    parser.add_argument(
        "--own-front-fd", type=int, default=variable("ZMSVC_OWN_FRONT_FD"), metavar="N", help=own
    )
    parser.add_argument(
        "--own-back-fd",
        type=int,
        default=variable("ZMSVC_OWN_BACK_FD"),
        metavar="N",
        help="the same for subscribers",
    )
    parser.add_argument(
        "--members", type=Path, default=variable("ZMSVC_MEMBERS"), metavar="FILE", help=members
    )
    parser.add_argument(
        "--hwm", type=int, default=socket_options.DEVICE_HWM, help="messages queued for a peer"
    )
    memory = "bytes of memory above which the connections that fill it are closed"
    parser.add_argument(
        "--memory",
        type=int,
        default=variable("ZMSVC_DEVICE_MEMORY", MAX_MEMORY),
        metavar="BYTES",
        help=memory,
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
        # With keys and without a list of clients, every client that knows the public key could give orders.
        raise UsageError("cannot use --curve without --allow, nor --allow without --curve")
    return DeviceSettings(
        publish_listener=_listener(given.front, given.front_fd),
        subscribe_listener=_listener(given.back, given.back_fd),
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
    """Raise the soft limit to the hard one. Each subscriber takes two descriptors, each publisher one. The
    device does not use select(), which fails for high descriptors.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _log(text: str) -> None:
    complain(f"zmsvc device: {text}")


if __name__ == "__main__":
    sys.exit(main())
