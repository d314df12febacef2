"""Internals of the Python interpreter that make a fork cheap, each with a fallback."""
