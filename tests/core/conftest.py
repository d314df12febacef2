"""The settings of Hypothesis. Under CI its examples are always the same, so that a test that fails there
fails everywhere.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "core",
    max_examples=50,
    deadline=None,
    derandomize="CI" in os.environ,
    # The simulated machine is made inside the examples, and an example that is filtered out costs nothing.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
settings.load_profile("core")
