"""A Monitor service publishes, at its own endpoint, the resources that the tasks of its transaction use."""

from __future__ import annotations

import json
import os
import pwd
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import zmq
from context import Context
from manual_context import MONITOR
from others import others, python
from ports import free_ports
from waiting import PATIENCE, wait_for

from zmsvc.core.access import MAY_CONNECT

TX = "5HGAHZ3WPZUI71PACRPP"
OLD = {
    "status": str,
    "pid": int,
    "rss": float,
    "vms": float,
    "percent": float,
    "children": list,
    "total": dict,
    "elapsed": float,
    "serviceId": str,
    "timestamp": float,
    "action": str,
    "state": str,
}
"""The columns of a row of zmicroservices 1.0, with their types."""
COSTLY = {"connections", "opened_files", "memory_map"}
OPTIONS = "<monitor_options><opened_files>1</opened_files><open_connections>1</open_connections><memory_maps>1</memory_maps></monitor_options>"

Rows = dict[str, dict[str, Any]]


def settings(
    endpoint: str, *, tag: str = "service", kind: str = "pub", frequency: float = 0.05, options: str = ""
) -> str:
    return f"<{tag}><endpoint>{endpoint}</endpoint><frequency_s>{frequency}</frequency_s><type>{kind}</type></{tag}>{options}"


def read(frame: bytes) -> Rows:
    topic, _, text = frame.partition(b" @@@ ")
    assert topic == b"monitor"
    body = json.loads(text)
    assert list(body) == [TX], "of its own transaction, and of no other"
    return {row["serviceId"]: row for row in body[TX]}


class Stranger:
    """A subscriber at the Monitor's endpoint."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.subscribe(b"monitor @@@ ")
        self._socket.connect(endpoint)

    def until(self, wanted: Callable[[Rows], Any]) -> Rows:
        """Return the first sample that is wanted."""
        last: Rows = {}
        for _ in range(1000):
            assert self._socket.poll(PATIENCE * 1000), f"nothing more from the Monitor, the last was {last}"
            last = read(self._socket.recv())
            if wanted(last):
                return last
        raise AssertionError(f"not in 1,000 samples, the last was {last}")

    def close(self) -> None:
        self._context.destroy(0)


@pytest.fixture
def listen() -> Iterator[Callable[[str], Stranger]]:
    made: list[Stranger] = []

    def make(endpoint: str) -> Stranger:
        made.append(Stranger(endpoint))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(autouse=True)
def _services(home: Path) -> None:
    """Make the location that a task names. It has to exist even for a service that is part of zmsvc."""
    (home / "Services").mkdir()


def pids(rows: Rows) -> dict[str, int | None]:
    return {name: row["pid"] for name, row in rows.items()}


def one_key_each(items: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the items of the lists of lists of objects with one key that zmicroservices 1.0 has."""
    assert all(len(each) == 1 for item in items for each in item)
    return [{name: value for each in item for name, value in each.items()} for item in items]


def check_children(row: dict[str, Any]) -> None:
    for each in row["children"]:
        assert {
            name: type(each[name]) for name in ("status", "pid", "create_time", "rss", "vms", "percent")
        } == {"status": str, "pid": int, "create_time": float, "rss": float, "vms": float, "percent": float}
        assert 0 < each["create_time"] < time.time() + 60
        assert each["rss"] > 0
    (child,) = [each for each in row["children"] if each["kind"] == "process"]
    assert child["name"] == "sleep"
    assert row["pid"] in [each["pid"] for each in row["children"] if each["kind"] == "thread"]
    assert row["total"] == {
        name: pytest.approx(row[name] + child[name], abs=0.01) for name in ("percent", "rss", "vms")
    }


def check_files(row: dict[str, Any], home: Path) -> None:
    opened = one_key_each(row["opened_files"])
    assert f"{home}/opened" in [each["path"] for each in opened]
    assert opened[0].keys() >= {"path", "fd"}
    assert one_key_each(row["memory_map"])[0].keys() >= {"path", "rss", "size", "pss"}
    assert sum(each["rss"] for each in one_key_each(row["memory_map"])) > 1 << 20, "bytes"
    (port,) = [each for each in one_key_each(row["connections"]) if each["status"] == "LISTEN"]
    assert port["laddr"][0] == "127.0.0.1"
    assert isinstance(port["family"], int)


