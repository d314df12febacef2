"""zmsvcctl and tasks on other hosts, with a fake supervisor: `status`, `logs`, `cluster drain`, `cluster status`,
and the processes of this host that have the same PID.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_supervisor as fake
import pytest
from fake_supervisor import House, no, status, task, transaction, yes
from waiting import wait_for

from zmsvc.ctl import cluster_state
from zmsvc.ctl.__main__ import main
from zmsvc.ctl.status_reply import ContextStatus
from zmsvc.ctl.top.meter import Meter
from zmsvc.ctl.verbs.logs import cgroups

Capture = pytest.CaptureFixture[str]
ME = os.getpid()
HOSTS = [
    {"name": "h2", "state": "joined", "since": "2026-11-23T12:00:00.000+00:00", "drained": False, "tasks": 1},
    {
        "name": "h10",
        "state": "silent",
        "since": "2026-11-23T12:00:00.000+00:00",
        "drained": True,
        "tasks": 2,
        "dropped": 9,
    },
    {"name": "h3", "state": "not-joined", "since": None, "drained": False, "tasks": 0},
]
THERE = task("ts_1", host="h2", pid=ME)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with fake.house(tmp_path) as made:
        yield made


def shown(capsys: Capture, *given: str, code: int = 0) -> list[str]:
    assert main([*given]) == code
    return capsys.readouterr().out.splitlines()


# --- status


def test_status_shows_the_hosts_and_on_which_a_task_runs(home: House, capsys: Capture) -> None:
    home.supervisor(status=status(transaction(tasks=[THERE, task("ts_2", pid=ME)]), hosts=HOSTS))
    lines = shown(capsys, "status")
    at = next(number for number, line in enumerate(lines) if "Hosts:" in line)
    hosts = [line.partition("since")[0].strip() for line in lines[at : at + 3]]
    assert hosts == ["Hosts: h2   joined", ": h10  silent", ": h3   not joined, 0 tasks"]
    assert lines[at + 1].endswith("ago, drained, 2 tasks, 9 facts dropped")
    assert lines[at].endswith("ago, 1 task")
    there, here = (line for line in lines if "ts_1" in line or "ts_2" in line)
    assert f"on h2  PID {ME}" in there
    assert "on h2" not in here


def test_a_process_of_this_host_with_the_same_number_is_not_the_task(home: House, capsys: Capture) -> None:
    home.supervisor(status=status(transaction(tasks=[THERE])))
    (line,) = [line for line in shown(capsys, "status") if "ts_1" in line]
    assert not any(unit in line for unit in ("kB", "MB", "KiB", "MiB")), "its memory would be of this process"
    found = Meter().snapshot(ContextStatus(status(transaction(tasks=[THERE]))["data"]), 0.0)
    assert (found.rows[0].rss, found.rows[0].pid) == (None, ME)
    home.supervisor(status=status(transaction(tasks=[task("ts_1", pid=ME)])))
    assert Meter().snapshot(ContextStatus(status(transaction(tasks=[task(pid=ME)]))["data"]), 0.0).rows[0].rss


def test_a_context_without_other_hosts_has_no_such_line_and_no_such_column(
    home: House, capsys: Capture
) -> None:
    home.supervisor(status=status(transaction(tasks=[task(host=None)]), hosts=[]))
    assert not any("Hosts:" in line or " on " in line for line in shown(capsys, "status"))
    home.supervisor(status=status(transaction()))  # An earlier release.
    assert not any("Hosts:" in line for line in shown(capsys, "status"))


def test_show_has_the_host(home: House, capsys: Capture) -> None:
    home.supervisor(status=status(transaction(tasks=[THERE])))
    assert shown(capsys, "show", "-p", "Host", "ts_1") == ["Host=h2"]


def test_graph_has_the_host_of_a_running_task(home: House, capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "Context-Placed.xml"
    file.write_text(
        "<Context><FrontEndEndpoint>tcp://10.0.0.9:1</FrontEndEndpoint>"
        "<BackendEndpoint>tcp://10.0.0.9:2</BackendEndpoint><hosts endpoint='tcp://10.0.0.9:3'>h2 h3</hosts>"
        "<TaskService id='ts_1' instance='Run' serviceType='Command'><Task><message><header><service_name>x"
        "</service_name></header><content><configuration><command>true</command></configuration></content>"
        "</message><state type='on_start'/><service><placement><host>h3 h2</host></placement></service></Task>"
        "</TaskService></Context>"
    )
    assert 'ts_1\\nRun\\nfor h3, h2"' in "".join(shown(capsys, "graph", str(file)))
    home.supervisor(status=status(transaction(tasks=[THERE]), file=str(file)))
    assert 'ts_1\\nRun\\nactive\\non h2"' in "".join(shown(capsys, "graph", "Echo"))


# --- logs


def test_logs_names_the_host_of_a_task_and_the_command(home: House, capsys: Capture) -> None:
    (home.root / "log").write_text("")
    tasks = [THERE, *(task(f"ts_{number}", host="h3") for number in range(2, 7)), task("ts_7")]
    home.supervisor(status=status(transaction(tasks=tasks), log=f"{home.root}/log"))
    assert main(["logs", "ts_1"]) == 0
    assert capsys.readouterr().err == (
        "zmsvcctl: ts_1 runs on h2, and the log is there (zmsvcctl -H h2 -c Echo logs ts_1)\n"
    )
    assert main(["logs", "--transaction", "TX", "ts_2", "ts_7"]) == 0
    assert "(zmsvcctl -H h3 -c Echo logs --transaction TX ts_2)" in capsys.readouterr().err
    assert main(["logs"]) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[1] == (
        "zmsvcctl: ts_2, ts_3, ts_4 and others run on h3, and the log is there (zmsvcctl -H h3 -c Echo logs)"
    )
    assert main(["logs", "ts_7"]) == 0
    assert capsys.readouterr().err == ""


def test_the_journal_of_a_host_is_searched_for_the_tasks_there(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [
        "/system.slice/zmsvc-host@Echo.service/tasks/TX:ts_1",
        "/system.slice/zmsvc-host@Other.service/tasks/TX:ts_1",
    ]
    monkeypatch.setattr("zmsvc.ctl.verbs.logs._journal_cgroups", lambda: groups)
    assert cgroups(None, "Echo", None, ["ts_1"]) == groups[:1]


# --- drain


def moved(**other: Any) -> dict[str, Any]:
    return {
        "id": "ts_1",
        "transaction": "TX",
        "state": "active",
        "sub": "running",
        "pid": 7,
        "host": "h3",
    } | other


def test_drain_sends_the_order_and_prints_where_the_tasks_are_now(home: House, capsys: Capture) -> None:
    there = home.supervisor(drain=yes(tasks=[moved()]), undrain=yes(tasks=[]))
    assert shown(capsys, "cluster", "drain", "h2") == [
        "TX/ts_1: active (running) on h3",
        "h2 is drained: no task is started there",
    ]
    (asked,) = there.asked("drain")
    assert (asked["host"], asked["block"], asked["timeout"]) == ("h2", True, None)
    assert shown(capsys, "--no-block", "cluster", "undrain", "h2") == ["h2 takes tasks again"]
    assert there.asked("undrain")[0]["block"] is False
    assert main(["--json", "cluster", "drain", "h2"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "action": "drain", "context": "Echo", "host": "h2", "tasks": [moved()],
    }  # fmt: skip


def test_a_drain_that_leaves_a_task_without_a_host_fails_and_shows_it(home: House, capsys: Capture) -> None:
    waits = moved(state="activating", sub="unplaced", pid=None, host=None)
    placed = """<Context>
