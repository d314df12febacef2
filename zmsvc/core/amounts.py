"""Amounts of bytes as text. Pure; zmsvcctl imports it at each start, so it imports nothing."""

from __future__ import annotations


def size(amount: int) -> str:
    """Format bytes as systemd shows memory."""
    if amount < 1024:
        return f"{amount}B"
    value, unit = amount / 1024, "K"
    for larger in ("M", "G", "T"):
        if value < 1023.95:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f}{unit}"
