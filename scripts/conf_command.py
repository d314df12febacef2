#!/usr/bin/env python3
"""Send a message to a context, as the manual of zmicroservices 1.0 shows it: see --help. New scripts use
`zmsvcctl`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from zmsvc.ctl.compat.conf_command import main

if __name__ == "__main__":
    sys.exit(main())
