"""The resources that tasks use: by a question on the bus (`state`/`top`), and as a table on the terminal
(`zmsvcctl top`).
"""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from context import Context, Subscriber
from waiting import PATIENCE

from zmsvc.core import messages
from zmsvc.host.bus import sockets

TX = "5HGAHZ3WPZUI71PACRPP"
FIGURES = ["serviceId", "pid", "status", "rss", "vms", "percent", "cpu_percent", "children", "total"]
FIELDS = [
    *FIGURES,
    "service_id",
    "serviceName",
    "instance",
    "action",
    "state",
    "active_state",
    "sub_state",
    "elapsed",
    "timestamp",
    "time",
]


def question(transaction: str, **options: int) -> bytes:
    head = {"service_transaction": transaction, "service_id": "", "action": "top", "service_name": "state"}
    return messages.encode("state", {"header": head, "content": {"configuration": options}})


def reply(stranger: Subscriber) -> dict[str, Any]:
    return stranger.until(lambda _topic, body: body["header"]["action"] == "reply_top")


def running(context: Context) -> dict[str, int | None]:
    return {name: task["pid"] for name, task in context.tasks(TX).items()}


def test_top_is_answered_on_state_with_the_figures_of_each_task(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    context.looped(
        "Echo", "def setup(self):\n    self.child = __import__('subprocess').Popen(['sleep', '1000'])"
    )
    context.task("ts001", "Echo")
    context.task("ts002", "Echo", entry=False)
    context.start("--transaction", TX)
    stranger = subscriber(b"state @@@ ")
    sockets.send_once(context.publish_endpoint, question(TX))
    body = reply(stranger)
    assert body["header"] == {
        "service_transaction": TX,
        "service_id": "",
        "action": "reply_top",
        "service_name": "state",
    }, "that of the question with another action, by which 1.0's clients know their reply"
    one, two = body["content"]["tasks"]
    assert list(one) == list(two) == FIELDS
    assert {one["serviceId"]: one["pid"], two["serviceId"]: two["pid"]} == running(context)
    assert one["rss"] > 1
    assert [each["name"] for each in one["children"] if each["kind"] == "process"] == ["sleep"]
    assert (one["service_id"], one["serviceName"], one["instance"]) == ("ts001", "echo", "Echo")
    assert (one["action"], one["state"], one["active_state"], one["sub_state"]) == (
        "started",
        "success",
        "active",
        "running",
    )
    assert (two["pid"], two["action"], two["state"], two["active_state"]) == (
        None,
        "defined",
        "success",
        "inactive",
    )


@pytest.mark.parametrize(
    ("option", "field"),
    [("memory_maps", "memory_map"), ("opened_files", "opened_files"), ("open_connections", "connections")],
)
def test_expensive_figures_are_sampled_by_option_only(
    context: Context, home: Path, subscriber: Callable[..., Subscriber], option: str, field: str
) -> None:
    context.looped(
        "Echo", f"def setup(self):\n    self.file = open('{home}/opened', 'w')\n    self.publish('any', {{}})"
    )
    context.task("ts001", "Echo")
    context.start("--transaction", TX)
    stranger = subscriber(b"state @@@ ")
    sockets.send_once(context.publish_endpoint, question(TX, **{option: 1}))
    (row,) = reply(stranger)["content"]["tasks"]
    assert row["unix_connections" if field == "connections" else field]
    others = {"memory_map", "opened_files", "connections"} - {field}
    assert not others & row.keys(), "as in 1.0"


def test_a_flood_of_top_requests_does_not_delay_the_supervisor(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    context.looped("Echo")
    for number in range(5):
        context.task(f"ts00{number}", "Echo")
    context.start("--transaction", TX)
    stranger = subscriber(b"state @@@ ")
    ctx = sockets.context()
    pub_socket = sockets.publisher(ctx, context.publish_endpoint)
    assert sockets.await_device(pub_socket, PATIENCE)
    for _ in range(2000):
        sockets.publish(pub_socket, question(TX, memory_maps=1, open_connections=1, opened_files=1))
    reply(stranger)
    for _ in range(20):
        status = context.status()
        children = Path(f"/proc/{status['pid']}/task/{status['pid']}/children").read_text().split()
        assert len(children) <= 1, "one look at a time"
    pub_socket.close(0)
    ctx.term()


def test_a_top_request_for_an_unknown_transaction_is_refused(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    context.looped("Echo")
    context.task("ts001", "Echo")
    context.start("--transaction", TX)
    stranger = subscriber(b"state @@@ ")
    for head in ({"service_transaction": "NOBODY"}, {"service_transaction": ["x"]}, {}):
        sockets.send_once(
            context.publish_endpoint,
            messages.encode("state", {"header": {**head, "action": "top"}, "content": 7}),
        )
    sockets.send_once(
        context.publish_endpoint,
        messages.encode("state", {"header": {"service_transaction": TX, "action": "top"}, "content": 7}),
    )
    assert len(reply(stranger)["content"]["tasks"]) == 1
    assert context.status()["restarts"] == 0
    assert context.status()["dropped"]["messages_in"] == 3


# --- zmsvcctl top


@pytest.fixture
def three(context: Context) -> Context:
    """A context with a task that waits, one that has failed once, and one that works."""
    context.looped("Echo")
    context.looped("Large", "def setup(self):\n    self.heap = b'x' * (64 << 20)")
    context.task("ts001", "Echo", rules={"on_fail": ("restart", "ts001")})
    context.task("ts002", "Large")
    context.task("ts003", "Echo", entry=False)
    context.start("--transaction", TX)
    pid = context.tasks()["ts001"]["pid"]
    os.kill(pid, 9)
    context.task_is("ts001", "running", also=lambda task: task["pid"] != pid)
    return context


def table(output: str) -> list[list[str]]:
    lines = output.splitlines()
    at = next(number for number, line in enumerate(lines) if line.split()[:1] == ["TASK"])
    return [line.split() for line in lines[at:]]


def test_top_prints_one_table_without_a_terminal(three: Context) -> None:
    head, *rows = table(three.ctl("top").stdout)
    assert (
        " ".join(head) == "TASK INSTANCE TRANSACTION PID STATE CPU% RSS MEM% THREADS CHILDREN MISSED RESTARTS"
    )
    shown = {row[0]: row for row in rows}
    pids = running(three)
    assert (shown["ts001"][3], shown["ts002"][3], shown["ts003"][3]) == (
        str(pids["ts001"]),
        str(pids["ts002"]),
        "-",
    )
    assert shown["ts001"][4] == "active"
    assert shown["ts001"][-1] == "1"
    assert "\x1b" not in three.ctl("top", "--once").stdout


@pytest.mark.parametrize(("key", "first"), [("rss", "ts002"), ("id", "ts001"), ("restarts", "ts001")])
def test_top_sorts_by_the_key_that_is_asked_for(three: Context, key: str, first: str) -> None:
    _, *rows = table(three.ctl("top", "--sort", key).stdout)
    assert rows[0][0] == first
    assert rows[-1][0] == "ts003"


def test_top_sorts_by_pid(three: Context) -> None:
    _, *rows = table(three.ctl("top", "--sort", "pid").stdout)
    assert rows[0][3] == str(min(pid for pid in running(three).values() if pid))
    three.ctl("top", "--sort", "beauty", check=2)


def test_top_of_a_transaction_and_of_tasks(three: Context) -> None:
    three.ctl("start", "--transaction", "SECOND")
    assert {row[2] for row in table(three.ctl("top", "--transaction", "SECOND").stdout)[1:]} == {"SECOND"}
    assert {(row[0], row[2]) for row in table(three.ctl("top", "ts002").stdout)[1:]} == {
        ("ts002", TX),
        ("ts002", "SECOND"),
    }
    assert "no such transaction" in three.ctl("top", "--transaction", "NOBODY", check=4).stderr


def test_top_as_json_has_the_rows_of_the_monitor(three: Context) -> None:
    (found,) = json.loads(three.ctl("--json", "top").stdout)["contexts"]
    rows = found["transactions"][TX]
    assert [list(row) for row in rows] == [
        [*FIGURES, "service_id", "action", "state", "missed", "elapsed", "timestamp", "time"]
    ] * 3
    assert {row["serviceId"]: row["pid"] for row in rows} == running(three)


def test_top_on_a_terminal_refreshes_until_a_key_ends_it(three: Context) -> None:
    """test_top_on_a_terminal.py has the rest."""
    ours, its = pty.openpty()
    command = [sys.executable, "-P", "-m", "zmsvc.ctl", "-c", three.name, "top", "--interval", "0.05"]
    shown = b""

    def read_until(part: bytes) -> None:
        nonlocal shown
        while part not in shown:
            assert select.select([ours], [], [], PATIENCE)[0], f"no {part!r}, only {shown!r}"
            shown += os.read(ours, 65536)

    environment = {**three.environment, "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(command, env=environment, stdin=its, stdout=its, stderr=its) as top:
        os.close(its)
        read_until(b"ts002")
        three.ctl("stop", "ts002")
        read_until("○".encode())
        os.write(ours, b"q")
        shown += drained(ours)
        assert top.wait(PATIENCE) == 0
    os.close(ours)
    assert b"\x1b[?1049h" in shown[:100], "on a screen of its own"
    assert b"\x1b[?1049l" in shown, "which it leaves"


def drained(fd: int) -> bytes:
    """Return the output until the other side is closed."""
    found = b""
    while True:
        try:
            more = os.read(fd, 65536)
        except OSError:
            return found
        if not more:
            return found
        found += more
