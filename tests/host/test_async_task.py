"""AsyncTask: a coroutine as the work of a task, in its own process."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest
import waiting
from forked import LOOPED, Nest, await_subscription, control, update
from forwarder import Forwarder

ASYNC = (
    LOOPED.replace("LoopedTask", "AsyncTask")
    .replace("    interval = 3600.0\n", "")
    .replace("import os", "import asyncio, os")
)


def work(nest: Nest, body: str, more: str = "") -> None:
    """Add a service whose AsyncTask has these methods."""
    code = textwrap.indent(textwrap.dedent(body), "    ")
    nest.service(
        "Work", ASYNC.format(name="Work", body=code) + textwrap.indent(textwrap.dedent(more), "    ")
    )


def test_a_coroutine_that_returns_ends_the_service_after_close(nest: Nest) -> None:
    work(nest, """
        async def setup(self):
            self.loop = asyncio.get_running_loop()
            self.left = asyncio.create_task(self.forever())
            self.update(at="setup")
        async def forever(self):
            try:
                await asyncio.sleep(3600)
            finally:
                self.update(at="canceled")
        async def run(self):
            await self.update_async(same=asyncio.get_running_loop() is self.loop)
        async def close(self):
            await asyncio.sleep(0)
            self.update(at="close")
    """)  # fmt: skip
    task = nest.fork()
    assert update(nest) == {"at": "setup"}
    assert nest.next().lines == [("READY", "1")]
    assert [update(nest) for _ in range(3)] == [{"same": True}, {"at": "close"}, {"at": "canceled"}]
    assert task.end() == 0
    assert nest.rest() == ["STOPPING=1"]


@pytest.mark.parametrize("where", ["setup", "run"])
def test_a_stop_cancels_the_coroutine_once(nest: Nest, where: str) -> None:
    work(nest, f"""
        async def run(self):
            pass
        async def {where}(self):
            try:
                self.update(at="begin")
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                self.update(at="canceled")
                await asyncio.sleep(0.01)
                self.update(at="cleaned up")
                raise
        def close(self):
            self.update(at="close")
    """)  # fmt: skip
    task = nest.fork()
    assert update(nest) == {"at": "begin"}
    task.signal(signal.SIGTERM)
    assert update(nest) == {"at": "canceled"}
    task.signal(signal.SIGTERM)
    assert [update(nest) for _ in range(2)] == [{"at": "cleaned up"}, {"at": "close"}]
    assert task.end() == 0
    assert "STOPPING=1" in nest.rest()
    assert "Failed" not in nest.logged()


def test_a_run_that_waits_is_not_canceled(nest: Nest) -> None:
    work(nest, """
        async def run(self):
            self.update(before=await self.wait_async(0))
            self.update(stopped=await self.wait_async())
            await asyncio.sleep(0.01)
            self.update(again=await self.wait_async(3600))
    """)  # fmt: skip
    task = nest.fork()
    assert update(nest) == {"before": False}
    task.signal(signal.SIGTERM)
    assert [update(nest) for _ in range(2)] == [{"stopped": True}, {"again": True}]
    assert task.end() == 0


@pytest.mark.parametrize(
    ("raising", "status", "said"),
    [
        ("raise ValueError('bad ' + 'thing')", 1, "STATUS=ValueError: bad thing"),
        ("import sys; sys.exit(3)", 3, "STATUS=SystemExit: 3"),
        ("asyncio.current_task().cancel(); await asyncio.sleep(1)", 1, "STATUS=asyncio.exceptions.CancelledError"),
        ("self.wait(1)", 1, "STATUS=RuntimeError: cannot wait: it would block the event loop, use `await self.wait_async(...)`"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["setup", "run", "close"])
def test_an_exception_is_a_failure_like_that_of_a_single_task(
    nest: Nest, where: str, raising: str, status: int, said: str
) -> None:
    methods = {"run": "pass", "close": "self.update(at='close')", where: raising}
    work(nest, "\n".join(f"async def {name}(self):\n    {body}" for name, body in methods.items()))
    assert nest.fork().end() == status
    found = nest.rest()
    assert said in found
    assert "STOPPING=1" not in found
    assert ("READY=1" in found) == (where != "setup")
    assert len([line for line in found if line.startswith("X_ZMSVC_SEQ")]) == (where != "close")
    assert nest.logged().count("Traceback") == 1


def test_the_loop_feeds_the_watchdog_and_a_blocked_loop_does_not(nest: Nest) -> None:
    work(nest, """
        async def run(self):
            await asyncio.sleep(0.2)
            self.update(at="blocked")
            import time
            time.sleep(0.3)
            self.update(at="end")
    """)  # fmt: skip
    task = nest.fork(watchdog=0.1)
    assert task.end() == 0
    said = [line for line in nest.rest() if not line.startswith("STOPPING")]
    first, last = (index for index, line in enumerate(said) if line.startswith("X_ZMSVC_SEQ"))
    assert "WATCHDOG=1" in said[:first]
    assert last == first + 1


@pytest.mark.parametrize("kind", ["async def", "def"])
def test_a_reload_is_handled_in_the_event_loop_while_run_waits(nest: Nest, kind: str) -> None:
    work(nest, f"""
        async def run(self):
            self.update(at="begin")
            await self.wait_async()
        {kind} on_reload(self):
            self.update(loop=asyncio.get_running_loop() is not None)
    """)  # fmt: skip
    task = nest.fork(environment={"ZMSVC_RELOAD_SIGNAL": "SIGHUP"})
    assert update(nest) == {"at": "begin"}
    for _ in range(2):
        task.signal(signal.SIGHUP)
        assert "MONOTONIC_USEC" in nest.until("RELOADING")
        assert update(nest) == {"loop": True}
        assert nest.until("READY") == {"READY": "1"}
    task.signal(signal.SIGTERM)
    assert task.end() == 0


def test_messages_are_handled_one_after_the_other_while_the_coroutine_runs(
    nest: Nest, bus: Forwarder
) -> None:
    work(nest, """
        async def run(self):
            self.names = []
            await asyncio.sleep(3600)
    """, """
        async def on_control(self, message):
            self.task.names.append(message["header"]["service_id"])
            await asyncio.sleep(0)
            self.task.names.append("done")
            if message["header"]["service_id"] == "ts_3":
                raise ValueError(" ".join(self.task.names))
    """)  # fmt: skip
    publisher = bus.connected_publisher()
    task = nest.fork()
    nest.until("READY")
    await_subscription(publisher)
    for name in ("ts_1", "ts_2", "ts_3"):
        assert publisher.send(control("TX", name))
    assert nest.until("STATUS")["STATUS"] == "ValueError: ts_1 done ts_2 done ts_3 done"
    assert task.end() == 1


@pytest.mark.parametrize(
    ("base", "method"), [("SingleTask", "run"), ("LoopedTask", "step"), ("LoopedTask", "on_reload")]
)
def test_a_coroutine_that_nothing_would_await_is_refused(nest: Nest, base: str, method: str) -> None:
    body = f"    async def {method}(self): pass"
    nest.service("Work", LOOPED.replace("LoopedTask", base).format(name="Work", body=body))
    assert nest.fork().end() == 203
    assert nest.until("STATUS")["STATUS"] == (
        f"cannot load service Work: {method} of Work is async def, so Work must be an AsyncTask"
    )


@pytest.mark.parametrize(
    ("base", "head"),
    [
        ("SingleTask", "def run"),
        ("LoopedTask", "def step"),
        ("AsyncTask", "async def run"),
        ("AsyncTask", "def setup"),
    ],
)
def test_a_generator_whose_body_nothing_would_run_is_refused(nest: Nest, base: str, head: str) -> None:
    nest.service(
        "Work", LOOPED.replace("LoopedTask", base).format(name="Work", body=f"    {head}(self): yield")
    )
    assert nest.fork().end() == 203
    assert nest.until("STATUS")["STATUS"] == (
        f"cannot load service Work: {head.rsplit(maxsplit=1)[-1]} of Work has a yield, so nothing would run its body; use "
        "self.update or self.publish"
    )


def test_only_an_async_task_imports_asyncio(nest: Nest) -> None:
    for name in ("Single", "Async"):
        nest.service(name, LOOPED.replace("LoopedTask", f"{name}Task").format(name=name, body=f"""
    {"async " * (name == "Async")}def run(self):
        import sys
        self.update(asyncio="asyncio" in sys.modules)
        """))  # fmt: skip
        fork = f"from zmsvc.task import __main__; raise SystemExit(__main__.main([{str(nest.home / 'Services' / name)!r}]))"
        done = subprocess.run(
            [sys.executable, "-c", fork], capture_output=True, text=True, check=True, timeout=60
        )
        assert f'{{"asyncio":{str(name == "Async").lower()}}}' in done.stdout


def test_a_coroutine_runs_by_hand_until_ctrl_c(nest: Nest) -> None:
    work(nest, """
        async def run(self):
            try:
                await self.update_async(at="run")
                await self.publish_async("news", {"at": "run"})
                await asyncio.sleep(3600)
            finally:
                self.update(at="canceled")
        async def close(self):
            self.update(at="close")
    """)  # fmt: skip
    by_hand = [sys.executable, "-m", "zmsvc.task", str(nest.home / "Services" / "Work")]
    with subprocess.Popen(by_hand, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as task:
        assert task.stdout is not None
        assert task.stderr is not None
        waiting.wait_for_line(task.stdout, "news")
        task.send_signal(signal.SIGINT)
        waiting.wait_for_line(task.stdout, '"canceled"')
        waiting.wait_for_line(task.stdout, '"close"')
        assert task.wait(waiting.PATIENCE) == 0
        assert b"Traceback" not in task.stderr.read()
