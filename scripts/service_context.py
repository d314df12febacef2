#!/usr/bin/env python3
"""Run a context in the foreground, as the manual of zmicroservices 1.0 shows it. It starts no transaction by
itself. The same as `zmsvcd --no-autostart FILE`."""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from zmsvc.core.errors import ConfigError
from zmsvc.ctl import terminal
from zmsvc.ctl.compat.conf_command import announcement
from zmsvc.keeper.__main__ import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", metavar="FILE", help="the context file")
    file = parser.parse_args().file
    try:
        terminal.say("\n".join(announcement(file)))
    except ConfigError as error:
        terminal.say_error("\n".join(error.faults))
        sys.exit(2)
    # The supervisor is another Python process, which must find the same package.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [sys.path[0], os.environ.get("PYTHONPATH")]))
    sys.exit(main(["--no-autostart", str(Path(file).absolute())]))
