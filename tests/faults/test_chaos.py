"""Random orders, kills and reloads in any order: at each quiet moment status, kernel and history agree."""

from __future__ import annotations

import os
from contextlib import nullcontext

import pytest
from chaos import ROOM, SETTLED, Chaos
from context import Context
from disks import disk

SECONDS = 4.0
FAILED_BEFORE = (2, 1689109807, 3030884286)
"""Seeds of runs that failed; `make chaos` tries new ones, for longer. 2: the device of a killed keeper still
listened where the next one was to listen. 1689109807: a thread that was started again on a full disk never
became ready. 3030884286: a thread is started in a process that is frozen, which start_timeout has to end.
"""


@pytest.mark.deadline(SECONDS + 4 * SETTLED)
@pytest.mark.parametrize("seed", FAILED_BEFORE)
def test_status_processes_and_history_agree_after_random_operations(context: Context, seed: int) -> None:
    with disk(context.home / "state", ROOM) if os.geteuid() == 0 else nullcontext() as state:
        chaos = Chaos(context, seed, state)
        chaos.run(SECONDS)
    assert chaos.quiet_moments > 1
    assert chaos.did
