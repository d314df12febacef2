"""The fixtures of the live tests."""

from live_fixtures import by_hand, context, either, home, subscriber

__all__ = ["by_hand", "context", "subscriber", "either", "home"]
