"""`zmsvcctl top` on a real terminal, with a real context: keys, orders, panes, and what it leaves behind."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from context import Context
from terminal_window import TerminalWindow, terminal_window
from waiting import stop_process, wait_for

TX = "5HGAHZ3WPZUI71PACRPP"
Opener = Callable[..., TerminalWindow]


@pytest.fixture
def three(context: Context) -> Context:
    """A context with a task that works, one that its end starts, and one that fails."""
    context.looped("Echo", "def setup(self):\n    self.log.info('hello from the log')")
    context.looped("Fails", "def setup(self):\n    raise RuntimeError('broken \\x1b]0;evil\\x07 wire')")
    context.task("ts001", "Echo", rules={"on_exit": ("start", "ts002")})
    context.task("ts002", "Echo", entry=False)
    context.task("ts003", "Fails", entry=False)
    context.start("--transaction", TX)
    context.ctl("start", "--transaction", TX, "ts003", check=1)
    return context


@pytest.fixture
def window(three: Context, tmp_path: Path) -> Iterator[TerminalWindow]:
    """A terminal in which `top` runs."""
    with terminal_window(tmp_path, three.environment) as opened:
        begin(opened, three)
        yield opened


def begin(window: TerminalWindow, context: Context, *, setting: str = "A=b") -> None:
    """Run `top` with a variable."""
    program = ["env", setting, sys.executable, "-P", "-m", "zmsvc.ctl", "-c", context.name]
    window.run(*program, "top", "--sort", "id", "--interval", "0.3")
    window.shows("Live: ", "ts001", "? help")


def leave(window: TerminalWindow) -> None:
    """End `top`, and wait for it: what is typed before that may be a key of `top`, and the screen is its own."""
    window.press("q")
    window.shows_first_screen()


def left(window: TerminalWindow, status: int) -> None:
    """Wait until the shell is back, with the exit status of `top`, and check the terminal's settings."""
    window.shows_first_screen()
    window.type("echo status=$?; stty -a")
    window.press("Enter")
    seen = window.shows(f"status={status}\n", " icanon ", " echo ")
    assert " -icanon" not in seen
    assert "ts001" not in seen.split("status=")[1], "the table is gone"


def test_rows_are_selected_and_orders_given(window: TerminalWindow, three: Context) -> None:
    seen = window.shows("1 of 3 tasks active, 1 failed", "\N{MULTIPLICATION SIGN} ts003")
    assert "MISSED" in seen
    window.press("x")
    window.shows(f"(y/n) stop {TX}/ts001?")
    assert three.tasks(TX)["ts001"]["state"] == "active", "not before the answer"
    window.press("n")
    window.shows("nothing was ordered")
    window.type("xy")
    window.shows(f"(y/n) stop {TX}/ts001?")
    assert three.tasks(TX)["ts001"]["state"] == "active", (
        "a key that came with the question does not answer it"
    )
    window.press("y")
    window.shows(f"stop {TX}/ts001: inactive (stopped)", "● ts002")
    three.task_is("ts002", "running")
    window.press("s")
    window.shows(f"start {TX}/ts001: active (running)")
    before = three.tasks(TX)["ts001"]["pid"]
    window.press("k")
    window.shows(f"signal to {TX}/ts001: TERM")
    window.press("Up", "Up", "Up", "Up")
    window.shows("KILL")
    window.press("Enter")
    window.shows(f"sent to PID {before}")
    three.task_is("ts001", "failed")
    window.press("r")
    window.shows("(y/n) restart")
    window.press("y")
    window.shows(f"restart {TX}/ts001: active (running)")
    window.press("Down", "k")
    window.shows("signal to")
    window.press("Z", "Enter")
    window.shows("cannot signal")


def test_log_and_explanation_of_the_row(window: TerminalWindow) -> None:
    window.press("l")
    window.resize(columns=160, lines=24)
    window.shows(f"log of {TX}/ts001", "hello from the log")
    window.press("End", "w")
    window.shows(f"why {TX}/ts003", "Because:")
    window.press("Tab", "End")
    window.shows("RuntimeError", "]0;evil")
    window.press("Escape")
    wait_for(lambda: "Because" not in window.screen())


def test_the_trees_and_the_help(window: TerminalWindow, three: Context) -> None:
    three.ctl("stop", "--transaction", TX, "ts001")
    window.press("t")
    window.shows("tree by transaction", f"{TX} failed, 1 of 3 tasks active", "└─ts003")
    window.press("t")
    window.shows("tree by cause", "CAUSE", "on_exit of ts001", "└─ts002")
    window.press("?")
    window.shows("by CPU, memory, PID", "any key closes the help")
    window.press("q")
    window.shows("tree by cause")


