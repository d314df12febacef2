"""`python -m zmsvc.supervisor.sampler`: print once, as JSON, the resources that the processes on standard
input use.

This is a process of its own: to measure a thousand processes takes a second of Python, which would delay the
supervisor's loop even in a thread.
"""

from __future__ import annotations

import json
import os
import sys
import time

from zmsvc.host import usage
from zmsvc.host.kernel import linux

SPAN = 0.1
"""Seconds over which CPU time is measured. The answer should come before the client asks again."""
NICE = 10


def main() -> int:
    linux.die_with_parent(os.getppid())
    os.nice(NICE)
    asked = json.load(sys.stdin)
    gauge = usage.ProcessSampler(usage.options(asked["options"]))
    gauge.begin(task["pid"] for task in asked["tasks"] if task["pid"])
    # This is the measurement itself, not a wait for something.
    time.sleep(SPAN)
    json.dump(usage.rows(gauge, asked["tasks"]), sys.stdout, separators=(",", ":"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
