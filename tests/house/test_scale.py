"""docs/scale.md has the figures that `make bench-scale` prints, and the limits that the code has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from zmsvc.core import remote_hosts
from zmsvc.core.facts import MAX_SHOWN
from zmsvc.core.messages import MAX_FRAME, MAX_TOPIC
from zmsvc.ctl import client
from zmsvc.host import record_ring
from zmsvc.host.systemd.notify import STATUS_LIMIT
from zmsvc.supervisor.control import MAX_LINE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scale.md").read_text()


def titles() -> list[str]:
    """Return the titles of the figures. The benchmark is read, since it imports what a test run may lack."""
    tree = ast.parse((ROOT / "bench" / "scale.py").read_text())
    (table,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "ROWS_OF_THE_PAGE"
    )
    return list(ast.literal_eval(table).values())


def test_each_figure_of_the_page_comes_from_the_benchmark_and_each_of_those_is_on_the_page() -> None:
    section = PAGE.split("## One context on one machine")[1].split("\n### ")[0]
    shown = re.findall(r"^\| (.+?) \| [\d,]+ \|", section, re.MULTILINE)
    assert list(dict.fromkeys(shown)) == titles()


def test_the_limits_on_the_page_are_those_of_the_code() -> None:
    assert f"up to {remote_hosts.MAX_HOSTS} machines at once" in PAGE
    assert f"| an answer to zmsvcctl | {client.MAX_LINE >> 20} MiB;" in PAGE
    assert f"| a message on the bus | {MAX_FRAME >> 20} MiB, a topic {MAX_TOPIC:,} bytes |" in PAGE
    ring, segment = record_ring.RING >> 20, record_ring.SEGMENT >> 20
    assert f"| `<record>` | {ring} MiB in segments of {segment} MiB;" in PAGE
    assert f"| status text of a task | {STATUS_LIMIT:,} characters |" in PAGE
    assert f"| processes left behind that are named | {MAX_SHOWN} of a launch |" in PAGE
    assert f"| a request of zmsvcctl | {MAX_LINE >> 10} KiB:" in PAGE
