"""zmsvc: a systemd-integrated service manager for micro-services that talk over ZeroMQ."""

import sys

__version__ = "1.1.0.dev0"

if sys.version_info < (3, 11):  # noqa: UP036 -- pip refuses an older Python, but PYTHONPATH and the scripts do not
    # An older Python has to parse this file: nothing newer than 3.8 may stand in it.
    _found = "{}.{}".format(*sys.version_info[:2])
    sys.stderr.write(
        f"zmsvc: cannot run: {sys.executable} is Python {_found}, and 3.11 or newer is needed"
        " (Debian 12 and newer: apt-get install python3; elsewhere name another one, such as python3.11)\n"
    )
    raise SystemExit(2)
