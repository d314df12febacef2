"""The limits of the control group of a task: the controller that an option needs, and the texts of the files
of cgroup v2, by systemd's rules. Pure; the keeper writes the files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, assert_never

from zmsvc.core.frozen import frozen
from zmsvc.core.values import part_of

LimitName = Literal["memory_max", "memory_high", "cpu_quota", "cpu_weight", "tasks_max", "io_weight"]
"""The options that are limits of a control group."""

CONTROLLERS: Mapping[LimitName, str] = {
    "memory_max": "memory",
    "memory_high": "memory",
    "cpu_quota": "cpu",
    "cpu_weight": "cpu",
    "tasks_max": "pids",
    "io_weight": "io",
}
"""The controller of each option."""

UNLIMITED: Mapping[str, str] = {
    "memory.max": "max",
    "memory.high": "max",
    "cpu.max": "max",
    "cpu.idle": "0",
    "cpu.weight": "100",
    "pids.max": "max",
    "io.bfq.weight": "100",
    "io.weight": "default 100",
}
"""The text of each file without a limit, in the order in which the keeper writes them. The kernel refuses a
weight for a group that is idle.
"""

PERIOD = 100_000
"""The period of a CPU quota in microseconds, as systemd has it."""
LONGEST_PERIOD = 1_000_000
LEAST_QUOTA = 1_000
"""The kernel accepts no quota of fewer microseconds in a period."""


class Limited(Protocol):
    """A launch or a definition of a task."""

    @property
    def memory_max(self) -> int | str: ...
    @property
    def memory_high(self) -> int | str: ...
    @property
    def cpu_quota(self) -> int | None: ...
    @property
    def cpu_weight(self) -> int | None: ...
    @property
    def tasks_max(self) -> int | str: ...
    @property
    def io_weight(self) -> int | None: ...


@frozen
class Whole:
    """The amounts of this machine. An option may be a percentage of one."""

    memory: int
    tasks: int


@frozen
class GroupLimit:
    """One option with its controller and the texts to write, by file. A kernel may lack some of these files.
    It is enough if it has one of them.
    """

    option: str
    controller: str
    files: Mapping[str, str]


def named(task: Limited) -> list[LimitName]:
    """Return the names of the limits that a task has."""
    return [option for option in CONTROLLERS if getattr(task, option) not in (None, -1)]


def limits_of(task: Limited, whole: Callable[[], Whole]) -> list[GroupLimit]:
    """Return the limits that a task has, each with the texts for the files of its control group."""
    found = named(task)
    machine = whole() if found else None
    return [
        GroupLimit(
            option=option,
            controller=CONTROLLERS[option],
            files=_files(option, getattr(task, option), machine),
        )
        for option in found
        if machine is not None
    ]


def _files(option: LimitName, value: Any, whole: Whole) -> Mapping[str, str]:
    match option:
        case "memory_max" | "memory_high":
            return {str(option).replace("_", "."): str(part_of(value, whole.memory))}
        case "tasks_max":
            return {"pids.max": str(part_of(value, whole.tasks))}
        case "cpu_quota":
            return {"cpu.max": _quota(value)}
        case "cpu_weight":
            return {"cpu.idle": "0", "cpu.weight": str(value)} if value else {"cpu.idle": "1"}
        case "io_weight":
            return {"io.bfq.weight": str(_bfq_weight(value)), "io.weight": f"default {value}"}
        case _:
            assert_never(option)


def _quota(share: int) -> str:
    """Return the text of cpu.max for a quota in hundredths of a percent. A small quota gets a longer period,
    because the kernel refuses a quota of less than LEAST_QUOTA.
    """
    period = min(max(PERIOD, LEAST_QUOTA * 10_000 // share), LONGEST_PERIOD)
    return f"{max(share * period // 10_000, LEAST_QUOTA)} {period}"


def _bfq_weight(weight: int) -> int:
    """Convert a weight from 1 to 10,000 to one of the scheduler BFQ, from 1 to 1000."""
    return weight if weight <= 100 else 100 + (weight - 100) * 900 // 9900
