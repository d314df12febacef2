"""No test depends on the speed of the machine: a busy one only makes it slower.

A cost is counted (`tests/counting.py`), and its figure is measured by `make bench`. That something does not wait is
shown by what happens first. A time of the product is tested by a lower limit. A deadline only ends a test that
hangs, so it is a long one: that of `tests/waiting.py`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
import waiting

TESTS = Path(__file__).parents[1]
PROGRAMS = (
    "cluster",
    "core",
    "flood.py",
    "hostile.py",
    "promises.py",
    "soak.py",
    "chaos.py",
    "waiting.py",
    Path(__file__).name,
)
"""Files that measure or attack, the core, which has no clock, and the module that waits for all others."""
SHORTEST = 20.0
"""Seconds that a busy machine may take for an operation of milliseconds."""
SHORTEST_TEST = 240.0
"""Seconds that each test may take, without a mark."""

CLOCKS = {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "time", "time_ns"}
OF_THE_CPU = {"process_time", "process_time_ns", "thread_time", "thread_time_ns", "getrusage", "times"}
FILES_OF_THE_CPU = ("schedstat", "SC_CLK_TCK")
WAITS = {
    "wait", "wait_for", "wait_for_end", "wait_for_line", "join", "result", "settimeout", "communicate", "run",
    "check_output", "check_call", "wait_procs",
}  # fmt: skip
"""Functions whose numeric argument, or `timeout` or `deadline`, is a limit of time."""

ALLOWED = {
    ("host/test_usage_gauge.py", "test_the_figures_of_a_process_are_those_of_the_kernel"): "it compares two figures",
    ("host/test_testing.py", "test_a_test_can_tell_a_task_to_stop"): "no time passes in the `wait` of a unit test",
    ("host/test_testing.py", "run"): "no time passes in the `wait` of a unit test",
    ("host/test_memory_guard.py", "test_a_subscriber_that_does_not_read_is_disconnected_and_the_publisher_is_not"):
        "the pause between two messages",
    ("host/test_supervisor_bus.py", "attach"): "the pause between two messages",
    ("live/test_floods.py", "until_over"): "the pause between two questions",
    ("host/forwarder.py", "connected_publisher"): "the pause between two looks",
    ("host/test_loopback_gate.py", "test_tasks_of_the_context_connect_without_the_gate"): "the pause between two looks",
    ("live/test_completion_in_shells.py", "completed"): "the pause between two keys",
    ("live/other_hosts.py", "close"): "it is killed then",
}  # fmt: skip
"""Functions of tests that may, by file and name, with the reason."""


def name_of(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def owner_of(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[0]


def number(node: ast.expr, known: dict[str, float]) -> float | None:
    """Return the value of an expression of numbers and constants of the module; None of another one."""
    match node:
        case ast.Constant(value=bool()):
            return None
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return known.get(name)
        case ast.BinOp(left=left, op=op, right=right):
            one, other = number(left, known), number(right, known)
            if one is not None and other is not None:
                match op:
                    case ast.Add():
                        return one + other
                    case ast.Sub():
                        return one - other
                    case ast.Mult():
                        return one * other
                    case ast.Div():
                        return one / other
    return None


def constants(tree: ast.Module) -> dict[str, float]:
    found = {"PATIENCE": waiting.PATIENCE}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = number(node.value, found)
            if value is not None:
                found[node.targets[0].id] = value
    return found


Nodes = list[ast.AST]
"""The nodes of a function but those of the functions in it, which are looked at by themselves."""


def own(function: ast.AST) -> Nodes:
    found = [*ast.iter_child_nodes(function)]
    for node in found:  # `found` grows in the loop.
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found += ast.iter_child_nodes(node)
    return found


def untils(nodes: Nodes, known: dict[str, float]) -> dict[str, float]:
    """Return the names that hold a time to come, with the seconds until then."""
    found = {}
    for node in nodes:
        match node:
            case ast.Assign(
                targets=[ast.Name(id=name)], value=ast.BinOp(left=left, op=ast.Add(), right=right)
            ):
                seconds = number(right, known)
                if seconds is not None and clocks_in(left, set()):
                    found[name] = seconds
    return found


def clocks_in(node: ast.AST, measured: set[str]) -> bool:
    return any(
        (isinstance(each, ast.Call) and name_of(each) in CLOCKS and owner_of(each) == "time")
        or (isinstance(each, ast.Name) and each.id in measured)
        for each in ast.walk(node)
    )


def differences(nodes: Nodes) -> set[str]:
    """Return the names that hold a difference of two times."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            subtracts = any(isinstance(each, ast.Sub) for each in ast.walk(node))
            if subtracts and clocks_in(node.value, found):
                found.add(node.targets[0].id)
    return found


def limits(nodes: Nodes, known: dict[str, float]) -> Iterator[tuple[int, str]]:
    """Yield the upper limits of an elapsed time that are short."""
    measured, known = differences(nodes), known | untils(nodes, known)
    for node in (each for each in nodes if isinstance(each, ast.Assert)):
        for compared in (each for each in ast.walk(node.test) if isinstance(each, ast.Compare)):
            sides = [compared.left, *compared.comparators]
            for one, op, other in zip(sides, compared.ops, sides[1:], strict=False):
                less, more = (one, other) if isinstance(op, ast.Lt | ast.LtE) else (other, one)
                if not isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) or not clocks_in(less, measured):
                    continue
                limit = number(more, known)
                if not clocks_in(more, measured) and (limit is None or limit < SHORTEST):
                    yield node.lineno, f"a time must be less than {ast.unparse(more)}"


