"""journald: the last line of a dying program is always in the place where an operator looks for it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from installed import Installed
from waiting import wait_for

ROUNDS = 100
"""The number of ends of each kind."""


def command(name: str, number: int, script: str) -> str:
    """Return a Command that a shell runs."""
    return f"""
    <TaskService id="{name}{number}" topic="process" instance="Dies" serviceType="Command">
        <Task>
            <description>Dies</description>
            <message>
                <header><action>start</action><service_name>dies</service_name></header>
                <content><configuration><command><arg>/bin/sh</arg><arg>-c</arg><arg>{script}</arg></command></configuration></content>
            </message>
            <state type="on_start"></state>
        </Task>
    </TaskService>"""


def found(text: str) -> set[int]:
    return {int(number) for number in re.findall(r"cannot open config (\d+)$", text, re.MULTILINE)}


WAYS = {
    "at once": "echo cannot open config {n} >&amp;2; exit 3",
    "after a moment": "sleep 0.{n:02}; echo cannot open config {n} >&amp;2; exit 3",
    "without an end of the line": "printf 'cannot open config {n}' >&amp;2; exit 3",
    "of a program that takes its place": "exec sh -c 'echo cannot open config {n} >&amp;2; exit 3'",
}


@pytest.mark.parametrize("how", WAYS)
def test_the_last_line_of_a_program_is_in_each_log(context: Callable[..., Installed], how: str) -> None:
    names = range(ROUNDS)
    installed = context("Last", *(command("t", number, WAYS[how].format(n=number)) for number in names))
    installed.start()
    everything = set(names)
    wait_for(lambda: found(installed.machine.journal("-t", "Dies", output="cat")) == everything, 60)
    missing = {
        "journalctl -u": everything - found(installed.machine.journal("-u", installed.unit, output="cat")),
        "zmsvcctl logs": everything - found(installed.ctl("--no-pager", "logs", "-o", "cat")),
        "zmsvcctl logs t7": {7} - found(installed.ctl("--no-pager", "logs", "-o", "cat", "t7")),
        "zmsvcctl status": {7} - found(installed.ctl("--no-pager", "status", "t7", check=False)),
    }
    assert {place: numbers for place, numbers in missing.items() if numbers} == {}
