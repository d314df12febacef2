#!/usr/bin/env python3
"""Show the messages on a bus: see --help. `zmsvcctl watch` does it for a context by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from zmsvc.ctl.compat.display import main

if __name__ == "__main__":
    sys.exit(main())
