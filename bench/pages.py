"""Name the pages of a task that it does not share any more with the zygote, by their contents.

`python -m bench.pages`, or `make bench-pages`, starts a context with a few connected tasks, and compares the
memory of one of them with that of the zygote, which writes down the addresses of its objects
(bench.objectmap). It needs root, or the right to read the memory of both processes.
"""

from __future__ import annotations

import argparse
import bisect
import marshal
import platform
import shutil
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench import environment
from bench.contenders.zmsvc import Zmsvc
from bench.figures.memory import faults, pss
from bench.fleet import Fleet
from bench.objectmap import Region

PAGE = 4096
_PRESENT, _SWAPPED, _FILE_OR_SHARED, _EXCLUSIVE = 1 << 63, 1 << 62, 1 << 61, 1 << 56
"""Bits of an entry in /proc/PID/pagemap: https://docs.kernel.org/admin-guide/mm/pagemap.html"""

NEW, SAME = "new: not there in the zygote", "the same: written, and written back"


@dataclass(slots=True)
class Report:
    """The names of the contents of the pages that belong to a task alone."""

    pages: int = 0
    on: Counter[str] = field(default_factory=Counter)
    """The number of pages in which this was written to."""
    alone: Counter[str] = field(default_factory=Counter)
    """The number of pages in which nothing else was written to."""
    names: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, written: set[tuple[str, str]]) -> None:
        """Count one page, for each thing in it that was written to, with the owner of the thing."""
        self.pages += 1
        kinds = {kind for kind, _ in written}
        self.on.update(kinds)
        if len(kinds) == 1:
            self.alone.update(kinds)
        for kind, name in written:
            self.names.setdefault(kind, Counter())[name] += 1

    def markdown(self, names: int) -> str:
        """Return a table, and below it the `names` most frequent owners of each line."""
        lines = ["| what was written to | pages | nothing else there |", "|---|---|---|"]
        lines += [f"| {kind} | {count} | {self.alone[kind]} |" for kind, count in self.on.most_common()]
        for kind, _ in self.on.most_common():
            found = [f"{name} {count}" for name, count in self.names[kind].most_common(names) if name]
            lines += ["", f"{kind}: {', '.join(found)}"] if found else []
        return "\n".join(lines)


class Map:
    """The objects of the zygote, by address."""

    def __init__(self, regions: list[Region]) -> None:
        self._regions = regions
        self._starts = [region[0] for region in regions]

    def at(self, address: int) -> tuple[str, str] | None:
        """Return the kind of object at this address, and its owner."""
        place = bisect.bisect_right(self._starts, address + 7) - 1
        start, size, kind, name = self._regions[place]
        return (kind, name) if place >= 0 and address < start + size else None


def compare(zygote: int, task: int, objects: Map) -> Report:
    """Compare each page that belongs to the task alone."""
    report = Report()
    with open(f"/proc/{zygote}/mem", "rb", 0) as theirs, open(f"/proc/{task}/mem", "rb", 0) as own:
        for address, mapping in _own_pages(task):
            try:
                theirs.seek(address)
                before = theirs.read(PAGE)
            except OSError:
                report.add({(NEW, mapping)})
                continue
            own.seek(address)
            report.add({*_written(before, own.read(PAGE), address, mapping, objects)})
    return report


def _own_pages(pid: int) -> Iterator[tuple[int, str]]:
    """Yield the addresses of pages that are in memory, belong to no file, and are mapped by this process
    alone, with the name of the mapping.
    """
    with open(f"/proc/{pid}/pagemap", "rb", 0) as pagemap:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            area, rights, _, _, _, *name = line.split(None, 5)
            start, end = (int(part, 16) for part in area.split("-"))
            if "w" not in rights:
                continue
            pagemap.seek(start // PAGE * 8)
            entries = pagemap.read((end - start) // PAGE * 8)
            for number, (entry,) in enumerate(struct.iter_unpack("=Q", entries)):
                if entry & _PRESENT and entry & _EXCLUSIVE and not entry & _FILE_OR_SHARED:
                    yield start + number * PAGE, name[0].rpartition("/")[2] if name else "anonymous"


def _written(
    before: bytes, after: bytes, address: int, mapping: str, objects: Map
) -> Iterator[tuple[str, str]]:
    if before == after:
        yield SAME, mapping
    for at in range(0, PAGE, 8):
        if before[at : at + 8] != after[at : at + 8]:
            yield objects.at(address + at) or ("no object: free before, or data of C", mapping)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.pages", description="Name what a task has written to.")
    parser.add_argument(
        "--tasks", type=int, default=20, metavar="N", help="how many there are; one of them is looked at"
    )
    parser.add_argument(
        "--names", type=int, default=8, metavar="N", help="how many names of each kind are told"
    )
    parser.add_argument(
        "--without",
        default="",
        metavar="NAME,NAME...",
        help="shortcuts that are switched off, as by ZMSVC_DISABLE",
    )
    given = parser.parse_args()
    environment.prepare()
    home = Path(tempfile.mkdtemp(prefix="zmp"))
    path = home / "objects"
    without = given.without.split(",") if given.without else ()
    contender = Zmsvc(without=without, wrapper=[sys.executable, "-m", "bench.objectmap", str(path)])
    try:
        with contender.open(Fleet(size=given.tasks), home) as session:
            session.order_start()
            session.receiver.hear(session.fleet.entry)
            session.started()
            task = session.receiver.pids[session.fleet.entry[len(session.fleet.entry) // 2]]
            objects = Map(marshal.loads(path.read_bytes()))
            report = compare(session.context.zygote(), task, objects)
            print(
                f"Python {platform.python_version()}, one of {given.tasks} tasks: {report.pages} pages of "
                f"its own, "
                f"PSS {pss(task) / 1e6:.2f} MB, {faults(task)} page faults\n"
            )
            print(report.markdown(given.names))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
