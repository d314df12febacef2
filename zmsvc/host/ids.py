"""Generate transaction IDs, directly from the kernel's random numbers: importing `secrets` would slow
zmsvcctl down.
"""

from __future__ import annotations

import os

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def transaction_id() -> str:
    """Return 20 random characters of A-Z0-9."""
    letters = ""
    while len(letters) < 20:
        # 252 is the largest multiple of 36 in a byte. With all values some letters would be more likely.
        letters += "".join(LETTERS[byte % 36] for byte in os.urandom(32) if byte < 252)
    return letters[:20]