def test_a_sample_has_the_figures_of_1_0_for_every_task_with_a_process(
    context: Context, home: Path, listen: Callable[[str], Stranger]
) -> None:
    context.looped(
        "Work",
        f"""
        def setup(self):
            import subprocess, threading
            import socket
            self.file = open("{home}/opened", "w")
            self.server = socket.create_server(("127.0.0.1", 0))
            self.child = subprocess.Popen(["sleep", "1000"])
        """,
    )
    context.task("ts000", "Monitor", config=settings(f"ipc://{home}/mon", options=OPTIONS))
    context.task("ts001", "Work")
    context.task("ts002", "Work", entry=False)
    context.start("--no-autostart")
    context.ctl("start", "--transaction", TX)
    running = {name: task["pid"] for name, task in context.tasks(TX).items() if task["pid"]}
    began = time.time()
    rows = listen(f"ipc://{home}/mon").until(
        # The Monitor may hear of the start after the answer to the client.
        lambda rows: (
            pids(rows) == running
            and (rows["ts001"]["status"], rows["ts001"]["action"]) == ("sleeping", "started")
        )
    )
    assert running.keys() == {"ts000", "ts001"}
    for row in rows.values():
        assert {name: type(row[name]) for name in OLD} == OLD
        assert row.keys() >= COSTLY
    row = rows["ts001"]
    assert began - 60 < row["timestamp"] < time.time() + 60
    assert datetime.fromisoformat(row["time"]).timestamp() == pytest.approx(row["timestamp"], abs=0.01)
    assert 0 <= row["elapsed"] < 60
    status = dict(
        line.split(":\t")
        for line in Path(f"/proc/{row['pid']}/status").read_text().splitlines()
        if ":\t" in line
    )
    assert row["rss"] == pytest.approx(int(status["VmRSS"].split()[0]) / 1024, rel=0.2)
    assert row["vms"] == pytest.approx(int(status["VmSize"].split()[0]) / 1024, rel=0.2)
    assert 0 < row["percent"] < 100
    assert row["cpu_percent"] >= 0
    assert (row["action"], row["state"], row["active_state"], row["status"]) == (
        "started",
        "success",
        "active",
        "sleeping",
    )
    check_children(row)
    check_files(row, home)
    assert rows["ts000"]["unix_connections"]


def test_a_task_without_a_process_has_no_row_and_the_rows_can_be_computed_with(
    context: Context, home: Path, listen: Callable[[str], Stranger]
) -> None:
    """Calculate with each row as a consumer for zmicroservices 1.0 does, which fails for a text or null."""
    context.looped("Work")
    context.task("ts000", "Monitor", config=settings(f"ipc://{home}/mon"))
    context.task("ts001", "Work")
    context.start("--transaction", TX)
    stranger = listen(f"ipc://{home}/mon")
    both = stranger.until(lambda rows: len(rows) == 2)
    context.ctl("stop", "--task", "ts001")
    one = stranger.until(lambda rows: len(rows) == 1)
    for row in (*both.values(), *one.values()):
        assert f"{row['pid']:d} {row['total']['rss']:.1f} {row['timestamp'] + row['elapsed']:.0f}"
        assert sum(each["rss"] for each in row["children"]) > 0


def test_the_monitor_of_the_manual_works_as_it_stands_there(
    context: Context, listen: Callable[[str], Stranger]
) -> None:
    (port,) = free_ports(1)
    context.looped("Echo")
    context.task("ts001", "Echo")
    # The port is a free one, and the second sample comes sooner than after half a minute.
    context.element(MONITOR.replace("6558", str(port)).replace("30.0", "0.1"))
    context.start("--transaction", TX)
    stranger = listen(f"tcp://127.0.0.1:{port}")
    running = {name: task["pid"] for name, task in context.tasks().items()}
    rows = stranger.until(lambda rows: pids(rows) == running)
    assert {"opened_files", "connections"} <= rows["ts000"].keys()
    assert rows["ts001"]["memory_map"]
    os.kill(running["ts000"] or 0, 9)
    context.task_is("ts000", "running", also=lambda task: task["pid"] != running["ts000"])
    stranger.until(lambda rows: "ts000" in rows and rows["ts000"]["pid"] != running["ts000"])


def test_costly_figures_of_the_monitor_are_sampled_by_option_only(
    context: Context, home: Path, listen: Callable[[str], Stranger]
) -> None:
    context.task("ts000", "Monitor", config=settings(f"ipc://{home}/mon", tag="publisher"))
    context.start("--transaction", TX)
    row = listen(f"ipc://{home}/mon").until(lambda rows: "ts000" in rows)["ts000"]
    assert not COSTLY & row.keys(), "as in 1.0"


def test_cpu_is_that_since_the_last_sample(
    context: Context, home: Path, listen: Callable[[str], Stranger]
) -> None:
    context.looped(
        "Busy",
        """
        interval = 0.0
        def step(self):
            until = __import__("time").thread_time() + 0.05
            while __import__("time").thread_time() < until:
                pass
        """,
    )
    context.looped("Idle")
    context.task("ts000", "Monitor", config=settings(f"ipc://{home}/mon", frequency=0.3))
    context.task("ts001", "Busy")
    context.task("ts002", "Idle")
    context.start("--transaction", TX)
    stranger = listen(f"ipc://{home}/mon")
    stranger.until(
        lambda rows: len(rows) == 3 and rows["ts001"]["cpu_percent"] > 1 and rows["ts002"]["cpu_percent"] == 0
    )


