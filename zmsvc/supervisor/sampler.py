"""`python -m zmsvc.supervisor.sampler`: read processes from standard input, and print the resources that they
use as JSON, once.

This is a process of its own, because to measure a thousand processes takes Python a second, which would delay
the loop of the supervisor even from a thread.
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
    # This pause is the measurement, not a wait for an event.
    time.sleep(SPAN)
    json.dump(usage.rows(gauge, asked["tasks"]), sys.stdout, separators=(",", ":"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
