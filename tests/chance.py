"""The examples and seeds of random tests. `make test` and CI use the same ones in each run, so that a test
fails there because of a change and not by chance. `make fuzz`, `make kills`, `make simulate` and `make all-tests`
set ZMSVC_EXPLORE and try others each time. This module does not use zmsvc.
"""

from __future__ import annotations

import os
import random

EXPLORE = bool(os.environ.get("ZMSVC_EXPLORE"))
SEED = int(os.environ.get("ZMSVC_SEED") or (random.randrange(2**32) if EXPLORE else 1))
"""The seed of the random tests, which print it: ZMSVC_SEED=N repeats a run."""
