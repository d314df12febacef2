"""`zmsvcctl metrics` against the real daemon: on standard output, in a file and over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
from pathlib import Path

import others
from context import Context
from needs import need
from waiting import PATIENCE

TX = "5HGAHZ3WPZUI71PACRPP"
Series = dict[str, float]
"""Values by `name{label="value",...}`."""


def series(text: str) -> Series:
    return {
        name: float(value)
        for name, value in (
            line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")
        )
    }


def scraped(context: Context, *words: str) -> Series:
    return series(context.ctl("metrics", *words).stdout)


def counters(found: Series) -> Series:
    return {name: value for name, value in found.items() if "_total{" in name}


def rises(before: Series, after: Series) -> bool:
    old, new = counters(before), counters(after)
    return bool(old) and all(new.get(name, -1) >= value for name, value in old.items())


BUSY = "def step(self):\n    sum(range(3_000_000))\n    self.wait(3600)"


def test_counters_rise_over_failures_supervisors_and_daemons(context: Context) -> None:
    context.looped("Echo", BUSY)
    context.task("ts_1", "Echo", rules={"on_fail": ("restart", "ts_1")})
    context.task("ts_2", "Echo", entry=False)
    context.element("<on_any_fail><action>stop</action><call>ts_2</call></on_any_fail>")
    context.start("--transaction", TX)
    name, task = context.name, f'context="{context.name}",task="ts_1",service="Echo"'
    first = scraped(context)
    of_context = f'context="{name}",task="ts_1",trigger="on_any_fail",action="stop",call="ts_2",condition=""'
    assert first[f"zmsvc_rule_firings_total{{{of_context}}}"] == 0
    assert first[f'zmsvc_up{{context="{name}"}}'] == 1
    assert first[f'zmsvc_task_state{{{task},state="active"}}'] == 1
    assert first[f'zmsvc_task_state{{context="{name}",task="ts_2",service="Echo",state="inactive"}}'] == 1
    assert first[f'zmsvc_task_launches_total{{{task},cause="context"}}'] == 1
    assert first[f"zmsvc_task_resident_memory_bytes{{{task}}}"] > 1 << 20
    assert TX not in "".join(first), "a run makes no series of its own"

    pid = context.tasks()["ts_1"]["pid"]
    os.kill(pid, signal.SIGKILL)
    context.task_is("ts_1", "running", also=lambda found: found["pid"] != pid)
    second = scraped(context)
    assert rises(first, second), (first, second)
    assert second[f'zmsvc_task_failures_total{{{task},reason="signal"}}'] == 1
    assert second[f"zmsvc_task_restarts_total{{{task}}}"] == 1
    fired = f'context="{name}",task="ts_1",trigger="on_fail",action="restart",call="ts_1",condition=""'
    assert second[f"zmsvc_rule_firings_total{{{fired}}}"] == 1

    context.kill_supervisor()
    context.status()
    third = scraped(context)
    assert rises(second, third), (second, third)
    assert third[f'zmsvc_supervisor_restarts_total{{context="{name}"}}'] == 1

    context.ctl("stop", "--transaction", TX)
    context.ctl("forget")
    context.ctl("exit")
    assert context.wait() == 0
    assert scraped(context)[f'zmsvc_up{{context="{name}"}}'] == 0
    context.start()
    assert rises(third, scraped(context)), (third, scraped(context))
    document = json.loads(context.ctl("--json", "metrics").stdout)["metrics"]
    by_name = {each["name"]: each for each in document}
    assert by_name["zmsvc_task_restarts_total"]["type"] == "counter"
    assert [each["labels"] for each in by_name["zmsvc_up"]["samples"]] == [{"context": name}]


def asked(port: int, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, str, str]:
    """Return status, type and text of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read().decode()
    finally:
        connection.close()


def test_a_scrape_shows_what_the_command_prints_and_nothing_else_is_served(
    context: Context, tmp_path: Path
) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", TX)
    file = tmp_path / "zmsvc.prom"
    file.write_text("old")
    assert context.ctl("metrics", "--output", str(file)).stdout == ""
    printed = scraped(context)
    assert series(file.read_text()).keys() == printed.keys()
    assert [each.name for each in tmp_path.iterdir()] == ["zmsvc.prom"]
    of_one = scraped(context, "--transaction", TX)
    assert any(f'transaction="{TX}"' in name for name in of_one)
    context.ctl("metrics", "--transaction", "NOBODY", check=4)
    context.ctl("metrics", "--listen", "0.0.0.0:9649", check=2)
    context.ctl("metrics", "--listen", "systemd", check=2)
    with context.serving_metrics() as port:
        status, kind, text = asked(port)
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert series(text).keys() == printed.keys()
        status, kind, text = asked(port, Accept="application/openmetrics-text;version=1.0.0")
        assert (kind.split(";")[0], text.endswith("# EOF\n")) == ("application/openmetrics-text", True)
        assert asked(port, method="HEAD")[::2] == (200, "")
        assert asked(port, "/metrics?x=1")[0] == 200
        assert [asked(port, "/")[0], asked(port, method="POST")[0]] == [404, 405]
        assert asked(port, Host="evil.example")[0] == 403
        assert raw(port, b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 2000).startswith(b"HTTP/1.1 431 ")
        assert raw(port, b"hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        assert asked(port)[0] == 200


def raw(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(data)
        found = b""
        try:
            while more := connection.recv(65536):
                found += more
        except ConnectionResetError:
            pass  # The server does not read the rest.
        return found


SCRAPE = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=25)
try:
    connection.request("GET", "/metrics")
    print(connection.getresponse().status)
except (ConnectionResetError, BrokenPipeError):
    print("reset")
"""


def test_a_server_answers_the_users_that_are_allowed_and_no_other(context: Context) -> None:
    need(os.geteuid() == 0, "only root can be another user")
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", TX)
    friend, stranger = others.others(2)
    with context.serving_metrics("--allow", str(friend)) as port:
        assert others.python(friend, SCRAPE, str(port)).stdout == "200\n"
        assert others.python(stranger, SCRAPE, str(port)).stdout in ("403\n", "reset\n")
        assert asked(port)[0] == 200
