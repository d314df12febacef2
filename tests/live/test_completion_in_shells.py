"""The names that bash, zsh and fish offer while contexts run, in real shells on a real terminal."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from context import Context
from needs import need_tool
from terminal_window import TerminalWindow, terminal_window
from waiting import PATIENCE, stop_process, wait_for

DATA = Path(__file__).parents[2] / "zmsvc" / "data" / "completion"
BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")
TX = "5HGAHZ3WPZUI71PACRPP"
EVIL = "x$(touch pwned)`touch pwned`;touch pwned;'\"\\ y.xml"
"""A name that runs a command wherever a shell takes it for more than a word."""


@pytest.fixture
def tasks(context: Context) -> Context:
    context.looped("Echo")
    context.task("alpha_1", "Echo")
    context.task("beta_2", "Echo", entry=False)
    context.task("gamma", "Echo", service="<replicas>2</replicas>")
    context.start("--transaction", TX)
    return context


@pytest.fixture
def settled_home(tasks: Context, tmp_path: Path) -> Path:
    """A home with the settings of the three shells, files with evil names, and zmsvcctl, which notes the arguments
    of `check`.
    """
    program = tmp_path / "bin" / "zmsvcctl"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/sh
[ "$1" != check ] || {{ printf '%s\\n' "$@" > "{tmp_path}/new"; mv "{tmp_path}/new" "{tmp_path}/arguments"; exit; }}
exec '{sys.executable}' -P -m zmsvc.ctl "$@"
"""
    )
    program.chmod(0o755)
    (program.parent / "zmsvcd").symlink_to("/bin/true")  # fish completes no program that is not there.
    (tmp_path / "completions").mkdir()
    for file in DATA.glob("*.bash"):
        (tmp_path / "completions" / file.name).symlink_to(file)
    (tmp_path / "bashrc").write_text(f"PS1='$ '; . {BASH_COMPLETION}\n")
    (tmp_path / ".zshrc").write_text(
        f"PS1='$ '; fpath=({DATA} {DATA / 'units'} $fpath); autoload -U compinit; compinit -u -D\n"
    )
    for place, sources in (("completions", DATA), ("conf.d", DATA / "units")):
        folder = tmp_path / ".config" / "fish" / place
        folder.mkdir(parents=True)
        for file in sources.glob("*.fish"):
            (folder / file.name).symlink_to(file)
    contexts = tmp_path / "contexts"
    contexts.mkdir()
    for name in ("Delta", "Ep:silon", EVIL.removesuffix(".xml")):
        (contexts / f"Context-{name}.xml").touch()
    (tmp_path / "a file.xml").touch()
    (tmp_path / EVIL).touch()
    return tmp_path


COMMANDS = {
    "bash": ["bash", "--noprofile", "--rcfile", "bashrc", "-i"],
    "zsh": ["zsh", "-d", "-i"],
    "fish": ["fish", "-i"],
}


@pytest.fixture(params=COMMANDS)
def shell(request: pytest.FixtureRequest, tasks: Context, settled_home: Path) -> Iterator[TerminalWindow]:
    """A shell in that home."""
    name = str(request.param)
    home = settled_home
    need_tool(shutil.which(name), f"{name} is not installed")
    need_tool(BASH_COMPLETION.exists(), "bash-completion is not installed")
    environment = tasks.environment | {
        "PATH": f"{home}/bin:{os.environ['PATH']}",
        "HOME": str(home),
        "ZDOTDIR": str(home),
        "XDG_CONFIG_HOME": f"{home}/.config",
        "XDG_DATA_HOME": f"{home}/.local",
        "ZMSVC_CONFIG_DIR": f"{home}/contexts",
        "BASH_COMPLETION_USER_DIR": str(home),
        "BASH_COMPLETION_COMPAT_DIR": str(DATA / "units"),
    }
    words = ["env", "-C", str(home), *COMMANDS[name]]
    with terminal_window(home, environment, shell=words, columns=150) as window:
        window.type("echo re''ady")
        window.press("Enter")
        window.shows("\nready")
        yield window


def completed(window: TerminalWindow, typed: str, line: str) -> None:
    """Type the beginning of a line, and press Tab until the shell has completed it to this line."""
    window.type(typed)
    for _ in range(20):
        window.press("Tab")
        try:
            wait_for(lambda: line in window.screen(), PATIENCE / 20)
        except AssertionError:
            continue  # `words` gives up after half a second, which a busy machine may need.
        break
    assert line in window.screen(), window.screen()
    window.press("C-u", "C-l")

    def gone() -> bool:
        seen = window.screen()
        assert typed not in seen, seen
        return True

    wait_for(gone)


def test_names_are_completed(shell: TerminalWindow, settled_home: Path) -> None:
    ssh = settled_home / "bin" / "ssh"
    ssh.write_text(f"#!/bin/sh\ntouch {settled_home}/asked\n")
    ssh.chmod(0o755)
    shell.type("zmsvcctl -H elsewhere stop al")
    shell.press("Tab", "Tab")
    shell.press("C-u")
    completed(shell, "zmsvcctl stop al", "zmsvcctl stop alpha_1")
    completed(shell, "zmsvcctl stop --task alpha_1 gamma@2", "alpha_1 gamma@2")
    completed(shell, "zmsvcctl signal HUP alpha_1 be", "zmsvcctl signal HUP alpha_1 beta_2")
    completed(shell, "zmsvcctl logs --transaction 5", f"zmsvcctl logs --transaction {TX}")
    completed(shell, f"zmsvcctl -c Live why --transaction {TX} be", f"--transaction {TX} beta_2")
    completed(shell, "zmsvcctl --context=De", "zmsvcctl --context=Delta")
    completed(shell, "zmsvcctl -c Ep:s", "Ep:silon")
    completed(shell, "zmsvcctl graph Liv", "zmsvcctl graph Live")
    completed(shell, "zmsvcd --det", "zmsvcd --detach")
    completed(shell, "zmsvcd --detach De", "zmsvcd --detach Delta")
    assert not (settled_home / "asked").exists(), "ssh would ask for a password on the line"


