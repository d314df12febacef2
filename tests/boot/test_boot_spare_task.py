"""The spare task under the unit, whose seccomp filter hides clone3(2): it moves into the control group of its
task when it is given the launch.
"""

from __future__ import annotations

from collections.abc import Callable

from installed import Installed, task
from waiting import wait_for

QUICK = "<restart_delay>0</restart_delay><restart_max_delay>0</restart_max_delay>"
RESTART = "<on_fail><action>restart</action><call>ts_100</call></on_fail>"
BY_ANOTHER_PROGRAM = "printed by another program"


def test_a_task_that_fails_is_replaced_by_the_spare_task_in_the_same_control_group(
    context: Callable[..., Installed],
) -> None:
    failing = context("Failing", task("ts_100", "Talker", service=QUICK, rules=RESTART))
    failing.start()
    machine = failing.machine

    def pid() -> int:
        found = list(failing.pids().values())
        assert len(found) == 1, "between two launches the task has no process"
        return found[0]

    def warm() -> int:
        """Return the spare task, which has this title when it waits."""
        found = machine.sh("pgrep -f ^zmsvc-spare || :").stdout.split()
        assert len(found) == 1, found
        return int(found[0])

    first, spare = pid(), wait_for(warm)
    group = machine.sh(f"sed -n s/^0:://p /proc/{first}/cgroup").stdout
    assert group.strip().endswith(f"/{failing.unit}/tasks/{next(iter(failing.pids()))[0]}:ts_100")
    assert "/tasks/" not in machine.sh(f"sed -n s/^0:://p /proc/{spare}/cgroup").stdout
    machine.sh(f"kill -KILL {first}")
    wait_for(lambda: pid() == spare)
    wait_for(lambda: machine.sh(f"sed -n s/^0:://p /proc/{spare}/cgroup").stdout == group)
    # The output of the programs of the task is found by its control group.
    wait_for(lambda: failing.ctl("--no-pager", "logs", "ts_100").count(BY_ANOTHER_PROGRAM) == 2)
    assert wait_for(warm) != spare
    machine.sh(f"systemctl stop {failing.unit}")
    assert machine.sh("pgrep -f ^zmsvc-spare || :").stdout == ""
