"""The Walk service: runs when Stand has ended."""
