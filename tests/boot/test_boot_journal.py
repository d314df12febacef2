"""The journal: each documented query finds the output of tasks, and no line is lost when a process dies."""

from __future__ import annotations

import re
from typing import Any

from installed import TRANSACTION, Installed
from waiting import wait_for

SAID = (
    "logged by the task",
    "logged by a library",
    "printed by the task",
    "printed by another program",
    "printed on stderr",
)
WITH_FIELDS = SAID[:3]


def said(talker: Installed, *matches: str) -> list[dict[str, Any]]:
    """Return the entries for the matches, when each of SAID is in the journal."""
    wait_for(lambda: all(text in talker.machine.journal("-u", talker.unit, output="cat") for text in SAID))
    return talker.entries(*matches)


def messages(entries: list[dict[str, Any]]) -> set[str]:
    return {str(entry["MESSAGE"]) for entry in entries}


def test_the_shouts_are_found_by_identifier_and_unit(echo: Installed) -> None:
    echo.start()
    (pid,) = echo.pids().values()
    for match in (("-t", "EchoAction"), ("-u", echo.unit)):
        wait_for(lambda match=match: [entry for entry in echo.entries(*match) if entry["_PID"] == str(pid)])  # type: ignore[misc]


def test_journalctl_u_shows_everything(talker: Installed) -> None:
    assert messages(said(talker, "-u", talker.unit)) >= set(SAID)


def test_journalctl_t_shows_all_output_of_an_instance(talker: Installed) -> None:
    assert messages(said(talker, "-t", "Talker")) >= set(SAID)


def test_a_transaction_shows_what_its_tasks_logged_and_printed_and_nothing_else(talker: Installed) -> None:
    talker.ctl("start", "--transaction", TRANSACTION)
    wait_for(lambda: messages(talker.entries(f"ZMSVC_TRANSACTION={TRANSACTION}")) >= set(WITH_FIELDS))
    entries = talker.entries(f"ZMSVC_TRANSACTION={TRANSACTION}")
    assert {entry["ZMSVC_CONTEXT"] for entry in entries} == {"Talk"}
    own = [entry for entry in entries if entry["MESSAGE"] in WITH_FIELDS]
    assert {entry["_PID"] for entry in own} == {str(talker.pids()[TRANSACTION, "ts_100"])}


def test_output_of_python_tasks_carries_the_fields(talker: Installed) -> None:
    ((transaction, _),) = talker.pids()
    for entry in said(talker, "-t", "Talker"):
        if entry["MESSAGE"] in WITH_FIELDS:
            found = {
                name: entry[name]
                for name in ("ZMSVC_CONTEXT", "ZMSVC_TRANSACTION", "ZMSVC_TASK", "ZMSVC_INSTANCE")
            }
            assert found == {
                "ZMSVC_CONTEXT": "Talk",
                "ZMSVC_TRANSACTION": transaction,
                "ZMSVC_TASK": "ts_100",
                "ZMSVC_INSTANCE": "Talker",
            }


def test_output_of_commands_carries_the_identifier_and_lies_in_the_tasks_cgroup(talker: Installed) -> None:
    group = talker.status()["transactions"][0]["tasks"][0].get("cgroup")
    for entry in said(talker, "-t", "Talker"):
        if entry["MESSAGE"] in SAID[3:]:
            assert re.search(rf"/{re.escape(talker.unit)}/tasks/[^/]+$", entry["_SYSTEMD_CGROUP"])
            assert not group or str(group).endswith(entry["_SYSTEMD_CGROUP"])


def test_logs_shows_all_of_a_task(talker: Installed) -> None:
    said(talker)
    ((transaction, _),) = talker.pids()
    shown = talker.ctl("--no-pager", "logs", "--transaction", transaction, "ts_100")
    assert [text for text in SAID if text not in shown] == []


def test_tasks_of_one_instance_are_told_apart(talker: Installed) -> None:
    ((first, _),) = talker.pids()
    talker.ctl("start", "--transaction", TRANSACTION)
    wanted = {f"{transaction}/ts_100: {text}" for transaction in (first, TRANSACTION) for text in SAID}
    wait_for(lambda: [each for each in wanted if each not in talker.ctl("--no-pager", "logs")] == [])
    alone = talker.ctl("--no-pager", "logs", "--transaction", TRANSACTION)
    assert first not in alone
    query = talker.ctl("logs", "--show-query", "-p", "warning", "--transaction", TRANSACTION).strip()
    assert query.startswith("journalctl --priority=warning ZMSVC_CONTEXT=Talk")
    assert set(talker.machine.sh(f"{query} -o cat --no-pager").stdout.splitlines()) >= {"logged by a library"}


