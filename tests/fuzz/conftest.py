"""The fixtures of the live tests serve here, too."""

from __future__ import annotations

import importlib.util
from pathlib import Path

# Two modules of the name conftest cannot be imported by name; pytest finds fixtures in whatever names a
# conftest has.
_spec = importlib.util.spec_from_file_location(
    "live_fixtures", Path(__file__).parent.parent / "live" / "conftest.py"
)
assert _spec is not None
assert _spec.loader is not None
_live = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_live)

home, context, ear = _live.home, _live.context, _live.ear
