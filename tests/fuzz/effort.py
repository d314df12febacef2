"""The effort of the fuzzers: a limited time under `make test`, always the same examples under CI, and more
under `make fuzz`.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("ZMSVC_FUZZ", "1"))
"""The multiple of the usual number of examples, set by `make fuzz`."""

DEADLINE = 60 + 60 * TIMES
"""Seconds for one fuzzer."""


def effort(examples: int) -> settings:
    """Return the settings of a fuzzer that takes a few seconds for this number of examples."""
    return settings(
        max_examples=examples * TIMES,
        deadline=None,
        derandomize="CI" in os.environ and TIMES == 1,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
