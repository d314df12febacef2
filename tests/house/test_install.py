"""`make install` copies part of the tree and builds the package from the copy. The copy has each file that setup.cfg names."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def copied() -> set[str]:
    """What `make install` copies before it builds, as make would run it."""
    said = subprocess.run(["make", "-n", "install-program", "DESTDIR=/nowhere"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = re.search(r"cp -rL --parents ((?:[\w./-]+ )+)", said.stdout)
    assert found is not None
    return set(found[1].split())


def named() -> set[str]:
    """The files that setuptools needs for a wheel, and pip to begin."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    files = {"setup.cfg", "pyproject.toml", *setup["metadata"]["license_files"].split()}
    files |= set(re.findall(r"file:\s*(\S+)", (ROOT / "setup.cfg").read_text()))
    for patterns in setup["options.data_files"].values():
        for pattern in patterns.split():
            # A name is wanted though no file has it, unlike a pattern.
            files |= {str(file.relative_to(ROOT)) for file in ROOT.glob(pattern)} or {pattern} - {pattern if "*" in pattern else ""}
    return files


def test_an_installation_copies_each_file_that_its_package_is_made_of() -> None:
    assert {"SECURITY.md", "zmsvc/data/man/zmsvcctl.1"} <= named()
    assert {file for file in named() if not any(file == each or file.startswith(f"{each}/") for each in copied())} == set()
