"""Run an envoy. The keeper of `zmsvcd --host` starts it, with descriptors whose numbers are in the
environment.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import os
import socket
import sys

from zmsvc.core.errors import ConfigError, ZmsvcError, reason
from zmsvc.envoy.envoy import Envoy
from zmsvc.envoy.line import Line
from zmsvc.host import arguments, paths
from zmsvc.host.bus import curve_keys
from zmsvc.host.complain import complain
from zmsvc.host.config import context_files, separate_reader
from zmsvc.host.paths import Places
from zmsvc.host.python import interpreter
from zmsvc.host.systemd import journal
from zmsvc.keeper_client.children import Children


def main() -> int:
    parser = arguments.parser("zmsvc.envoy", "The envoy of a host, run by zmsvcd --host.")
    parser.add_argument("--host", required=True)
    parser.add_argument("context")
    args = parser.parse_args()
    # The keeper ends a hung envoy with SIGABRT. Then the log shows where it hung.
    faulthandler.enable()
    interpreter.freeze()
    try:
        asyncio.run(_work(args))
    except ConfigError as error:
        complain("\n".join(error.faults))
        return 2
    except ZmsvcError as error:
        complain(f"zmsvcd: {error}")
        return 1
    except OSError as error:
        complain(f"zmsvcd: cannot serve {args.context} on {args.host}: {reason(error)}")
        return 1
    return 0


async def _work(args: argparse.Namespace) -> None:
    places = paths.places_on_host(args.context)
    target = os.environ.get("ZMSVC_LOG", "stderr")
    journal.configure(identifier=f"zmsvc-{places.name}", fields={"ZMSVC_CONTEXT": places.name}, target=target)
    children = Children(_inherited("ZMSVC_KEEPER_FD"), _inherited("ZMSVC_NOTIFY_FD"))
    _inherited("ZMSVC_CONTROL_FD").detach()
    hello = children.greet()
    curve = curve_keys.of_words(hello.curve)
    if curve is None:
        raise ConfigError([f"cannot serve {places.name} on {args.host}: it has no CURVE keys"])
    endpoint = _endpoint(places, args.host, has_run=hello.restarts > 0)
    await Envoy(args.host, children, hello, places, target, Line(endpoint, curve)).run()


def _endpoint(places: Places, host: str, *, has_run: bool) -> str:
    """Return the endpoint for hosts of the context file. Raises ConfigError, also for a host that the file
    does not list, unless this host `has_run` tasks before: the supervisor may want to stop them.
    """
    files = context_files.read(places.config_file)
    context = separate_reader.parse(files, path=places.config_file, name=places.name)
    if not context.listed.endpoint:
        raise ConfigError([f"{context.path}:1: it has no <hosts>, so no tasks of it run on other hosts"])
    if host not in context.listed.names and not has_run:
        names = ", ".join(context.listed.names)
        raise ConfigError([f"{context.path}:1: <hosts> does not list {host}, expected one of {names}"])
    return context.listed.endpoint


def _inherited(variable: str) -> socket.socket:
    sock = socket.socket(fileno=int(os.environ.pop(variable)))
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock


if __name__ == "__main__":
    sys.exit(main())
