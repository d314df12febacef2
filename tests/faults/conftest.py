"""Use the fixtures of the live tests."""

from live_fixtures import context, ear, either, home

__all__ = ["context", "ear", "either", "home"]
