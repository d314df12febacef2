"""No text of a task or of another user can control the terminal of the person who reads it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import zmq
from context import Context
from others import others
from waiting import PATIENCE, wait_for, wait_for_line

SCRIPTS = Path(__file__).parents[2] / "scripts"
EVIL = "\x1b]0;evil\x07\x1b[2J\x9b31m\u202egnp.exe"
"""This sets a title, clears the screen, uses a C1 control character, and reverses the direction of text."""

LOUD = f"""
def setup(self):
    self.log.info({EVIL!r})
    print({EVIL!r})
    self.update(text={EVIL!r})
"""

FAILS = f"""
def setup(self):
    raise RuntimeError({EVIL!r})
"""


def harmless(text: str) -> bool:
    """Return True if a terminal only shows the text, in our own colors."""
    plain = re.sub(r"\x1b\[0(;1;\d\d|;38;5;245)?m", "", text)
    return all(char.isprintable() or char in "\n\t" for char in plain)


@pytest.fixture
def loud(context: Context) -> Context:
    """A context that logs into a file, from Python and from another program, with a task that has failed."""
    context.looped("Loud", LOUD)
    context.looped("Fails", FAILS)
    context.task("ts_1", "Loud")
    program = context.home / "program"
    program.write_bytes(f"#!/bin/sh\nprintf '%s\\n' '{EVIL}'; exec sleep 1000\n".encode())
    program.chmod(0o755)
    context.task("ts_2", "program", kind="Command", config=f"<command>{program}</command>")
    context.task("ts_3", "Fails", entry=False)
    context.start("--transaction", "TX")
    context.ctl("start", "--transaction", "TX", "ts_3", check=1)
    log = context.home / "state" / context.name / "zmsvcd.log"
    wait_for(lambda: log.read_bytes().count(b"gnp.exe") >= 4)
    return context


@pytest.mark.parametrize(
    "words",
    [
        ("logs",),
        ("logs", "--transaction", "TX", "ts_1"),
        ("logs", "-n", "50"),
        ("status",),
        ("events",),
        ("list",),
        ("top", "--once"),
    ],
    ids=" ".join,
)
def test_what_tasks_log_and_print_is_shown_without_control_characters(
    loud: Context, words: tuple[str, ...]
) -> None:
    done = loud.ctl(*words, check=None)
    assert harmless(done.stdout), ascii(done.stdout)
    assert harmless(done.stderr), ascii(done.stderr)
    if words[0] == "logs":
        assert r"\x1b]0;evil\x07" in done.stdout


def test_messages_on_the_bus_are_shown_without_control_characters(loud: Context) -> None:
    display = [sys.executable, "-P", str(SCRIPTS / "display.py"), "--count", "2", loud.subscribe_endpoint]
    watch = [sys.executable, "-P", "-m", "zmsvc.ctl", "-c", "Live", "watch", "--count", "2"]
    body = {"header": {"service_transaction": EVIL, "action": EVIL, EVIL: EVIL}, "content": {EVIL: [EVIL]}}
    message = f"e{EVIL} @@@ {json.dumps(body, ensure_ascii=False)}".encode()
    monitored = (
        f"monitor @@@ "
        f"{json.dumps({EVIL: [{'serviceId': EVIL, 'pid': EVIL, 'children': EVIL}]}, ensure_ascii=False)}"
    ).encode()
    for command in (display, watch):
        with zmq.Context() as ctx, ctx.socket(zmq.XPUB) as evil:
            evil.linger = 0
            evil.connect(loud.publish_endpoint)
            running = subprocess.Popen(
                command, env=loud.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            with running:
                # The supervisor subscribes only to its own topics. The subscription to everything is that of
                # the command.
                while evil.recv() != b"\x01":
                    pass
                evil.send(message)
                evil.send(monitored)
                out, err = running.communicate(timeout=30)
        assert running.returncode == 0, err
        assert out.count("gnp.exe") >= 2
        assert harmless(out + err), ascii(out + err)


def test_a_format_of_journalctl_that_escapes_nothing_is_cleaned_on_a_terminal(context: Context) -> None:
    context.task("ts_1", "sleep", kind="Command", config="<command>sleep 1000</command>")
    (context.home / "Services").mkdir()
    context.write()
    fake = context.home / "bin" / "journalctl"
    fake.parent.mkdir()
    fake.write_bytes(f"#!/bin/sh\nprintf '%s\\n' '{EVIL}'\n".encode())
    fake.chmod(0o755)
    ours, its = pty.openpty()
    environment = context.environment | {"PATH": f"{fake.parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-P", "-m", "zmsvc.ctl", "-c", context.name, "logs", "-o", "cat"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=its, stderr=its):
        os.close(its)
        seen = b""
        while b"gnp.exe" not in seen:
            seen += os.read(ours, 65536)
    os.close(ours)
    assert harmless(seen.decode().replace("\r\n", "\n")), ascii(seen)


def test_followed_log_lines_are_shown_without_control_characters(loud: Context) -> None:
    command = [sys.executable, "-P", "-m", "zmsvc.ctl", "-c", "Live", "logs", "-f", "-n", "1"]
    with subprocess.Popen(command, env=loud.environment, stdout=subprocess.PIPE, bufsize=0) as follower:
        try:
            assert follower.stdout is not None
            wait_for_line(follower.stdout, "ts_")
            loud.ctl("restart", "--task", "ts_1")
            assert harmless(wait_for_line(follower.stdout, "gnp.exe"))
        finally:
            follower.send_signal(signal.SIGINT)


def test_the_log_file_of_a_lying_supervisor_is_not_waited_for(context: Context) -> None:
    """A task of the daemon's user can put its own socket in the place of control.sock, and root connects to
    it.
    """
    pipe = context.home / "pipe"
    os.mkfifo(pipe)
    place = context.runtime / context.name
    place.mkdir(parents=True)
    answer = {
        "ok": True,
        "code": 0,
        "data": {"name": EVIL, "state": EVIL, "id": EVIL, "log": str(pipe), "transactions": [], "file": EVIL},
    }
    server = f"""
