"""A cold start: the time that `systemctl start` takes for a context that does not run and that has never run,
until its tasks are ready.
"""

from __future__ import annotations

from machine import Machine

_START = """
rm -rf /var/lib/zmsvc/*
begin=$(date +%s%N); systemctl start zmsvc@EchoAction; end=$(date +%s%N)
cat $(find /sys/fs/cgroup -path '*zmsvc@EchoAction.service/cpu.stat') | sed -n 's/^usage_usec //p'
systemctl stop zmsvc@EchoAction
echo $((end - begin))
"""


def measure(machine: Machine, times: int) -> dict[str, list[float]]:
    """Return the seconds of `cold`, and of `cold.cpu`, the CPU time of all processes of the context."""
    found = [[float(word) for word in machine.sh(_START).stdout.split()] for _ in range(times)]
    return {"cold": [took / 1e9 for _, took in found], "cold.cpu": [used / 1e6 for used, _ in found]}