def test_changes_of_a_task_have_a_message_id_with_a_text(talker: Installed) -> None:
    started = wait_for(
        lambda: [entry for entry in talker.entries("ZMSVC_TASK=ts_100") if "MESSAGE_ID" in entry]
    )
    explained = talker.machine.sh(f"journalctl --no-pager -x MESSAGE_ID={started[-1]['MESSAGE_ID']}").stdout
    assert "Subject:" in explained
    assert "ts_100" in explained


FORGED = """
import socket
fields = {"MESSAGE": "forged by daemon", "PRIORITY": "3", "SYSLOG_IDENTIFIER": "Talker", "ZMSVC_CONTEXT": "Talk", "ZMSVC_TASK": "ts_100",
          "ZMSVC_TRANSACTION": "%s", "ZMSVC_INSTANCE": "Talker"}
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
    sock.sendto("".join(f"{name}={value}\\n" for name, value in fields.items()).encode(), "/run/systemd/journal/socket")
"""


def test_entries_of_another_user_are_not_taken_for_a_tasks(talker: Installed) -> None:
    ((transaction, _),) = talker.pids()
    said(talker)
    talker.machine.put("/run/forge.py", FORGED % transaction)
    talker.machine.sh("/usr/bin/python3 /run/forge.py", user="daemon")
    wait_for(lambda: "forged by daemon" in talker.machine.journal("ZMSVC_TASK=ts_100", output="cat"))
    places = (
        ["logs"],
        ["logs", "ts_100"],
        ["logs", "--transaction", transaction],
        ["status", "-n", "50", "ts_100"],
    )
    shown = {" ".join(words): talker.ctl(*words, "--no-pager", check=False) for words in places}
    assert [words for words, text in shown.items() if "forged" in text] == []
    assert [words for words, text in shown.items() if "logged by the task" not in text] == []
    talker.stop()
    for words in (["logs"], ["logs", "ts_100"]):
        text = talker.ctl(*words, "--no-pager")
        assert ("forged" in text, "logged by the task" in text) == (False, True), words


def numbers(talker: Installed) -> list[int]:
    """Return the output of the counting program of the next test, as the journal has it."""
    return [
        int(match)
        for match in re.findall(
            r"^line (\d+)$", talker.machine.journal("-t", "Counter", output="cat"), re.MULTILINE
        )
    ]


COUNT = """\
#!/bin/sh
print() {
    i=$1
    while [ $i -le $2 ]; do echo line $i; i=$((i+1)); done
}
print 1 200
read go < /run/go-on
print 201 400
sleep 3600
"""


def test_no_line_is_lost_when_the_supervisor_and_journald_die(talker: Installed) -> None:
    """The example is a Command: its output goes straight to journald. The two die when journald has written
    all that it had read: a line between its read and its write would be lost, as promises.md says. The next
    lines come at once, while no journald runs.
    """
    talker.machine.put("/etc/zmsvc/services/count.sh", COUNT, 0o755)
    talker.machine.sh("mkfifo /run/go-on")
    talker.configure(COUNTER)
    talker.machine.sh(f"systemctl restart {talker.unit}")
    wait_for(lambda: 200 in numbers(talker))
    journald = "$(systemctl show --value -p MainPID systemd-journald)"
    talker.machine.sh(f"kill -KILL {talker.status()['pid']} {journald}; echo > /run/go-on")
    wait_for(lambda: 400 in numbers(talker))
    assert numbers(talker) == list(range(1, 401))


COUNTER = """
    <TaskService id="ts_100" topic="process" instance="Counter" serviceType="Command">
        <Task>
            <description>Prints 400 lines</description>
            <message>
                <header><action>start</action><service_name>counter</service_name></header>
                <content><configuration><command>/etc/zmsvc/services/count.sh</command></configuration></content>
            </message>
            <state type="on_start"></state>
        </Task>
    </TaskService>"""
