"""For the daemon of a test: a wall clock that jumps while the file $CLOCK_FILE holds a number of seconds, and
supervisors which come up only when the test writes into the FIFO $SLOW_START, once that is there. The real
clock is the machine's.
"""

import os
import sys
import time

_FILE = os.environ.get("CLOCK_FILE")
_now, _now_ns = time.time, time.time_ns


def _jump() -> int:
    try:
        with open(_FILE or "") as file:
            return int(file.read() or 0)
    except OSError:
        return 0


if "zmsvc.supervisor" in sys.orig_argv and os.path.exists(os.environ.get("SLOW_START", "")):
    with open(os.environ["SLOW_START"], "rb") as fifo:
        fifo.read()

if _FILE:
    time.time = lambda: _now() + _jump()
    time.time_ns = lambda: _now_ns() + _jump() * 10**9