def deadlines(nodes: Nodes, known: dict[str, float]) -> Iterator[tuple[int, str]]:
    """Yield the waits that are given up early, and the sleeps."""
    for node in (each for each in nodes if isinstance(each, ast.Call)):
        name = name_of(node)
        if name == "sleep" and owner_of(node) in ("time", "asyncio") and number(node.args[0], known) != 0:
            yield node.lineno, "it sleeps"
        if name == "select" and [ast.unparse(each) for each in node.args[:3]] == ["[]", "[]", "[]"]:
            yield node.lineno, "it sleeps"
        if name == "deadline" and (number(node.args[0], known) or SHORTEST_TEST) < SHORTEST_TEST:
            yield node.lineno, "the test is given up early"
        if name in WAITS and not (name == "run" and owner_of(node) != "subprocess"):
            given = [each.value for each in node.keywords if each.arg in ("timeout", "deadline")]
            for each in [*node.args, *given]:
                value = number(each, known)
                if value is not None and 0 < value < SHORTEST:
                    yield node.lineno, f"{ast.unparse(node.func)} gives up after {value:g} s"


def polls(nodes: Nodes, known: dict[str, float]) -> Iterator[tuple[int, str]]:
    """Yield the assertions that something comes within a short time, in milliseconds. That nothing comes may be
    asserted so.
    """
    for node in (each for each in nodes if isinstance(each, ast.Assert)):
        parts = [*ast.walk(node)]
        denied = any(isinstance(each, ast.Not) for each in parts)
        for each in parts:
            if isinstance(each, ast.Call) and name_of(each) == "poll" and each.args and not denied:
                value = number(each.args[0], known)
                if value is not None and 0 < value < 1000 * SHORTEST:
                    yield node.lineno, f"poll gives up after {value:g} ms"


def of_the_cpu(nodes: Nodes) -> Iterator[tuple[int, str]]:
    for node in nodes:
        match node:
            case ast.Call() if name_of(node) in OF_THE_CPU and owner_of(node) in ("time", "os", "resource"):
                yield node.lineno, f"it measures CPU time with {name_of(node)}"
            case ast.Constant(value=str() as text) if any(each in text for each in FILES_OF_THE_CPU):
                yield node.lineno, "it measures CPU time"


def hasty(text: str) -> dict[str, list[str]]:
    """Return what depends on the speed of the machine, by the name of the function."""
    tree = ast.parse(text)
    known = constants(tree)
    found: dict[str, list[str]] = {}
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        nodes = own(function)
        kinds = (limits(nodes, known), deadlines(nodes, known), polls(nodes, known), of_the_cpu(nodes))
        if lines := {*chain.from_iterable(kinds)}:
            found[function.name] = [f"line {line}: {what}" for line, what in sorted(lines)]
    return found


def test_no_test_depends_on_the_speed_of_the_machine() -> None:
    refused, used = [], set()
    for path in sorted(TESTS.rglob("*.py")):
        file = str(path.relative_to(TESTS))
        if file.startswith(PROGRAMS) or path.name in PROGRAMS:
            continue
        for name, lines in hasty(path.read_text()).items():
            if (file, name) in ALLOWED:
                used.add((file, name))
            else:
                refused += [f"tests/{file}: {name}: {line}" for line in lines]
    assert not refused, "\n".join(refused)
    assert used == ALLOWED.keys(), "these are allowed for nothing"


@pytest.mark.parametrize(
    "line",
    [
        "assert time.monotonic() - began < 5",
        "assert 5 > time.perf_counter() - began",
        "spent = time.time() - began; assert spent <= LIMIT",
        "spent = time.time() - began; assert 0 < spent < usual",
        "took = time.process_time()",
        "resource.getrusage(resource.RUSAGE_SELF)",
        "open('/proc/self/schedstat')",
        "time.sleep(1)",
        "select.select([], [], [], 0.1)",
        "wait_for(fact, 5)",
        "wait_for(fact, deadline=PATIENCE / 10)",
        "process.wait(timeout=3)",
        "subprocess.run(command, timeout=LIMIT)",
        "client.settimeout(0.3)",
        "assert client.poll(5000)",
        "pytest.mark.deadline(60)(test)",
        "until = time.monotonic() + LIMIT; assert time.monotonic() < until",
    ],
)
def test_a_test_that_depends_on_it_is_found(line: str) -> None:
    text = "LIMIT = 2 * 3.0\ndef test_it():\n    began = time.monotonic()\n    "
    assert [*hasty(text + line.replace("; ", "\n    "))] == ["test_it"]


@pytest.mark.parametrize(
    "line",
    [
        "assert time.monotonic() - began > 5",
        "assert time.monotonic() - began < 30",
        "spent = time.time() - began; assert age <= spent + 1",
        "told = 3; assert told <= 2 + (time.monotonic() - began) / INTERVAL",
        "wait_for(fact)",
        "assert not client.poll(100)",
        "until = time.monotonic() + PATIENCE; assert time.monotonic() < until",
        "wait_for(fact, 2 * PATIENCE)",
        "wait_for_end(pid, 0)",
        "context.ask(verb='start', timeout=0.2)",
        "program = 'time.sleep(1)'",
    ],
)
def test_a_test_that_waits_for_facts_is_accepted(line: str) -> None:
    assert not hasty("def test_it():\n    began = time.monotonic()\n    " + line.replace("; ", "\n    "))
