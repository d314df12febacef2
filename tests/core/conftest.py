"""The effort of Hypothesis. Under CI its examples are always the same, so that a red run there is red
everywhere.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "core",
    max_examples=50,
    deadline=None,
    derandomize="CI" in os.environ,
    # The simulated machine is built inside the examples, and a filtered draw costs nothing.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
settings.load_profile("core")
