"""Floods in any mixture, by peers that may connect: the device lives or is replaced, its memory is bounded
and given back.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from effort import DEADLINE, effort
from hypothesis import given
from hypothesis import strategies as st
from waiting import wait_for

sys.path.append(str(Path(__file__).parents[1] / "host"))
from forwarder import Forwarder

FLOOD = str(Path(__file__).parents[1] / "flood.py")
MEMORY = 200 << 20
OF_SUBSCRIBERS = ("long", "many", "churn", "words", "parts_of_subscriptions", "deaf")
WAYS = dict.fromkeys(OF_SUBSCRIBERS, "subscribe_endpoint") | dict.fromkeys(
    ("parts", "orders"), "publish_endpoint"
)


def memory(pid: int) -> int:
    _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.deadline(DEADLINE)
def test_a_mixture_of_floods_does_not_fill_the_machine() -> None:
    @effort(3)
    @given(st.lists(st.tuples(st.sampled_from(sorted(WAYS)), st.integers(1, 20)), min_size=1, max_size=3))
    def bounded(floods: list[tuple[str, int]]) -> None:
        with tempfile.TemporaryDirectory() as folder, Forwarder(Path(folder)) as device:
            device.environment["ZMSVC_DEVICE_MEMORY"] = str(MEMORY)
            device.start()
            assert device.process is not None
            words = [
                [sys.executable, FLOOD, way, getattr(device, WAYS[way]), "2", str(count)]
                for way, count in floods
            ]
            running = [
                subprocess.Popen(each, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for each in words
            ]
            try:
                most = 0
                while device.process.poll() is None and any(each.poll() is None for each in running):
                    most = max(most, memory(device.pid))
                assert most < 3 * MEMORY
                # A process that gives up is replaced by the keeper.
                if device.process.poll() is None:
                    wait_for(lambda: memory(device.pid) < MEMORY // 2, 30)
                else:
                    assert "the next device takes over" in device.log.read_text()
            finally:
                for each in running:
                    each.kill()
                    each.wait()

    bounded()
