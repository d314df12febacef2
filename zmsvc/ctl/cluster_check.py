"""The check of this host for a context in a cluster: the facts that have to be the same on all hosts, and the
findings about this one.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from zmsvc import __version__
from zmsvc.core.cluster import Finding
from zmsvc.core.errors import ConfigError, PlaceError
from zmsvc.core.model import Context
from zmsvc.ctl import cluster_state
from zmsvc.ctl.client import CtlError
from zmsvc.host import paths
from zmsvc.host.bus import curve_keys
from zmsvc.host.config import context_files, reader
from zmsvc.host.paths import Places

TYPE_CHECKING = False  # As in client: an import of typing is too slow.
if TYPE_CHECKING:
    from zmsvc.ctl.client import Json

AGENT = Path("/usr/lib/ocf/resource.d/zmsvc/context")
COROSYNC = Path("/etc/corosync/corosync.conf")
GROUP = "haclient"
"""The group whose members may ask Pacemaker."""
MAX_FILES = 10_000
"""The files of services that are compared."""


def guard_of(places: Places) -> Path:
    """Return the file that says that the context is given to a cluster."""
    return places.config_file.parent / "cluster" / places.name


class HostCheck:
    """The facts about this host, and the findings."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self.facts: Json = {"version": __version__}
        self.findings: list[Finding] = []
        context = self._context()
        if context is not None:
            self._keys(context)
            if context.listed.names:
                self._asks_cluster()
        self._unit()
        self._agent()
        self._cluster()

    def _fault(self, text: str) -> None:
        self.findings.append(Finding(level="fault", text=text))

    def _warning(self, text: str) -> None:
        self.findings.append(Finding(level="warning", text=text))

    def _context(self) -> Context | None:
        file = self._places.config_file
        try:
            found = context_files.read(file)
            context = reader.load(str(file))
        except ConfigError as error:
            for fault in error.faults:
                self._fault(fault)
            return None
        self.facts["file"] = _digest(found.text, *(part.text for part in found.parts))
        for each in reader.placed(context, reader.check_services(context)):
            self._fault(str(each.in_file(str(file))))
        self.facts["services"] = _digest(*_sources(context))
        return context

    def _keys(self, context: Context) -> None:
        directory = self._places.keys
        if not curve_keys.in_use(directory) and curve_keys.of_client(directory):
            # A host for tasks alone has a pair of its own, so its keys are not those of the others.
            if os.uname().nodename not in context.listed.names:
                self._warning(
                    f"{directory} has the keys of a client, and <hosts> does not name this host, so neither "
                    f"the context nor its tasks can run here"
                )
            return
        self.facts["keys"] = None
        if context.listed.names and not curve_keys.in_use(directory):
            self._fault(
                f"the context has <hosts>, and no keys in {directory} (zmsvcctl -c {context.name} keys make)"
            )
            return
        if not curve_keys.in_use(directory):
            if any(url.startswith("tcp://") for url in _endpoints(context)):
                self._warning(
                    f"the context has tcp endpoints, and no keys in {directory}: no other host can connect "
                    f"(zmsvcctl -c {context.name} keys make, and copy the directory to all hosts)"
                )
            return
        try:
            os.close(curve_keys.open_secret(directory / f"{curve_keys.SERVER}{curve_keys.SECRET}"))
            server = curve_keys.load_curve(directory / f"{curve_keys.SERVER}{curve_keys.SECRET}")
            os.close(curve_keys.open_secret(directory / f"{curve_keys.CLIENT}{curve_keys.SECRET}"))
            client = curve_keys.load_client(directory)
            allowed = sorted(curve_keys.clients(directory).glob(f"*{curve_keys.PUBLIC}"))
            self.facts["keys"] = _digest(server.public, client.public, *map(curve_keys.load_public, allowed))
        except (ConfigError, PlaceError) as error:
            self._fault(str(error))
        except PermissionError:
            self._fault(
                f"cannot read the keys in {directory} as this user (only root and the context's user can)"
            )

    def _unit(self) -> None:
        unit = f"zmsvc@{self._places.name}.service"
        shown = _shown("systemctl", "show", "-p", "LoadState,UnitFileState,User,ActiveState", unit)
        found = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        if found.get("LoadState") != "loaded":
            self._fault(f"the unit {unit} is not installed (make install, or the package of zmsvc)")
            return
        if "/run/zmsvc-cluster/" not in _shown("systemctl", "cat", unit):
            self._fault(f"{unit} has no guard against a second copy: the unit is of an earlier release")
        give = f"(zmsvcctl -c {self._places.name} cluster give)"
        if found.get("UnitFileState") == "enabled":
            self._fault(f"{unit} is enabled, so this host would start a second copy at boot {give}")
        if not guard_of(self._places).exists():
            self._fault(f"{self._places.name} is not given to the cluster on this host {give}")
        user = found.get("User") or "root"
        try:
            self.facts |= {"uid": pwd.getpwnam(user).pw_uid, "gid": grp.getgrnam(user).gr_gid}
        except KeyError:
            self._fault(f"there is no user {user}, as whom the unit runs (systemd-sysusers zmsvc.conf)")

    def _asks_cluster(self) -> None:
        """Warn if the supervisor cannot ask the cluster which hosts are off. The cluster answers root and a
        group.
        """
        unit = f"zmsvc@{self._places.name}.service"
        shown = _shown("systemctl", "show", "-p", "User,SupplementaryGroups", unit)
        found = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        user, groups = found.get("User") or "root", found.get("SupplementaryGroups", "").split()
        if user != "root" and GROUP not in [*groups, *_groups_of(user)]:
            self._warning(
                f"{unit} is not in the group {GROUP}, so the context cannot ask which hosts are off, and the "
                f"tasks of a lost host are started nowhere else (drop-ins/other-hosts.conf)"
            )

    def _agent(self) -> None:
        self.facts["agent"] = None
        try:
            self.facts["agent"] = _digest(AGENT.read_bytes())
        except OSError as error:
            self._fault(f"cannot read the resource agent {AGENT}: {(error.strerror or '').lower()}")
            return
        # An agent that cannot be executed cannot stop its resource, and then the cluster cuts the power of
        # this host.
        try:
            done = cluster_state.run(str(AGENT), "meta-data")
            words = done.stderr.decode(errors="replace").strip().splitlines() or [f"status {done.returncode}"]
            if done.returncode or b"<resource-agent" not in done.stdout:
                self._fault(f"the resource agent {AGENT} does not run: {words[-1][:200]}")
        except CtlError as error:
            self._fault(f"the resource agent {AGENT} does not run: {error}")

    def _cluster(self) -> None:
        try:
            cluster_state.run("crm_attribute", "--version")
            told = cluster_state.state()
        except CtlError as error:
            self._fault(str(error))
            return
        fencing = told["fencing"]
        if not fencing["enabled"] or not fencing["devices"]:
            why = "is switched off" if not fencing["enabled"] else "has no device"
            self._warning(
                f"fencing {why}: the context may run twice when the cluster is split (pcs stonith create)"
            )
        if len(told["members"]) == 2 and not _two_node():
            self._warning(
                "the cluster has two members without two_node: when one fails, the other has no quorum "
                "and stops everything (add a third one, or set two_node: 1 in the quorum section of "
                "corosync.conf)"
            )


