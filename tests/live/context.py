"""A real context for a test: files in a temporary directory, the real daemon, the real command line, and an
independent subscriber.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import json_shapes
import psutil
import zmq
from waiting import PATIENCE, wait_for, wait_for_end, wait_for_line

LOOPED = """
from zmsvc.task import LoopedTask, TaskService

class Work(LoopedTask):
    interval = 3600.0
{body}

class Service{name}(TaskService):
    service_name = "{lower}"
    task_class = Work
"""


class Context:
    """One context in `home`. Add services and tasks, then `start()` it; `close()` ends whatever is left."""

    def __init__(self, home: Path, name: str = "Live") -> None:
        self.home = home
        self.name = name
        self.file = home / f"Context-{name}.xml"
        self.runtime = home / "run"
        self.log = home / "daemon.log"
        self.subscribe_endpoint = f"ipc://{home}/sub"
        self.publish_endpoint = f"ipc://{home}/pub"
        self.daemon: subprocess.Popen[bytes] | None = None
        self.wrapper: list[str] = []
        """A command that runs the daemon, by executing the rest of its arguments."""
        self.edit: Callable[[str], str] = lambda text: text
        """Changes the text of the context file before it is written."""
        self._tasks: list[str] = []
        self._ready: socket.socket | None = None

    # --- files

    def looped(self, name: str, body: str = "") -> None:
        """Add a service whose LoopedTask has this body. If the body has no `step`, one that does nothing is
        added.
        """
        body = textwrap.dedent(body)
        if "def step" not in body:
            body += "\ndef step(self):\n    pass\n"
        self.service(name, LOOPED.format(name=name, lower=name.lower(), body=textwrap.indent(body, "    ")))

    def service(self, name: str, code: str) -> None:
        directory = self.home / "Services" / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "__init__.py").write_text("")
        (directory / f"Service{name}.py").write_text(textwrap.dedent(code))

    def task(
        self,
        task_id: str,
        instance: str,
        *,
        entry: bool | str = True,
        rules: Mapping[str, tuple[str, str]] | None = None,
        config: str = "",
        service: str = "",
        kind: str = "Process",
        more_rules: str = "",
    ) -> None:
        """Add a TaskService element that another program wrote.

        `entry` may be the text of the type of its state. `more_rules` are elements beside those of `rules`.
        """
        triggers = "".join(
            f"<{trigger}><action>{action}</action><call>{call}</call></{trigger}>"
            for trigger, (action, call) in {
                **dict.fromkeys(("on_start", "on_update", "on_fail", "on_exit"), ("", "")),
                **(rules or {}),
            }.items()
        )
        state = entry if isinstance(entry, str) else "on_start" if entry else ""
        self._tasks.append(
            f'<TaskService id="{task_id}" topic="process" instance="{instance}" serviceType="{kind}"><Task>'
            f"<description>{escape(instance)}</description><message><header><action>start</action>"
            f"<service_name>{instance.lower()}</service_name></header><content><configuration><device_action>act</device_action>"
            f"<location>{self.home}/Services</location>{config}</configuration></content></message>"
            f'<service>{service}</service><state type="{state}">{triggers}{more_rules}</state></Task></TaskService>'
        )

    def writing_task(
        self, task_id: str, instance: str, kind: str, service: str, *, code: str, program: Iterable[str]
    ) -> Path:
        """Add a task that writes into a file. Return the file.

        `code` is the service of a task in Python, which finds the path as `file` in its configuration.
        `program` has the words of a Command; the path takes the place of `{file}` in them. The kind `fresh` is
        a Process in an interpreter of its own.
        """
        found = self.home / f"{task_id}.written"
        found.touch()
        found.chmod(0o666)
        if kind == "Command":
            (self.home / "Services").mkdir(exist_ok=True)
            words = "".join(f"<arg>{escape(word.replace('{file}', str(found)))}</arg>" for word in program)
            self.task(task_id, instance, kind=kind, config=f"<command>{words}</command>", service=service)
            return found
        self.service(instance, code)
        if kind == "fresh":
            kind, service = "Process", f"{service}<fresh>yes</fresh>"
        self.task(task_id, instance, kind=kind, config=f"<file>{found}</file>", service=service)
        return found

    def element(self, text: str) -> None:
        """Add a TaskService element that another program wrote."""
        self._tasks.append(text)

    def write(self) -> None:
        text = (
            f"<Context><FrontEndEndpoint>{self.subscribe_endpoint}</FrontEndEndpoint><BackendEndpoint>{self.publish_endpoint}</BackendEndpoint>"
            f"<FrontBind>{self.publish_endpoint}</FrontBind><BackendBind>{self.subscribe_endpoint}</BackendBind>"
            f"<ContextID>context001</ContextID><TaskLogName>{self.name}</TaskLogName>\n"
            + "\n".join(self._tasks)
            + "\n</Context>\n"
        )
        self.file.write_text(self.edit(text))

    def clear_tasks(self) -> None:
        self._tasks.clear()

    # --- the daemon

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("ZMSVC_", "NOTIFY_", "WATCHDOG_", "JOURNAL_"))
        }
        own = {
            "ZMSVC_CONFIG_DIR": self.home,
            "ZMSVC_RUNTIME_DIR": self.runtime,
            "ZMSVC_STATE_DIR": self.home / "state",
        }
        return kept | {key: str(value) for key, value in own.items()}

    def start(self, *arguments: str, ready: bool = True, **environment: str) -> None:
        """Run zmsvcd in the foreground; wait for its READY=1, as systemd would."""
        self.write()
        if self._ready is not None:
            self._ready.close()
        path = self.home / "ready.sock"
        path.unlink(missing_ok=True)
        self._ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ready.bind(str(path))
        self._ready.settimeout(PATIENCE)
        command = [*self.wrapper, sys.executable, "-P", "-m", "zmsvc.keeper", *arguments, str(self.file)]
        with open(self.log, "ab") as log:
            self.daemon = subprocess.Popen(
                command,
                env=self.environment | {"NOTIFY_SOCKET": str(path)} | environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        if ready:
            self.wait_for_notification("READY=1")

    def wait_for_notification(self, word: str) -> str:
        """Return the first datagram to systemd with a line that begins with `word`."""
        assert self._ready is not None
        while True:
            try:
                text = self._ready.recv(65536).decode()
            except TimeoutError:
                raise AssertionError(
                    f"no {word} from the daemon:\n{self.log.read_text()}{self._processes()}"
                ) from None
            if any(line.startswith(word) for line in text.splitlines()):
                return text

    def _processes(self) -> str:
        """Return the load of the machine, and each process of the daemon with its state, its CPU time and the
        function of the kernel in which it waits.
        """
        assert self.daemon is not None
        # Do not use the session: its number is 0 if its leader is outside of this PID namespace.
        family = psutil.Process(self.daemon.pid)
        pids = ",".join(str(each.pid) for each in (family, *family.children(recursive=True)))
        ps = ["ps", "-L", "-o", "pid,lwp,stat,etimes,cputimes,wchan:20,args", "-p", pids]
        listed = subprocess.run(ps, stdout=subprocess.PIPE, text=True, check=False).stdout
        return f"load {Path('/proc/loadavg').read_text()}{listed}"

    def wait(self) -> int:
        """Wait for the end of the daemon, and return its exit status."""
        assert self.daemon is not None
        return self.daemon.wait(PATIENCE)

    def stop(self) -> int:
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGTERM)
        return self.wait()

    def close(self) -> None:
        if self._ready is not None:
            self._ready.close()
        if self.daemon is None:
            return
        if self.daemon.poll() is None:
            self.daemon.terminate()
            try:
                self.daemon.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()

    def children(self) -> dict[int, str]:
        """Return the children of the keeper that have not been reaped, with their names in `ps`. Spare tasks
        are left out: they come and go, and belong to no launch.
        """
        return {pid: name for pid, name in self._every_child().items() if name != "zmsvc-spare"}

    def spare_tasks(self) -> list[int]:
        """Return the PIDs of spare tasks: there is one or none."""
        return [pid for pid, name in self._every_child().items() if name == "zmsvc-spare"]

    def _every_child(self) -> dict[int, str]:
        assert self.daemon is not None
        found = {}
        for word in Path(f"/proc/{self.daemon.pid}/task/{self.daemon.pid}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found[int(word)] = Path(f"/proc/{word}/comm").read_text().strip()
        return found

    def zygote(self) -> int:
        """Return the PID of the zygote."""

        def found() -> int:
            # A fork has the name of the zygote for a moment.
            pids = [pid for pid, name in self.children().items() if name == "zmsvc-zygote"]
            assert len(pids) == 1, pids
            return pids[0]

        return wait_for(found)

    def output(self) -> int:
        """Return the PID of the output process."""
        found = [pid for pid, name in self.children().items() if name == "zmsvc-output"]
        assert len(found) == 1, found
        return found[0]

    # --- the command line

    def detach(self, *arguments: str, **environment: str) -> str:
        """Start zmsvcd as a person does, without a service manager. Return its output on stderr."""
        self.write()
        words = arguments or ("--transaction", "T")
        done = subprocess.run(
            [sys.executable, "-P", "-m", "zmsvc.keeper", "--detach", *words, str(self.file)],
            env=self.environment | environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stderr

    def ctl(
        self, *arguments: str, timeout: float = 60, check: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run zmsvcctl as a user would."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "zmsvc.ctl", "-c", self.name, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        if done.stdout and "--json" in arguments:
            json_shapes.check_output(arguments, done.returncode, done.stdout)
        if check is not None:
            assert done.returncode == check, (
                f"{arguments} -> {done.returncode}\n{done.stdout}{done.stderr}\n{self.log.read_text()}"
            )
        return done

    @contextlib.contextmanager
    def serving_metrics(self, *words: str) -> Iterator[int]:
        """Run `metrics --listen` in the background. Yield its port."""
        command = [sys.executable, "-P", "-m", "zmsvc.ctl", "-c", self.name, "metrics", "--listen"]
        with subprocess.Popen(
            [*command, "127.0.0.1:0", *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        ) as server:
            assert server.stdout is not None
            try:
                yield int(wait_for_line(server.stdout, "serving").rpartition(":")[2])
            finally:
                server.terminate()

    def send_state_request(self, transaction: str) -> None:
        """Send the question for the state of a transaction over the bus, as zmsvcctl does."""
        head = {
            "service_transaction": transaction,
            "service_id": "context001",
            "action": "request",
            "service_name": "state",
        }
        self.ctl("send", "state", json.dumps({"header": head}))

    def status(self, **extra: Any) -> dict[str, Any]:
        """Return the answer of the supervisor to `status`, from its socket."""
        answer = self.ask_again(verb="status", **extra)
        assert answer["ok"], answer
        return answer["data"]

    def ask_again(self, **request: Any) -> dict[str, Any]:
        """Ask, and ask again if the supervisor crashes: its clients are disconnected and ask the next one."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self.ask(**request)
            except (ConnectionError, AssertionError):
                assert time.monotonic() < until, "no supervisor answers"

    def ask(self, **request: Any) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(self.runtime / self.name / "control.sock"))
            sock.sendall(json.dumps(request).encode() + b"\n")
            with sock.makefile("rb") as answers:
                line = answers.readline()
        assert line, "the supervisor hung up"
        return json.loads(line)

    def tasks(self, transaction: str | None = None) -> dict[str, dict[str, Any]]:
        """Return the tasks of a transaction by ID; those of the only one if none is named."""
        found = self.status()["transactions"]
        for each in found:
            if each["id"] == transaction or (transaction is None and len(found) == 1):
                return {task["id"]: task for task in each["tasks"]}
        raise AssertionError(f"no transaction {transaction} in {[each['id'] for each in found]}")

    def task_is(
        self,
        task_id: str,
        sub: str,
        transaction: str | None = None,
        also: Callable[[dict[str, Any]], bool] = bool,
    ) -> dict[str, Any]:
        """Wait until a task is in this sub-state; return its entry in `status`."""

        def fact() -> dict[str, Any]:
            task = self.tasks(transaction)[task_id]
            assert task["sub"] == sub, task
            assert also(task), task
            return task

        return wait_for(fact)

    def kill_supervisor(self) -> int:
        """Kill the supervisor with SIGKILL, and return its PID when it has ended."""
        pid = int(self.status()["pid"])
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)
        return pid


