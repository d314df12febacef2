"""Describe the machine on which the benchmark ran: cores, memory, kernel, versions. The text has no names of
hosts or users.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import zmq


def machine() -> dict[str, str]:
    memory = int(re.findall(r"\d+", Path("/proc/meminfo").read_text())[0]) / 2**20
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _processor(),
        "memory": f"{memory:.0f} GiB",
        "kernel": ".".join(platform.release().split("-")[0].split(".")[:3]),
        "Python": platform.python_version(),
        "pyzmq": f"{zmq.__version__} (libzmq {zmq.zmq_version()})",
        "Supervisor": _version("supervisor"),
        "Circus": _version("circus"),
        "systemd": _systemd(),
        "load": f"{os.getloadavg()[0]:.2f} of others at the start",
    }


def _processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1].strip() if found else platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _systemd() -> str:
    if not shutil.which("systemctl"):
        return "not installed"
    said = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=False).stdout
    return said.split()[1] if said else "unknown"
