"""Follow docs/cluster.md on the bench: run the commands of its blocks as a person would, on the hosts that their
first line names.
"""

from __future__ import annotations

import re
from pathlib import Path

from cluster_bench import Bench, BenchError, wait_until

PAGE = Path(__file__).parents[2] / "docs/cluster.md"
DISK = "/share/disk"
"""The place of the shared disk on the bench, which has no block device: a directory that each host mounts."""
_BLOCK = re.compile(r"^ *```sh\n *# on (each|one) host\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_PRINTS = re.compile(r"zmsvcctl .* cluster commands")


def blocks(section: str) -> list[tuple[str, list[str]]]:
    """Return the blocks of a section of the page: `each` or `one`, and the commands."""
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found = [(where, [line.strip() for line in body.splitlines()]) for where, body in _BLOCK.findall(text)]
    if not found:
        raise BenchError(f"{PAGE} has no commands in the section {section}")
    return found


def follow(bench: Bench, section: str) -> None:
    """Run the commands of a section. Raises BenchError if one fails, or prints other commands than the page."""
    for where, lines in blocks(section):
        for number in bench.numbers if where == "each" else bench.numbers[:1]:
            printed = ""
            for line in lines:
                if line.endswith("cluster status"):
                    # A person looks again until the context runs.
                    wait_until(line, lambda: bench.on(number, *line.split(), check=False).returncode == 0)  # noqa: B023
                said = bench.sh(number, on_the_bench(line))
                if _PRINTS.match(line):
                    printed = said
                elif line.startswith("pcs resource create") and line not in printed.splitlines():
                    raise BenchError(f"cluster commands prints {printed!r}, and the page has {line!r}")


def on_the_bench(line: str) -> str:
    """Return a command with the disk of the bench in the place of that of the page."""
    if not line.startswith("pcs "):
        return line
    return line.replace("device=/dev/drbd1", f"device={DISK}").replace(
        "fstype=ext4", "fstype=none options=bind"
    )
