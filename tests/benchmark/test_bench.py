"""The benchmark works with a few tasks and one round. No test judges its figures."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

from needs import need

ROOT = Path(__file__).parents[2]

OF_EVERYBODY = {
    "start",
    "stop",
    "memory",
    "memory.own",
    "faults",
    "status",
    "idle.cpu",
    "idle.wakeups",
    "idle.tasks",
}


def bench(module: str, *arguments: str, home: Path) -> str:
    """Run a benchmark. Return its output."""
    path = os.pathsep.join(str(ROOT / part) for part in (".", "tests", "tests/live", "tests/boot"))
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_benchmark_measures_and_reports(tmp_path: Path) -> None:
    bench(
        "bench",
        "--sizes=5",
        "--only=zmsvc with 5.",
        "--only=fork with 5.",
        "--only=fork + bus (busy) with 5.",
        "--rounds=1",
        f"--out={tmp_path}",
        home=tmp_path,
    )
    told = json.loads((tmp_path / "results.json").read_text())
    assert told["missing"] == {}
    found = {(row["contender"], row["figure"]): row for row in told["results"]}
    assert {name for name, _ in found} == {"zmsvc", "fork", "fork + bus (busy)"}
    assert {figure for name, figure in found if name == "fork"} >= OF_EVERYBODY
    assert {figure for name, figure in found if name == "zmsvc"} >= OF_EVERYBODY | {
        "adoption",
        "memory.keeper",
        "memory.device",
    }
    assert all(row["median"] > 0 for (_, figure), row in found.items() if not figure.startswith("idle"))
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| adoption of 1,000 tasks after kill -9 of the supervisor | 2 s | - | not measured |" in text
    assert "| 5 tasks: stop all | " in text
    assert xml.parse(tmp_path / "plot.svg").getroot().tag.endswith("svg")
    version = ".".join(map(str, sys.version_info[:2]))
    assert f"| PSS of a connected task, of 100, with Python {version} | " in text


def test_the_benchmark_compares_messages_of_tasks_with_those_of_pyzmq(tmp_path: Path) -> None:
    bench("bench", "--only=messages with json.", "--rounds=1", f"--out={tmp_path}", home=tmp_path)
    told = json.loads((tmp_path / "results.json").read_text())
    assert told["missing"] == {}
    found = {(row["contender"], row["figure"]): row["median"] for row in told["results"]}
    assert all(found[name, "sdk.throughput.json"] > 0 for name in ("SDK", "bare pyzmq"))
    assert found["Subscribed", "sdk.memory.json"] > found["Publishing", "sdk.memory.json"]
    text = (tmp_path / "RESULTS.md").read_text()
    assert re.search(r"p50 latency over bare pyzmq's, json \| 1\.3x \| [\d.]+x \(\d+ us\)", text)
    assert (
        "| PSS of a subscribed task above that of a publishing one, orjson | 0.50 MB | - | not measured |"
        in text
    )


def test_bench_pages_names_the_pages_that_a_task_has_written_to(tmp_path: Path) -> None:
    need(os.geteuid() == 0, "only root may read the memory of another process everywhere")
    pages = {}
    for without in ("", "immortal,fill"):
        # Print all names: the order of names with equal counts depends on the versions of Python and of the
        # libraries.
        told = bench("bench.pages", "--tasks=3", "--names=10000", f"--without={without}", home=tmp_path)
        found = re.search(r"one of 3 tasks: (\d+) pages of its own, PSS [\d.]+ MB, \d+ page faults", told)
        assert found, told
        pages[without] = int(found[1])
        rows = {
            row[0]: int(row[1]) for row in re.findall(r"^\| (.+?) \| (\d+) \| \d+ \|$", told, re.MULTILINE)
        }
        assert rows["byte code and its caches"] > 10
        assert max(rows.values()) <= pages[without] <= sum(rows.values())
        assert re.search(r"^byte code and its caches: .*\.py:", told, re.MULTILINE)
    assert pages[""] < pages["immortal,fill"]


def test_bench_safety_measures_the_cost_of_the_guards(tmp_path: Path) -> None:
    told = bench("bench.safety", "--tasks=3", "--rounds=1", "--seconds=0.1", "--times=3", home=tmp_path)
    rows = [line.strip("| ").split(" | ") for line in told.splitlines() if line.startswith("| ")]
    pairs = [row for row in rows if len(row) >= 7 and row[0] != "guard"]
    assert len(pairs) == 4
    if os.geteuid() == 0:
        assert all(re.fullmatch(r"[\d.]+ ms", row[number]) for row in pairs for number in (1, 2, 4, 5)), told
    assert len([row for row in rows if re.fullmatch(r"\d+ us", row[1])]) == 6


def test_bench_forks_measures_the_ways_to_fork(tmp_path: Path) -> None:
    told = bench("bench.forks", "--times=5", home=tmp_path)
    rows = dict(re.findall(r"^\| (.+?) \| ([\d.]+) ms \| [\d.]+ ms \|$", told, re.MULTILINE))
    assert rows.keys() >= {"sibling fork, all three hooks", "two forks"}
    assert all(float(value) > 0 for value in rows.values())
