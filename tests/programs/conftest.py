"""Use the fixtures of the live tests. If a program is not installed, its tests are skipped; under CI they
fail.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from context import Context
from programs import Programs

# There are two modules with the name conftest, so this one is loaded by its path. pytest finds fixtures among
# the names of a conftest.
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
