"""Use the fixtures of the live tests. If a program is not installed, its tests are skipped; under CI they
fail.
"""

from __future__ import annotations

import pytest
from context import Context
from live_fixtures import context, home
from programs import Programs

__all__ = ["context", "home", "programs"]


@pytest.fixture
def programs(context: Context) -> Programs:
    context.home.chmod(0o755)  # nginx's workers and gunicorn's look for their files here
    return Programs(context)
