"""Random operations on a real context, and what must hold of it at each quiet moment. One seed gives the same
operations in the same order.

Independent witnesses are compared: the answer of `status`, the processes of the kernel, and the history in
the state file.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from context import Context, Subscriber
from crowd import Row, history
from disks import Disk, disk
from waiting import wait_for

from zmsvc.host.kernel import process_marks, processes

QUICK = (
    "<start_timeout>8s</start_timeout><stop_timeout>400ms</stop_timeout>"
    "<restart_delay>20ms</restart_delay><restart_max_delay>100ms</restart_max_delay>"
)
"""start_timeout: a thread may be started in the process of the threads while that process is frozen."""
TX = "CHAOS"
ANSWER = 25.0
"""Seconds in which every order must be answered. stop_timeout is 0.4 s, start_timeout 8 s."""
SETTLED = 30.0
"""Seconds in which everything must come to rest after the last operation."""
MOST = {"keeper": 64, "supervisor": 48, "device": 96}
"""The limit of descriptors of a process at a quiet moment, which is twice what it needs. If each operation
loses one, this shows it within a minute.
"""
ROOM = "32m"
"""The size of the disk for the state. The history of a minute has 2 MB."""
OPERATIONS = (3, 8)
"""The least and the greatest number of operations between two quiet moments."""
LIVE = ("launching", "start", "running", "stop-sigterm", "stop-sigkill", "final-sigterm", "final-sigkill")
ENDS = ("failed", "stopped", "lost")
TOLD = ("started", "stopped", "failed")
"""The supervisor publishes each of these once for a launch, in this order."""
IMPATIENT = 0.05
"""Seconds that a hasty client waits for an answer."""
IMPATIENT_ENDS = 25.0
"""Seconds in which its process must end. On a busy machine the start of Python alone takes a few."""

PYTHON = """
import os, signal, subprocess, time
from zmsvc.task import LoopedTask, SingleTask, TaskService

class Loop(LoopedTask):
    interval = 0.05
    n = 0
    def step(self):
        self.n += 1
        if self.n % 20 == 0:
            self.update(n=self.n)

class Hung(LoopedTask):
    interval = 0.05
    def step(self):
        while True:
            time.sleep(1000)

class Once(SingleTask):
    def run(self):
        pass

class Parent(LoopedTask):
    interval = 3600.0
    def setup(self):
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
    def step(self):
        pass
