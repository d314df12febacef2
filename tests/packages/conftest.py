"""Debian packages of this tree and of release 1.0.0, built in the Debian that lies in $ZMSVC_SUITE_TREE, and
booted machines of it.

A build takes a minute or two and needs the network, so without that variable these tests are left out, also
under CI: `make test-deb SUITE=trixie` runs them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from installed import Installed
from machine import TOOLS, Machine
from needs import need
from releases import ZMSVC_1_0

ROOT = Path(__file__).parents[2]

_MACHINE = pytest.StashKey[Machine]()


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """The built packages, by their role in the tests. All of them are in one directory."""

    directory: Path
    first: str | None
    """1.0.0-1, the first release; None where it can run no tasks."""
    current: str
    """This tree."""
    following: str
    """The same files with the version of the next revision."""


@pytest.fixture(scope="session")
def tree() -> Path:
    """The Debian in which packages are built and tested. It is only read."""
    given = os.environ.get("ZMSVC_SUITE_TREE")
    if not given:
        pytest.skip(
            "ZMSVC_SUITE_TREE names no directory with a Debian; these tests take minutes and are run by "
            "`make test-deb`"
        )
    need(os.geteuid() == 0, "only root can build in a tree and boot a machine")
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    need(not missing, f"cannot boot a machine without {', '.join(missing)}")
    return Path(given)


@pytest.fixture(scope="session")
def packages(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Build all packages once. Their own tests are left out, since they run elsewhere."""
    directory = tmp_path_factory.mktemp("packages")
    first = None
    if _runs_first_release(tree):
        first = _build(tree, _first_release(tmp_path_factory.mktemp("first")), directory)
    current = _build(tree, ROOT, directory)
    return Packages(
        directory=directory, first=first, current=current, following=_renamed(directory / current)
    )


def _runs_first_release(tree: Path) -> bool:
    """Return True if release 1.0.0 works there. On Python 3.13 and newer each of its tasks ends when it is
    forked.
    """
    return int((tree / "usr/bin/python3").readlink().name.removeprefix("python3.")) < 13


def _build(tree: Path, source: Path, directory: Path) -> str:
    before = set(directory.glob("*.deb"))
    done = subprocess.run(
        [ROOT / "scripts/deb.sh", "--tree", tree, "--source", source, directory],
        env=os.environ | {"DEB_BUILD_OPTIONS": "nocheck"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    (package,) = set(directory.glob("*.deb")) - before
    return package.name


def _first_release(directory: Path) -> Path:
    """Return the tree of the first release, which had no debian/, with the present debian/; its changelog says
    version 1.0.0.
    """
    archive = subprocess.run(["git", "archive", ZMSVC_1_0], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x"], cwd=directory, input=archive, check=True)
    shutil.copytree(ROOT / "debian", directory / "debian")
    changelog = directory / "debian/changelog"
    _, rest = changelog.read_text().split(")", 1)
    changelog.write_text(f"zmsvc (1.0.0-1){rest}")
    return directory


def _renamed(package: Path) -> str:
    """Make the package with the version of the next revision. Return its name."""
    version = package.name.split("_")[1]
    following = f"{version.rpartition('-')[0]}-2"
    unpacked = package.parent / "unpacked"
    subprocess.run(["dpkg-deb", "-R", package, unpacked], check=True)
    control = unpacked / "DEBIAN/control"
    control.write_text(control.read_text().replace(f"Version: {version}\n", f"Version: {following}\n"))
    target = package.with_name(f"zmsvc_{following}_all.deb")
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-b", unpacked, target], check=True, capture_output=True
    )
    shutil.rmtree(unpacked)
    return target.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Debian:
    """A booted Debian that has the packages in /packages and none of them installed."""

    machine: Machine

    def install(self, package: str) -> str:
        """Install a package, or an older one; return the output of apt."""
        # apt must not ask for a configuration, because there is no terminal.
        command = (
            f"DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends --allow-downgrades install "
            f"/packages/{package} 2>&1"
        )
        return self.machine.sh(command, timeout=120).stdout

    def apt(self, command: str) -> str:
        """`remove` or `purge` the package; return the output of apt."""
        return self.machine.sh(f"apt-get -y {command} zmsvc 2>&1", timeout=120).stdout

    def version(self) -> str:
        """Return the output of the installed `zmsvcctl --version`."""
        return self.machine.sh("zmsvcctl --version").stdout.split()[1]

    def context(self, name: str, *tasks: str) -> Installed:
        """Return a context that is configured and not started. Without tasks it is one of the package."""
        installed = Installed(machine=self.machine, name=name)
        if tasks:
            installed.configure(*tasks)
        return installed


@pytest.fixture
def debian(request: pytest.FixtureRequest, tree: Path, packages: Packages) -> Iterator[Debian]:
    with Machine(
        "sh", "-c", "mkdir /packages && cp /mnt/*.deb /packages", checkout=packages.directory, lower=tree
    ) as machine:
        request.config.stash[_MACHINE] = machine
        yield Debian(machine=machine)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the journal of the machine to the report of a failure."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    machine = item.config.stash.get(_MACHINE, None)
    if report.when == "call" and report.failed and machine and "debian" in getattr(item, "fixturenames", ()):
        report.sections.append(("journal", machine.journal()[-20_000:]))


@pytest.fixture
def command() -> Callable[..., str]:
    """`command(ID, "sleep 1000")` returns a TaskService element of a program; `rules` is the content of its
    `<state>`.
    """

    def element(name: str, program: str, *, rules: str = "", entry: bool = True) -> str:
        return f"""
    <TaskService id="{name}" topic="process" instance="{name}" serviceType="Command">
        <Task>
            <description>A program of the package tests</description>
            <message>
                <header><action>start</action><service_name>{name}</service_name></header>
                <content><configuration><device_action>test</device_action><command>{program}</command></configuration></content>
            </message>
            <state{' type="on_start"' if entry else ""}>{rules}</state>
        </Task>
    </TaskService>"""

    return element
