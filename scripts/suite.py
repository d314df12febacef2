#!/usr/bin/env python3
"""Run a command in another Debian: by default the tests of this checkout, with that distribution's libraries
and systemd.

The distribution is installed once into a directory of the cache ($ZMSVC_SUITES, else a directory below
$XDG_CACHE_HOME or /var/cache), from the mirror that apt on this machine uses. Each run puts a throw-away
overlay above that directory, in its own namespaces: neither the directory nor this machine changes, and a
killed run leaves neither a mount nor a process. Needs root, debootstrap and Debian's apt. Remove the
directory to install the suite again, for example for newer packages of a testing suite.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

CHECKOUT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent

FIRST = ("ca-certificates", "dbus", "iproute2", "procps", "python3", "python3-venv", "systemd")
"""Packages of the first installation. debootstrap resolves no virtual package, so that the libraries come
later, by apt.
"""

LATER = (
    "python3-zmq",
    "python3-psutil",
    "python3-lxml",
    "python3-daemon",
    "python3-sdnotify",
    "python3-setuptools",
    "python3-wheel",
    "python3-pytest",
    "python3-pytest-xdist",
    "python3-hypothesis",
    "bash-completion",
    "fish",
    "git",
    "graphviz",
    "groff-base",
    "libpam-systemd",
    "libxml2-utils",
    "logrotate",
    "make",
    "resource-agents",
    "sqlite3",
    "strace",
    "tmux",
    "zsh",
)

PROGRAMS = ("gunicorn", "nginx-light", "nodejs", "prometheus", "redis-server")
"""The programs that tests/programs runs. They are not installed in a testing suite, which can lack some."""
STABLE = ("bookworm", "trixie")

TESTS = ("make", "test", "LIBRARIES=system")

PASSED_ON = (
    "CI",
    "TERM",
    "PYTEST_ADDOPTS",
    "PYTEST_ARGS",
    "ZMSVC_EXPLORE",
    "ZMSVC_FUZZ",
    "ZMSVC_KILLS",
    "ZMSVC_SIMULATIONS",
    "ZMSVC_SEED",
)
PASSED_ON_BEGINNINGS = ("PIP_",)
PASSED_ON_ENDS = ("_proxy", "_PROXY")
"""Variables that the command inherits. All others describe this machine and not the suite."""

OUTSIDE_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
"""Files that this machine needs to reach package indexes. A run gets a copy of each existing one."""


class SuiteError(Exception):
    """The suite cannot be made or used. The text has the reason and a remedy."""


class Tree:
    """The directory of one suite. It is made under another name, so that it is always complete."""

    def __init__(self, suite: str, cache: Path) -> None:
        self.suite = suite
        self.cache = cache
        self.root = cache / suite
        self.log = cache / f"{suite}.log"
        self._new = cache / f"{suite}.new"
        self._later = (*LATER, *(PROGRAMS if suite in STABLE else ()))

    def make(self) -> None:
        """Install the suite, unless that was done with the same list of packages. Raises SuiteError."""
        self.cache.mkdir(parents=True, exist_ok=True)
        with open(self.cache / f"{self.suite}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._packages() == [*FIRST, *self._later]:
                return
            mirror = find_mirror()
            print(
                f"suite: installing {self.suite} from {mirror} into {self.root} (once; {self.log} has the "
                f"details)",
                flush=True,
            )
            with open(self.log, "wb") as log:
                self._install(mirror, log.fileno())
            os.sync()
            remove(self.root)
            self._new.rename(self.root)

    def _packages(self) -> list[str]:
        """Return the names of the packages in the tree; an empty list if the tree does not exist."""
        with contextlib.suppress(FileNotFoundError):
            return self._list_of(self.root).read_text().split()
        return []

    @staticmethod
    def _list_of(root: Path) -> Path:
        return root / "etc/zmsvc-suite"

    def _install(self, mirror: str, log: int) -> None:
        remove(self._new)
        scripts = debootstrap_scripts(self.suite, self.cache)
        options = ("--variant=minbase", f"--include={','.join(FIRST)}")
        self._run(
            log,
            "env",
            f"DEBOOTSTRAP_DIR={scripts}",
            "debootstrap",
            *options,
            self.suite,
            str(self._new),
            mirror,
        )
        remove(scripts)
        copy_from_outside(self._new)
        (self._new / "etc/apt/apt.conf.d/99outside").write_text(apt_acquire_settings())
        # dpkg waits for the disk after each file; one sync at the end is enough here.
        (self._new / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n")
        # No package may start a service; the boot tests do that.
        policy = self._new / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        for arguments in (
            ("update",),
            ("-y", "-f", "install"),
            ("-y", "--no-install-recommends", "install", *self._later),
        ):
            self._run_inside(log, "apt-get", "-q", *arguments)
        self._run_inside(log, "apt-get", "clean")
        policy.unlink()
        self._list_of(self._new).write_text("\n".join([*FIRST, *self._later]) + "\n")

    def _run_inside(self, log: int, *command: str) -> None:
        mount_proc = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
        self._run(log, "sh", "-c", mount_proc, str(self._new), *command)

    def _run(self, log: int, *command: str) -> None:
        status = run_isolated(
            command, environment=environment() | {"DEBIAN_FRONTEND": "noninteractive"}, output=log
        )
        if status != 0:
            lines = self.log.read_text(errors="replace").splitlines()[-20:]
            raise SuiteError(
                "\n  ".join(
                    [f"{' '.join(command)} ended with {status}; the last lines of {self.log}:", *lines]
                )
            )

    def run(self, command: Sequence[str]) -> int:
        """Run a command with this checkout as its working directory. Return the exit status."""
        # The mounts exist only in the namespace of the run, so one empty directory is enough for all runs.
        work = self.cache / "work"
        work.mkdir(exist_ok=True)
        inside = [
            "sh",
            str(HERE / "suite-inside.sh"),
            str(self.root),
            str(work),
            str(CHECKOUT),
            *OUTSIDE_FILES,
            "--",
            *command,
        ]
        return run_isolated(inside, environment=environment())


def debootstrap_scripts(suite: str, cache: Path) -> Path:
    """Make a private copy of debootstrap's files, with an entry for a suite that it does not know."""
    if not shutil.which("debootstrap"):
        raise SuiteError("debootstrap is not installed: apt-get install debootstrap")
    copy = cache / f"{suite}.debootstrap"
    remove(copy)
    shutil.copytree("/usr/share/debootstrap", copy, symlinks=True)
    script = copy / "scripts" / suite
    if not script.exists():
        script.symlink_to("sid")
    return copy


