#!/usr/bin/env python3
"""Change one place of the core at a time and run its tests: a change that no test notices is a survivor.

mutants.py [--sample N] [--seed N] [--jobs N] [--minutes N] [--at-least PERCENT] [--list] [FILE...]

It takes a random sample of all changes, which a seed repeats, and prints each survivor with its line before
and after the change. It exits with 1 when fewer than 90 % were noticed. A change after which the tests take
three times the CPU time, and more than a minute, counts as noticed. If the machine is so busy that they have
not ended after twenty times that time by the clock, the change is printed as not judged and does not count.

mutmut 3 and cosmic-ray, both maintained, do not fit: the first changes nothing outside of functions, as the
table of the lifecycle is, and neither takes a random sample.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import itertools
import os
import queue
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CORE = Path("zmsvc/core")
TESTS = Path("tests/core")
ALSO = ("tests/host/test_config.py", "tests/host/test_placement.py", "tests/host/test_launch_spec.py")
"""Tests of what the core reports about values of a context file, and of the options that it declares."""
SLOW = ("test_engine_properties", "test_engine_crashes", "test_keeper_and_supervisor", "test_graph")
"""These run last: most changes are noticed without them."""
CPU_S = 60
"""The CPU time that the tests of a change may take at least. Without a change they need 25 s on an idle
machine, and more on one that other programs use as well.
"""
MEMORY = 2 << 30

COMPARISONS = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"),
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"), ast.Mod: ("%", "*"),
}  # fmt: skip


class Outcome(Enum):
    """The judgment of the tests on one change."""

    NOTICED = "noticed"
    SURVIVED = "survived"
    NOT_JUDGED = "not judged"


class Mutant(NamedTuple):
    """One change: bytes START to END of FILE become TEXT."""

    file: Path
    start: int
    end: int
    text: str

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.text.encode() + source[self.end :]

    def shown(self, source: bytes) -> str:
        """Return the changed lines before and after, as FILE:LINE: - OLD + NEW."""
        first = source.rfind(b"\n", 0, self.start) + 1
        last = source.find(b"\n", self.end)
        old = source[first:last].decode()
        new = source[first : self.start].decode() + self.text + source[self.end : last].decode()
        line = source.count(b"\n", 0, self.start) + 1
        return f"{self.file}:{line}:\n    - {_joined(old)}\n    + {_joined(new)}"


def _joined(text: str) -> str:
    return " ".join(text.split())


class Mutations:
    """All changes of one module."""

    def __init__(self, file: Path, source: bytes) -> None:
        self._file = file
        self._source = source
        self._lines = list(itertools.accumulate(map(len, source.splitlines(keepends=True)), initial=0))

    def all(self) -> Iterator[Mutant]:
        for node in self._code(ast.parse(self._source)):
            for start, end, text in self._of(node):
                if self._source[start:end].decode() != text:
                    yield Mutant(self._file, start, end, text)

    def _code(self, node: ast.AST) -> Iterator[ast.AST]:
        """Yield the nodes that run: neither types, docstrings, decorators nor imports."""
        yield node
        left_out = {
            id(each) for name in ("annotation", "returns", "decorator_list") for each in _field(node, name)
        }
        for child in ast.iter_child_nodes(node):
            if id(child) not in left_out and not isinstance(child, (ast.Import, ast.ImportFrom)):
                yield from self._code(child)

    def _of(self, node: ast.AST) -> Iterator[tuple[int, int, str]]:
        match node:
            case ast.Compare():
                operands = [node.left, *node.comparators]
                for operator, left, right in zip(node.ops, operands, operands[1:], strict=False):
                    yield from self._between(left, right, COMPARISONS.get(type(operator)))
            case ast.BoolOp():
                pair = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
                for left, right in itertools.pairwise(node.values):
                    yield from self._between(left, right, pair)
            case ast.BinOp() if not _is_text(node.left) and not _is_text(node.right):
                yield from self._between(node.left, node.right, ARITHMETIC.get(type(node.op)))
            case ast.AugAssign():
                old, new = ARITHMETIC.get(type(node.op), ("", ""))
                yield from self._between(node.target, node.value, (f"{old}=", f"{new}=") if old else None)
            case ast.UnaryOp(op=ast.Not()):
                start = self._span(node)[0]
                yield (start, start + len("not"), "")
            case ast.If() | ast.IfExp() | ast.While() if not isinstance(node.test, (ast.Compare, ast.BoolOp)):
                start, end = self._span(node.test)
                yield (start, end, f"(not ({self._text(node.test)}))")
            case ast.Constant(value=bool(value)):
                yield (*self._span(node), str(not value))
            case ast.Constant(value=int(value)):
                yield (*self._span(node), repr(value + 1))
            case ast.Constant(value=float(value)):
                yield (*self._span(node), repr(value * 2 or 1.0))
            case ast.Return(value=ast.expr() as value) if self._text(value) != "None":
                yield (*self._span(value), "None")
            case ast.Expr(value=ast.Call()):
                yield (*self._span(node), "pass")
            case ast.Continue():
                yield (*self._span(node), "break")
            case ast.Break():
                yield (*self._span(node), "continue")

    def _between(
        self, left: ast.AST, right: ast.AST, pair: tuple[str, str] | None
    ) -> Iterator[tuple[int, int, str]]:
        if pair is None:
            return
        old, new = pair
        start, end = self._span(left)[1], self._span(right)[0]
        word = r"\s+".join(map(re.escape, old.split()))
        found = re.search((rf"\b{word}\b" if old[0].isalpha() else word).encode(), self._source[start:end])
        if found:
            yield (start + found.start(), start + found.end(), new)

    def _span(self, node: ast.AST) -> tuple[int, int]:
        assert isinstance(node, (ast.expr, ast.stmt))
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self._lines[node.lineno - 1] + node.col_offset,
            self._lines[node.end_lineno - 1] + node.end_col_offset,
        )

    def _text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self._source[start:end].decode()


def _field(node: ast.AST, name: str) -> list[object]:
    value = getattr(node, name, None)
    return value if isinstance(value, list) else [value]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))
    )


# --- one mutant at a time in a copy of the tree


def _copy(to: Path) -> Path:
    ignored = shutil.ignore_patterns(
        ".git", ".venv*", "build", "dist", "bench", "__pycache__", ".*_cache", ".hypothesis"
    )
    shutil.copytree(ROOT, to, ignore=ignored, symlinks=True)
    # Python checks the compiled modules by their contents, because a mutant may have the size and the time of
    # the original.
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", "--invalidation-mode=checked-hash", to / "zmsvc"],
        check=True,
    )
    return to


def _test_files(tree: Path, mutant: Mutant | None) -> list[str]:
    """Return the tests of the core, those of the changed module first and the slow ones last."""
    own = (f"test_{mutant.file.stem}", f"test_core_{mutant.file.stem}") if mutant else ()
    files = sorted(
        (tree / TESTS).glob("test_*.py"),
        key=lambda file: (file.stem not in own, file.stem in SLOW, file.stem),
    )
    return [*(str(file.relative_to(tree)) for file in files), *ALSO]


def _test(tree: Path, mutant: Mutant | None, cpu: int) -> Outcome:
    """Run the tests of the core in this copy, for at most `cpu` seconds of CPU time. Without a change, print
    what they print.
    """

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 5))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    # The CPU time is limited. On a busy machine the tests take longer than their deadlines.
    options = ["-x", "-q", "-p", "no:cacheprovider", "--deadlines", "20"]
    command = [sys.executable, "-m", "pytest", *options, *_test_files(tree, mutant)]
    # The same examples each time, so that a seed repeats the outcome.
    environment = os.environ | {"CI": "1", "PYTHONPATH": str(tree)}
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, preexec_fn=limit, timeout=20 * cpu, check=False,
            stdout=mutant and subprocess.DEVNULL, stderr=mutant and subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Outcome.NOT_JUDGED
    return Outcome.NOTICED if done.returncode else Outcome.SURVIVED


def _cpu_of_tests(tree: Path) -> float:
    """Return the seconds of CPU time that the tests take without a change."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if _test(tree, None, 10 * CPU_S) is not Outcome.SURVIVED:
        raise SystemExit("mutants: the tests of the core fail without a change")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _tried(trees: queue.Queue[Path], mutant: Mutant, cpu: int) -> Outcome:
    tree = trees.get()
    file = tree / mutant.file
    source = file.read_bytes()
    try:
        file.write_bytes(mutant.applied(source))
        return _test(tree, mutant, cpu)
    finally:
        file.write_bytes(source)
        trees.put(tree)


