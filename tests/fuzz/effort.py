"""How long the fuzzers look: a bounded while under `make test`, always for the same examples under CI;
longer by `make fuzz`.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("ZMSVC_FUZZ", "1"))
"""The multiple of the usual number of examples, set by `make fuzz`."""

DEADLINE = 60 + 60 * TIMES
"""Seconds for one fuzzer."""


def effort(examples: int) -> settings:
    """The settings of one fuzzer that takes a few seconds for so many examples."""
    return settings(
        max_examples=examples * TIMES,
        deadline=None,
        derandomize="CI" in os.environ and TIMES == 1,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
