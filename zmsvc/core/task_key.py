"""The key of a task in the world."""

from __future__ import annotations

Key = tuple[str, str]
"""A task of a transaction: (transaction, task ID)."""
