"""Tasks that share a process have one control group, which is removed when the last of them has ended."""

from __future__ import annotations

from collections.abc import Callable

from installed import Installed, alive, task


def test_thread_tasks_share_a_cgroup_that_ends_with_the_last_of_them(
    context: Callable[..., Installed],
) -> None:
    shared = context(
        "Threads", *(task(f"ts_10{number}", "Talker").replace('"Process"', '"Thread"') for number in range(3))
    )
    shared.start()
    (pid,) = set(shared.pids().values())
    tree = shared.machine.sh(f"systemd-cgls --no-pager -u {shared.unit}").stdout
    assert tree.count(":+") == 1
    shared.ctl("stop", "--task", "ts_101")
    assert set(shared.pids().values()) == {pid}
    shared.ctl("start", "--task", "ts_101")
    assert set(shared.pids().values()) == {pid}
    shared.machine.sh(f"kill -SEGV {pid}")
    shared.ctl("restart")
    (after,) = set(shared.pids().values())
    assert after != pid
    for number in range(3):
        shared.ctl("stop", "--task", f"ts_10{number}")
    assert alive(shared.machine, [pid, after]) == []
    assert ":+" not in shared.machine.sh(f"systemd-cgls --no-pager -u {shared.unit}").stdout
    shared.stop()
