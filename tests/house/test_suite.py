"""scripts/suite.py without a network: a suite that cannot be installed leaves no directory, and the script
prints the reason. CI runs it with a network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from needs import need, need_tool

SCRIPT = Path(__file__).parents[2] / "scripts/suite.py"

# Output of apt-get indextargets, with a mirror where no server listens.
APT_GET = """#!/bin/sh
printf '%s\\n' 'http://127.0.0.1:9/security/ bookworm-security' 'http://127.0.0.1:9/updates/ bookworm-updates' \
    'http://127.0.0.1:9/debian/ bookworm'
"""


def test_a_suite_that_cannot_be_installed_says_why_and_leaves_no_directory(tmp_path: Path) -> None:
    need(os.geteuid() == 0, "only root can mount and chroot")
    need_tool(shutil.which("debootstrap"), "debootstrap is not installed")
    (tmp_path / "apt-get").write_text(APT_GET)
    (tmp_path / "apt-get").chmod(0o755)
    cache = tmp_path / "cache"
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ZMSVC_SUITES": str(cache)}
    for _ in range(2):  # The second attempt does not use files that the first one has left.
        done = subprocess.run(
            [sys.executable, SCRIPT, "--make", "newsuite"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr.startswith("suite: cannot use newsuite: ")
        # A suite that is newer than debootstrap is installed in the way of sid.
        assert "E: Failed getting release file http://127.0.0.1:9/debian/dists/newsuite/" in done.stderr
        assert not (cache / "newsuite").exists()


def test_no_two_test_files_have_the_same_name() -> None:
    # pytest imports them as top-level modules, so one of two would hide the other.
    names = [path.name for path in (SCRIPT.parents[1] / "tests").rglob("test_*.py")]
    assert [name for name in names if names.count(name) > 1] == []
