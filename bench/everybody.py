"""The list of all contenders."""

from __future__ import annotations

from bench.contenders.busy import Busy
from bench.contenders.circus import Circus
from bench.contenders.floor import Floor
from bench.contenders.suites import S6, Runit
from bench.contenders.supervisor import Supervisor
from bench.contenders.systemd import Systemd
from bench.contenders.zmsvc import Zmsvc
from bench.contenders.zmsvc_unit import ZmsvcUnit
from bench.fleet import Contender

UNSHARED = Zmsvc(without=("immortal", "fill"))
"""zmsvc without the shortcuts by which tasks share more memory."""
OURS_UNSHARED = UNSHARED.name
MIXED = Zmsvc(beside=290, disk=True, label="zmsvc (300 mixed)")
"""zmsvc in a context with 290 further tasks, with its state file on a disk."""
UNIT = ZmsvcUnit()
BUSY = Busy(Zmsvc())


def everybody() -> list[Contender]:
    """Return the contenders in the order of the columns: zmsvc, the floors, the others."""
    return [
        Zmsvc(),
        Zmsvc(cgroups=True),
        UNIT,
        MIXED,
        BUSY,
        UNSHARED,
        Floor(connected=False),
        Floor(connected=True),
        Busy(Floor(connected=True)),
        Supervisor(),
        Circus(),
        Systemd(),
        S6(),
        Runit(),
    ]
