"""Contexts in a cluster of Pacemaker: the commands that make a context a resource, and the facts that have to
be the same on all hosts. Pure.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from zmsvc.core.frozen import frozen

AGENT = "ocf:zmsvc:context"
HOST_UNIT = "zmsvc-host@"
"""The unit that runs tasks of a context on another host, without the name of the context."""
COMPARED = {
    "version": "zmsvc",
    "agent": "the resource agent",
    "file": "the context file",
    "services": "the services",
    "keys": "the keys",
    "uid": "the user ID of the context's user (its state on a shared disk changes owner at each move)",
    "gid": "the group ID of the context's user",
}
"""The facts about a host that must be the same on all hosts, with their names."""
BOTH_STOP = ("kind=Optional", "symmetrical=false")
"""The order holds only where Pacemaker stops both, and for no start."""
_NOT_IN_ID = re.compile(r"[^A-Za-z0-9_.-]")


@frozen
class Finding:
    """One result of a check. With a fault the context cannot run on this host; with a warning it can."""

    level: str
    text: str


def resource_id(context: str) -> str:
    """Return the ID of the resource of a context. An ID of Pacemaker begins with a letter, and has no
    colon.
    """
    made = _NOT_IN_ID.sub("-", context).lower()
    return made if made[0].isalpha() or made[0] == "_" else f"zmsvc-{made}"


def commands(
    context: str, *, address: str = "", disk: str = "", kind: str = "ext4", hosts: Sequence[str] = ()
) -> list[str]:
    """Return the commands of pcs(8) that make a context a resource, in their order. `address` is an IP
    address with the length of its prefix, for a bus that other hosts hear; `disk` is the device of its state
    directory; `hosts` are those on which its tasks may run.

    Raises ValueError for an address without a prefix.
    """
    name = resource_id(context)
    group = ["--group", f"{name}-all"] if address or disk else []
    made = []
    if disk:
        place = [f"device={disk}", f"directory=/var/lib/zmsvc/{context}", f"fstype={kind}"]
        made.append(["pcs", "resource", "create", f"{name}-disk", "ocf:heartbeat:Filesystem", *place, *group])
    if address:
        ip, _, prefix = address.partition("/")
        if not ip or not prefix.isascii() or not prefix.isdigit():
            raise ValueError(
                f"{address!r} is not an address with the length of its prefix, such as 10.0.0.9/24"
            )
        place = [f"ip={ip}", f"cidr_netmask={prefix}"]
        made.append(["pcs", "resource", "create", f"{name}-ip", "ocf:heartbeat:IPaddr2", *place, *group])
    parameters = [f"context={context}", *(["state=shared"] if disk else [])]
    limits = ["op", "monitor", "interval=10s", "meta", "migration-threshold=3", "failure-timeout=10min"]
    made.append(["pcs", "resource", "create", name, AGENT, *parameters, *limits, *group])
    made += _of_hosts(context, group[1] if group else name, f"{name}-hosts", hosts) if hosts else []
    return [shlex.join(words) for words in made]


def _of_hosts(context: str, whole: str, name: str, hosts: Sequence[str]) -> list[list[str]]:
    """Return the commands that run the tasks of a context on these hosts: a clone, which may run on no other
    one. It is enabled last, so that it never starts on another host. The constraint is XML, because the words
    of `pcs constraint location ... rule` are not the same in all releases.

    Where both stop on a host, the clone stops before `whole`, the context or its group: then there is a
    supervisor to move the tasks of that host.
    """
    clone = f"{name}-clone"
    others = "".join(
        f'<expression id="{name}-only-{at}" attribute="#uname" operation="ne" value="{host}"/>'
        for at, host in enumerate(hosts, 1)
    )
    rule = f'<rule id="{name}-only-rule" score="-INFINITY" boolean-op="and">{others}</rule>'
    constraint = f'<rsc_location id="{name}-only" rsc="{clone}">{rule}</rsc_location>'
    limits = ["op", "monitor", "interval=5s", "start", "timeout=60s", "stop", "timeout=100s"]
    unit = f"systemd:{HOST_UNIT}{context}"
    return [
        ["pcs", "resource", "create", name, unit, *limits, "clone", clone, "--disabled"],
        ["cibadmin", "--create", "--scope", "constraints", "--xml-text", constraint],
        ["pcs", "constraint", "order", "stop", clone, "then", "stop", whole, *BOTH_STOP],
        ["pcs", "resource", "enable", clone],
    ]


def differences(hosts: Mapping[str, Mapping[str, object]]) -> list[Finding]:
    """Return what differs between hosts, from the facts of each."""
    found = []
    for name, what in COMPARED.items():
        # A host for tasks alone has keys of its own.
        asked = {host: facts for host, facts in hosts.items() if name != "keys" or name in facts}
        values = {host: facts.get(name) for host, facts in asked.items()}
        if len({str(value) for value in values.values()}) > 1:
            shown = ", ".join(f"{host} {_shown(value)}" for host, value in values.items())
            found.append(
                Finding(
                    level="warning" if name in ("uid", "gid") else "fault", text=f"{what} differs: {shown}"
                )
            )
    return found


def _shown(value: object) -> str:
    return "none" if value is None else str(value)[:12]
