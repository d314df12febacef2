"""`zmsvcctl -H HOST,HOST cluster check` compares hosts. Here each host is a directory, and ssh a program of the test
that runs the command in it by a shell, as sshd does. `make cluster` uses the real ssh.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import json_shapes
import pytest
from context import Context

SSH = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
host=$2
shift 2
export ZMSVC_CONFIG_DIR={home}/$host ZMSVC_RUNTIME_DIR={home}/$host/run ZMSVC_STATE_DIR={home}/$host/state
[ -e "$ZMSVC_CONFIG_DIR" ] || {{ echo "ssh: no route" >&2; exit 255; }}
exec sh -c "$*"
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hosts(tmp_path: Path) -> Run:
    """Return a zmsvcctl that reaches two hosts, h1 and h2, with the same context, which differ in a service."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(SSH.format(home=tmp_path))
    (programs / "zmsvcctl").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m zmsvc.ctl "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    for name in ("h1", "h2"):
        (tmp_path / name).mkdir()
        context = Context(tmp_path / name)
        context.looped("Echo")
        context.task("ts_1", "Echo")
        context.edit = lambda text: text.replace(str(tmp_path / "h2"), str(tmp_path / "h1"))
        context.write()
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "zmsvc.ctl", *words]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        json_shapes.check_output(words, done.returncode, done.stdout)
        return done

    return run


def test_what_differs_between_hosts_is_named_with_the_hosts(hosts: Run, tmp_path: Path) -> None:
    same = hosts("-H", "h1,h2", "-c", "Live", "cluster", "check")
    assert "h1: not ready" in same.stdout
    assert "the hosts do not differ" in same.stdout
    (tmp_path / "h2/Context-Live.xml").write_text((tmp_path / "h1/Context-Live.xml").read_text() + "<!-- -->")
    done = hosts("-H", "h1,h2", "-c", "Live", "cluster", "check")
    assert "fault: the context file differs: h1 " in done.stdout
    assert done.returncode == 1


def test_a_host_that_cannot_be_reached_is_named_and_the_others_are_checked(hosts: Run) -> None:
    done = hosts("-H", "h1,away", "--json", "-c", "Live", "cluster", "check")
    told = json.loads(done.stdout)
    assert [(row["host"], row["code"]) for row in told["hosts"]] == [("h1", 1), ("away", 5)]
    assert told["differences"] == []
    assert done.returncode == 5


def test_a_host_for_tasks_alone_has_keys_of_its_own(hosts: Run, tmp_path: Path) -> None:
    first, second = (tmp_path / name / "Context-Live.xml" for name in ("h1", "h2"))
    listed = f'<hosts endpoint="tcp://10.0.0.9:5558">{os.uname().nodename}</hosts>'
    first.write_text(first.read_text().replace("<TaskService", f"{listed}<TaskService", 1))
    second.write_text(first.read_text())
    without = hosts("-H", "h1", "-c", "Live", "cluster", "check").stdout
    assert "fault: the context has <hosts>, and no keys in" in without

    def keys(host: str, *words: str) -> None:
        home = {"ZMSVC_CONFIG_DIR": str(tmp_path / host), "ZMSVC_RUNTIME_DIR": str(tmp_path / host / "run")}
        command = [sys.executable, "-P", "-m", "zmsvc.ctl", "-c", "Live", "keys", *words]
        subprocess.run(command, env=os.environ | home, check=True, capture_output=True)

    keys("h1", "make")
    keys("h2", "join", str(tmp_path / "h1/keys/Live/server.key"))
    done = hosts("-H", "h1,h2", "-c", "Live", "cluster", "check").stdout
    assert "the hosts do not differ" in done
    assert "<hosts>" not in done
    second.write_text(second.read_text().replace(f">{os.uname().nodename}<", ">h9<"))
    assert "warning: " in (told := hosts("-H", "h2", "-c", "Live", "cluster", "check").stdout)
    assert "<hosts> does not name this host" in told
