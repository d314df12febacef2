"""Run a whole context in a test: the real zmsvcd, with sockets and a state file in a temporary directory."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from zmsvc.core import messages
from zmsvc.task.bus import Subscription, TaskBus

PATIENCE = 30.0
"""Seconds that a wait may take unless the test says otherwise."""
_ENDPOINTS = ("FrontEndEndpoint", "BackendEndpoint", "FrontBind", "BackendBind")
_FOREIGN = ("ZMSVC_", "NOTIFY_", "WATCHDOG_", "LISTEN_", "JOURNAL_", "RUNTIME_DIR", "STATE_DIR")


class ContextUnderTest:
    """A context in a directory of its own. Use it as a context manager:

    with testing.ContextUnderTest("Context-Plant.xml") as context:
        context.start()
        context.wait_for("ts_1", "active")
        messages = context.listen("control")
        context.ctl("stop", "ts_1")
        assert messages.next(action="stopped")["header"]["service_id"] == "ts_1"

    The end of the block stops the context and removes the directory. A copy of the file is used, with
    relative locations made absolute and without its endpoints, so that the bus consists of sockets in the
    directory: tests run side by side, and beside the real context.
    """

    directory: Path
    """The temporary directory."""
    name: str
    """The name of the context, as in `zmsvcctl -c NAME`."""
    log: Path
    """The file with the output of zmsvcd and of the tasks."""

    def __init__(self, file: str | os.PathLike[str], *, environment: Mapping[str, str] | None = None) -> None:
        """`environment` is added to that of the test, and the tasks inherit it."""
        source = Path(file).absolute()
        self.name = source.stem.removeprefix("Context-")
        # Short: the path of a Unix socket may have 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="zm"))
        self.log = self.directory / "log"
        self._environment = environment or {}
        self._file = self.directory / f"Context-{self.name}.xml"
        self._daemon: subprocess.Popen[bytes] | None = None
        self._bus: TaskBus | None = None
        self._messages: list[Messages] = []
        self._file.write_bytes(_copied(source, source.parent))
        added = source.with_suffix(".d")
        if added.is_dir():
            self._file.with_suffix(".d").mkdir()
            for each in added.glob("*.xml"):
                (self._file.with_suffix(".d") / each.name).write_bytes(_copied(each, source.parent))

    def start(self, *options: str, timeout: float = PATIENCE) -> None:
        """Start zmsvcd, and wait until the tasks that start with the transaction TEST are ready. `options`
        are those of zmsvcd, such as --no-autostart. Raises AssertionError with its log.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, open(self.log, "ab") as log:
            ready.bind(str(self.directory / "ready"))
            self._daemon = subprocess.Popen(
                [sys.executable, "-P", "-m", "zmsvc.keeper", "--transaction", "TEST", *options, self._file],
                env={**self._variables(), "NOTIFY_SOCKET": str(self.directory / "ready")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            self._wait_until_ready(ready, timeout)

    def _wait_until_ready(self, ready: socket.socket, timeout: float) -> None:
        assert self._daemon is not None
        poll = select.poll()
        pidfd = os.pidfd_open(self._daemon.pid)
        try:
            poll.register(ready, select.POLLIN)
            poll.register(pidfd, select.POLLIN)
            until = time.monotonic() + timeout
            while found := [fd for fd, _ in poll.poll(max(0.0, until - time.monotonic()) * 1000)]:
                if ready.fileno() in found:
                    if b"READY=1" in ready.recv(65536).split(b"\n"):
                        return
                elif self._daemon.wait(PATIENCE) is not None:
                    break
        finally:
            os.close(pidfd)
        raise AssertionError(f"the context {self.name} is not ready:\n{self.output()}")

    def ctl(
        self, *arguments: str, status: int | None = 0, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Run zmsvcctl for this context. Raises AssertionError if it ends with another exit status than
        `status`; None accepts any.
        """
        done = subprocess.run(
            [sys.executable, "-P", "-m", "zmsvc.ctl", "-c", self.name, *arguments],
            env=self._variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if status is not None and done.returncode != status:
            raise AssertionError(
                f"zmsvcctl {' '.join(arguments)} ended with {done.returncode}, expected {status}:\n"
                f"{done.stdout}{done.stderr}{self.output()}"
            )
        return done

    def task(self, task_id: str) -> dict[str, Any]:
        """Return the entry of a task in `zmsvcctl --json status`. Raises KeyError for an unknown task."""
        found = json.loads(self.ctl("--json", "status", status=None).stdout)
        for context in found["contexts"]:
            for transaction in context["transactions"]:
                for each in transaction["tasks"]:
                    if each["id"] == task_id:
                        entry: dict[str, Any] = each
                        return entry
        raise KeyError(task_id)

    def wait_for(self, task_id: str, state: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """Wait until a task is active, inactive or failed, and return its entry in `status`. Raises
        AssertionError with the log if that takes too long.
        """
        # The subprocess has more time than the verb, which answers by itself.
        self.ctl("wait", "--for", state, "--timeout", f"{timeout:g}", task_id, timeout=timeout + PATIENCE)
        return self.task(task_id)

    def listen(self, topic: str) -> Messages:
        """Return the messages of a topic from now on. Raises ValueError for what cannot be a topic."""
        messages.check_topic(topic)
        made = Messages(self._connected().subscribe([messages.prefix(topic)]), self.output)
        self._messages.append(made)
        return made

    def publish(self, topic: str, body: Mapping[str, Any]) -> None:
        """Publish a message, as another client of the bus."""
        if not self._connected().publish(messages.encode(topic, body)):
            raise AssertionError("cannot publish: the queue to the device is full")

    def output(self) -> str:
        """Return what zmsvcd and the tasks have printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def stop(self, timeout: float = PATIENCE) -> int:
        """Stop all tasks and zmsvcd, and return its exit status."""
        if self._daemon is None:
            return 0
        self._daemon.terminate()
        return self._daemon.wait(timeout)

    def close(self) -> None:
        """Stop the context and remove the directory."""
        for each in self._messages:
            each.close()
        if self._bus is not None:
            self._bus.close()
        if self._daemon is not None and self._daemon.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self._daemon.kill()  # with the keeper, everything of the context ends
                self._daemon.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _connected(self) -> TaskBus:
        if self._bus is None:
            runtime = self.directory / "run" / self.name
            self._bus = TaskBus(f"ipc://{runtime}/pub", f"ipc://{runtime}/sub")
        return self._bus

    def _variables(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        own = {
            "ZMSVC_CONFIG_DIR": str(self.directory),
            "ZMSVC_RUNTIME_DIR": str(self.directory / "run"),
            "ZMSVC_STATE_DIR": str(self.directory / "state"),
        }
        services = os.environ.get("ZMSVC_SERVICE_PATH")
        return {
            **inherited,
            **own,
            **({} if services is None else {"ZMSVC_SERVICE_PATH": services}),
            **self._environment,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()


class MakeContext(Protocol):
    """The type of the fixture `zmsvc_context`."""

    def __call__(
        self, file: str | os.PathLike[str], *, environment: Mapping[str, str] | None = None
    ) -> ContextUnderTest: ...


class Messages:
    """The messages of one topic, as they arrive."""

    def __init__(self, subscription: Subscription, output: Any) -> None:
        self._subscription, self._output = subscription, output

    def next(self, *, action: str = "", task: str = "", timeout: float = PATIENCE) -> dict[str, Any]:
        """Return the next message, or the next one with this action and of this task. Those before it are
        dropped. Raises AssertionError with the log if none comes in time.
        """
        until = time.monotonic() + timeout
        while True:
            frame = self._subscription.receive()
            if frame is None:
                left = until - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"no such message within {timeout:g} s:\n{self._output()}")
                select.select([self._subscription], [], [], left)
                continue
            body = messages.decode(frame)[1]
            head = body.get("header", {})
            if action in ("", head.get("action")) and task in ("", head.get("service_id")):
                return body

    def close(self) -> None:
        self._subscription.close()


def _copied(file: Path, base: Path) -> bytes:
    """Return a context file without endpoints and with absolute locations, and with the same lines."""
    # Imported here for start-up time: pytest imports this package in every project beside zmsvc.
    from lxml import etree

    text = file.read_bytes()
    root = etree.fromstring(text, etree.XMLParser(resolve_entities=False, no_network=True))
    for tag in _ENDPOINTS:
        for each in root.findall(tag):
            before = each.getprevious()
            if before is None:
                root.text = (root.text or "") + (each.tail or "")
            else:
                before.tail = (before.tail or "") + (each.tail or "")
            root.remove(each)
    for each in root.iterfind(".//configuration/location"):
        each.text = str(base / (each.text or "").strip())
    return etree.tostring(root, encoding="utf-8", xml_declaration=text.lstrip().startswith(b"<?xml"))