"""
SERVICE = "\nclass Service{name}(TaskService):\n    service_name = '{name}'\n    task_class = {name}\n"

SHELL = {
    "sleeps": "exec sleep 1000",
    "stubborn": 'trap "" TERM; while :; do sleep 1; done',
    "wrapper": "sleep 1000; :",
    "daemon": "(setsid env -i sleep 1000 &) ; exec sleep 1000",
    "leaves": "(setsid env -i sleep 1000 &) ; exit 0",
    "fails": "exit 3",
}
"""The Commands. The program of one is a daemon that has left its session and its environment."""
RESTARTED = ("loop", "sleeps", "thread_1", "thread_2", "parent", "daemon")
"""Tasks that a rule starts again when they fail."""
BRIEF = ("once", "thread_2", "leaves", "fails")
"""Tasks that end by themselves, soon after their start."""


def populate(context: Context, left_out: str = "") -> None:
    """Write services and the context file, in which the task `left_out` is missing."""
    context.clear_tasks()
    for name in ("Loop", "Hung", "Once", "Parent"):
        context.service(name, PYTHON + SERVICE.format(name=name))
    tasks: list[tuple[str, str, str, str]] = [
        ("loop", "Loop", "Process", ""),
        ("hung", "Hung", "Process", ""),
        ("once", "Once", "Process", ""),
        ("parent", "Parent", "Process", ""),
        ("thread_1", "Loop", "Thread", ""),
        ("thread_2", "Once", "Thread", ""),
        ("thread_hung", "Hung", "Thread", ""),
    ]
    for name, script in SHELL.items():
        text = script.replace("&", "&amp;")
        tasks.append(
            (
                name,
                name.capitalize(),
                "Command",
                f"<command><arg>sh</arg><arg>-c</arg><arg>{text}</arg></command>",
            )
        )
    for name, instance, kind, config in tasks:
        rules = {"on_fail": ("restart", name)} if name in RESTARTED else {}
        if name == "leaves" and left_out != "once":
            rules = {"on_exit": ("start", "once")}
        if name != left_out:
            context.task(
                name,
                instance,
                kind=kind,
                config=config,
                service=QUICK,
                rules=rules,
                entry=name not in ("fails", "leaves"),
            )
    context.write()


NAMES = ("loop", "hung", "once", "parent", "thread_1", "thread_2", "thread_hung", *SHELL)


class Chaos:
    """One run. `did` has the operations until now."""

    def __init__(self, context: Context, seed: int, state: Disk | None = None) -> None:
        """With `state`, the state file is on a disk of its own, which is full now and then."""
        self.context, self.seed, self._state = context, seed, state
        self.chance = random.Random(seed)
        self.did: list[str] = []
        self.keepers = 0
        self.quiet_moments = 0
        self.orders = 0
        self._began = time.monotonic()
        self._left_out = ""
        self._threads: list[threading.Thread] = []
        self._faults: list[str] = []
        self._mark = b"NOTIFY_SOCKET=" + os.fsencode(context.runtime / context.name / "notify.sock")
        self._subscriber: Subscriber | None = None
        self._seen = 0
        """The last row of the history that was compared with the bus."""
        self._whole = True
        """True if neither keeper nor supervisor nor device has died since then, so that the bus has had every
        message.
        """
        self._operations: list[tuple[int, Callable[[], None]]] = [
            (8, self._order),
            (5, self._kill_task),
            (2, self._kill_supervisor),
            (1, self._kill_device),
            (1, self._kill_zygote),
            (2, self._freeze_task),
            (2, self._reload),
            (1, self._hang_up),
            (2, self._reexec),
            (1, self._kill_keeper),
            (1, self._ask_in_haste),
            (1, self._fill_disk),
        ]

    def run(self, seconds: float) -> None:
        """Operate for this time. Raises AssertionError with the seed and the operations."""
        try:
            populate(self.context)
            self._start()
            self._quiet()
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                for _ in range(self.chance.randint(*OPERATIONS)):
                    self._one()
                self._quiet()
            self._end()
        except Exception as error:
            done = "\n".join(self.did)
            raise AssertionError(f"make chaos SEED={self.seed}\n{done}\n{error}") from error
        finally:
            if self._subscriber is not None:
                self._subscriber.close()

    def _start(self) -> None:
        self.context.start("--transaction", TX)
        self._listen()

    def _listen(self) -> None:
        if self._subscriber is not None:
            self._subscriber.close()
        self._subscriber, self._whole = None, False

    def _one(self) -> None:
        weights = [weight for weight, _ in self._operations]
        (operation,) = self.chance.choices([each for _, each in self._operations], weights)
        # Drawn before it is carried out: what it finds, and how long it takes, must not change what comes
        # next.
        pause = self.chance.choice((0.0, 0.0, 0.01, 0.1))
        operation()
        threading.Event().wait(pause)

    def _say(self, text: str) -> None:
        self.did.append(f"{time.monotonic() - self._began:8.3f}  {text}")

    # --- operations

    def _order(self) -> None:
        verb = self.chance.choice(("start", "stop", "restart"))
        tasks = self.chance.sample(NAMES, self.chance.choice((1, 1, 1, 2, 3)))
        request: dict[str, Any] = {
            "verb": verb,
            "transaction": TX,
            "tasks": tasks,
            "block": self.chance.random() < 0.7,
        }
        self._say(f"{verb} {' '.join(tasks)}{'' if request['block'] else ' --no-block'}")
        self.orders += 1
        thread = threading.Thread(target=self._ask, args=(request,))
        self._threads.append(thread)
        thread.start()

    def _ask(self, request: dict[str, Any]) -> None:
        began = time.monotonic()
        while True:
            try:
                answer = self.context.ask(**request)
                break
            except (OSError, AssertionError):
                # The supervisor or the keeper died before it answered. Give the order again, as zmsvcctl
                # does.
                if time.monotonic() - began > ANSWER:
                    self._faults.append(f"no answer to {request} within {ANSWER:g} s")
                    return
        took = time.monotonic() - began
        if took > ANSWER:
            self._faults.append(f"{request} was answered after {took:.1f} s")
        if not answer["ok"] and answer.get("code") not in (1, 4):
            self._faults.append(f"{request} was answered {answer}")

    def _main_process(self) -> tuple[str, int] | None:
        """Return a random task and its PID, or None if it has none. The draw takes place in any case."""
        name = self.chance.choice(NAMES)
        with contextlib.suppress(OSError, AssertionError, KeyError):
            pid = self.context.tasks(TX)[name]["pid"]
            return (name, int(pid)) if pid else None
        return None

    def _signal(self, pid: int, number: int) -> None:
        # Signal only a child of the keeper: another process may have a PID that was read a moment ago.
        assert self.context.daemon is not None
        fields = processes.stat_fields(pid)
        if fields is not None and int(fields[1]) == self.context.daemon.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _kill_task(self) -> None:
        number = self.chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV))
        if (found := self._main_process()) is not None:
            self._say(f"{number.name} to {found[0]}")
            self._signal(found[1], number)

    def _freeze_task(self) -> None:
        if (found := self._main_process()) is not None:
            self._say(f"SIGSTOP to {found[0]}")
            self._signal(found[1], signal.SIGSTOP)

    def _worker(self, name: str) -> int | None:
        with contextlib.suppress(OSError, AssertionError, ValueError, KeyError):
            status = self.context.ask(verb="status")["data"]
            return int(status["pid"] if name == "supervisor" else status[f"{name}_pid"] or 0) or None
        return None

    def _kill_worker(self, name: str, pid: int | None) -> None:
        if pid is not None:
            self._whole = self._whole and name == "zygote"
            self._say(f"SIGKILL to the {name}")
            self._signal(pid, signal.SIGKILL)

    def _kill_supervisor(self) -> None:
        self._kill_worker("supervisor", self._worker("supervisor"))

    def _kill_device(self) -> None:
        self._kill_worker("device", self._worker("device"))

    def _kill_zygote(self) -> None:
        with contextlib.suppress(AssertionError):
            self._kill_worker("zygote", self.context.zygote())

    def _reload(self) -> None:
        self._left_out = self.chance.choice(("", *NAMES))
        self._say(f"reload without {self._left_out or 'a difference'}")
        populate(self.context, self._left_out)
        with contextlib.suppress(OSError, AssertionError):
            self.context.ask(verb="reload")

    def _hang_up(self) -> None:
        self._say("SIGHUP to the keeper")
        assert self.context.daemon is not None
        self.context.daemon.send_signal(signal.SIGHUP)

    def _reexec(self) -> None:
        self._whole = False
        self._say("reexec")
        with contextlib.suppress(OSError, AssertionError):
            self.context.ask(verb="reexec")

    def _kill_keeper(self) -> None:
        """Kill the keeper, or keeper and supervisor at once."""
        fate = self.chance.choice(("", "", "keeper", "keeper and supervisor"))
        if not fate:
            return
        self._say(f"SIGKILL to {fate}, and zmsvcd again")
        assert self.context.daemon is not None
        supervisor = self._worker("supervisor") if fate != "keeper" else None
        if supervisor is not None:
            self._signal(supervisor, signal.SIGKILL)
        self.context.daemon.kill()
        self.context.daemon.wait()
        self.keepers += 1
        self._start()

    def _ask_in_haste(self) -> None:
        self._say(f"zmsvcctl --timeout {IMPATIENT:g} status")
        began = time.monotonic()
        self.context.ctl("--timeout", f"{IMPATIENT:g}", "status", check=None)
        if time.monotonic() - began > IMPATIENT_ENDS:
            self._faults.append(
                f"zmsvcctl --timeout {IMPATIENT:g} ended after {time.monotonic() - began:.1f} s"
            )

    def _fill_disk(self) -> None:
        """Fill the disk for a while. The supervisor goes on without it, and saves its decisions when there is
        room again.
        """
        if self._state is None:
            return
        self._say("the disk is full")
        with self._state.full():
            self._kill_task()
            self._order()
            self._threads[-1].join(ANSWER)
        self._say("the disk has room")

    # --- quiet moments

    def _quiet(self) -> None:
        """Let everything come to rest, and compare."""
        for thread in self._threads:
            thread.join(ANSWER + SETTLED)
            assert not thread.is_alive(), "an order was never answered"
        self._threads.clear()
        self._thaw()
        wait_for(self._at_rest, SETTLED)
        self._bus()
        self._no_fault()
        self._descriptors()
        self.quiet_moments += 1
        self._say("quiet")

    def _thaw(self) -> None:
        """Let a process go on that was stopped with SIGSTOP, since no timeout would end it."""
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGCONT)

    def _at_rest(self) -> bool:
        """Compare `status` with the processes and with the history. Raises AssertionError when they
        differ.
        """
        assert self.context.daemon is not None
        assert self.context.daemon.poll() is None, (
            f"the keeper has ended with {self.context.daemon.returncode}"
        )
        status = self.context.status()
        tasks = {
            task["id"]: task for each in status["transactions"] if each["id"] == TX for task in each["tasks"]
        }
        moving = {
            name: task["sub"]
            for name, task in tasks.items()
            if task["sub"] in LIVE and task["sub"] != "running"
        }
        moving |= {name: task["sub"] for name, task in tasks.items() if task["sub"] == "back-off"}
        # The end of one that still runs could come before the next subscriber hears it.
        moving |= {
            name: tasks[name]["sub"] for name in BRIEF if name in tasks and tasks[name]["sub"] == "running"
        }
        assert not moving, moving
        assert status["device_pid"], "no device"
        assert not status["unsaved"], status["unsaved"]
        running = {name: task["pid"] for name, task in tasks.items() if task["sub"] == "running"}
        children = self.context.children()
        for name, pid in running.items():
            assert pid in children, f"{name} is running as {pid}, and the keeper has no such child"
        assert not [name for name, task in tasks.items() if name not in running and task["pid"]], (
            "a task that rests has a PID"
        )
        self._history(running)
        return True

    def _history(self, running: dict[str, int]) -> None:
        rows = [row for row in history(self.context) if row.task in NAMES]
        everything = history(self.context)
        assert not everything or everything[-1].seq == len(everything), "rows of the history are missing"
        begun = Counter(row.detail["launch"] for row in rows if row.event == "launching")
        ended = Counter(
            row.detail["launch"] for row in rows if row.event in ENDS and row.detail.get("launch")
        )
        assert max([*begun.values(), 1]) == 1, f"launched twice: {begun.most_common(3)}"
        assert max([*ended.values(), 1]) == 1, f"ended twice: {ended.most_common(3)}"
        still_open = {
            row.detail["launch"]: row.task
            for row in rows
            if row.event == "launching" and row.detail["launch"] not in ended
        }
        assert Counter(still_open.values()) == Counter(running.keys()), (
            f"{still_open} are open in the history, {running} are running"
        )
        self._launches(rows, still_open)

    def _bus(self) -> None:
        """Compare the messages of each task with its history, row by row, if no process died that
        publishes or forwards.
        """
        rows = [row for row in history(self.context, self._seen) if row.task in NAMES and row.event in TOLD]
        if self._subscriber is not None and self._whole:
            expected = Counter((row.task, row.event) for row in rows)
            order = {name: [row.event for row in rows if row.task == name] for name in NAMES}
            heard: dict[str, list[str]] = {name: [] for name in NAMES}
            while sum(map(len, heard.values())) < sum(expected.values()):
                topic, body = self._subscriber.next()
                head = body["header"]
                if (
                    topic == "control"
                    and head["action"] in TOLD
                    and head["service_id"] in heard
                    and head["service_transaction"] == TX
                ):
                    heard[head["service_id"]].append(head["action"])
            assert heard == order, f"on the bus: {heard}\nin the history: {order}"
        everything = history(self.context)
        self._seen = everything[-1].seq if everything else 0
        if self._subscriber is None or not self._whole:
            self._listen()
            self._subscriber, self._whole = (
                Subscriber(self.context.subscribe_endpoint, self.context.publish_endpoint, b"control @@@ "),
                True,
            )

    def _launches(self, rows: list[Row], still_open: dict[int, str]) -> None:
        """Check that each process of the context belongs to a launch that has not ended, and that all threads
        have one process.
        """
        threads = {
            row.detail["launch"] for row in rows if row.event == "launching" and row.task.startswith("thread")
        }
        of = {pid: launch for pid, launch in self._processes().items() if launch not in still_open}
        shared = {pid: launch for pid, launch in of.items() if launch in threads}
        over = {pid: launch for pid, launch in of.items() if launch not in threads}
        assert not over, f"processes of launches that have ended: {over}"
        assert not shared or any(task.startswith("thread") for task in still_open.values()), (
            f"threads without a task: {shared}"
        )

    def _processes(self) -> dict[int, int]:
        """Return every living process with the mark of the context, and its launch."""
        first = process_marks.limit_value(self._mark, 0)
        found = {}
        for pid in process_marks.belonging((), self._mark):
            worn = process_marks.limit_of(pid)
            if worn is not None and worn > first:
                found[pid] = worn - first
        return found

    def _no_fault(self) -> None:
        assert not self._faults, self._faults
        text = self.context.log.read_text(errors="replace")
        assert "Traceback" not in text, text[text.index("Traceback") - 500 :][:3000]

    def _descriptors(self) -> None:
        assert self.context.daemon is not None
        status = self.context.status()
        for name, pid in (
            ("keeper", self.context.daemon.pid),
            ("supervisor", status["pid"]),
            ("device", status["device_pid"]),
        ):
            with contextlib.suppress(FileNotFoundError):
                count = len(os.listdir(f"/proc/{pid}/fd"))
                assert count <= MOST[name], f"the {name} has {count} descriptors"

    def _end(self) -> None:
        self._say("SIGTERM to the keeper")
        self._listen()
        assert self.context.stop() == 0, "the context does not end with 0"
        left = process_marks.belonging((), self._mark)
        assert not left, f"left behind: {[(pid, processes.process_name(pid)) for pid in left]}"


def main() -> int:
    """Run for SECONDS with SEED, both from the command line."""
    seconds, seed = (
        float(sys.argv[1]),
        int(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[2] else random.randrange(2**32),
    )
    print(f"make chaos SECONDS={seconds:g} SEED={seed}", flush=True)
    home = Path(tempfile.mkdtemp(prefix="zm"))
    context = Context(home)
    try:
        with disk(home / "state", ROOM) if os.geteuid() == 0 else contextlib.nullcontext() as state:
            chaos = Chaos(context, seed, state)
            chaos.run(seconds)
    except AssertionError as error:
        print(error, file=sys.stderr)
        if context.log.exists():
            print(context.log.read_text(errors="replace")[-20_000:], file=sys.stderr)
        return 1
    finally:
        context.close()
        shutil.rmtree(home, ignore_errors=True)
    print(
        f"{chaos.orders} orders, {len(chaos.did)} operations, {chaos.quiet_moments} quiet moments, "
        f"{chaos.keepers} keepers killed"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
