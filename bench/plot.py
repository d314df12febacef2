"""Draw start time and memory against the number of tasks, as an SVG: two panels with logarithmic axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

from bench.results import Results

WIDTH, HEIGHT, LEFT, TOP, GAP = 330, 260, 60, 40, 90
COLORS = ("#c0392b", "#e08e0b", "#7f8c8d", "#34495e", "#2980b9", "#8e44ad", "#27ae60", "#16a085", "#795548")


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    title: str
    unit: str
    lines: dict[str, list[tuple[float, float]]]
    """The points (tasks, value), by contender."""


def svg(results: Results) -> str:
    """Return the picture."""
    names = [name for name in results.contenders() if len(_points(results, "start", name, 1)) > 1]
    panels = [
        Panel(
            title="from the order until all run",
            unit="s",
            lines={name: _points(results, "start", name, 1) for name in names},
        ),
        Panel(
            title="memory of a task (PSS)",
            unit="MB",
            lines={name: _points(results, "memory", name, 1e6) for name in names},
        ),
    ]
    parts = [_panel(panel, LEFT + number * (WIDTH + GAP)) for number, panel in enumerate(panels)]
    across, down = LEFT + 2 * WIDTH + GAP + 30, TOP + HEIGHT + 60 + 18 * math.ceil(len(names) / 4)
    legend = [_entry(name, number) for number, name in enumerate(names)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across} {down}" font-family="sans-serif" '
        f'font-size="12">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts + legend) + "\n</svg>\n"
    )


def _points(results: Results, figure: str, name: str, divisor: float) -> list[tuple[float, float]]:
    found = ((size, results.median(figure, name, size)) for size in results.sizes(figure))
    return [(size, value / divisor) for size, value in found if value]


def _panel(panel: Panel, left: float) -> str:
    values = [point for line in panel.lines.values() for point in line]
    if not values:
        return ""
    xs, ys = _range([x for x, _ in values]), _range([y for _, y in values])

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + WIDTH * (math.log10(x) - xs[0]) / (xs[1] - xs[0]),
            TOP + HEIGHT * (1 - (math.log10(y) - ys[0]) / (ys[1] - ys[0])),
        )

    parts = [
        f'<text x="{left}" y="{TOP - 14}" font-weight="bold">{escape(panel.title)} [{panel.unit}]</text>'
    ]
    for power in range(xs[0], xs[1] + 1):
        x, y = place(10.0**power, 10.0 ** ys[0])
        parts.append(f'<path d="M{x:.1f} {TOP}V{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{10**power:,}</text>')
    for power in range(ys[0], ys[1] + 1):
        x, y = place(10.0 ** xs[0], 10.0**power)
        parts.append(f'<path d="M{x:.1f} {y:.1f}h{WIDTH}" stroke="#ddd"/>')
        parts.append(f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for number, line in enumerate(panel.lines.values()):
        points = [place(*point) for point in line]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        color = COLORS[number % len(COLORS)]
        width = 3 if number == 0 else 1.5
        parts.append(f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="{width}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{width + 1}" fill="{color}"/>' for x, y in points]
    return "\n".join(parts)


def _range(values: list[float]) -> tuple[int, int]:
    """Return the powers of ten around the values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _entry(name: str, number: int) -> str:
    x, y = LEFT + 170 * (number % 4), TOP + HEIGHT + 46 + 18 * (number // 4)
    color = COLORS[number % len(COLORS)]
    return (
        f'<path d="M{x} {y - 4}h18" stroke="{color}" stroke-width="3"/><text x="{x + 24}" '
        f'y="{y}">{escape(name)}</text>'
    )
