"""The verb cluster: gives contexts to a cluster of Pacemaker, checks a host, prints the commands of pcs,
shows where contexts run, and drains hosts. It changes nothing in the cluster's configuration.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path

from zmsvc.core import cluster
from zmsvc.core.cluster import Finding
from zmsvc.core.errors import ConfigError, PlaceError, reason
from zmsvc.ctl import cluster_state, terminal
from zmsvc.ctl.client import Client, CtlError, listens
from zmsvc.ctl.select_context import choose
from zmsvc.ctl.status_reply import objects
from zmsvc.host import directories, paths
from zmsvc.host.paths import Places

TYPE_CHECKING = False  # As in client: an import of typing is too slow.
if TYPE_CHECKING:
    from zmsvc.ctl.client import Json


_PATIENCE = 5.0
"""Seconds to wait for a supervisor. The rest is shown without its answer."""


def run(args: argparse.Namespace) -> int:
    """cluster: check, give, take, commands, status, drain or undrain."""
    if (args.ip or args.shared or args.fstype) and args.action != "commands":
        raise CtlError(
            2, "cannot understand the command: --ip, --shared and --fstype are for cluster commands"
        )
    if (args.host_name is not None) is not (args.action in _DRAINS):
        why = "takes no HOST" if args.host_name is not None else "needs a HOST"
        raise CtlError(2, f"cannot understand the command: cluster {args.action} {why}")
    if args.action == "status":
        return _status(args)
    places = choose(args.context)
    match args.action:
        case "check":
            return _check(places, as_json=args.json)
        case "commands":
            return _commands(args, places)
        case "give":
            return _give(places, as_json=args.json)
        case "drain" | "undrain":
            return _drain(args, places)
        case _:
            return _take(places, as_json=args.json)


# --- check


def _check(places: Places, *, as_json: bool) -> int:
    # Imported here for start-up time: the reader of context files.
    from zmsvc.ctl.cluster_check import HostCheck

    found = HostCheck(places)
    faults = [each for each in found.findings if each.level == "fault"]
    if as_json:
        shown = {"facts": found.facts, "findings": [_as_json(each) for each in found.findings]}
        terminal.out(json.dumps({**_about("check", places), **shown, "ok": not faults}) + "\n")
    else:
        lines = [*facts_lines(found.facts), *map(finding_line, found.findings)]
        lines.append(verdict(places.name, os.uname().nodename, found.findings))
        terminal.out("".join(terminal.clean(line) + "\n" for line in lines))
    return 1 if faults else 0


def facts_lines(facts: Json) -> list[str]:
    """Return the facts that have to be the same on all hosts."""
    width = max(map(len, facts), default=0)
    return [f"{name:>{width}}: {'none' if value is None else value}" for name, value in facts.items()]


def finding_line(finding: Finding) -> str:
    return f"{finding.level}: {finding.text}"


def verdict(context: str, host: str, findings: list[Finding]) -> str:
    """Return the last line of a check."""
    counts = [sum(each.level == level for each in findings) for level in ("fault", "warning")]
    words = [
        f"{count} {word}{'s' if count != 1 else ''}"
        for count, word in zip(counts, ("fault", "warning"), strict=True)
    ]
    return f"{context} on {host}: {'not ready' if counts[0] else 'ready'} ({', '.join(words)})"


def _as_json(finding: Finding) -> Json:
    return {"level": finding.level, "text": finding.text}


def _about(action: str, places: Places) -> Json:
    return {"action": action, "context": places.name, "host": os.uname().nodename}


# --- give and take


def _guard(places: Places) -> str:
    # As in _check.
    from zmsvc.ctl.cluster_check import guard_of

    return str(guard_of(places))


def _give(places: Places, *, as_json: bool) -> int:
    """Let only the agent of the cluster start the unit. The guard comes first, so that the unit is never
    without one.
    """
    unit, guard = f"zmsvc@{places.name}.service", _guard(places)
    enabled = _unit_file_state(unit) == "enabled"
    changed = enabled or not os.path.exists(guard)
    try:
        os.makedirs(os.path.dirname(guard), 0o755, exist_ok=True)
        if enabled or not os.path.exists(guard):
            # `take` enables the unit again if it was enabled.
            with os.fdopen(
                directories.open_file(Path(guard), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), "w"
            ) as file:
                file.write("enabled\n" if enabled else "disabled\n")
    except (OSError, PlaceError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise CtlError(1, f"cannot give {places.name} to the cluster: {why}") from None
    if enabled:
        _systemctl("disable", unit, f"cannot give {places.name} to the cluster")
    return _told(places, "give", given=True, changed=changed, as_json=as_json)


def _take(places: Places, *, as_json: bool) -> int:
    """Let everybody start the unit again, unless the context is a resource of the cluster."""
    guard = _guard(places)
    if not os.path.exists(guard):
        return _told(places, "take", given=False, changed=False, as_json=as_json)
    try:
        resource, _ = cluster_state.place_of(places.name)
    except CtlError:
        # The cluster does not run on this host, or was removed from it.
        resource = None
    if resource is not None:
        raise CtlError(
            1,
            f"cannot take {places.name} from the cluster: it is its resource {resource['id']} "
            f"(pcs resource delete {resource['id']})",
        )
    try:
        with open(guard) as file:
            enabled = file.read(64).strip() == "enabled"
        os.unlink(guard)
    except OSError as error:
        raise CtlError(1, f"cannot take {places.name} from the cluster: {reason(error)}") from None
    if enabled:
        _systemctl("enable", f"zmsvc@{places.name}.service", f"cannot take {places.name} from the cluster")
    return _told(places, "take", given=False, changed=True, as_json=as_json)


def _told(places: Places, action: str, *, given: bool, changed: bool, as_json: bool) -> int:
    if as_json:
        terminal.out(json.dumps({**_about(action, places), "given": given, "changed": changed}) + "\n")
        return 0
    host = os.uname().nodename
    if given:
        terminal.out(
            f"{places.name} is given to the cluster on {host}: only its resource agent starts it here\n"
        )
    else:
        terminal.out(
            f"{places.name} is not given to a cluster on {host}: systemctl start zmsvc@{places.name}\n"
        )
    return 0


def _unit_file_state(unit: str) -> str:
    return cluster_state.run("systemctl", "is-enabled", unit).stdout.decode(errors="replace").strip()


def _systemctl(verb: str, unit: str, what: str) -> None:
    done = subprocess.run(
        ["systemctl", "--quiet", verb, unit], capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise CtlError(
            1, f"{what}: {lines[-1] if lines else f'systemctl {verb} ended with {done.returncode}'}"
        )


# --- commands


def _commands(args: argparse.Namespace, places: Places) -> int:
    try:
        found = cluster.commands(
            places.name,
            address=args.ip or "",
            disk=args.shared or "",
            kind=args.fstype or "ext4",
            hosts=_hosts_of(places),
        )
    except ValueError as error:
        raise CtlError(2, f"cannot print the commands: {error}") from None
    if args.json:
        terminal.out(json.dumps({**_about("commands", places), "commands": found}) + "\n")
    else:
        terminal.out("".join(f"{line}\n" for line in found))
    return 0


def _hosts_of(places: Places) -> tuple[str, ...]:
    """Return the hosts that the context file lists; none if it has faults, which `cluster check` names."""
    # As in _check.
    from zmsvc.host.config import reader

    try:
        return reader.load(places.config_file).listed.names
    except ConfigError:
        return ()


# --- drain


_DRAINS = ("drain", "undrain")
_MOST_LINES = 5
"""The most placements that an answer names."""


def _drain(args: argparse.Namespace, places: Places) -> int:
    """Send the order and print the tasks that it has moved. A task without another host waits for one."""
    client = Client(places, args.timeout)
    request = {"host": args.host_name, "block": not args.no_block, "timeout": args.timeout or None}
    about = {"action": args.action, "context": places.name, "host": args.host_name}
    try:
        data = client.ask(args.action, **request)
    except CtlError as error:
        if not args.json:
            _print_moved(error.data)
        hint = "" if "zmsvcctl" in str(error) else f" ({_way_out(error.data, places, args.host_name)})"
        raise CtlError(error.code, f"{error}{hint}", {**about, **error.data}) from None
    if args.json:
        shown = ("id", "transaction", "state", "sub", "pid", "host")
        tasks = [{name: each.get(name) for name in shown} for each in objects(data.get("tasks"))]
        terminal.out(json.dumps({**about, "tasks": tasks}) + "\n")
        return 0
    _print_moved(data)
    how = "is drained: no task is started there" if args.action == "drain" else "takes tasks again"
    terminal.out(terminal.clean(f"{args.host_name} {how}") + "\n")
    return 0


def _way_out(data: Json, places: Places, host: str) -> str:
    """Return what helps tasks that wait for a host, with the lines of their placements."""
    waiting = [str(each.get("id")) for each in objects(data.get("tasks")) if each.get("sub") == "unplaced"]
    if not waiting:
        return f"zmsvcctl -c {places.name} status"
    # Imported here for start-up time: the reader of context files.
    from zmsvc.host.config import option_lines

    found = option_lines.find(str(places.config_file), waiting, "placement")
    shown = [*dict.fromkeys(found.values())][:_MOST_LINES]
    more = [f"{len(found) - len(shown)} more"] if len(found) > len(shown) else []
    another = (
        f"{', '.join([*shown, *more])}: name another host in <placement> and reload; or " if shown else ""
    )
    return f"{another}zmsvcctl -c {places.name} cluster undrain {host}"


def _print_moved(data: Json) -> None:
    for task in objects(data.get("tasks")):
        host = f" on {task['host']}" if task.get("host") else ""
        line = f"{task.get('transaction')}/{task.get('id')}: {task.get('state')} ({task.get('sub')}){host}"
        terminal.out(terminal.clean(line) + "\n")


# --- status


def _status(args: argparse.Namespace) -> int:
    """Show the contexts of the cluster. Returns 0 if each of them runs, else 3."""
    told = cluster_state.state()
    for each in told["resources"]:
        each["workers"] = _workers(each["context"], args.timeout)
    if args.context is not None:
        told["resources"] = [each for each in told["resources"] if each["context"] == args.context]
        if not told["resources"]:
            raise CtlError(
                4,
                f"cannot show {args.context}: the cluster has no resource for it "
                f"(zmsvcctl -c {args.context} cluster commands)",
            )
    if args.json:
        terminal.out(json.dumps({"action": "status", **told}) + "\n")
    else:
        lines = [line for each in told["resources"] for line in resource_lines(each)]
        terminal.out("".join(terminal.clean(line) + "\n" for line in [*lines, *_members(told)]))
    return 0 if all(each["hosts"] and each["role"] == "Started" for each in told["resources"]) else 3


def where(resource: Json) -> str:
    """Return in words where a resource runs."""
    if resource["blocked"]:
        return "blocked"
    hosts = ", ".join(resource["hosts"])
    return (
        f"runs on {hosts}"
        if resource["role"] == "Started" and hosts
        else f"{resource['role'].lower() or 'stopped'}{hosts and f' on {hosts}'}"
    )


def resource_lines(resource: Json) -> list[str]:
    unmanaged = "" if resource["managed"] else ", not managed by the cluster"
    line = f"{resource['context'] or '?'} ({resource['id']}): {where(resource)}{unmanaged}"
    return [line, *(f"  {why}" for why in resource["reasons"]), *map(_worker_line, resource["workers"] or ())]


def _workers(context: str | None, timeout: float | None) -> list[Json] | None:
    """Return the other hosts of a context that runs on this one; None if it does not, or does not answer."""
    if context is None or not paths.CONTEXT_NAME.fullmatch(context) or not listens(paths.places(context)):
        return None
    try:
        return objects(Client(paths.places(context), timeout, patience=_PATIENCE).ask("status").get("hosts"))
    except CtlError as error:
        # The cluster's own state is shown all the same.
        terminal.complain(str(error))
        return None


def _worker_line(worker: Json) -> str:
    words = [
        str(worker.get("state")).replace("-", " "),
        *(["drained"] if worker.get("drained") is True else []),
    ]
    number = worker.get("tasks")
    return f"  {worker.get('name')}: {', '.join(words)}, {number} task{'s' if number != 1 else ''}"


def _members(told: Json) -> list[str]:
    words = [
        f"{each['name']} {'unclean' if each['unclean'] else 'online' if each['online'] else 'offline'}"
        for each in told["members"]
    ]
    fencing = told["fencing"]
    how = f"by {', '.join(fencing['devices'])}" if fencing["enabled"] and fencing["devices"] else "none"
    return [f"members: {', '.join(words)}", f"fencing: {how}"]
