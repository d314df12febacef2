"""`make demo`: run the EchoAction context for a few messages, and show its history and its bus. Needs
neither root nor systemd.

Everything, including the endpoints, is in a temporary directory, so that several demos can run at once.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CONTEXT = Path(__file__).parents[1] / "etc/zmsvc/Context-EchoAction.xml"
PROGRAMS = Path(sys.executable).parent
TRANSACTION = "6FDAHH3WPRVV7FGZCRIN"
MESSAGES = "8"
PATIENCE = 30.0
"""Seconds for each step; a hanging demo is worse than a failed one."""


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def command(name: str, *arguments: str) -> list[str]:
    """Return the command line of a program of zmsvc; print it as a user would type it."""
    say(f"$ {shlex.join([name, *arguments])}")
    return [str(PROGRAMS / name), *arguments]


def write_context(home: Path) -> None:
    """Write the installed context file, with endpoints and an interval for the demo."""
    text = CONTEXT.read_text()
    for element, end in ("FrontEndEndpoint", "front"), ("BackendEndpoint", "back"):
        text = re.sub(rf"(<{element}>).*(</{element}>)", rf"\g<1>ipc://{home}/{end}\g<2>", text)
    text = re.sub(r"\s*<(FrontBind|BackendBind)>.*</\1>", "", text)
    text = re.sub(r"\s*<interval>.*</interval>", "", text).replace(
        "<configuration>", "<configuration><interval>0.5</interval>"
    )
    (home / CONTEXT.name).write_text(text)


@contextlib.contextmanager
def daemon(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the context in the foreground until the block ends, which begins when it has sent READY=1. The demo
    receives this notification in place of systemd.
    """
    environment = {
        "ZMSVC_CONFIG_DIR": home,
        "ZMSVC_RUNTIME_DIR": home / "run",
        "ZMSVC_STATE_DIR": home / "state",
    }
    os.environ.update({name: str(value) for name, value in environment.items()})
    for name, value in environment.items():
        print(f"export {name}={value}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(home / "notify"))
        process = subprocess.Popen(
            command("zmsvcd", "--foreground", "--no-autostart", "EchoAction"),
            env=os.environ | {"NOTIFY_SOCKET": str(home / "notify")},
        )
        try:
            wait_until_ready(notify, process)
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_ready(notify: socket.socket, process: subprocess.Popen[bytes]) -> None:
    pidfd = os.pidfd_open(process.pid)
    try:
        while notify.fileno() in select.select([notify.fileno(), pidfd], [], [], PATIENCE)[0]:
            if b"READY=1" in notify.recv(4096).split(b"\n"):
                return
    finally:
        os.close(pidfd)
    raise TimeoutError("zmsvcd did not become ready")


def demonstrate(home: Path) -> int:
    write_context(home)
    with daemon(home) as zmsvcd:
        watch = subprocess.Popen(command("zmsvcctl", "-c", "EchoAction", "watch", "--count", MESSAGES))
        try:
            zmsvcctl("start", "--transaction", TRANSACTION)
            zmsvcctl("status")
            say(f"(until {MESSAGES} messages were on the bus)")
            watched = watch.wait(PATIENCE)
        finally:
            watch.kill()
            watch.wait()
        zmsvcctl("stop", "--transaction", TRANSACTION)
        zmsvcctl("events")
        zmsvcctl("--no-pager", "logs", "--transaction", TRANSACTION)
        zmsvcctl("exit")
        return watched or zmsvcd.wait(PATIENCE)


def zmsvcctl(*arguments: str) -> None:
    subprocess.run(command("zmsvcctl", "-c", "EchoAction", *arguments), check=True, timeout=PATIENCE)


def main() -> int:
    home = Path(
        tempfile.mkdtemp(prefix="zmsvc-demo.", dir="/tmp")
    )  # short: an ipc endpoint has at most 107 characters
    began = time.monotonic()
    try:
        status = demonstrate(home)
    except (subprocess.SubprocessError, OSError) as error:
        print(f"cannot go on with the demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(home)
    say(
        f"The context has ended with status {status} after {time.monotonic() - began:.0f} s; {home} is "
        f"removed."
    )
    return status


if __name__ == "__main__":
    sys.exit(main())
