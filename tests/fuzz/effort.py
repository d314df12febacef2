"""The effort of the fuzzers: the same examples in each `make test`, for a limited time, and more and others under
`make fuzz`.
"""

from __future__ import annotations

import os

from chance import EXPLORE
from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("ZMSVC_FUZZ", "1"))
"""The multiple of the usual number of examples, set by `make fuzz`."""

DEADLINE = 300 + 60 * TIMES
"""Seconds for one fuzzer. The longest takes half a minute in `make test`, and two minutes on a busy machine."""


def effort(examples: int) -> settings:
    """Return the settings of a fuzzer that takes a few seconds for this number of examples."""
    return settings(
        max_examples=examples * TIMES,
        deadline=None,
        derandomize=not EXPLORE,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
