"""Random kills of processes of a context under load: no other process dies, and nothing is lost or done
twice.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from chance import SEED
from context import Context
from crowd import SHARED, STEADY, TX, Crowd, populate

KILLS = int(os.environ.get("ZMSVC_KILLS", "25"))
"""`make kills` has 100 of them."""

VICTIMS = ("supervisor", "supervisor", "device", "zygote", *STEADY, SHARED[0])


@pytest.mark.deadline(240 + 5 * KILLS)
def test_random_kills_under_load(context: Context, home: Path) -> None:
    # The same seed gives the same victims in the same order, although the load beside them differs.
    print(f"ZMSVC_SEED={SEED} ZMSVC_KILLS={KILLS}")
    chance = random.Random(SEED)
    populate(context)
    context.start("--transaction", TX)
    crowd = Crowd(context)
    done = 0
    while done < KILLS:
        victims = chance.sample(VICTIMS, chance.choice((1, 1, 2, 3)))
        crowd.kill(*dict.fromkeys(victims))
        done += len(victims)
    crowd.check_history()
    assert sum(row.task == "ring_1" and row.event == "launching" for row in crowd.rows) > 2, (
        "the load was none"
    )
    assert context.stop() == 0
    crowd.check_history(stopped=True)
    assert left(home) == [], "nothing of it is left"


def left(home: Path) -> list[int]:
    """Return the processes with a path of this context in their command line or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(home).encode() in text and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found
