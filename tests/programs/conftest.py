"""The fixtures of the live tests serve here, too. A program that is not installed skips its tests, but
under CI that is a failure.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from context import Context
from programs import Programs

# Two modules of the name conftest cannot be imported by name; pytest finds fixtures in whatever names a
# conftest has.
_spec = importlib.util.spec_from_file_location(
    "live_fixtures", Path(__file__).parent.parent / "live" / "conftest.py"
)
assert _spec is not None
assert _spec.loader is not None
_live = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_live)

home, context = _live.home, _live.context


@pytest.fixture
def programs(context: Context) -> Programs:
    context.home.chmod(0o755)  # nginx's workers and gunicorn's look for their files here
    return Programs(context)
