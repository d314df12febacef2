"""Fresh transaction IDs. Made from the kernel's randomness directly: `secrets` would cost the CLI its
start-up time.
"""

from __future__ import annotations

import os

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def transaction_id() -> str:
    """20 of A-Z0-9."""
    made = ""
    while len(made) < 20:
        # 252 is the largest multiple of 36 in a byte: above it some letters would be likelier than others.
        made += "".join(LETTERS[byte % 36] for byte in os.urandom(32) if byte < 252)
    return made[:20]
