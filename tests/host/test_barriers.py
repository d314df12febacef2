"""The barriers that the keeper holds for tasks before their first steps."""

from __future__ import annotations

import os
import resource

from forked import launch_spec

from zmsvc.host.kernel import free_descriptors
from zmsvc.keeper.barriers import Barriers
from zmsvc.keeper.machine import Machine


def test_a_barrier_is_closed_until_its_launch_is_named() -> None:
    barriers = Barriers(Machine())
    first, second = (barriers.create(launch_spec(launch=launch, barrier=True)) for launch in (1, 2))
    assert first is not None
    assert second is not None
    try:
        barriers.open([1, 1, 3])
        assert os.read(first, 10) == b"\n"
        os.set_blocking(second, False)
        try:
            os.read(second, 10)
            raise AssertionError("it is open")
        except BlockingIOError:
            pass
        barriers.open_all()
        assert os.read(second, 10) == b"\n"
    finally:
        os.close(first)
        os.close(second)
    assert barriers.create(launch_spec()) is None, "this task is started alone"


def test_without_a_free_descriptor_a_task_does_not_wait() -> None:
    barriers = Barriers(Machine())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    pipe = os.pipe()
    for fd in pipe:
        os.close(fd)
    # Below the first limit no descriptor is free. Below the second one there are free ones, such as those of
    # this pipe, but they are reserved for stops.
    for limit in (3, max(pipe) + free_descriptors.ROOM // 2):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            assert barriers.create(launch_spec(barrier=True)) is None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
