"""What the configuration of a Monitor says, for the Monitor itself and for those who check a file. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zmsvc.core.values import seconds

FREQUENCY = 30.0
"""Seconds between two samples where the configuration says nothing; the manual's own figure."""
KINDS = ("pub", "rep")


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitoring:
    """Where a Monitor tells, how, and how often."""

    endpoint: str
    kind: str = KINDS[0]
    frequency: float = FREQUENCY


def monitoring(configuration: Mapping[str, Any]) -> Monitoring:
    """Read a configuration. Raises ValueError for what a Monitor cannot start with."""
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
        return FREQUENCY
    try:
        found = seconds(text)
    except ValueError:
        found = 0.0
    if not 0.01 <= found <= 86_400.0:
        raise ValueError(f"frequency_s is {text!r}, expected 10ms to 1d, or seconds from 0.01 to 86400")
    return found
