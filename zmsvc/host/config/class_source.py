"""Read the classes of services from their source. None of their code is run, because it may belong to another
user than the one who runs `zmsvcctl check`.

This finds what is written plainly: classes and imports at the top level of the modules of a service and of
those beside it. Everything else counts as unknown.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_MAX_MODULE = 1 << 20
"""Bytes. A larger module is taken for data."""
_MAX_STEPS = 10_000
"""The limit of names to look up. Hostile code can make their number grow exponentially."""
MAX_DEPTH = 20
"""The limit of names in a chain in which each stands for the next one. A longer chain is taken for a circle.
"""


@dataclass(frozen=True, slots=True)
class Module:
    """The names at the top level of a module."""

    package: str
    defined: Mapping[str, ast.expr | ast.ClassDef]
    imported: Mapping[str, str]
    """The full name of each imported name, in the form `MODULE.NAME`."""


@dataclass(frozen=True, slots=True)
class Named:
    """A definition, and the module in which the names that it uses are looked up."""

    module: Module
    node: ast.expr | ast.ClassDef


@dataclass(slots=True)
class ClassSource:
    """The modules of one directory of services that were read."""

    location: Path
    modules: dict[str, Module | None] = field(default_factory=dict)
    depth: int = 0
    steps: int = 0
    """The number of names that were looked up."""

    def find(self, full: str) -> Named | None:
        """Return the definition that a full name, MODULE.NAME, has in the directory."""
        module_name, _, name = full.rpartition(".")
        module = self._module(module_name) if module_name else None
        return None if module is None else self.resolve(module, ast.Name(name))

    def resolve(self, module: Module, node: ast.expr | ast.ClassDef) -> Named | None:
        """Follow a name to the class or the expression that it stands for. None if it is not in the
        directory.
        """
        self.steps += 1
        if self.steps > _MAX_STEPS:
            raise RecursionError
        if isinstance(node, ast.ClassDef) or not isinstance(node, ast.Name | ast.Attribute):
            return Named(module, node)
        if self.depth > MAX_DEPTH:
            return None
        self.depth += 1
        try:
            if isinstance(node, ast.Name) and node.id in module.defined:
                return self.resolve(module, module.defined[node.id])
            full = self.full_name(module, node)
            return self.find(full) if full else None
        finally:
            self.depth -= 1

    def full_name(self, module: Module, node: ast.expr) -> str:
        """Return the full name of an imported or a built-in name. Empty for any other expression."""
        if isinstance(node, ast.Name):
            if node.id in module.defined:
                return ""
            return module.imported.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            owner = self.full_name(module, node.value)
            return f"{owner}.{node.attr}" if owner else ""
        return ""

    def attribute(self, owner: Named, name: str) -> Named | None:
        """Return the value of an attribute of a class or of its bases."""
        if not isinstance(owner.node, ast.ClassDef) or self.depth > MAX_DEPTH:
            return None
        local = definitions(owner.node.body)
        if name in local:
            inner = Module(owner.module.package, {**owner.module.defined, **local}, owner.module.imported)
            return self.resolve(inner, local[name])
        self.depth += 1
        try:
            for each in owner.node.bases:
                base = self.resolve(owner.module, each)
                found = base and self.attribute(base, name)
                if found:
                    return found
            return None
        finally:
            self.depth -= 1

    def _module(self, name: str) -> Module | None:
        if name not in self.modules:
            self.modules[name] = _read(self.location, name)
        return self.modules[name]


def _read(location: Path, name: str) -> Module | None:
    """Return the module of this name in the directory. None if there is none, or if it cannot be read."""
    path = location.joinpath(*name.split("."))
    package = path / "__init__.py"
    try:
        file = package if package.is_file() else path.with_suffix(".py")
        if not file.is_file() or file.stat().st_size > _MAX_MODULE:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(file.read_bytes())
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return None  # check_services reports it
    owner = name if file == package else name.rpartition(".")[0]
    return Module(owner, definitions(tree.body), dict(_imports(tree.body, owner)))


_AMBIGUOUS = ast.Constant(None)
"""The definition of a name that has several definitions."""


def definitions(body: list[ast.stmt]) -> dict[str, ast.expr | ast.ClassDef]:
    found: dict[str, ast.expr | ast.ClassDef] = {}
    for each in body:
        if isinstance(each, ast.ClassDef):
            found[each.name] = each
        elif isinstance(each, ast.Assign):
            found |= {target.id: each.value for target in each.targets if isinstance(target, ast.Name)}
        elif isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and each.value:
            found[each.target.id] = each.value
        elif isinstance(each, ast.If | ast.Try | ast.With | ast.For | ast.While | ast.Match):
            found |= dict.fromkeys(_bound(each), _AMBIGUOUS)
    return found


def _bound(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement may define."""
    for each in ast.walk(statement):
        if isinstance(each, ast.ClassDef):
            yield each.name
        elif isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
            yield each.id
        elif isinstance(each, ast.alias):
            yield each.asname or each.name.split(".")[0]


def _imports(body: list[ast.stmt], package: str) -> Iterator[tuple[str, str]]:
    for each in body:
        if isinstance(each, ast.Import):
            for alias in each.names:
                top = alias.name.split(".")[0]
                yield alias.asname or top, alias.name if alias.asname else top
        elif isinstance(each, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) - each.level + 1] if each.level else []
            owner = ".".join([*above, *([each.module] if each.module else [])])
            for alias in each.names:
                yield alias.asname or alias.name, f"{owner}.{alias.name}" if owner else alias.name
