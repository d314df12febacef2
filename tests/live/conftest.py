"""The fixtures of the live tests."""

from live_fixtures import by_hand, context, either, grouped, home, subscriber

__all__ = ["by_hand", "context", "either", "grouped", "home", "subscriber"]
