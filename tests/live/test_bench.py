"""The benchmark itself works: five tasks, one round, of zmsvc and of the floor. Whether a figure is good is not asked here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

ROOT = Path(__file__).parents[2]

OF_EVERYBODY = {"start", "stop", "memory", "memory.own", "status", "idle.cpu", "idle.wakeups", "idle.tasks"}


def test_the_benchmark_measures_and_reports(tmp_path: Path) -> None:
    path = os.pathsep.join(str(ROOT / part) for part in (".", "tests", "tests/live", "tests/boot"))
    command = [sys.executable, "-m", "bench", "--sizes=5", "--only=zmsvc with 5.", "--only=fork with 5.", "--rounds=1", f"--out={tmp_path}"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "results.json").read_text())
    assert told["missing"] == {}
    found = {(row["contender"], row["figure"]): row for row in told["results"]}
    assert {name for name, _ in found} == {"zmsvc", "fork"}
    assert {figure for name, figure in found if name == "fork"} >= OF_EVERYBODY
    assert {figure for name, figure in found if name == "zmsvc"} >= OF_EVERYBODY | {"adoption", "memory.keeper", "memory.device"}
    assert all(row["median"] > 0 for (_, figure), row in found.items() if not figure.startswith("idle"))
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| adoption of 1,000 tasks after kill -9 of the supervisor | 2 s | - | not measured |" in text
    assert "| 5 tasks: stop all | " in text
    assert xml.parse(tmp_path / "plot.svg").getroot().tag.endswith("svg")
