"""`python -m zmsvc.supervisor.sampler`: what the processes that standard input names use of the machine, as
JSON, once.

A process of its own: to look at a thousand processes takes a second of Python, which the supervisor's loop
would feel even from a thread.
"""

from __future__ import annotations

import json
import os
import sys
import time

from zmsvc.host import usage
from zmsvc.host.kernel import linux

SPAN = 0.1
"""Seconds over which CPU is measured; a question should be answered before the asker thinks of asking
again.
"""
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
