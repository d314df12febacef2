"""Use the fixtures of the live tests."""

from live_fixtures import context, either, home, subscriber

__all__ = ["context", "subscriber", "either", "home"]
