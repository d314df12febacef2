"""Import asyncio without ssl. The supervisor speaks no TLS, and OpenSSL takes 4.3 MB and 10 ms of CPU time.

asyncio does without ssl where Python was built without it. A later import of ssl finds it as usual.
"""

from __future__ import annotations

import sys

NAME = "ssl"

if NAME not in sys.modules:
    sys.modules[NAME] = None  # type: ignore[assignment]
    try:
        import asyncio  # noqa: F401
    finally:
        del sys.modules[NAME]