def test_no_name_is_executed_or_breaks_the_line(shell: TerminalWindow, settled_home: Path) -> None:
    home = settled_home
    for typed in ("zmsvcctl -c ", "zmsvcctl stop ", "zmsvcctl graph "):
        shell.type(typed)
        shell.press("Tab", "Tab")
        shell.press("C-u", "C-l")
    for typed, name in (("zmsvcctl check a", "a file.xml"), ("zmsvcctl check x", EVIL)):
        noted = home / "arguments"
        for _ in range(3):
            shell.type(typed)
            shell.press("Tab", "Enter")
            wait_for(noted.exists)
            given = noted.read_text().splitlines()
            noted.unlink()
            if given == ["check", name]:
                break
        assert given == ["check", name]
    assert not (home / "pwned").exists()
    assert not (home / "contexts" / "pwned").exists()


# --- systemctl


@pytest.mark.parametrize("shell", ["bash", "zsh"], indirect=True)
def test_systemctl_is_offered_the_contexts(shell: TerminalWindow, settled_home: Path) -> None:
    completed(shell, "systemctl start zmsvc@Del", "systemctl start zmsvc@Delta.service")
    completed(shell, "systemctl status zmsvc@Ep:s", "systemctl status zmsvc@Ep")
    assert not (settled_home / "pwned").exists()


def test_fish_offers_systemctl_the_contexts(settled_home: Path) -> None:
    """Its own completion runs systemctl, which complains on the terminal without a systemd."""
    need_tool(shutil.which("fish"), "fish is not installed")
    line = "systemctl start zmsvc@"
    script = f'source "{DATA}/units/zmsvc.fish"; complete -C "{line}"'
    contexts = {"ZMSVC_CONFIG_DIR": str(settled_home / "contexts")}
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        cwd=settled_home,
        env={**os.environ, **contexts},
        capture_output=True,
        text=True,
    )
    offered = {each.split("\t")[0] for each in done.stdout.splitlines()}
    assert {name for name in offered if "@" in name} >= {"zmsvc@Delta.service", "zmsvc@Ep:silon.service"}
    assert "pwned" not in done.stdout
    assert not (settled_home / "pwned").exists()


# --- the verb behind it


def words(context: Context, *arguments: str) -> list[str]:
    """Return the names; a busy machine may take longer than the limit of the verb."""

    def fact() -> list[str]:
        done = context.ctl(*arguments)
        assert done.stderr == ""
        return done.stdout.splitlines()

    return wait_for(fact)


def test_words_prints_names(tasks: Context) -> None:
    expected = ["alpha_1", "beta_2", "gamma", "gamma@1", "gamma@2"]
    assert words(tasks, "words", "tasks") == expected
    assert words(tasks, "words", "transactions") == [TX]
    assert words(tasks, "words", "contexts") == ["Live"]
    assert tasks.ctl("words", "tasks", "--transaction", "OTHER").stdout == ""


def test_words_says_nothing_when_it_fails(context: Context) -> None:
    for arguments in (("tasks",), ("transactions",), ("contexts",)):
        done = context.ctl("words", *arguments)
        assert (done.stdout, done.stderr) == ("", "")


def test_a_hung_supervisor_is_not_waited_for(tasks: Context) -> None:
    pid = tasks.status()["pid"]
    stop_process(pid)
    try:
        for kind in ("tasks", "transactions"):
            done = tasks.ctl("words", kind, timeout=10)
            assert (done.stdout, done.stderr) == ("", "")
    finally:
        os.kill(pid, 18)


def test_the_names_of_a_lying_supervisor_are_left_out(context: Context) -> None:
    place = context.runtime / context.name
    place.mkdir(parents=True)
    named = [{"id": name} for name in (EVIL, "a b", "\x1b[2J", "-x\n", "", None, 7, "good_1", "good@2")]
    answer = {
        "ok": True,
        "data": {"transactions": [{"id": EVIL, "tasks": named}, {"id": "RUN", "tasks": []}]},
    }
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place / "control.sock"))
        listening.listen()

        def serve() -> None:
            while True:
                try:
                    with listening.accept()[0] as client:
                        if client.recv(65536):
                            client.sendall(json.dumps(answer).encode() + b"\n")
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        assert words(context, "words", "tasks") == ["good_1", "good", "good@2"]
        assert words(context, "words", "transactions") == ["RUN"]
        listening.shutdown(socket.SHUT_RDWR)


def test_words_imports_little(tasks: Context) -> None:
    """Measured: 0.05 s of CPU time, most of it for imports. A shell waits for it at each Tab."""
    command = [
        sys.executable,
        "-P",
        "-X",
        "importtime",
        "-m",
        "zmsvc.ctl",
        "-c",
        tasks.name,
        "words",
        "tasks",
    ]
    done = subprocess.run(command, env=tasks.environment, capture_output=True, text=True, check=True)
    imported = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line]
    assert {"asyncio", "lxml", "psutil", "sqlite3", "subprocess", "zmq"}.isdisjoint(imported)
    assert len(imported) < 160, "101 with Python 3.11"
