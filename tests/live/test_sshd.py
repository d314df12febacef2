"""`zmsvcctl -H` with the system's ssh and a real sshd on loopback: what a fake of them would not show."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import json_shapes
import psutil
import pytest
from context import Context
from ports import free_ports
from terminal_window import terminal_window
from waiting import wait_for, wait_for_line

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH')}:/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or SSHD is None or shutil.which("ssh") is None, reason="needs root, ssh and sshd"
)
SERVER = """\
ListenAddress 127.0.0.1:{port}
HostKey {home}/host
AuthorizedKeysFile {home}/client.pub
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
AcceptEnv ZMSVC_*
SetEnv PATH={home}/bin:/usr/bin:/bin
"""
CLIENT = """\
Host one
    SetEnv ZMSVC_CONFIG_DIR={home} ZMSVC_RUNTIME_DIR={home}/run ZMSVC_STATE_DIR={home}/state
Host two
    SetEnv ZMSVC_CONFIG_DIR={home}/2 ZMSVC_RUNTIME_DIR={home}/2 ZMSVC_STATE_DIR={home}/2
Host dead
    Port {dead}
Host *
    HostName 127.0.0.1
    Port {port}
    IdentityFile {home}/client
    IdentitiesOnly yes
    HostKeyAlias loopback
    UserKnownHostsFile {home}/known
"""


@pytest.fixture
def sshd(context: Context, monkeypatch: pytest.MonkeyPatch) -> Iterator[psutil.Process]:
    """An sshd with keys of its own. `ssh one` and `ssh two` have different homes, `ssh dead` has no listener."""
    home = context.home
    (home / "bin").mkdir()
    (home / "2").mkdir()
    port, dead = free_ports(2)
    for name in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / name], check=True)
    (home / "known").write_text("loopback " + (home / "host.pub").read_text())
    (home / "server.conf").write_text(SERVER.format(home=home, port=port))
    (home / "client.conf").write_text(CLIENT.format(home=home, port=port, dead=dead))
    for name, command in {
        "ssh": f'{shutil.which("ssh")} -F {home}/client.conf "$@"',
        "zmsvcctl": f'{sys.executable} -P -m zmsvc.ctl "$@"',
    }.items():
        (home / "bin" / name).write_text(f"#!/bin/sh\nexec {command}\n")
        (home / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}/bin:{os.environ['PATH']}")
    # Debian's unit makes it; without it sshd does not start.
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with subprocess.Popen(
        [str(SSHD), "-D", "-e", "-f", home / "server.conf"], stderr=subprocess.PIPE, bufsize=0
    ) as server:
        assert server.stderr is not None
        try:
            wait_for_line(server.stderr, "Server listening")
            yield psutil.Process(server.pid)
        finally:
            kill(there(psutil.Process(server.pid)))
            server.kill()


def ctl(*words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "zmsvc.ctl", *words], capture_output=True, text=True, timeout=60
    )
    json_shapes.check_output(words, done.returncode, done.stdout)
    return done


def test_hosts_answer_over_ssh_and_what_runs_there_ends_with_ctrl_c(
    context: Context, sshd: psutil.Process
) -> None:
    start_echo(context)

    asked = ctl("--json", "-H", "one,two,dead", "-c", "Live", "status")
    one, two, dead = json.loads(asked.stdout)["hosts"]
    assert asked.returncode == 5
    assert [(each["host"], each["code"]) for each in (one, two, dead)] == [
        ("one", 0),
        ("two", 4),
        ("dead", 5),
    ]
    assert one["answer"]["contexts"][0]["transactions"][0]["tasks"][0]["id"] == "ts_1"
    assert "connect to host 127.0.0.1 port" in dead["error"]
    assert "Connection refused" in dead["error"]

    evil = f"it's; touch {context.home}/evil $(touch {context.home}/evil)"
    stopped = ctl("-H", "root@one", "stop", evil)
    assert (stopped.returncode, "it's; touch" in stopped.stderr) == (4, True)
    assert not (context.home / "evil").exists()

    with subprocess.Popen(
        [sys.executable, "-P", "-m", "zmsvc.ctl", "-H", "one,dead", "events", "-f"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    ) as following:
        assert following.stdout is not None
        line = wait_for_line(following.stdout, "started")
        assert line.startswith("one:  2"), line
        assert there(sshd)
        following.send_signal(signal.SIGINT)
        assert following.wait(20) == 0
    wait_for(lambda: not there(sshd))


def test_the_table_of_a_host_is_drawn_here_and_ends_there(
    context: Context, sshd: psutil.Process, tmp_path: Path
) -> None:
    start_echo(context)
    with terminal_window(tmp_path, {"PATH": os.environ["PATH"]}) as window:
        window.run("zmsvcctl", "-H", "one", "top")
        window.shows("1 of 1 task active", "ts_1", "q quit")
        window.press("w")
        window.shows("ts_1 became ready")
        assert there(sshd)
        window.press("q")
        window.shows_first_screen()
        wait_for(lambda: not there(sshd))
        # ssh throws away what is typed before it has restored the terminal.
        wait_for(lambda: window.screen().rstrip().endswith("$"))
        window.type("echo status=$?; stty -a")
        window.press("Enter")
        window.shows("status=0\n", " icanon ", " echo ")


def test_a_lost_connection_leaves_a_terminal_that_can_be_used(
    context: Context, sshd: psutil.Process, tmp_path: Path
) -> None:
    start_echo(context)
    with terminal_window(tmp_path, {"PATH": os.environ["PATH"]}) as window:
        window.type("zmsvcctl -H one top")
        window.press("Enter")
        window.shows("1 of 1 task active", "q quit")
        assert window.mode() == "second screen without a cursor"
        kill(there(sshd))
        window.shows("the connection to one is lost")
        assert window.mode() == "first screen with a cursor"


def start_echo(context: Context) -> None:
    """Start the context with one task."""
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start()


def there(sshd: psutil.Process) -> list[psutil.Process]:
    """Return the sessions of the sshd and the processes in them."""
    return sshd.children(recursive=True)


def kill(processes: Iterable[psutil.Process]) -> None:
    for each in processes:
        # With its session a process may end by itself.
        with suppress(psutil.NoSuchProcess):
            each.kill()
