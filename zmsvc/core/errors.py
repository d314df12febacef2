"""What can go wrong, by whose fault it is. Texts are lower case: `cannot X: why`; only a `__main__` makes
an exit status of one.
"""

CANNOT_EXECUTE = 203
"""Exit status of a process that could not become the task that it was forked for (systemd's EXIT_EXEC)."""


class ZmsvcError(Exception):
    """The root of all errors that zmsvc raises on purpose."""


class ConfigError(ZmsvcError):
    """The context file's fault. `faults` holds every fault as `FILE:LINE: what is wrong, what was
    expected`.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class ProtocolError(ZmsvcError):
    """A peer's fault: a message that is not what the contract says."""


class RefusedError(ZmsvcError):
    """The device lets this user not connect. `status` is the exit status of a task that needs the bus."""

    status = 5


class StateError(ZmsvcError):
    """The state file's fault: damaged, or written by a newer zmsvc."""


class PlaceError(ZmsvcError):
    """The machine's fault: a directory or file that another user could have put there. `owner` is that
    user, where one is known.
    """

    def __init__(self, why: str, *, owner: int | None = None) -> None:
        super().__init__(why)
        self.owner = owner


class LaunchError(ZmsvcError):
    """A task's fault: its code cannot be found, imported or started."""


class RequirementError(ZmsvcError):
    """The machine's fault: a library or a feature of the kernel that zmsvc cannot do without. `code` is
    the exit status.
    """

    code = 2


class UsageError(ZmsvcError):
    """The caller's fault: an order that cannot be meant."""


def reason(error: OSError) -> str:
    """Return what the kernel said, and about which file, in words: `PATH: permission denied`."""
    why = (error.strerror or str(error)).lower()
    name = error.filename2 or error.filename
    return why if not isinstance(name, str) else f"{name}: {why}"
