"""One machine with zmsvc installed, for all boot tests, and contexts on it that leave nothing for the next
test.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from installed import DEAF, TALKER, Installed, processes_of_user, task
from machine import TOOLS, Machine
from needs import need

CHECKOUT = Path(__file__).parents[2]

_MACHINE = pytest.StashKey[Machine]()


@pytest.fixture(scope="session")
def booted(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Run `make install` in the overlay, then boot. Afterwards the machine has nothing of the checkout but
    the installed files.
    """
    need(os.geteuid() == 0, "only root can boot a machine")
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    need(not missing, f"cannot boot a machine without {', '.join(missing)}")
    with Machine("make", "-C", "/mnt", "install", checkout=CHECKOUT) as machine:
        for name, module in ("Talker", TALKER), ("Deaf", DEAF):
            machine.put(f"/etc/zmsvc/services/{name}/__init__.py", "")
            machine.put(f"/etc/zmsvc/services/{name}/Service{name}.py", module)
        request.config.stash[_MACHINE] = machine
        yield machine


@pytest.fixture
def machine(booted: Machine) -> Iterator[Machine]:
    """The machine with an empty journal; afterwards no context runs and none has failed."""
    booted.sh("journalctl --quiet --rotate; journalctl --quiet --vacuum-time=1us; systemctl daemon-reload")
    yield booted
    booted.sh(
        "systemctl stop 'zmsvc@*.service' zmsvc.target; systemctl reset-failed; rm -rf /var/lib/zmsvc/*",
        check=False,
    )
    left = processes_of_user(booted)
    booted.sh("pkill -KILL -u zmsvc", check=False)
    assert not left, f"processes of zmsvc were left after the contexts had been stopped: {left}"


@pytest.fixture
def context(machine: Machine) -> Callable[..., Installed]:
    """Make contexts: `context("Name", task(...), ...)` writes the file and starts nothing."""

    def make(name: str, *tasks: str) -> Installed:
        installed = Installed(machine=machine, name=name)
        if tasks:
            installed.configure(*tasks)
        return installed

    return make


@pytest.fixture
def echo(context: Callable[..., Installed]) -> Installed:
    """The EchoAction context, as `make install` has left it."""
    return context("EchoAction")


@pytest.fixture
def talker(context: Callable[..., Installed]) -> Installed:
    """A started context with an entry task that prints, and a task that waits for a rule."""
    installed = context("Talk", task("ts_100", "Talker"), task("ts_101", "Talker", entry=False))
    installed.start()
    return installed


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Add the journal of the machine to the report of a failure."""
    report = (yield).get_result()
    machine = item.config.stash.get(_MACHINE, None)
    if report.failed and machine and {"machine", "booted"} & set(getattr(item, "fixturenames", ())):
        report.sections.append(("journal", machine.journal()[-20_000:]))
        report.sections.append(
            ("units", machine.sh("systemctl status --no-pager -n0 'zmsvc*'", check=False).stdout)
        )
