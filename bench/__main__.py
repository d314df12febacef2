"""Run the benchmark: arguments, limits, files. `make bench` and `make bench-full` call it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from bench import about, environment, plot, report, runner
from bench.plan import LONG, SHORT, cells

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description="Measure zmsvc beside other service managers.")
    parser.add_argument("--full", action="store_true", help="more rounds and samples: an hour or more")
    parser.add_argument(
        "--only", action="append", metavar="TEXT", help="only cells like 'systemd with 100.' or 'device'"
    )
    parser.add_argument("--rounds", type=int, help="at most so many")
    parser.add_argument(
        "--sizes", type=_sizes, metavar="N,N...", help="other numbers of tasks than the plan's"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=HERE,
        metavar="DIRECTORY",
        help="where RESULTS.md, results.json and plot.svg go",
    )
    given = parser.parse_args()
    environment.prepare()
    scale = LONG if given.full else SHORT
    if given.sizes:
        scale = replace(scale, sizes=given.sizes)
    machine = about.machine()
    chosen = [
        cell for cell in cells(scale) if not given.only or any(text in f"{cell.name}." for text in given.only)
    ]
    if not chosen:
        parser.error("no cell has such a name")
    began = time.monotonic()
    results = runner.run(chosen, given.rounds or scale.rounds, scale.budget)
    seconds = time.monotonic() - began
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "RESULTS.md").write_text(text := report.markdown(results, machine, seconds))
    (given.out / "results.json").write_text(
        json.dumps({"machine": machine, "seconds": seconds, **results.as_json()}, indent=1) + "\n"
    )
    (given.out / "plot.svg").write_text(plot.svg(results))
    print(text)
    return 0


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
