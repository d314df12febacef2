"""A context that does not run is shown from its state file and its log; a stopped transaction can be
forgotten.
"""

from __future__ import annotations

import json
import os
import signal

from context import Context
from waiting import wait_for_end

TX = "5HGAHZ3WPZUI71PACRPP"


def test_the_history_of_a_context_that_is_down_is_in_its_state_file(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", TX)
    live = context.ctl("--json", "events", "ts_1").stdout.splitlines()
    assert context.ctl("--json", "events", "-n", "0").stdout == ""
    assert context.stop() == 0
    assert context.ctl("--json", "events", "-n", "0").stdout == ""
    told = context.ctl("--json", "events", "ts_1")
    assert told.stdout.splitlines()[: len(live)] == live
    assert '"event": "stopped"' in told.stdout
    assert f"{context.name} does not run; this is from its state file, 2" in told.stderr
    context.ctl("events", "-f", check=5)


def test_the_last_known_state_of_a_context_that_was_killed(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.task("ts_2", "Shell", kind="Command", config="<command>sh -c 'exit 3'</command>")
    context.start("--transaction", TX)
    context.task_is("ts_2", "failed")
    task = context.tasks()["ts_1"]["pid"]
    status = context.status()
    os.kill(status["keeper_pid"], signal.SIGKILL)
    context.wait()
    for pid in (task, status["pid"]):
        wait_for_end(pid)
    told = context.ctl("--json", "status", check=3)
    assert f"{context.name} does not run; this is from its state file, 2" in told.stderr
    (transaction,) = json.loads(told.stdout)["contexts"][0]["transactions"]
    running, failed = transaction["tasks"]
    assert (running["state"], running["sub"], running["pid"]) == ("inactive", "dead", None)
    assert running["last"] == {"state": "active", "sub": "running", "pid": task}
    assert (failed["state"], failed["exit"]["code"], failed["since"][:2]) == ("failed", 3, "20")
    shown = context.ctl("status", check=3).stdout
    assert "inactive (dead), was active (running)" in shown
    logs = context.ctl("logs", "ts_1")
    assert f" {TX}/ts_1 INFO: " in logs.stdout
    assert f"{context.name} does not run; this is from its state file, 2" in logs.stderr
    context.start()
    assert context.tasks()["ts_1"]["sub"] == "running", "what reads the file leaves it as it is"


def test_a_stopped_transaction_is_forgotten(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", TX)
    context.ctl("forget", "--transaction", TX, check=1)
    context.ctl("stop", "--transaction", TX)
    assert json.loads(context.ctl("--json", "forget").stdout) == {"transactions": [TX]}
    assert context.status()["transactions"] == []
    context.ctl("restart", "--transaction", TX, check=4)
