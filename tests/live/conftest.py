"""The fixtures of the live tests."""

from live_fixtures import by_hand, context, ear, either, home

__all__ = ["by_hand", "context", "ear", "either", "home"]
