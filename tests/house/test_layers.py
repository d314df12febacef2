"""The layers of the package: which room may import which, what core may import, and how long a function may
be. The source is read with `ast`.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "zmsvc"

LONGEST_FUNCTION = 60

PURE = {
    "__future__",
    "collections",
    "dataclasses",
    "difflib",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "shlex",
    "string",
    "typing",
}
"""The modules of the standard library that core may import. None of them uses a clock, a file, a socket or a
process.
"""

PROCESSES = (
    "keeper",
    "zygote",
    "supervisor",
    "envoy",
    "device",
    "output",
    "fdstore",
    "watcher",
    "task",
    "ctl",
)
LIBRARIES = {
    "core": {"core"},
    "protocol": {"core", "protocol"},
    "host": {"core", "host"},
    "keeper_client": {"core", "protocol", "host", "keeper_client"},
}
CLIENTS_OF_A_KEEPER = ("supervisor", "envoy")
MAY_IMPORT = (
    LIBRARIES
    | {room: {"core", "protocol", "host", room} for room in PROCESSES}
    | {room: {"core", "protocol", "host", "keeper_client", room} for room in CLIENTS_OF_A_KEEPER}
    | {"testing": {"core", "protocol", "task", "testing"}}
)
"""The rooms that each room may import. `data` has no code, `testing` is for the tests of users, and the
package itself has only the version.
"""

EXCEPTIONS = {("zmsvc.zygote.zygote", "zmsvc.task.runner"), ("zmsvc.zygote.zygote", "zmsvc.task.warmup")}
"""The zygote forks into the runner, which is how a task starts in milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One import in a file."""

    importer: str
    target: str
    line: int
    local: bool
    """True if the import is in a function."""

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


@functools.cache
def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = ("zmsvc", *file.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text())


def names(node: ast.Import | ast.ImportFrom, module: str) -> Iterator[str]:
    """Return the absolute names of an import statement; `from package import module` names the module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        package = module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*above, *([base] if base else [])])
    for alias in node.names:
        yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules() else base


def walk(node: ast.AST, module: str, *, local: bool = False) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            for target in names(child, module):
                yield Import(importer=module, target=target, line=child.lineno, local=local)
        inside = local or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from walk(child, module, local=inside)


@functools.cache
def imports() -> tuple[Import, ...]:
    return tuple(found for module in modules() for found in walk(tree(module), module))


def room(module: str) -> str:
    """Return the room of a module; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def test_rooms_import_only_what_lies_below_them() -> None:
    crossed = [
        str(each)
        for each in imports()
        if each.target.startswith("zmsvc.")
        and room(each.importer) in MAY_IMPORT
        and room(each.target) not in MAY_IMPORT[room(each.importer)]
        and (each.importer, each.target) not in EXCEPTIONS
    ]
    assert crossed == []


def test_the_package_itself_imports_nothing_of_ours() -> None:
    assert {each.target for each in imports() if not room(each.importer)} <= {"sys"}


def test_every_room_is_known() -> None:
    assert {room(module) for module in modules()} <= {"", "data", *MAY_IMPORT}


def test_core_is_pure() -> None:
    impure = [
        str(each)
        for each in imports()
        if room(each.importer) == "core"
        and not each.target.startswith("zmsvc.core")
        and each.target.split(".")[0] not in PURE
    ]
    assert impure == []


def test_the_kernel_and_the_interpreter_have_one_door_each() -> None:
    doors = {each.importer for each in imports() if each.target.split(".")[0] == "ctypes"}
    interpreter = {
        f"zmsvc.host.python.{name}"
        for name in ("interpreter", "immortal", "immortal_constants", "allocators")
    }
    assert doors <= {"zmsvc.host.kernel.linux"} | interpreter


SUBROOMS = {
    "zmsvc.host.python": set(),
    "zmsvc.host.kernel": {"python"},
    "zmsvc.host.systemd": {"kernel"},
    "zmsvc.host.bus": {"kernel"},
    "zmsvc.host.config": {"bus", "kernel"},
    "zmsvc.ctl.log": set(),
    "zmsvc.ctl.create": set(),
    "zmsvc.ctl.imports": {"create"},
    "zmsvc.ctl.compat": set(),
    "zmsvc.ctl.remote": set(),
    "zmsvc.ctl.top": set(),
    "zmsvc.ctl.verbs": {"log", "top"},
}
"""The rooms inside a room, and the neighbors that each may import. All of them may import the modules beside
them.
"""


def _subroom(module: str) -> str:
    return next((name for name in SUBROOMS if module == name or module.startswith(f"{name}.")), "")


def test_the_rooms_within_a_room_import_only_the_neighbors_that_are_named() -> None:
    crossed = []
    for each in imports():
        here, there = _subroom(each.importer), _subroom(each.target)
        if (
            here
            and there
            and here != there
            and room(here) == room(there)
            and there.rpartition(".")[2] not in SUBROOMS[here]
        ):
            crossed.append(str(each))
    assert crossed == []


def test_every_room_within_a_room_is_known() -> None:
    packages = {
        module for module, file in modules().items() if file.name == "__init__.py" and module.count(".") == 2
    }
    assert {each for each in packages if not each.startswith("zmsvc.data.")} == set(SUBROOMS)


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports in functions and for type checkers count, too, because they often hide a circle."""
    graph: dict[str, set[str]] = {module: set() for module in modules()}
    for each in imports():
        if each.target in graph and each.target != each.importer:
            graph[each.importer].add(each.target)
    # A module that imports none of the rest cannot be in a circle. Such modules are removed until none is left.
    while free := [module for module, targets in graph.items() if not targets & graph.keys()]:
        for module in free:
            del graph[module]
    assert {module: sorted(targets & graph.keys()) for module, targets in graph.items()} == {}


def test_an_import_inside_a_function_says_why() -> None:
    silent = []
    for each in imports():
        lines = modules()[each.importer].read_text().splitlines()
        around = lines[max(0, each.line - 2) : each.line]
        if each.local and not any("#" in line for line in around):
            silent.append(str(each))
    assert silent == []


def test_a_function_fits_on_a_screen() -> None:
    """Also those of tests, benchmarks and scripts: people read them, too."""
    root = PACKAGE.parent
    files = [
        file for folder in ("zmsvc", "tests", "bench", "scripts") for file in (root / folder).rglob("*.py")
    ]
    long = [
        f"{file.relative_to(root)}:{node.lineno} {node.name} has {length} lines"
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert long == []


def test_every_module_says_what_its_job_is() -> None:
    assert [module for module in modules() if not ast.get_docstring(tree(module))] == []


def test_scripts_are_never_imported() -> None:
    assert [str(each) for each in imports() if each.target.split(".")[0] in ("scripts", "tests")] == []


SPEAKERS = {
    "zmsvc.ctl.terminal": "the one place",
    "zmsvc.host.complain": "the same for the processes of a daemon",
    "zmsvc.task.__main__": "a developer's own task in the developer's own terminal",
    "zmsvc": "a constant text, before anything may be imported",
    "zmsvc.host.requirements": "constant texts and version numbers",
    "zmsvc.supervisor.__main__": "versions as JSON, for a keeper",
}
"""Modules that may write to a standard stream, with the reason why that cannot control a terminal."""


def _prints(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = ast.unparse(node.func)
    return called == "print" or called in ("sys.stdout.write", "sys.stderr.write")


def test_everything_that_reaches_a_terminal_is_cleaned_in_one_place() -> None:
    found = {module for module in modules() if any(map(_prints, ast.walk(tree(module))))}
    assert found - SPEAKERS.keys() == set()