<TaskService id="ts_0"/>
<TaskService id="ts_1"><Task><service>
<placement/></service></Task></TaskService></Context>"""
    file = home.file(text=placed)
    there = home.supervisor(
        drain=no(1, "cannot restart ts_1: waits for a host: h2 is drained", tasks=[waits])
    )
    assert main(["cluster", "drain", "h2"]) == 1
    told = capsys.readouterr()
    assert told.out == "TX/ts_1: activating (unplaced)\n"
    assert told.err.strip().endswith(
        f"h2 is drained ({file}:4: name another host in <placement> and reload; or zmsvcctl -c Echo cluster "
        "undrain h2)"
    )
    file.unlink()
    assert main(["cluster", "drain", "h2"]) == 1
    assert capsys.readouterr().err.strip().endswith("(zmsvcctl -c Echo cluster undrain h2)")
    there.close()
    home.supervisor(drain=no(124, "cannot say that drain is done: it takes longer than 2 s", tasks=[]))
    assert main(["cluster", "drain", "h2"]) == 124
    assert capsys.readouterr().err.strip().endswith("2 s (zmsvcctl -c Echo status)")


@pytest.mark.parametrize(
    ("given", "why"),
    [(["drain"], "cluster drain needs a HOST"), (["give", "h2"], "cluster give takes no HOST")],
)
def test_only_drains_take_a_host(given: list[str], why: str, home: House, capsys: Capture) -> None:
    home.supervisor()
    assert main(["cluster", *given]) == 2
    assert why in capsys.readouterr().err


def test_the_hosts_are_offered_by_the_completion(home: House) -> None:
    home.supervisor(status=status(transaction(), hosts=[*HOSTS, {"name": "no host"}]))
    print_hosts = "import sys; from zmsvc.ctl.__main__ import main; sys.exit(main(['words', 'hosts']))"

    def offered() -> list[str]:
        """Return the words. On a busy machine there may be none: after 0.5 s the verb ends its process."""
        told = subprocess.run([sys.executable, "-c", print_hosts], capture_output=True, text=True, check=True)
        return told.stdout.split()

    assert wait_for(offered) == ["h2", "h10", "h3"]


# --- cluster status


def test_cluster_status_shows_the_hosts_of_a_context_that_runs_here(
    home: House, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = {
        "id": "echo", "role": "Started", "hosts": ["h1"], "managed": True, "failed": False,
        "blocked": False, "reasons": [],
    }  # fmt: skip
    told = {
        "members": [{"name": "h1", "online": True, "unclean": False}],
        "fencing": {"enabled": True, "devices": ["ipmi"]},
        "resources": [{**resource, "context": "Echo"}, {**resource, "id": "away", "context": "Away"}],
    }
    monkeypatch.setattr(cluster_state, "state", lambda: json.loads(json.dumps(told)))
    home.supervisor(status=status(transaction(), hosts=HOSTS))
    assert shown(capsys, "cluster", "status")[:5] == [
        "Echo (echo): runs on h1",
        "  h2: joined, 1 task",
        "  h10: silent, drained, 2 tasks",
        "  h3: not joined, 0 tasks",
        "Away (away): runs on h1",
    ]
    assert main(["--json", "cluster", "status"]) == 0
    workers = [each["workers"] for each in json.loads(capsys.readouterr().out)["resources"]]
    assert workers == [HOSTS, None]
