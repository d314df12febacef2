"""Memory runs out: a task whose process the kernel therefore kills fails with the reason oom-kill, and no
other task notices.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from context import Context
from groups import little_memory
from waiting import stop_process, wait_for_end

HOG = """
interval = 0.01
def step(self):
    import os
    if os.path.exists("{home}/eat"):
        os.unlink("{home}/eat")
        self.eaten = b"x" * (1 << 30)
"""


@pytest.fixture
def hungry(context: Context, home: Path) -> Iterator[Context]:
    """A context that has 300 MiB, with a task that takes 1 GiB when the file `eat` exists."""
    context.looped("Hog", HOG.format(home=home))
    context.looped("Echo")
    context.task("hog", "Hog", rules={"on_fail": ("start", "heir")})
    context.task("other", "Echo")
    context.task("heir", "Echo", entry=False)
    with little_memory(300) as wrapper:
        context.wrapper = wrapper
        context.start("--transaction", "T")
        yield context
        context.close()


def test_a_task_that_the_kernel_kills_for_its_memory_has_failed_for_that(hungry: Context, home: Path) -> None:
    status, other = hungry.status(), hungry.tasks()["other"]["pid"]
    (home / "eat").touch()
    end = hungry.task_is("hog", "failed")["exit"]
    assert (end["code"], end["signal"], end["reason"]) == (None, "SIGKILL", "oom-kill")
    (source,) = hungry.task_is("heir", "running")["cause"]["sources"]
    assert source["exit"] == {"code": None, "signal": "SIGKILL", "reason": "oom-kill"}
    os.kill(other, signal.SIGKILL)
    assert hungry.task_is("other", "failed")["exit"]["reason"] == "signal", (
        "a SIGKILL by hand is another reason, also afterwards"
    )
    after = hungry.status()
    assert {name: after[name] for name in ("pid", "device_pid", "restarts")} == {
        name: status[name] for name in ("pid", "device_pid", "restarts")
    }


def test_an_oom_kill_without_a_supervisor_is_known_later(hungry: Context, home: Path) -> None:
    supervisor, pid = hungry.status()["pid"], hungry.tasks()["hog"]["pid"]
    stop_process(supervisor)
    (home / "eat").touch()
    wait_for_end(pid)
    os.kill(supervisor, signal.SIGKILL)
    assert hungry.task_is("hog", "failed")["exit"]["reason"] == "oom-kill"