def _run(sources: dict[Path, bytes], chosen: list[Mutant], jobs: int, minutes: float) -> Counter[Outcome]:
    """Try the mutants until the time is over, print those that were not noticed, and count the outcomes."""
    begun, counts = time.monotonic(), Counter[Outcome]()
    trees: queue.Queue[Path] = queue.Queue()
    with tempfile.TemporaryDirectory(prefix="zmsvc-mutants-") as place:
        for number in range(jobs):
            trees.put(_copy(Path(place, str(number))))
        cpu = max(CPU_S, int(3 * _cpu_of_tests(trees.queue[0])))

        def attempt(mutant: Mutant) -> Outcome | None:
            return None if time.monotonic() - begun > 60 * minutes else _tried(trees, mutant, cpu)

        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for mutant, outcome in zip(chosen, pool.map(attempt, chosen), strict=True):
                if outcome is None:
                    continue
                counts[outcome] += 1
                if outcome is not Outcome.NOTICED:
                    print(f"{outcome.value}: {mutant.shown(sources[mutant.file])}", flush=True)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description="Change one place of the core at a time and run its tests.")
    parser.add_argument("--sample", type=int, default=40, help="how many changes, at random (40); 0 for all")
    parser.add_argument("--seed", type=int, default=None, help="repeats a sample")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time")
    parser.add_argument(
        "--minutes", type=float, default=60, help="no further change is tried after this time"
    )
    parser.add_argument("--at-least", type=float, default=90, metavar="PERCENT", help="status 1 below this")
    parser.add_argument("--compile", action="store_true", help="compile each change and test nothing")
    parser.add_argument("--list", action="store_true", help="print the sample and test nothing")
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="modules of zmsvc/core; all by default"
    )
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else random.randrange(10**6)
    files = chosen.files or sorted(path.relative_to(ROOT) for path in (ROOT / CORE).glob("*.py"))
    sources = {file: (ROOT / file).read_bytes() for file in files}
    mutants = [mutant for file, source in sources.items() for mutant in Mutations(file, source).all()]
    sample = random.Random(seed).sample(mutants, min(chosen.sample or len(mutants), len(mutants)))
    if chosen.list:
        print("\n".join(mutant.shown(sources[mutant.file]) for mutant in sample))
        return 0
    if chosen.compile:
        for mutant in sample:
            compile(mutant.applied(sources[mutant.file]), str(mutant.file), "exec")
        return 0
    print(f"{len(sample)} of {len(mutants)} changes, SEED={seed}", flush=True)
    counts = _run(sources, sample, chosen.jobs, chosen.minutes)
    judged = counts[Outcome.NOTICED] + counts[Outcome.SURVIVED]
    percent = 100 * counts[Outcome.NOTICED] / judged if judged else 0.0
    left_out = f", {counts[Outcome.NOT_JUDGED]} not judged" if counts[Outcome.NOT_JUDGED] else ""
    print(f"{counts[Outcome.NOTICED]} of {judged} noticed: {percent:.0f} %{left_out}")
    return int(percent < chosen.at_least)


if __name__ == "__main__":
    sys.exit(main())
