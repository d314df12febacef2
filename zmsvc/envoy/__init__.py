"""The envoy: on a host where tasks of a context run, it stands between the keeper of that host and the
supervisor of the context.
"""

from zmsvc.host.python import without_openssl  # noqa: F401
