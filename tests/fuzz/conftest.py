"""Use the fixtures of the live tests."""

from live_fixtures import context, home, subscriber

__all__ = ["context", "subscriber", "home"]
