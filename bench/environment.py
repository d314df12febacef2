"""The environment of a benchmark, which is the same for all that it measures."""

from __future__ import annotations

import os
import resource
import signal
import sys


def prepare() -> None:
    """All contenders have the same environment: as many descriptors as the system allows, and a Python that
    caches its compiled modules.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # If the user interrupts the benchmark, it must not leave a thousand tasks behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: broken off"))
    for name in [name for name in os.environ if name.startswith("PYTHON") and name != "PYTHONPATH"]:
        # With PYTHONDONTWRITEBYTECODE, Python would compile every service again at each start: 0.2 MB more.
        del os.environ[name]
