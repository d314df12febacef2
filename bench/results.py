"""Results: samples by figure, contender and size; and figures that could not be measured, with the reason."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Key = tuple[str, str, int]
"""Figure, contender, number of tasks (or of subscribers)."""


@dataclass(slots=True, kw_only=True)
class Results:
    samples: dict[Key, list[float]] = field(default_factory=lambda: defaultdict(list))
    missing: dict[str, str] = field(default_factory=dict)
    """The reasons of figures that were not measured."""

    def add(self, figure: str, contender: str, size: int, values: float | Iterable[float]) -> None:
        self.samples[figure, contender, size].extend([values] if isinstance(values, int | float) else values)

    def add_all(self, contender: str, size: int, values: Mapping[str, float]) -> None:
        for figure, value in values.items():
            self.add(figure, contender, size, value)

    def median(self, figure: str, contender: str, size: int) -> float | None:
        found = self.samples.get((figure, contender, size))
        return statistics.median(found) if found else None

    def percentile(self, figure: str, contender: str, size: int, share: float) -> float | None:
        """Return the smallest sample that this share of the samples does not exceed."""
        found = sorted(self.samples.get((figure, contender, size), ()))
        return found[max(0, math.ceil(share * len(found)) - 1)] if found else None

    def count(self, figure: str, contender: str, size: int) -> int:
        return len(self.samples.get((figure, contender, size), ()))

    def sizes(self, figure: str) -> list[int]:
        return sorted({size for name, _, size in self.samples if name == figure})

    def contenders(self) -> list[str]:
        """Return the contenders in the order in which they were measured first."""
        return list(dict.fromkeys(name for _, name, _ in self.samples))

    def as_json(self) -> dict[str, Any]:
        rows = [
            {
                "figure": figure,
                "contender": contender,
                "size": size,
                "median": statistics.median(values),
                "p99": self.percentile(figure, contender, size, 0.99),
                "least": min(values),
                "most": max(values),
                "samples": len(values),
            }
            for (figure, contender, size), values in self.samples.items()
        ]
        return {"results": rows, "missing": self.missing}
