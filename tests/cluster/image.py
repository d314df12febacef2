"""The files of the hosts of a test cluster, as two layers above those of this machine: the packages of a cluster,
and an installation of this checkout. Each is a tar file in the cache, and is made again when its list of packages,
this machine's packages, or the checkout have changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
HERE = Path(__file__).parent

PACKAGES = (
    "corosync",
    "iproute2",
    "iputils-arping",
    "kmod",
    "openssh-client",
    "openssh-server",
    "pacemaker",
    "pacemaker-cli-utils",
    "pcs",
    "psmisc",
    "resource-agents",
)
INSTALLED_FROM = (
    "Makefile",
    "etc",
    "packaging/locked",
    "pyproject.toml",
    "scripts",
    "setup.cfg",
    "units",
    "zmsvc",
)
"""The parts of the checkout that `make install` copies and that matter to a host."""


class ImageError(Exception):
    """A layer cannot be made."""


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "/var/cache"
    return Path(os.environ.get("ZMSVC_SUITES") or f"{base}/zmsvc/suites").parent / "cluster"


def layers() -> tuple[Path, Path]:
    """Return the tar files of both layers, which are made if they do not exist. Raises ImageError."""
    of_machine = [Path("/etc/os-release"), Path("/var/lib/dpkg/status")]
    packages = cache() / f"packages-{_digest(of_machine, ' '.join(PACKAGES))}.tar"
    install = (
        f"apt-get -qq update; apt-get -y -qq install --no-install-recommends {' '.join(PACKAGES)} > /dev/null"
    )
    _make(
        packages,
        None,
        f"{install}; rm -rf /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /var/lib/apt/lists/*",
    )
    files = sorted(
        path
        for name in INSTALLED_FROM
        for path in ((CHECKOUT / name).rglob("*") if (CHECKOUT / name).is_dir() else [CHECKOUT / name])
        if path.is_file() and "__pycache__" not in path.parts
    )
    program = cache() / f"program-{_digest(files, packages.name)}.tar"
    _make(program, packages, "make -C /mnt install")
    return packages, program


def _digest(files: Iterable[Path], text: str) -> str:
    found = hashlib.sha256(text.encode())
    for file in files:
        found.update(f"{file}\0{file.stat().st_mode}\0".encode() + file.read_bytes())
    return found.hexdigest()[:16]


def _make(file: Path, lower: Path | None, command: str) -> None:
    if file.exists():
        return
    print(f"cluster: making {file} (once; its log is beside it)", flush=True)
    kind = file.name.partition("-")[0]
    file.parent.mkdir(parents=True, exist_ok=True)
    log, new = file.parent / f"{kind}.log", file.with_suffix(f".{os.getpid()}")
    work = Path(tempfile.mkdtemp(prefix="zmcluster."))
    namespaces = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private")
    try:
        with log.open("wb") as output:
            done = subprocess.run(
                [*namespaces, "sh", HERE / "layer.sh", work, CHECKOUT, new, lower or "", command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
            )
        if done.returncode:
            last = log.read_text(errors="replace").splitlines()[-10:]
            raise ImageError("\n  ".join([f"cannot make {file}; the last lines of {log}:", *last]))
        for old in file.parent.glob(f"{kind}-*.tar"):
            old.unlink()
        new.rename(file)
    finally:
        new.unlink(missing_ok=True)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(print(*layers()))
