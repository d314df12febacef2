"""Each process of a context imports what it needs and no more: imports are most of the CPU time of its start,
and of its memory.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

THE_CORE_OF_THE_SUPERVISOR = {
    "zmsvc.core.effects",
    "zmsvc.core.facts",
    "zmsvc.core.model",
    "zmsvc.core.world",
}


@pytest.mark.parametrize(
    ("process", "unneeded"),
    [
        ("keeper", {*THE_CORE_OF_THE_SUPERVISOR, "asyncio", "lxml", "sqlite3", "zmq"}),
        ("zygote", {*THE_CORE_OF_THE_SUPERVISOR, "argparse", "asyncio", "lxml", "sqlite3"}),
        ("device", {*THE_CORE_OF_THE_SUPERVISOR, "asyncio", "lxml", "sqlite3"}),
        ("output", {*THE_CORE_OF_THE_SUPERVISOR, "asyncio", "lxml", "sqlite3", "zmq"}),
        ("fdstore", {*THE_CORE_OF_THE_SUPERVISOR, "asyncio", "lxml", "sqlite3", "zmq"}),
        ("watcher", {*THE_CORE_OF_THE_SUPERVISOR, "asyncio", "lxml", "sqlite3"}),
        ("supervisor", {"_hashlib", "lxml", "psutil", "ssl"}),
        ("envoy", {"_hashlib", "lxml", "psutil", "sqlite3", "ssl"}),
    ],
)
def test_a_process_imports_no_more_than_it_needs(process: str, unneeded: set[str]) -> None:
    code = f"import zmsvc.{process}.__main__, sys; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert unneeded & set(told.stdout.split()) == set()


def test_zmsvcctl_imports_nothing_of_other_machines_without_a_host() -> None:
    code = (
        "import sys; from zmsvc.ctl.__main__ import main; main(['list']); "
        "print([each for each in sys.modules if 'remote' in each or each == 'subprocess'])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "[]"


def test_argparse_does_not_ask_for_the_width_of_the_terminal() -> None:
    code = (
        "import sys; from zmsvc.host import arguments; "
        "arguments.parser('p', 'd').add_argument('--name', required=True); print('shutil' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"
