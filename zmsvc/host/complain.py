"""What the processes of a daemon tell the terminal that they were started from, or the file in its place."""

from __future__ import annotations

import sys

from zmsvc.core import printable


def complain(text: str) -> None:
    """Write lines to standard error, without control characters."""
    print(printable.lines(text), file=sys.stderr, flush=True)
