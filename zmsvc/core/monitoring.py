"""The configuration of a Monitor, for the Monitor itself and for the checks of a context file. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zmsvc.core.frozen import frozen
from zmsvc.core.values import seconds

INTERVAL = 30.0
"""Default of the seconds between two samples; the figure is from the zmicroservices manual."""
KINDS = ("pub", "rep")


@frozen
class Monitoring:
    """The settings of a Monitor: where, how and how often it publishes."""

    endpoint: str
    kind: str = KINDS[0]
    frequency: float = INTERVAL


def monitoring(configuration: Mapping[str, Any]) -> Monitoring:
    """Read a configuration. Raises ValueError if a Monitor cannot start with it."""
    settings = configuration.get("service") or configuration.get("publisher")
    settings = settings if isinstance(settings, Mapping) else {}
    if not settings.get("endpoint"):
        raise ValueError("the configuration has no <service><endpoint>")
    kind = str(settings.get("type") or KINDS[0]).lower()
    if kind not in KINDS:
        raise ValueError(f"the type {kind!r} is unknown, expected pub or rep")
    return Monitoring(
        endpoint=str(settings["endpoint"]), kind=kind, frequency=_frequency(settings.get("frequency_s"))
    )


def _frequency(text: Any) -> float:
    if not text:
        return INTERVAL
    try:
        found = seconds(text)
    except ValueError:
        found = 0.0
    if not 0.01 <= found <= 86_400.0:
        raise ValueError(f"frequency_s is {text!r}, expected 10ms to 1d, or seconds from 0.01 to 86400")
    return found