def test_tasks_that_come_and_go_do_not_break_the_monitor(
    context: Context, home: Path, listen: Callable[[str], Stranger]
) -> None:
    context.looped("Echo")
    context.looped("Fleeting", "interval = 0.01\ndef step(self):\n    __import__('os')._exit(1)")
    context.task("ts000", "Monitor", config=settings(f"ipc://{home}/mon", frequency=0.02, options=OPTIONS))
    context.task("ts001", "Echo", rules={"on_fail": ("restart", "ts001")})
    context.task(
        "ts002",
        "Fleeting",
        rules={"on_fail": ("restart", "ts002")},
        service="<restart_delay>1ms</restart_delay>",
    )
    context.start("--transaction", TX)
    stranger = listen(f"ipc://{home}/mon")
    monitor = context.tasks()["ts000"]["pid"]
    for _ in range(5):
        pid = context.task_is("ts001", "running")["pid"]
        stranger.until(lambda rows, pid=pid: "ts001" in rows and rows["ts001"]["pid"] == pid)
        os.kill(pid, 9)
        context.task_is("ts001", "running", also=lambda task, pid=pid: task["pid"] != pid)
    context.ctl("stop", "--task", "ts001")
    stranger.until(lambda rows: "ts001" not in rows)
    assert context.tasks()["ts000"]["pid"] == monitor
    assert context.tasks()["ts000"]["restarts"] == 0


def test_the_monitor_survives_a_new_supervisor_and_a_new_device(
    context: Context, home: Path, listen: Callable[[str], Stranger]
) -> None:
    context.looped("Echo")
    context.task("ts000", "Monitor", config=settings(f"ipc://{home}/mon"))
    context.task("ts001", "Echo")
    context.start("--transaction", TX)
    stranger = listen(f"ipc://{home}/mon")
    context.kill_supervisor()
    os.kill(context.status()["device_pid"], 9)
    context.ctl("restart", "--task", "ts001")
    pid = context.tasks()["ts001"]["pid"]
    stranger.until(lambda rows: "ts001" in rows and rows["ts001"]["pid"] == pid)


def test_a_monitor_of_type_rep_answers_with_the_same_body(context: Context, home: Path) -> None:
    context.task("ts000", "Monitor", config=settings(f"ipc://{home}/mon", kind="rep", frequency=3600))
    context.start("--transaction", TX)
    asker = zmq.Context()
    own = {"ts000": context.tasks()["ts000"]["pid"]}

    def answered() -> dict[str, Any]:
        with asker.socket(zmq.REQ) as question:
            question.connect(f"ipc://{home}/mon")
            question.send(b"anything")
            assert question.poll(PATIENCE * 1000), "no answer"
            return pids(read(question.recv()))

    try:
        # It is ready before its first sample, and its last one is empty then. The next one would come in an hour.
        wait_for(lambda: answered() == own)
        for _ in range(3):
            assert answered() == own
    finally:
        asker.destroy(0)


def test_a_monitor_with_an_endpoint_in_use_fails_with_the_reason(context: Context) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        context.task("ts000", "Monitor", entry=False, config=settings(f"tcp://127.0.0.1:{port}"))
        context.start("--transaction", TX)
        answer = context.ctl("start", "--transaction", TX, "--task", "ts000", check=1)
    assert f"cannot bind tcp://127.0.0.1:{port}: address already in use" in answer.stderr


def test_the_monitor_binds_no_endpoint_that_others_could_reach(context: Context) -> None:
    context.task("ts000", "Monitor", entry=False, config=settings("tcp://192.0.2.1:6558"))
    context.start("--transaction", TX)
    answer = context.ctl("start", "--transaction", TX, "--task", "ts000", check=1)
    assert "cannot bind tcp://192.0.2.1:6558 without CURVE keys" in answer.stderr


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("", "has no <service><endpoint>"),
        (settings("ipc:///tmp/x", kind="push"), "the type 'push' is unknown, expected pub or rep"),
        (
            "<service><endpoint>ipc:///tmp/x</endpoint><frequency_s>often</frequency_s></service>",
            "frequency_s is 'often'",
        ),
    ],
)
def test_a_monitor_with_an_invalid_configuration_fails_with_the_reason(
    context: Context, config: str, why: str
) -> None:
    context.task("ts000", "Monitor", entry=False, config=config)
    context.start("--transaction", TX)
    assert why in context.ctl("start", "--transaction", TX, "--task", "ts000", check=1).stderr