import socket
with socket.socket(socket.AF_UNIX) as listening:
    listening.bind({str(place / "control.sock")!r})
    listening.listen()
    print("up", flush=True)
    while True:
        with listening.accept()[0] as client:
            if client.recv(65536):
                client.sendall({json.dumps(answer).encode()!r} + b"\\n")
"""
    with subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE, bufsize=0) as running:
        try:
            assert running.stdout is not None
            wait_for_line(running.stdout, "up")
            for words in (("status",), ("list",), ("logs",), ("top", "--once")):
                done = context.ctl(*words, check=None, timeout=20)
                assert harmless(done.stdout + done.stderr), ascii(done.stdout + done.stderr)
            assert "not a regular file" in context.ctl("logs", check=1).stderr
        finally:
            running.kill()


def test_a_socket_of_another_user_is_not_used_as_the_supervisor(context: Context) -> None:
    stranger = others(1)[0]
    place = context.runtime / context.name
    place.mkdir(parents=True)
    for directory in (context.home, context.runtime, place):
        directory.chmod(0o755)
    place.chmod(0o1777)
    code = (
        f"import socket, time; s = socket.socket(socket.AF_UNIX); s.bind({str(place / 'control.sock')!r}); "
        f"s.listen(); time.sleep(1000)"
    )
    with subprocess.Popen(
        ["setpriv", f"--reuid={stranger}", "--clear-groups", sys.executable, "-c", code]
    ) as running:
        try:
            wait_for((place / "control.sock").exists)
            told = wait_for(lambda: context.ctl("status", check=5, timeout=20).stderr)
            assert f"belongs to uid {stranger}, who does not own its directory" in told
        finally:
            running.kill()


def test_start_up_errors_are_shown_without_control_characters(context: Context) -> None:
    context.looped("Fails", FAILS)
    context.task("ts_1", "Fails")
    context.write()
    command = [sys.executable, "-P", "-m", "zmsvc.keeper", "--detach"]
    done = subprocess.run(
        [*command, str(context.file)], env=context.environment, capture_output=True, text=True, timeout=60
    )
    try:
        assert (done.returncode, "gnp.exe" in done.stderr) == (0, True)
        assert harmless(done.stderr), ascii(done.stderr)
    finally:
        context.ctl("exit")


def test_errors_of_a_detached_daemon_are_shown_without_control_characters(context: Context) -> None:
    folder = context.home / f"d{EVIL}"
    folder.mkdir()
    file = folder / "Context-Live.xml"
    file.write_text("<Context></Contxt>")
    command = [sys.executable, "-P", "-m", "zmsvc.keeper", "--detach", str(file)]
    done = subprocess.run(command, env=context.environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "gnp.exe" in done.stderr) == (2, True)
    assert harmless(done.stderr), ascii(done.stderr)


def test_a_foreground_daemon_writes_no_control_characters(context: Context) -> None:
    context.looped("Loud", LOUD)
    context.task("ts_1", "Loud")
    context.write()
    ours, its = pty.openpty()
    command = [sys.executable, "-P", "-m", "zmsvc.keeper", "--foreground", str(context.file)]
    with subprocess.Popen(
        command, env=context.environment, stdin=subprocess.DEVNULL, stdout=its, stderr=its
    ) as daemon:
        os.close(its)
        seen = b""
        try:
            while seen.count(b"gnp.exe") < 2:
                seen += os.read(ours, 65536)
        finally:
            daemon.terminate()
            daemon.wait(PATIENCE)
    # The terminal itself adds the carriage returns.
    assert harmless(seen.decode().replace("\r\n", "\n")), ascii(seen)