def _groups_of(user: str) -> list[str]:
    return [each.gr_name for each in grp.getgrall() if user in each.gr_mem]


def _two_node() -> bool:
    try:
        return (
            re.search(r"^\s*two_node\s*:\s*1\s*$", COROSYNC.read_text(errors="replace"), re.MULTILINE)
            is not None
        )
    except OSError:
        return False


def _endpoints(context: Context) -> tuple[str, ...]:
    points = context.endpoints
    return (points.subscribe_endpoint, points.publish_endpoint, points.publish_bind, points.subscribe_bind)


def _sources(context: Context) -> Iterator[bytes]:
    """Yield names and contents of the files of the services, in an order that is the same on each host."""
    seen = 0
    places = {(each.location, each.instance) for each in context.tasks.values()}
    for location, instance in sorted(places, key=lambda each: (each[1], each[0] or "")):
        directory = paths.directory_of(location, instance)
        for file in sorted((directory / instance).rglob("*")) if directory is not None else ():
            if file.is_file() and "__pycache__" not in file.parts and seen < MAX_FILES:
                seen += 1
                yield f"{instance}/{file.relative_to(directory / instance)}".encode() if directory else b""
                yield file.read_bytes()


def _digest(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()[:16]


def _shown(*argv: str) -> str:
    try:
        return subprocess.run(
            argv,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=20,
            check=False,
            text=True,
            errors="replace",
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