class Subscriber:
    """An independent subscriber, which gets everything on the bus from its creation on."""

    def __init__(self, endpoint: str, publish_endpoint: str, *prefixes: bytes) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 1_000_000)
        for prefix in prefixes or (b"",):
            self._socket.subscribe(prefix)
        self._socket.subscribe(mark := f"probe.{id(self)}.{os.getpid()}".encode())
        self._socket.connect(endpoint)
        self._wait_until_known(publish_endpoint, mark, prefixes)
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def _wait_until_known(self, publish_endpoint: str, mark: bytes, prefixes: tuple[bytes, ...]) -> None:
        """Wait until our subscriptions have arrived: the device has then passed them on to our publisher and
        to that of the supervisor.
        """
        with self._context.socket(zmq.XPUB) as publisher:
            publisher.connect(publish_endpoint)
            while True:
                assert publisher.poll(PATIENCE * 1000), "the device does not know the subscription"
                if publisher.recv() == b"\x01" + mark:
                    break
            if not prefixes or b"control @@@ " in prefixes:
                self._hear_the_supervisor(publisher)

    def _hear_the_supervisor(self, publisher: zmq.Socket[bytes]) -> None:
        """Wait until the supervisor has refused an order for an unknown task on the bus."""
        for attempt in range(1, 7):
            name = f"probe.{attempt}"
            head = {
                "action": "start",
                "service_id": "context001",
                "service_name": "context",
                "service_transaction": "PROBE",
            }
            body = {"header": head, "content": {"configuration": {"TaskService": {"id": name}}}}
            publisher.send(b"context @@@ " + json.dumps(body).encode())
            # Other messages may come without end, and an order that comes before a new supervisor has
            # subscribed is lost. An answer may also come after the next order, so each one is awaited for longer.
            until = time.monotonic() + 2.0 * attempt
            while self._socket.poll(max(0.0, until - time.monotonic()) * 1000):
                if name.encode() in self._socket.recv().partition(b'"content"')[0]:
                    return
        raise AssertionError("the supervisor is not heard")

    def until(
        self, wanted: Callable[[str, dict[str, Any]], bool], deadline: float = PATIENCE
    ) -> dict[str, Any]:
        """Return the first new message that is wanted."""

        def fact() -> list[dict[str, Any]]:
            while True:
                topic, body = self.next(deadline)
                if wanted(topic, body):
                    return [body]

        return fact()[0]

    def next(self, deadline: float = PATIENCE) -> tuple[str, dict[str, Any]]:
        heard = [f"{topic}/{body.get('header', {}).get('action')}" for topic, body in self.heard]
        assert self._socket.poll(deadline * 1000), (
            f"nothing more on the bus within {deadline} s; heard {heard}"
        )
        topic, _, text = self._socket.recv().partition(b" @@@ ")
        self.heard.append((topic.decode(), json.loads(text)))
        return self.heard[-1]

    def control(self, action: str, task: str, transaction: str | None = None) -> dict[str, Any]:
        """Return the next `control` message with this action about this task."""

        def wanted(topic: str, body: dict[str, Any]) -> bool:
            head = body.get("header", {})
            same = transaction is None or head.get("service_transaction") == transaction
            return (
                topic == "control"
                and head.get("action") == action
                and head.get("service_id") == task
                and same
            )

        return self.until(wanted)

    def controls(self, action: str, tasks: Iterable[str], transaction: str) -> None:
        """Wait for a `control` message with this action about each of these tasks, in any order."""
        awaited = set(tasks)

        def last_awaited(topic: str, body: dict[str, Any]) -> bool:
            head = body.get("header", {})
            said = (topic, head.get("action"), head.get("service_transaction"))
            if said == ("control", action, transaction):
                awaited.discard(head.get("service_id"))
            return not awaited

        self.until(last_awaited)

    def close(self) -> None:
        self._context.destroy(0)
