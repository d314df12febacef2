"""The choice of a context: the named one, the only running one, or the one that has the transaction."""

from __future__ import annotations

import os

from zmsvc.ctl.client import Client, CtlError, listens
from zmsvc.host import paths
from zmsvc.host.paths import Places

PATIENCE = 10.0
"""Seconds to wait for each context's answer about a transaction."""


class NoneRunningError(CtlError):
    """No context was named, and none runs."""


def choose(target: str | None, transaction: str | None = None) -> Places:
    """Return the selected context. `target` is a NAME or a FILE.xml.

    Raises CtlError: 4 for an unknown name, 2 if several contexts fit. Raises NoneRunningError if none fits.
    """
    if target is not None:
        places = paths.places(target)
        if not exists(places):
            others = sorted(
                {*paths.known_contexts(), *paths.past_contexts(), *(each.name for each in running())}
            )
            names = ", ".join(others) or f"there is none in {paths.config_dir()}"
            known = f"known: {names}{_suggestion(places.name, others)}"
            raise CtlError(
                4,
                f"cannot find context {places.name}: no file {places.config_file}, and it is not running "
                f"({known})",
            )
        return places
    candidates = running()
    if not candidates:
        return _only_known()
    if len(candidates) > 1 and transaction is not None:
        candidates = [each for each in candidates if _knows(each, transaction)] or candidates
    if len(candidates) == 1:
        return candidates[0]
    names = ", ".join(each.name for each in candidates)
    raise CtlError(2, f"cannot choose a context: {names} are running (name one with -c NAME)")


def running() -> list[Places]:
    """Return the contexts whose control socket has a listener. The socket file of a killed
    daemon has none.
    """
    # A directory whose name cannot be that of a context was not made by zmsvcd.
    names = [name for name in paths.running_contexts() if paths.CONTEXT_NAME.fullmatch(name)]
    return [places for places in map(paths.places, names) if listens(places)]


def exists(places: Places) -> bool:
    """Return True if a context of this name has a file, runs, or has run."""
    # os.path.exists is False without permission; Path.exists raises.
    return any(
        map(
            os.path.exists,
            (places.config_file, places.runtime, places.state, paths.control_socket(places.name)),
        )
    )


def _suggestion(name: str, names: list[str]) -> str:
    # Imported here for start-up time: most of the time the name is right.
    from zmsvc.core.similar import closest

    found = closest(name, names, 0.6)
    return f"; did you mean {found}?" if found else ""


def _only_known() -> Places:
    known = list(paths.known_contexts())
    if len(known) == 1:
        return paths.places(known[0])
    names = f"known: {', '.join(known)}" if known else f"there is no context file in {paths.config_dir()}"
    raise NoneRunningError(
        5,
        f"cannot choose a context: none is running ({names}; {start_command('NAME' if known else None)} "
        f"starts one)",
    )


def start_command(name: str | None, file: str | None = None) -> str:
    """Return the command that starts a context; without a name, a command with a placeholder for its file.

    `zmsvcd` and the unit find a context by name only in the directory of context files; a `file` elsewhere
    must be named. The unit needs root and systemd.
    """
    if name is None:
        return "zmsvcd --detach FILE.xml"
    if file and file != str(paths.places(name).config_file):
        return f"zmsvcd --detach {_shell_quoted(file)}"
    return f"systemctl start zmsvc@{name}" if _has_unit() else f"zmsvcd --detach {name}"


def restart_command(name: str, file: str | None = None) -> str:
    """Return the command that restarts a context whose supervisor has read `file`."""
    start = start_command(name, file)
    return (
        f"systemctl restart zmsvc@{name}"
        if start.startswith("systemctl")
        else f"zmsvcctl -c {name} exit && {start}"
    )


def _shell_quoted(file: str) -> str:
    # Imported here for start-up time: most of the time nothing is to be quoted.
    import shlex

    return shlex.quote(file)


def _has_unit() -> bool:
    return os.geteuid() == 0 and os.path.isdir("/run/systemd/system")


def _knows(places: Places, transaction: str) -> bool:
    try:
        Client(places, patience=PATIENCE).ask("status", transaction=transaction)
    except CtlError:
        # This context refuses or does not answer. Another one may have the transaction; if not, the same
        # error comes again when this context is used.
        return False
    return True