def find_mirror() -> str:
    """Return the mirror from which apt on this machine gets Debian. Raises SuiteError."""
    for update in (False, True):
        if update:
            # A fresh machine may have no lists, and only they name the origin.
            subprocess.run(["apt-get", "-q", "update"], stdout=subprocess.DEVNULL, check=False)
        done = subprocess.run(
            [
                "apt-get",
                "indextargets",
                "--format",
                "$(REPO_URI) $(CODENAME)",
                "Created-By: Packages",
                "Origin: Debian",
            ],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        for line in done.stdout.splitlines():
            uri, _, codename = line.partition(" ")
            # "-updates", "-security" and "-backports" lie beside the suite itself, or in an archive of their
            # own.
            if "-" not in codename:
                return uri
    raise SuiteError("apt on this machine has no repository of Debian: add one to /etc/apt/sources.list.d")


def apt_acquire_settings() -> str:
    """Return the settings with which apt reaches its mirror: proxies, certificates, checks."""
    return subprocess.run(
        ["apt-config", "dump", "Acquire"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def copy_from_outside(root: Path) -> None:
    """Copy the network settings of this machine into a tree."""
    for name in OUTSIDE_FILES:
        if os.path.isfile(name):
            target = root / name[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(name, target)


def environment() -> dict[str, str]:
    """Return the environment of a command in a suite."""
    passed_on = {
        name: value
        for name, value in os.environ.items()
        if name in PASSED_ON or name.startswith(PASSED_ON_BEGINNINGS) or name.endswith(PASSED_ON_ENDS)
    }
    return {
        "HOME": "/root",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
    } | passed_on


def run_isolated(
    command: Sequence[str], *, environment: dict[str, str] | None = None, output: int | None = None
) -> int:
    """Run a command with mounts and processes of its own, which end with the command, and with this process.
    Return the exit status.
    """
    # setpriv: when this process is killed, so is unshare, and with it the first process of the namespace.
    killed = ("setpriv", "--pdeathsig", "KILL")
    namespaces = (
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "--pid",
        "--mount-proc",
        "--fork",
        "--kill-child",
    )
    process = subprocess.Popen(
        [*killed, *namespaces, *command], env=environment, stdout=output, stderr=output
    )
    try:
        return process.wait()
    except KeyboardInterrupt:
        # The terminal has sent Ctrl-C to the command as well. pytest then prints its progress.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        return 130
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def remove(tree: Path) -> None:
    if tree.exists():
        shutil.rmtree(tree)


def default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "/var/cache"
    return Path(os.environ.get("ZMSVC_SUITES") or f"{base}/zmsvc/suites")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--make", action="store_true", help="install the suite and run nothing")
    p.add_argument(
        "--where",
        action="store_true",
        help="print the folder of the suite, and neither install nor run anything",
    )
    p.add_argument("suite", metavar="SUITE", help="bookworm, trixie or forky")
    p.add_argument(
        "command",
        metavar="COMMAND",
        nargs=argparse.REMAINDER,
        help=f"what to run there; {' '.join(TESTS)} by default",
    )
    return p


def end_on_terminate(_number: int, _frame: FrameType | None) -> None:
    sys.exit(143)


def main() -> int:
    args = parser().parse_args()
    signal.signal(signal.SIGTERM, end_on_terminate)
    # A background job of a shell ignores Ctrl-C, but the tests inside send it to their processes.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        tree = Tree(args.suite, default_cache())
        if args.where:
            print(tree.root)
            return 0
        if os.geteuid() != 0:
            raise SuiteError("only root can mount and chroot: run it by sudo")
        tree.make()
        return 0 if args.make else tree.run(args.command or TESTS)
    except KeyboardInterrupt:
        return 130
    except (SuiteError, OSError) as error:
        print(f"suite: cannot use {args.suite}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
