"""`<record>`: what the supervisors have recorded replays to the state that `status` shows, on this machine and
from the file that `report` writes.
"""

from __future__ import annotations

import json
import os
import stat
import tarfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from context import Context

TX = "5HGAHZ3WPZUI71PACRPP"
SECRET = "unlikely-secret-8713"
OF_MACHINE = {"cgroup", "stored_descriptors", "usage"}
TIMES = {"at", "opened", "since"}


def told(context: Context, *words: str, check: int = 0) -> dict[str, Any]:
    return dict(json.loads(context.ctl("--json", *words, check=check).stdout))


def transactions(told: dict[str, Any]) -> Any:
    return told["contexts"][0]["transactions"]


def differences(first: Any, second: Any, name: str = "") -> list[str]:
    """Return the differences of two answers, without what depends on the machine."""
    if isinstance(first, dict) and isinstance(second, dict):
        names = (first.keys() | second.keys()) - OF_MACHINE
        return [line for each in names for line in differences(first.get(each), second.get(each), each)]
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return [line for pair in zip(first, second, strict=True) for line in differences(*pair, name)]
    if name in TIMES and first and second:
        # The wall clock and the monotonic clock are read one after the other.
        apart = datetime.fromisoformat(first) - datetime.fromisoformat(second)
        return [f"{name}: {apart}"] if abs(apart.total_seconds()) > 5 else []
    return [f"{name}: {first}, {second}"] if first != second else []


def test_a_record_replays_to_the_state_that_status_shows(context: Context, tmp_path: Path) -> None:
    context.looped("Echo", f'def step(self):\n    self.log.info("{SECRET}")\n    self.update(n=1)\n')
    context.edit = lambda text: text.replace("<ContextID>", "<record>yes</record><ContextID>")
    secret = f"<environment><TOKEN>{SECRET}</TOKEN></environment>"
    context.task("ts_1", "Echo", rules={"on_fail": ("start", "ts_2")}, service=secret)
    context.task("ts_2", "Echo", entry=False)
    context.start("--transaction", TX)
    os.kill(context.task_is("ts_1", "running")["pid"], 9)
    context.task_is("ts_2", "running", also=lambda task: task["action"] == "updated")
    between = time.time()
    context.kill_supervisor()
    context.ctl("restart", "ts_1")
    context.task_is("ts_1", "running", also=lambda task: task["action"] == "updated")
    live = told(context, "status")
    assert differences(transactions(told(context, "status", "--at", "now")), transactions(live)) == []
    (then,) = transactions(told(context, "status", "--at", f"@{between}", check=3))
    first, second = then["tasks"]
    assert (first["state"], first["exit"]["signal"]) == ("failed", "SIGKILL")
    assert (second["state"], second["cause"]["by"]) == ("active", "rule")

    file = tmp_path / "report.tar.gz"
    listed = told(context, "report", "--yes", "--output", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with tarfile.open(file) as tar:
        packed = {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]
    assert listed["missing"] == {}
    assert [each["name"] for each in listed["contents"]] == [*packed]
    assert {"context.xml", "status.json", "history.jsonl", "log.txt"} <= {*packed}
    assert b"removed-" in packed["log.txt"]
    assert not [name for name, data in packed.items() if SECRET.encode() in data]

    context.edit = lambda text: text
    context.write()
    context.ctl("reload")
    context.ctl("exit")
    (last,) = transactions(told(context, "status", "--at", "now"))
    assert {each["state"] for each in last["tasks"]} == {"active"}, "the record ends with the reload"
    replayed = told(context, "replay", "--step", str(file))
    assert differences(transactions(replayed), transactions(live)) == []
    assert (replayed["differences"], replayed["supervisors"], replayed["unrecorded"]) == ([], 2, 0)
    kinds = [step["fact"]["op"] for step in replayed["steps"] if "fact" in step]
    assert {"TaskReady", "TaskUpdated", "TaskExited", "Requested"} <= {*kinds}
    words = context.ctl("replay", "--until", f"@{between}", str(file)).stdout
    assert "ts_1  Echo  failed (failed)" in words
    assert "decides the same" in words
