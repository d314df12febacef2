"""Read `<hosts>`: the hosts of a cluster on which tasks of a context may run, and where they connect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmsvc.core.option_kinds import HOST
from zmsvc.core.placement import ListedHosts
from zmsvc.core.values import WHITE, BoundEndpoints, Endpoint, each_of, endpoint, quote, reaches
from zmsvc.host.config.faults import FaultList

if TYPE_CHECKING:
    from lxml import etree


def read(
    root: etree._Element, bound: BoundEndpoints[str], notes: FaultList
) -> tuple[ListedHosts, Endpoint | None]:
    """Return the `<hosts>` of a context and the endpoint that is bound for them, if it could be read. `bound`
    has the endpoints that the context binds besides; that of the hosts is added to them.
    """
    element = root.find("hosts")
    if element is None:
        return ListedHosts(), None
    names: tuple[str, ...] = notes.value(element, _names, tuple[str, ...]())
    given = str(element.get("endpoint", "")).strip(WHITE)
    place = str(element.get("bind", "")).strip(WHITE) or given
    connected = _tcp(element, "endpoint", given, notes)
    bind = _tcp(element, "bind", place, notes) if place != given else connected
    if bind is not None:
        if connected is not None and not reaches(connected, bind):
            notes.fault(
                element,
                f"the bind {bind} of <hosts> is not where its endpoint {connected} leads, expected port "
                f"{connected.port}, as in tcp://*:{connected.port}",
            )
        if other := bound.first_collision(bind):
            notes.fault(element, f"the bind {bind} of <hosts> collides with {other}, expected another port")
        bound.add(bind, f"the bind of <hosts> {bind}")
    return ListedHosts(names=names, endpoint=given, bind=place), bind


def _names(text: str) -> tuple[str, ...]:
    names = text.split()
    if not names:
        raise ValueError("is empty, expected the names of the hosts of the cluster")
    if twice := next((name for at, name in enumerate(names) if name in names[:at]), ""):
        raise ValueError(f"has {quote(twice)} twice, expected each host once")
    return each_of(names, HOST.read)


def _tcp(element: etree._Element, name: str, text: str, notes: FaultList) -> Endpoint | None:
    """Return an endpoint in an attribute of `<hosts>`; None after a fault."""
    if "endpoint" not in element.attrib:
        return None  # The schema reports it.
    try:
        place = endpoint(text, bind=name == "bind")
        if place.scheme != "tcp":
            raise ValueError(f"{quote(text)} is a socket of one host, expected tcp://ADDRESS:PORT")
    except ValueError as error:
        notes.fault(element, f"the {name} of <hosts> {error}")
        return None
    return place
