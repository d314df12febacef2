"""Probes of `<health>` and `<ready>` under the unit: in its sandbox and in the control group of the task."""

from __future__ import annotations

from collections.abc import Callable

from installed import Installed, task
from waiting import wait_for

FAST = 'interval="50ms"'


def test_a_probe_under_the_unit_is_in_the_group_of_its_task_and_ends_with_it(
    context: Callable[..., Installed],
) -> None:
    program = task(
        "ts_1",
        "Sleeper",
        service=f'<ready exec="test -e /run/open" {FAST}/>'
        f'<health exec="sh -c \'test ! -e /run/sick || {{ echo It hurts; exit 1; }}\'" {FAST} retries="1000"/>',
        configuration="<command>sleep 3600</command>",
    ).replace('"Process"', '"Command"')
    probed = context("Probed", program)
    machine = probed.machine
    machine.sh("rm -f /run/open /run/sick")
    machine.sh(f"systemctl start --no-block {probed.unit}")
    wait_for(lambda: probed.show("ControlGroup") and machine.sh("pgrep -fx 'zmsvc: ready of ts_1.*'").stdout)
    assert probed.show("ActiveState") == "activating", "the unit waits for the first success"
    machine.sh("touch /run/open")
    wait_for(lambda: probed.show("ActiveState") == "active")
    machine.sh("touch /run/sick")
    wait_for(lambda: "unhealthy message=exit status 1: It hurts" in machine.journal("ZMSVC_TASK=ts_1"))
    (pid,) = probed.pids().values()
    own = machine.sh(f"sed -n s/^0:://p /proc/{pid}/cgroup").stdout.strip()
    # The oldest one: a fork of it has the same command line until it executes the probe.
    probe = machine.sh("pgrep -o -fx 'zmsvc: health of ts_1.*'").stdout.split()
    assert machine.sh(f"sed -n s/^0:://p /proc/{probe[0]}/cgroup").stdout.startswith(f"{own}/.zmsvc-")
    machine.sh(f"kill -KILL {pid}")
    wait_for(lambda: not machine.sh(f"ls -d /proc/{probe[0]} || :").stdout)
    machine.sh(f"systemctl stop {probed.unit}; rm -f /run/open /run/sick")
    assert probed.show("ActiveState") == "inactive"