@pytest.mark.parametrize("scheme", ["ipc", "tcp"])
def test_endless_subscriptions_do_not_fill_the_monitors_memory(
    context: Context, home: Path, listen: Callable[[str], Stranger], scheme: str
) -> None:
    """All connections are closed then. A subscriber connects again by itself and receives samples again."""
    endpoint = f"ipc://{home}/monitor" if scheme == "ipc" else f"tcp://127.0.0.1:{free_ports()[0]}"
    context.task("ts001", "Monitor", config=settings(endpoint))
    context.start("--transaction", TX)
    healthy = listen(endpoint)
    healthy.until(lambda rows: "ts001" in rows)
    pid = context.tasks()["ts001"]["pid"]
    before, most = memory(pid), 0
    words = [sys.executable, "-P", str(Path(__file__).parents[1] / "flood.py"), "many", endpoint, "60", "8"]

    def anew() -> bool:
        nonlocal most
        most = max(most, memory(pid))
        return (
            "all connections are closed: the subscriptions of peers took more than 32 MiB"
            in context.ctl("logs", "ts001").stdout
        )

    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as flood:
        try:
            wait_for(anew, 60)
            healthy.until(lambda rows: "ts001" in rows)
        finally:
            flood.kill()
    assert most < before + (100 << 20)
    wait_for(lambda: memory(pid) < before + (40 << 20))
    for _ in range(20):
        healthy.until(lambda rows: "ts001" in rows)
    assert context.tasks()["ts001"]["pid"] == pid


def memory(pid: int) -> int:
    _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def test_the_monitor_leaves_no_socket_file_behind(context: Context, home: Path) -> None:
    context.task("ts000", "Monitor", config=settings(f"ipc://{home}/mon"))
    context.start("--transaction", TX)
    assert (home / "mon").is_socket()
    context.ctl("restart", "--task", "ts000")
    context.ctl("stop", "--task", "ts000")
    assert not (home / "mon").exists()


HEAR = """
import sys, zmq
context = zmq.Context()
made = context.socket(zmq.REQ if sys.argv[1] == "rep" else zmq.SUB)
made.linger = 0
news = made.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
if sys.argv[1] == "pub":
    made.subscribe(b"")
made.connect(sys.argv[2])
assert news.poll(20000), "nothing became of the connection"
let_in = int.from_bytes(news.recv_multipart()[0][:2], "little") == zmq.EVENT_HANDSHAKE_SUCCEEDED
if let_in and sys.argv[1] == "rep":
    made.send(b"")
print("heard" if let_in and made.poll(20000) else "silence" if let_in else "refused", flush=True)
made.disable_monitor()
context.destroy(0)
"""


@pytest.mark.parametrize("user", ["", "<user>daemon</user>"], ids=["of the daemon's user", "of another user"])
@pytest.mark.parametrize("kind", ["pub", "rep"])
def test_over_tcp_without_keys_the_same_users_hear_the_monitor_that_may_connect_to_the_bus(
    context: Context, kind: str, user: str
) -> None:
    stranger = others(1)[0]
    (port,) = free_ports(1)
    place = f"tcp://127.0.0.1:{port}"
    context.home.chmod(0o755)
    context.task("ts000", "Monitor", config=settings(place, kind=kind), service=user)
    context.task(
        "ts001", "sleep", kind="Command", config="<command>sleep 1000</command>", service="<user>bin</user>"
    )
    context.start("--transaction", TX)
    hears = {
        uid: python(uid, HEAR, kind, place).stdout.strip()
        for uid in (stranger, pwd.getpwnam("bin").pw_uid, os.geteuid())
    }
    assert list(hears.values()) == ["refused", "heard", "heard"]
    assert python(stranger, HEAR, kind, place).stdout.strip() == "refused"
    member = python(stranger, HEAR, kind, place, groups=(os.getegid(),)).stdout.strip()
    assert member == "refused", "the user database does not know it as a member"
    wait_for(
        lambda: f"a connection of uid {stranger} (uid {stranger}) is refused" in context.ctl("logs").stdout
    )
    told = context.ctl("check", str(context.file)).stdout
    assert f"ts000: {MAY_CONNECT} may connect to {place} and read what tasks use of the machine" in told


def test_bus_access_anyone_is_for_the_monitor_too_with_a_warning(context: Context) -> None:
    stranger = others(1)[0]
    (port,) = free_ports(1)
    place = f"tcp://127.0.0.1:{port}"
    context.task("ts000", "Monitor", config=settings(place))
    context.edit = lambda text: text.replace("<Context>", '<Context bus_access="anyone">')
    context.start("--transaction", TX)
    assert (
        f'ts000: bus_access="anyone": every user of this machine may read at {place}'
        in context.log.read_text()
    )
    assert python(stranger, HEAR, "pub", place).stdout == "heard\n"
