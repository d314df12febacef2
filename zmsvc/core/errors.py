"""The errors that zmsvc raises. The type of an error says whose fault it is. Messages are lower case, `cannot
X: why`. Only a `__main__` turns an error into an exit status.
"""

from __future__ import annotations

CANNOT_EXECUTE = 203
"""Exit status of a forked process that failed before it ran its task (systemd's EXIT_EXEC)."""


class ZmsvcError(Exception):
    """The root of all errors that zmsvc raises on purpose."""


class ConfigError(ZmsvcError):
    """The context file's fault. `faults` holds every fault as `FILE:LINE: what is wrong, what was
    expected`.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[str]]]:
        """Have pickle and copy pass the faults to the constructor. It has joined them in `args`."""
        return ConfigError, (self.faults,)


class ProtocolError(ZmsvcError):
    """A peer's fault: a message that does not follow the protocol."""


class RefusedError(ZmsvcError):
    """The device refuses the connections of this user. `status` is the exit status of a task that needs the
    bus.
    """

    status = 5


class StateError(ZmsvcError):
    """The state file's fault: damaged, or written by a newer zmsvc."""


class CarriedError(ZmsvcError):
    """The fault of the file that another host has written for `--resume-from`."""


class PlaceError(ZmsvcError):
    """The machine's fault: a directory or file that another user could have created. `owner` is that user,
    where known.
    """

    def __init__(self, why: str, *, owner: int | None = None) -> None:
        super().__init__(why)
        self.owner = owner


class LaunchError(ZmsvcError):
    """A task's fault: its code cannot be found, imported or started."""


class RequirementError(ZmsvcError):
    """The machine's fault: a missing library or kernel feature that zmsvc requires. `code` is the exit
    status.
    """

    code = 2


class UsageError(ZmsvcError):
    """The caller's fault: an order that makes no sense."""


def reason(error: OSError) -> str:
    """Return the kernel's reason in words, with the file if one is known: `PATH: permission denied`."""
    why = (error.strerror or str(error)).lower()
    name = error.filename2 or error.filename
    return why if not isinstance(name, str) else f"{name}: {why}"
