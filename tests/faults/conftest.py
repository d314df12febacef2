"""Use the fixtures of the live tests."""

from live_fixtures import context, either, grouped, home, subscriber

__all__ = ["context", "either", "grouped", "home", "subscriber"]
