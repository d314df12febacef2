"""Spare processes of the keeper run a module as an executed interpreter does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import json, os, signal, sys
from pathlib import Path

def main():
    out, *words = sys.argv[1:]
    Path(out).write_text(json.dumps({
        "words": words,
        "open": {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                 if os.path.exists(f"/proc/self/fd/{fd}")},
        "environment": dict(os.environ),
        "path": sys.path,
        "session": os.getsid(0) == os.getpid(),
        "hangup": signal.getsignal(signal.SIGHUP) is signal.SIG_DFL,
        "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "blocked": [*signal.pthread_sigmask(signal.SIG_BLOCK, ())],
        "forked": "zmsvc.keeper.machine" in sys.modules,
    }))
    print("on standard output")
    sys.exit(7)

if __name__ == "__main__":
    main()
"""

KEEPER = """
import os, signal, socket, sys
from zmsvc.keeper import spares
from zmsvc.keeper.machine import Machine

signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
early = os.dup2(os.open("/dev/null", os.O_RDONLY), 150)
machine = Machine(spares.fork(["spare_program"]) if sys.argv[1] == "spare" else {{}})
made = machine._spares.get("spare_program")
os.environ["LATER"] = "yes"
del os.environ["EARLIER"]
ours, theirs = socket.socketpair()
high = os.dup2(theirs.fileno(), 211)
os.set_inheritable(high, False)
os.set_inheritable(early, False)
os.dup2(os.open("captured", os.O_CREAT | os.O_WRONLY), 1)
{before}
pid = machine.spawn("spare_program", ["out", "word with blanks"], {{"MORE": "1"}}, [theirs.fileno(), high])
theirs.close()
assert made is None or pid == made.pid or {another}
{after}
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(theirs.fileno(), file=sys.stderr)
sys.exit(status)
"""


def play(home: Path, way: str, *, before: str = "", after: str = "", another: bool = False) -> dict[str, Any]:
    """Play a keeper in an interpreter of its own; return what the program has found."""
    package = home / "packages" / "spare_program"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(PROGRAM)
    keeper = home / "keeper.py"
    keeper.write_text(KEEPER.format(before=before, after=after, another=another))
    environment = os.environ | {"PYTHONPATH": str(package.parent), "EARLIER": "1"}
    done = subprocess.run(
        [sys.executable, keeper, way],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    found: dict[str, Any] = json.loads((home / "out").read_text())
    return found


@pytest.mark.parametrize("way", ["spare", "executed"])
def test_a_module_has_the_arguments_environment_descriptors_and_signals_of_its_order(
    tmp_path: Path, way: str
) -> None:
    found = play(tmp_path, way)
    assert found["forked"] is (way == "spare")
    assert found["words"] == ["word with blanks"]
    assert (found["environment"]["MORE"], found["environment"]["LATER"]) == ("1", "yes")
    assert "EARLIER" not in found["environment"]
    sockets = [fd for fd, target in found["open"].items() if target.startswith("socket:")]
    assert len(sockets) == 2
    assert "211" in sockets
    assert {*found["open"]} - {*sockets} == {"0", "1", "2"}
    assert found["open"]["1"] == str(tmp_path / "captured")
    assert (tmp_path / "captured").read_text() == "on standard output\n"
    # The keeper's script is in this directory, and its first entry of the path with it.
    assert not {str(tmp_path), ""} & {*found["path"]}
    assert [found[name] for name in ("session", "hangup", "interrupt", "blocked")] == [True, True, True, []]


def test_only_the_first_process_is_made_of_the_spare_one(tmp_path: Path) -> None:
    again = 'os.waitpid(pid, 0); pid = machine.spawn("spare_program", ["out"], {}, [])'
    assert not play(tmp_path, "spare", after=again)["forked"]


def test_if_the_spare_process_was_killed_an_interpreter_is_executed(tmp_path: Path) -> None:
    kill = "os.kill(made.pid, signal.SIGKILL); os.waitpid(made.pid, 0)"
    assert not play(tmp_path, "spare", before=kill, another=True)["forked"]


def test_an_environment_that_is_too_large_for_a_packet_is_passed_to_an_interpreter(tmp_path: Path) -> None:
    large = 'os.environ.update({f"LARGE{n}": "x" * 100_000 for n in range(9)})'
    found = play(tmp_path, "spare", before=large, another=True)
    assert not found["forked"]
    assert len(found["environment"]["LARGE8"]) == 100_000


@pytest.mark.parametrize("end", ["machine.release_spares()", "made.channel.close(); machine._spares.clear()"])
def test_a_spare_process_that_is_not_needed_ends_with_status_0(tmp_path: Path, end: str) -> None:
    status = f"{end}; assert os.waitstatus_to_exitcode(os.waitpid(made.pid, 0)[1]) == 0"
    assert not play(tmp_path, "spare", before=status, another=True)["forked"]


def test_a_low_limit_of_descriptors_is_enough(tmp_path: Path) -> None:
    keeper = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
    made = (
        "from zmsvc.keeper import spares\nimport os\nspare = spares.fork(['spare_program'])['spare_program']\n"
        "spare.order(['out'], dict(os.environ), [])\nos.waitpid(spare.pid, 0)\n"
    )
    package = tmp_path / "packages" / "spare_program"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(package.parent)}
    done = subprocess.run(
        [sys.executable, "-c", keeper + made],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out").exists()
