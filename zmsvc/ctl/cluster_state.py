"""The state of the cluster of Pacemaker on this host, as its own programs report it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence

from zmsvc.core.cluster import AGENT
from zmsvc.ctl.client import CtlError

TYPE_CHECKING = False  # As in client: an import of typing is too slow.
if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from zmsvc.ctl.client import Json

PATIENCE = 20.0
"""Seconds to wait for a program of the cluster."""
MAX_OUTPUT = 16 << 20


def run(*argv: str, patience: float = PATIENCE) -> subprocess.CompletedProcess[bytes]:
    """Run a program that only asks. Raises CtlError 5 if it is missing or does not answer."""
    try:
        return subprocess.run(
            argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired:
        raise CtlError(
            5, f"cannot ask the cluster: {argv[0]} does not answer within {patience:g} s"
        ) from None
    except OSError as error:
        why = "it is not installed" if isinstance(error, FileNotFoundError) else (error.strerror or "")
        raise CtlError(5, f"cannot ask the cluster: {argv[0]}: {why.lower()}") from None


def state() -> Json:
    """Return the members of the cluster, whether it has fencing, and the resources that are contexts. Raises
    CtlError 5.
    """
    root = _asked("crm_mon", "--output-as=xml", "-1")
    contexts = _contexts()
    options = root.find("summary/cluster_options")
    resources = list(_resources(root, contexts))
    return {
        "members": [
            {
                "name": each.get("name", ""),
                "online": each.get("online") == "true",
                "unclean": each.get("unclean") == "true",
            }
            for each in root.findall("nodes/node")
        ],
        "fencing": {
            "enabled": options is not None and options.get("stonith-enabled") == "true",
            "devices": [
                each.get("id", "")
                for each in root.iter("resource")
                if each.get("resource_agent", "").startswith("stonith:")
            ],
        },
        "resources": resources,
    }


def _asked(*argv: str) -> Element:
    # Imported here for start-up time: most contexts are in no cluster.
    from xml.etree import ElementTree

    done = run(*argv)
    if done.returncode or len(done.stdout) > MAX_OUTPUT:
        # crm_mon writes its errors as XML on stdout.
        words = (done.stderr or done.stdout).decode(errors="replace").split("\n")
        text = " ".join(each.strip() for each in words if each.strip())
        raise CtlError(5, f"cannot ask the cluster: {argv[0]} ended with {done.returncode}: {text[:200]}")
    try:
        return ElementTree.fromstring(done.stdout)
    except ElementTree.ParseError as error:
        raise CtlError(5, f"cannot ask the cluster: {argv[0]} does not answer with XML: {error}") from None


def _contexts() -> dict[str, str]:
    """Return the contexts of the resources, by the IDs of these."""
    done = run("cibadmin", "--query", "--xpath", "//primitive[@provider='zmsvc'][@type='context']")
    if done.returncode:
        # The cluster has no such resource, or refuses the question of this user, as crm_mon has reported.
        return {}
    # As in _asked.
    from xml.etree import ElementTree

    found = {}
    for resource in ElementTree.fromstring(done.stdout).iter("primitive"):
        for pair in resource.iter("nvpair"):
            if pair.get("name") == "context":
                found[resource.get("id", "")] = pair.get("value", "")
    return found


def _resources(root: Element, contexts: dict[str, str]) -> Iterator[Json]:
    reasons = _reasons(root)
    for each in root.iter("resource"):
        if each.get("resource_agent") != AGENT:
            continue
        ident = each.get("id", "")
        nodes = [node.get("name", "") for node in each.iter("node")]
        yield {
            "id": ident,
            "context": contexts.get(ident),
            "role": each.get("role", ""),
            "hosts": nodes,
            "managed": each.get("managed") == "true",
            "failed": each.get("failed") == "true",
            "blocked": each.get("blocked") == "true",
            "reasons": reasons.get(ident, []),
        }


def _reasons(root: Element) -> dict[str, list[str]]:
    """Return the reasons of failed actions and of degraded monitors, by resource."""
    found: dict[str, list[str]] = {}
    for each in root.iter("failure"):
        ident = each.get("op_key", "").rpartition("_monitor_")[0] or each.get("op_key", "").rsplit("_", 2)[0]
        why = each.get("exitreason") or each.get("exitstatus") or "no reason given"
        found.setdefault(ident, []).append(f"{each.get('node', '')}: {why}")
    return found


def place_of(context: str) -> tuple[Json | None, Sequence[Json]]:
    """Return the resource of a context, None if there is none, and the members. Raises CtlError 5."""
    told = state()
    of_context = [each for each in told["resources"] if each["context"] == context]
    return (of_context[0] if of_context else None), told["members"]
