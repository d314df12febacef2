"""Which context is meant: the named one, the only one that runs, or the one that knows the transaction."""

from __future__ import annotations

import os

from zmsvc.ctl.client import Client, CtlError, listens
from zmsvc.host import paths
from zmsvc.host.paths import Places

PATIENCE = 10.0
"""Seconds that each context has to say whether it knows a transaction."""


class NoneRunningError(CtlError):
    """Nothing was named, and nothing runs that could be meant."""


def choose(target: str | None, transaction: str | None = None) -> Places:
    """The context that is meant. `target` is a NAME or a FILE.xml.

    Raises CtlError: 4 for a name that nobody knows, 2 when it could be several, NoneRunningError when it
    could be none.
    """
    if target is not None:
        places = paths.places(target)
        if not exists(places):
            others = sorted(
                {*paths.known_contexts(), *paths.past_contexts(), *(each.name for each in running())}
            )
            known = (
                f"known: "
                f"{', '.join(others) or f'there is none in {paths.config_dir()}'}{_near(places.name, others)}"
            )
            raise CtlError(
                4,
                f"cannot find context {places.name}: no file {places.config_file}, and it is not running "
                f"({known})",
            )
        return places
    alive = running()
    if not alive:
        return _the_one_that_could_run()
    if len(alive) > 1 and transaction is not None:
        alive = [each for each in alive if _knows(each, transaction)] or alive
    if len(alive) == 1:
        return alive[0]
    names = ", ".join(each.name for each in alive)
    raise CtlError(2, f"cannot choose a context: {names} are running (name one with -c NAME)")


def running() -> list[Places]:
    """The contexts that somebody listens for. A socket file that a killed daemon left behind does not
    count.
    """
    # A directory that no context can have made is somebody else's.
    names = [name for name in paths.running_contexts() if paths.CONTEXT_NAME.fullmatch(name)]
    return [places for places in map(paths.places, names) if listens(places)]


def exists(places: Places) -> bool:
    """Whether a context of this name has a file, runs, or has run."""
    # os.path's is False for what we may not look at; that of a Path raises.
    return any(
        map(
            os.path.exists,
            (places.config_file, places.runtime, places.state, paths.control_socket(places.name)),
        )
    )


def _near(name: str, names: list[str]) -> str:
    # Imported here for start-up time: most of the time the name is right.
    import difflib

    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _the_one_that_could_run() -> Places:
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
    """Return what starts a context that does not run; without a name, one whose file lies anywhere.

    By its name alone a context is found in the directory of context files, by `zmsvcd` and by the unit; a
    `file` elsewhere has to be named. Units are root's, and need a systemd.
    """
    if name is None:
        return "zmsvcd --detach FILE.xml"
    if file and file != str(paths.places(name).config_file):
        return f"zmsvcd --detach {_quoted(file)}"
    return f"systemctl start zmsvc@{name}" if _unit() else f"zmsvcd --detach {name}"


def restart_command(name: str, file: str | None = None) -> str:
    """Return what ends a context, whose supervisor has read `file`, and starts it again."""
    start = start_command(name, file)
    return (
        f"systemctl restart zmsvc@{name}"
        if start.startswith("systemctl")
        else f"zmsvcctl -c {name} exit && {start}"
    )


def _quoted(file: str) -> str:
    # Imported here for start-up time: most of the time nothing is to be quoted.
    import shlex

    return shlex.quote(file)


def _unit() -> bool:
    return os.geteuid() == 0 and os.path.isdir("/run/systemd/system")


def _knows(places: Places, transaction: str) -> bool:
    try:
        Client(places, patience=PATIENCE).ask("status", transaction=transaction)
    except CtlError:
        # It says no, or cannot be asked: then the transaction is sought elsewhere, and what is wrong here
        # shows when this one is meant.
        return False
    return True
