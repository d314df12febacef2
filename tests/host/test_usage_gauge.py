"""The gauge of the supervisor for what running tasks use: its CPU times never fall."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace

from zmsvc.core.lifecycle import SubState
from zmsvc.core.model import Context, DeviceEndpoints, TaskDefinition
from zmsvc.core.service_options import ServiceType
from zmsvc.core.world import Task, Transaction, World
from zmsvc.host.kernel import processes
from zmsvc.host.kernel.process_usage import ProcessUsage, of_process
from zmsvc.supervisor.usage_gauge import UsageGauge

ENDS = DeviceEndpoints(
    subscribe_endpoint="ipc:///a",
    publish_endpoint="ipc:///b",
    publish_bind="ipc:///b",
    subscribe_bind="ipc:///a",
)


def world(**pids: int) -> World:
    """Return a world with running tasks of these PIDs; `thread` is a Thread task."""
    services = {
        name: TaskDefinition(
            id=name,
            instance="X",
            service_type=ServiceType.THREAD if name == "thread" else ServiceType.PROCESS,
        )
        for name in pids
    }
    tasks = {
        ("T", name): Task(sub_state=SubState.RUNNING, launch=number, pid=pid)
        for number, (name, pid) in enumerate(pids.items(), 1)
    }
    context = Context(name="G", id="c", log_name="G", endpoints=ENDS, tasks=services)
    return World(context=context, transactions={"T": Transaction(id="T")}, tasks=tasks)


def usage(seconds: float) -> ProcessUsage:
    return ProcessUsage(cpu_seconds=seconds, memory_bytes=1000, threads=1)


def test_the_cpu_time_of_a_task_never_falls_while_it_lives() -> None:
    gauge, now = UsageGauge(), world(a=10)
    assert gauge.of_tasks(now, {10: usage(5.0)})[1] == usage(5.0)
    # The process has ended, and the keeper has not reported it yet.
    assert gauge.of_tasks(now, {})[1].cpu_seconds == 5.0
    # Another process has become the main one.
    assert gauge.of_tasks(world(a=11), {11: usage(0.5)})[1].cpu_seconds == 5.0
    assert gauge.of_tasks(world(a=11), {11: usage(6.0)})[1].cpu_seconds == 6.0
    # A launch that is over is forgotten.
    assert gauge.of_tasks(world(), {}) == {}
    assert gauge.of_tasks(now, {}) == {}


def test_thread_tasks_and_hidden_processes_have_no_figures() -> None:
    read: list[int] = []
    gauge = UsageGauge(lambda pid, _start_time: read.append(pid))
    now = world(a=10, thread=11)
    assert gauge.of_tasks(now, asyncio.run(gauge.measure(now))) == {}
    assert read == [10]


def test_the_loop_goes_on_while_many_processes_are_read() -> None:
    turns: list[int] = []

    async def measure() -> None:
        gauge = UsageGauge(lambda _pid, _start_time: usage(1.0), portion=2)
        loop = asyncio.get_running_loop()
        loop.call_soon(turns.append, 1)
        await gauge.measure(world(a=1, b=2, c=3))
        turns.append(2)

    asyncio.run(measure())
    assert turns == [1, 2]


def test_the_figures_of_a_process_are_those_of_the_kernel() -> None:
    before, start_time = time.process_time(), processes.start_time(os.getpid())
    assert start_time is not None
    found = of_process(os.getpid(), start_time)
    assert found is not None
    assert found.cpu_seconds <= sum(os.times()[:4]) + 0.02
    assert found.cpu_seconds >= before - 0.02
    assert found.memory_bytes > 1 << 20
    assert found.threads >= 1
    assert of_process(2**22 + 1, start_time) is None
    assert of_process(os.getpid(), start_time - 1) is None, "the PID belongs to another process now"


def test_a_task_on_another_host_is_not_measured() -> None:
    """Its PID is that of another process here."""
    here = world(task=os.getpid())
    key, task = next(iter(here.tasks.items()))
    task = replace(task, start_time=processes.start_time(os.getpid()) or 0)
    here = replace(here, tasks={key: task})
    elsewhere = replace(here, tasks={key: replace(task, host="h2")})
    gauge = UsageGauge()
    assert asyncio.run(gauge.measure(here)).keys() == {os.getpid()}
    assert asyncio.run(gauge.measure(elsewhere)) == {}
    assert gauge.of_tasks(elsewhere, {}) == {}
