"""Use the fixtures of the live tests."""

from live_fixtures import context, ear, home

__all__ = ["context", "ear", "home"]
