#!/usr/bin/env python3
"""Make task services, as the manual of zmicroservices 1.0 shows it: see --help. The same as
`zmsvcctl create`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from zmsvc.ctl.create.command import main

if __name__ == "__main__":
    sys.exit(main())
