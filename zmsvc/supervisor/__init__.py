"""The process that decides for a context: it turns events into facts, calls `core.engine.step`, saves the
world, and performs the effects. It is a child of the keeper and may crash at any line.
"""

from zmsvc.host.python import without_openssl  # noqa: F401
