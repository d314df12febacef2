"""The names of auxiliary processes. Each process that can become a task imports this module, so it imports
nothing of the core.
"""

from __future__ import annotations

from enum import StrEnum


class AuxiliaryName(StrEnum):
    """The work of an auxiliary process: a process that runs beside the main process of a task, as the user of
    the task and in its control group, and does not count as a process of the task.
    """

    RELOAD = "reload"
    """Executes `reload_command`."""
    READY = "ready"
    """Runs the probe of `<ready>` until it succeeds, and then ends with status 0."""
    HEALTH = "health"
    """Runs the probe of `<health>` and reports each change."""
