"""`check` warns about contradictions, `graph` draws tasks, rules and states, `events` shows the requester,
the rule and the exit.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from context import Context
from needs import need
from ports import free_ports
from waiting import PATIENCE, wait_for, wait_for_line

TX = "5HGAHZ3WPZUI71PACRPP"


def pair(context: Context) -> None:
    """Add a task that starts another one when it ends, and itself when it fails."""
    context.looped("Echo")
    context.task("ts_1", "Echo", rules={"on_exit": ("start", "ts_2"), "on_fail": ("restart", "ts_1")})
    context.task("ts_2", "Echo", entry=False)


# --- check


def test_check_warns_about_rings_unreachable_tasks_wildcards_and_ports_in_use(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo", rules={"on_exit": ("start", "ts_2")})
    context.task("ts_2", "Echo", entry=False, rules={"on_exit": ("start", "ts_1")})
    context.task("ts_3", "Echo", entry=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = taken.getsockname()[1], *free_ports(1)
        context.subscribe_endpoint, context.publish_endpoint = (f"tcp://127.0.0.1:{port}" for port in ports)
        context.write()
        text = context.file.read_text()
        context.file.write_text(
            text.replace(f"<FrontBind>{context.publish_endpoint}<", f"<FrontBind>tcp://*:{ports[1]}<")
        )
        said = context.ctl("check", str(context.file))
    warnings = said.stderr + said.stdout
    for what in (
        "ring",
        "ts_1 -[on_exit: start]-> ts_2 -[on_exit: start]-> ts_1",
        "ts_3: it waits for a rule, and no rule starts it",
        f"FrontBind tcp://*:{ports[1]} means every address",
        f"{ports[0]}",
        "in use",
    ):
        assert what in warnings, warnings


# --- graph


def test_graph_draws_a_running_context_with_its_states_in_dot_and_mermaid(context: Context) -> None:
    pair(context)
    context.start("--transaction", TX)
    for language, states in (("dot", ("active", "inactive")), ("mermaid", ("active", "inactive"))):
        drawn = context.ctl("graph", "--format", language, context.name).stdout
        nodes = {
            name: line
            for line in drawn.splitlines()
            for name in ("ts_1", "ts_2")
            if name in line and "->" not in line
        }
        for name, state in zip(("ts_1", "ts_2"), states, strict=True):
            assert (
                nodes[name].replace("\\n", " ").replace("<br/>", " ").split('"')[1] == f"{name} Echo {state}"
            )
        assert "on_exit" in drawn
        assert "on_fail" in drawn
    context.ctl("stop", "--task", "ts_1")
    context.task_is("ts_2", "running")
    drawn = context.ctl("graph", context.name).stdout
    assert 'label="ts_1\\nEcho\\ninactive"' in drawn
    assert 'label="ts_2\\nEcho\\nactive"' in drawn
    assert "inactive" not in context.ctl("graph", str(context.file)).stdout, "of a file there are no states"


def test_graph_as_svg_is_a_picture_with_the_states(context: Context) -> None:
    need(shutil.which("dot"), "graphviz is not installed")
    pair(context)
    context.start("--transaction", TX)
    picture = ElementTree.fromstring(context.ctl("graph", "--format", "svg", context.name).stdout)
    texts = [text for text in picture.itertext() if text.strip()]
    assert {"ts_1", "ts_2", "active", "inactive"} <= set(texts)


# --- events


def events(context: Context, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in context.ctl("--json", "events", *arguments).stdout.splitlines()]


def test_events_show_the_requester_the_rule_and_the_exit(context: Context) -> None:
    pair(context)
    context.start("--transaction", TX)
    pid = context.tasks()["ts_1"]["pid"]
    os.kill(pid, signal.SIGSEGV)
    context.task_is("ts_1", "running", also=lambda task: task["pid"] != pid)
    context.ctl("stop", "--task", "ts_1")
    context.task_is("ts_2", "running")
    told = events(context)
    assert [event["seq"] for event in told] == sorted(event["seq"] for event in told)
    by_name = {(event["event"], event["task"]): event["detail"] for event in told}
    assert (
        by_name["failed", "ts_1"] | {"reason": "signal", "signal": "SIGSEGV", "pid": pid}
        == by_name["failed", "ts_1"]
    )
    rules = {
        (event["task"], event["detail"]["rule"], event["detail"]["source"])
        for event in told
        if event["event"] == "rule"
    }
    assert rules == {("ts_1", "on_fail:restart:ts_1", "ts_1"), ("ts_2", "on_exit:start:ts_2", "ts_1")}
    asked = [event["detail"] for event in told if event["event"] == "requested"][-1]
    assert (asked["verb"], asked["tasks"], asked["by"], asked["uid"]) == (
        "stop",
        ["ts_1"],
        "operator",
        os.getuid(),
    )
    assert by_name["stopped", "ts_1"]["exit_code"] == 0
    table = context.ctl("events").stdout
    for words in (f"by=operator uid={os.getuid()}", "signal=SIGSEGV", "rule=on_exit:start:ts_2"):
        assert words in table


def test_events_show_the_uid_that_the_kernel_reports(context: Context) -> None:
    need(os.getuid() == 0, "only root can become another user")
    pair(context)
    context.start("--transaction", TX)
    path = str(context.runtime / context.name / "control.sock")
    request = json.dumps(
        {"verb": "stop", "transaction": TX, "tasks": ["ts_1"], "uid": 0, "origin": {"uid": 0}}
    )
    program = (
        "import os, socket, sys\ns = socket.socket(socket.AF_UNIX)\nos.setgroups([]); os.setuid(65534)\n"
        "s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode() + b'\\n'); print(s.makefile().readline())"
    )
    # A member of the group may give orders. The kernel says who it is, whatever the request contains.
    for place in (context.home, context.runtime, context.runtime / context.name):
        os.chmod(place, 0o755)
    os.chmod(path, 0o666)
    answer = subprocess.run(
        [sys.executable, "-c", program, path, request],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["ok"]
    asked = [
        event["detail"]
        for event in events(context)
        if event["event"] == "requested" and event["detail"]["verb"] == "stop"
    ]
    assert [(each["by"], each["uid"]) for each in asked] == [("operator", 65534)]


def test_events_f_follows(context: Context, home: Path) -> None:
    pair(context)
    context.start("--transaction", TX)
    command = [sys.executable, "-P", "-m", "zmsvc.ctl", "-c", context.name, "events", "-f"]
    with subprocess.Popen(
        command, env=context.environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, bufsize=0
    ) as following:
        assert following.stdout is not None
        try:
            assert "ts_1" in wait_for_line(following.stdout, "started")
            context.ctl("stop", "--task", "ts_1")
            wait_for_line(following.stdout, "verb=stop")
            assert "reason=requested" in wait_for_line(following.stdout, " stopped ")
            # The next supervisor sends it, too, and only once.
            context.kill_supervisor()
            wait_for(lambda: context.status()["pid"])
            context.ctl("stop", "--task", "ts_2")
            assert "ts_2" in wait_for_line(following.stdout, "verb=stop")
        finally:
            following.send_signal(signal.SIGINT)
            following.wait(PATIENCE)


def test_events_are_selected_by_name_and_time_and_shown_as_a_tree(context: Context) -> None:
    pair(context)
    context.start("--transaction", TX)
    context.ctl("stop", "--task", "ts_1")
    context.task_is("ts_2", "running")
    names = [
        (each["event"], each["task"]) for each in events(context, "--event", "stopped", "--event", "rule")
    ]
    assert names == [("stopped", "ts_1"), ("rule", "ts_2")]
    (asked,) = [each for each in events(context, "--event", "requested") if each["detail"]["verb"] == "stop"]
    later = events(context, "--since", asked["at"].replace("T", " ")[:23])
    assert (later[0]["event"], later[-1]["event"], later[-1]["task"]) == ("requested", "started", "ts_2")
    assert events(context, "--since", "+1h") == []

    tree = context.ctl("events", "--tree").stdout
    context.ctl("events", "--tree", "-f", check=2)
    context.ctl("exit")
    context.wait()
    past = context.ctl("events", "--tree").stdout
    shown = [re.sub(r"^.{61}(\s*\S+).*", r"\1", line) for line in past.splitlines()]
    wanted = [
        "requested",
        "  stopping",
        "    stopped",
        "      rule",
        "        launching",
        "          started",
    ]
    assert any(shown[at : at + 6] == wanted for at in range(len(shown))), past
    assert past.startswith(tree.splitlines()[0])