def test_the_filter_and_the_size(window: TerminalWindow) -> None:
    window.press("/")
    window.type("fail")
    window.press("Enter")
    seen = window.shows("2 hidden by the filter fail")
    assert "ts001" not in seen
    window.press("Escape")
    window.shows("ts001")
    window.resize(columns=40, lines=6)
    seen = window.shows("not shown: 1 above", "ts003")
    assert max(map(len, seen.splitlines())) <= 40
    window.press("Home")
    window.shows("not shown: 1 below", "ts001")
    window.resize(columns=120, lines=20)
    window.shows("THREADS", "ts001", "w why")


def test_the_terminal_is_restored_by_each_end(window: TerminalWindow, three: Context) -> None:
    window.press("q")
    left(window, 0)
    begin(window, three)
    window.press("C-c")
    left(window, 0)
    begin(window, three)
    (top,) = psutil.Process(window.shell()).children()
    top.terminate()
    left(window, 128 + signal.SIGTERM)
    begin(window, three)
    window.press("C-z")
    window.shows("Stopped")
    window.type("fg")
    window.press("Enter")
    window.shows("Live: ", "ts001", "? help")
    window.press("q")
    left(window, 0)


def test_without_anything_to_show_it_ends_as_before(window: TerminalWindow, three: Context) -> None:
    leave(window)
    window.run(sys.executable, "-P", "-m", "zmsvc.ctl", "-c", three.name, "top", "--transaction", "NOBODY")
    window.shows("no such transaction")
    window.type("echo status=$?")
    window.press("Enter")
    window.shows("status=4\n")


def test_it_ends_when_its_terminal_is_gone(window: TerminalWindow) -> None:
    (top,) = psutil.Process(window.shell()).children()
    window.press("x")  # It need not be in the table.
    os.kill(window.shell(), signal.SIGKILL)
    psutil.wait_procs([top], timeout=25)
    assert not top.is_running()
    with pytest.raises(AssertionError):
        window.screen()
    window.close = lambda: None  # type: ignore[method-assign]


def test_a_hung_supervisor_does_not_hang_the_screen(window: TerminalWindow, three: Context) -> None:
    supervisor = three.status()["pid"]
    stop_process(supervisor)
    try:
        window.shows("the supervisor has not answered for", "s ago: 1 of 3 tasks")
        window.press("s")
        window.shows(f"start {TX}/ts001 ...")
        window.press("?")
        window.shows("any key closes the help")
        window.press("q")
    finally:
        os.kill(supervisor, signal.SIGCONT)
    window.shows(f"start {TX}/ts001: active (running)")
    wait_for(lambda: "has not answered" not in window.screen())


def test_a_context_that_ends_is_told(window: TerminalWindow, three: Context) -> None:
    assert three.stop() == 0
    # The last look may have found the tasks stopped, or none any more.
    window.shows("cannot reach the supervisor", "s ago: ")
    window.press("q")
    left(window, 0)


def test_colors_and_characters_as_the_user_wants_them(window: TerminalWindow, three: Context) -> None:
    for variable, colored in (("A=b", True), ("NO_COLOR=1", False), ("SYSTEMD_COLORS=0", False)):
        leave(window)
        begin(window, three, setting=variable)
        window.shows("\N{MULTIPLICATION SIGN} ts003")
        line = next(line for line in window.screen(escapes=True).splitlines() if "ts003" in line)
        codes = {code for found in re.findall(r"\x1b\[([\d;]*)m", line) for code in found.split(";")}
        assert ("31" in codes, "1" in codes) == (colored, True), "bold all the same"
    leave(window)
    begin(window, three, setting="SYSTEMD_UTF8=0")
    window.press("t")
    window.shows("`-ts003", "x `-ts003")
    assert window.screen().isascii()


def test_a_terminal_without_a_cursor_gets_one_table(window: TerminalWindow, three: Context) -> None:
    window.resize(columns=140, lines=24)
    leave(window)
    for kind in ("dumb", "no-such-terminal"):
        window.run("env", f"TERM={kind}", sys.executable, "-P", "-m", "zmsvc.ctl", "-c", three.name, "top")
        seen = window.shows("1 of 3 tasks active", "CHILDREN", "ts003")
        assert ("this is one table" in seen) is (kind != "dumb")
        window.type("echo status=$?")
        window.press("Enter")
        window.shows("status=0\n")
        window.type("clear")
        window.press("Enter")
