"""The keeper survives events that arrive at the same moment. It never blocks on a process that is stopped or
killed, nor on its own standard error.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from context import Context
from waiting import stop_process, wait_for, wait_for_end


def is_in_state(pid: int, letter: str) -> bool:
    """Return True if `ps` shows this state of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == letter


def is_dead(pid: int) -> bool:
    """Return True if a process has ended and waits to be reaped. Its descriptors are open until its last
    thread has ended.
    """
    return is_in_state(pid, "Z") and len(os.listdir(f"/proc/{pid}/task")) == 1


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    stop_process(pid)
    wait_for(lambda: is_in_state(pid, "T"))
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def keeper_of(context: Context) -> int:
    assert context.daemon is not None
    return context.daemon.pid


def test_a_thread_task_that_is_started_while_its_shared_process_dies(context: Context) -> None:
    """The order and the end of the channel to the old process come at the same moment."""
    context.looped("Echo")
    for name in ("t1", "t2"):
        context.task(name, "Echo", kind="Thread")
    context.start("--transaction", "T")
    for _ in range(5):
        shared = context.tasks()["t1"]["pid"]
        assert context.ask(verb="stop", tasks=["t1"])["ok"]
        with stopped(keeper_of(context)):
            context.ask(verb="start", tasks=["t1"], transaction="T", block=False)
            os.kill(shared, signal.SIGKILL)
            wait_for(lambda old=shared: is_dead(old))  # type: ignore[misc]
        context.task_is("t1", "running", also=lambda task, old=shared: task["pid"] != old)  # type: ignore[misc]
        context.ask(verb="start", tasks=["t2"], transaction="T")
        context.task_is("t2", "running")


def test_a_thread_task_keeps_its_reported_exit_when_its_process_crashes_right_after(context: Context) -> None:
    gate = context.home / "gate"
    context.service("Ender", f"""
        import os
        from zmsvc.task import SingleTask, TaskService
        class Work(SingleTask):
            def run(self):
                while not os.path.exists("{gate}"):
                    self.wait(0.01)
        class ServiceEnder(TaskService):
            task_class = Work
    """)  # fmt: skip
    context.looped("Echo")
    context.task("a", "Ender", kind="Thread", entry=False)
    context.task("b", "Echo", kind="Thread")
    context.start("--transaction", "T")

    def threads(pid: int) -> int:
        return len(os.listdir(f"/proc/{pid}/task"))

    for _ in range(3):
        gate.unlink(missing_ok=True)
        assert context.ask(verb="start", tasks=["a"], transaction="T")["ok"]
        shared = context.tasks()["b"]["pid"]
        running = threads(shared)
        # The keeper gets both events at once.
        with stopped(keeper_of(context)):
            gate.touch()
            wait_for(lambda pid=shared, before=running: threads(pid) < before)  # type: ignore[misc]
            # The main thread reports the end, and sleeps again.
            wait_for(lambda pid=shared: is_in_state(pid, "S"))  # type: ignore[misc]
            os.kill(shared, signal.SIGKILL)
            wait_for(lambda old=shared: is_dead(old))  # type: ignore[misc]
        end = context.task_is("a", "exited")["exit"]
        assert (end["code"], end["signal"], end["reason"]) == (0, None, "exited")
        assert context.task_is("b", "failed")["exit"]["signal"] == "SIGKILL"
        context.ask(verb="start", tasks=["b"], transaction="T")


def test_a_stopped_zygote_delays_launches_only(context: Context) -> None:
    context.looped("Echo")
    context.task("a", "Echo", entry=False)
    context.task("b", "Echo", service="<stop_timeout>300ms</stop_timeout>")
    context.start("--transaction", "T")
    for act in (lambda: context.ask(verb="stop", tasks=["b"]), context.kill_supervisor):
        with stopped(context.zygote()):
            context.ask(verb="start", tasks=["a"], transaction="T", block=False)
            act()
            assert context.status()["pid"]
            # The keeper replaces the zygote after 10 s, so an order that waits for it goes on then.
            assert "the zygote does not answer" not in context.log.read_text()
        context.task_is("a", "running")
        context.ask(verb="stop", tasks=["a"])


def test_a_reexec_before_the_context_is_ready_goes_on(context: Context) -> None:
    sign = context.home / "sign"
    context.looped("Slow", f"""
        def setup(self):
            import os
            while not os.path.exists("{sign}"):
                self.wait(0.02)
        """)  # fmt: skip
    context.task("a", "Slow")
    context.start("--transaction", "T", ready=False)
    wait_for((context.runtime / context.name / "control.sock").exists)
    pid = context.task_is("a", "start", "T")["pid"]
    assert context.ask(verb="reexec")["ok"]
    sign.touch()
    context.wait_for_notification("READY=1")
    assert context.tasks()["a"]["pid"] == pid


@pytest.mark.parametrize("how", ["reexec", "crash"])
def test_orders_are_answered_while_the_supervisor_is_replaced_under_load(context: Context, how: str) -> None:
    (context.home / "Services").mkdir(exist_ok=True)
    for number in range(5):
        context.task(f"c{number}", "Sleep", kind="Command", config="<command>sleep 1000</command>")
    context.start("--transaction", "T")
    over = threading.Event()

    def load(name: str) -> None:
        while not over.is_set():
            context.ctl("restart", "--transaction", "T", name, check=None)

    clients = [threading.Thread(target=load, args=(f"c{number}",)) for number in range(3)]
    for client in clients:
        client.start()
    slowest = 0.0
    try:
        for _ in range(8):
            before = context.status()["pid"]
            if how == "reexec":
                context.ask_again(verb="reexec")
            else:
                os.kill(before, signal.SIGKILL)
            wait_for_end(before)
            asked = time.monotonic()
            context.ask_again(verb="start", transaction="T", tasks=["c4"])
            slowest = max(slowest, time.monotonic() - asked)
            wait_for(lambda old=before: context.status()["pid"] != old)  # type: ignore[misc]
    finally:
        over.set()
        for client in clients:
            client.join()
    # 1 s on a machine that has nothing else to do; a hung one takes 30.
    assert slowest < 20, f"{slowest:.2f} s"


def test_a_closed_or_full_stderr_neither_ends_nor_holds_the_daemon(context: Context) -> None:
    """No process reads the warnings of the keeper, as when journald is stopped."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with open(writer, "wb", buffering=0) as full:
        try:
            while full.write(b"x" * 4096):
                pass
        except BlockingIOError:
            pass
        os.set_blocking(writer, True)
        context.looped("Echo")
        context.task("a", "Echo")
        context.wrapper = ["sh", "-c", f'exec "$@" 2>/proc/{os.getpid()}/fd/{writer}', "sh"]
        # The supervisor writes its log into a file.
        context.start("--transaction", "T", ZMSVC_LOG=str(context.home / "log"))
        for _ in range(3):
            context.kill_supervisor()
            context.status()
        assert context.ask(verb="stop", tasks=["a"])["ok"]
    os.close(reader)
