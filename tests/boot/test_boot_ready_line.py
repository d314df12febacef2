"""`<ready line="PATTERN"/>` where the context logs to the journal: the output process reads the task's output and
writes it to the journal.
"""

from __future__ import annotations

from collections.abc import Callable
from xml.sax.saxutils import escape

from installed import Installed, task
from waiting import wait_for

SCRIPT = (
    "echo begins; echo '<3>hurts' >&2; until test -e /run/up; do sleep 0.02; done; "
    "echo up on 1; echo $JOURNAL_STREAM. goes on; sleep 3600"
)


def test_a_unit_is_active_when_the_line_is_written_and_the_journal_has_all_lines(
    context: Callable[..., Installed],
) -> None:
    plain = task("ts_2", "Plain", configuration="<command>sleep 3600</command>")
    program = task(
        "ts_1",
        "Liner",
        service='<ready line="^up on [0-9]+$"/>',
        configuration=f"<command><arg>sh</arg><arg>-c</arg><arg>{escape(SCRIPT)}</arg></command>",
    )
    lined = context("Lined", *(each.replace('"Process"', '"Command"') for each in (plain, program)))
    machine = lined.machine
    machine.sh("rm -f /run/up")
    machine.sh(f"systemctl start --no-block {lined.unit}")
    # The program writes it last.
    wait_for(lambda: "hurts" in machine.journal("ZMSVC_TASK=ts_1", output="cat"))
    output = wait_for(lambda: machine.sh("pgrep -x zmsvc-output || :").stdout.split())
    assert lined.show("ActiveState") == "activating"
    machine.sh(f"kill -KILL {output[0]}; touch /run/up")
    wait_for(lambda: lined.show("ActiveState") == "active")
    wait_for(lambda: "goes on" in machine.journal("ZMSVC_TASK=ts_1", output="cat"))
    said = [entry for entry in lined.entries("-t", "Liner") if "SYSLOG_PID" in entry]
    assert [(entry["MESSAGE"], entry["PRIORITY"]) for entry in said] == [
        ("begins", "6"),
        ("hurts", "3"),
        ("up on 1", "6"),
        (". goes on", "6"),
    ], "its standard error is a pipe, and no variable calls it the journal"
    ((transaction, pid),) = [(key[0], pid) for key, pid in lined.pids().items() if key[1] == "ts_1"]
    for entry in said:
        assert (entry["ZMSVC_CONTEXT"], entry["ZMSVC_TRANSACTION"]) == ("Lined", transaction)
        assert (entry["ZMSVC_TASK"], entry["ZMSVC_INSTANCE"]) == ("ts_1", "Liner")
        assert (entry["SYSLOG_PID"], entry["_SYSTEMD_UNIT"]) == (str(pid), lined.unit)
    shown = lined.ctl("logs", "ts_1")
    assert all(text in shown for text in ("begins", "hurts", "up on 1", "goes on"))
    machine.sh(f"systemctl stop {lined.unit}; rm -f /run/up")
    assert lined.show("ActiveState") == "inactive"
