"""`make demo` without its installation: it succeeds, even if two run at the same time, and leaves nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from needs import need

DEMO = Path(__file__).parents[2] / "scripts/demo.py"


def test_two_demos_at_the_same_time_shout_and_leave_nothing() -> None:
    need(
        shutil.which("zmsvcd", path=str(Path(sys.executable).parent)),
        "zmsvc is not installed beside this Python",
    )
    demos = [
        subprocess.Popen([sys.executable, DEMO], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    for demo in demos:
        output = demo.communicate(timeout=50)[0]
        assert demo.returncode == 0, output
        assert '"shout"' in output
        home = output.split("ZMSVC_CONFIG_DIR=")[1].split()[0]
        assert not Path(home).exists()
        assert subprocess.run(["pgrep", "--full", home], stdout=subprocess.PIPE, check=False).stdout == b""
