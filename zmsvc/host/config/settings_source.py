"""Read the settings class of a service from its source. None of its code is run, because it may belong to
another user than the one who runs `zmsvcctl check`.

This understands the same as the task itself (task/settings.py), as long as it is written plainly: classes and
imports at the top level of the modules of a service and of those beside it. Everything else counts as
unknown, and then each value is right. So a fault that is found here is a fault.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zmsvc.core import settings
from zmsvc.core.settings import Choice, Leaf, Many, Maybe, Member, Raw, Record, Shape, Table

_MAX_MODULE = 1 << 20
"""Bytes. A larger module is data."""
_MAX_STEPS = 10_000
"""The number of names to look up. Hostile code can make it grow exponentially."""
_MAX_DEPTH = 20
"""The number of names in a chain in which each stands for the next one. A longer chain is a circle."""

_LEAVES: Mapping[str, Leaf] = {
    "str": settings.TEXT,
    "int": settings.WHOLE,
    "float": settings.NUMBER,
    "bool": settings.BOOLEAN,
    "pathlib.Path": settings.PATH,
    "datetime.timedelta": settings.SECONDS,
}
_DATACLASS = "dataclasses.dataclass"
_ENUMS = ("enum.Enum", "enum.StrEnum", "enum.IntEnum")
_LISTS = ("list", "tuple", "typing.List", "typing.Tuple")
_UNKNOWN = Raw()


@dataclass(frozen=True, slots=True)
class _Module:
    """The names at the top level of a module."""

    package: str
    defined: Mapping[str, ast.expr | ast.ClassDef]
    imported: Mapping[str, str]
    """The full name of each imported name, in the form `MODULE.NAME`."""


@dataclass(frozen=True, slots=True)
class _Named:
    """A definition, and the module in which the names that it uses are looked up."""

    module: _Module
    node: ast.expr | ast.ClassDef


def settings_of(location: Path, instance: str) -> Record | None:
    """Return the shape of the settings of a service in this directory; None if it has no settings class, or
    one that this cannot read.
    """
    try:
        return _settings_of(_Reader(location), instance)
    except RecursionError:
        return None  # no person writes such code


def _settings_of(reader: _Reader, instance: str) -> Record | None:
    service = reader.find(f"{instance}.Service{instance}.Service{instance}")
    if service is None:
        return None
    task = reader.attribute(service, "task_class")
    found = task and reader.attribute(task, "settings_class")
    shape = reader.record(found) if found else None
    return shape if isinstance(shape, Record) else None


@dataclass(slots=True)
class _Reader:
    """The modules of one directory of services that were read."""

    location: Path
    modules: dict[str, _Module | None] = field(default_factory=dict)
    records: dict[ast.ClassDef, Shape] = field(default_factory=dict)
    """The shapes of classes. In a class that contains itself, that field is unknown."""
    depth: int = 0
    steps: int = 0
    """The number of names that were looked up."""

    def find(self, full: str) -> _Named | None:
        """Return the definition of a full name in a module of the directory."""
        module_name, _, name = full.rpartition(".")
        module = self._module(module_name) if module_name else None
        return None if module is None else self.resolve(module, ast.Name(name))

    def resolve(self, module: _Module, node: ast.expr | ast.ClassDef) -> _Named | None:
        """Follow a name to the class or the expression that it stands for. None if it is not in the
        directory.
        """
        self.steps += 1
        if self.steps > _MAX_STEPS:
            raise RecursionError
        if isinstance(node, ast.ClassDef) or not isinstance(node, ast.Name | ast.Attribute):
            return _Named(module, node)
        if self.depth > _MAX_DEPTH:
            return None
        self.depth += 1
        try:
            if isinstance(node, ast.Name) and node.id in module.defined:
                return self.resolve(module, module.defined[node.id])
            full = self.full_name(module, node)
            return self.find(full) if full else None
        finally:
            self.depth -= 1

    def full_name(self, module: _Module, node: ast.expr) -> str:
        """Return the full name of an imported or a built-in name. Empty for any other expression."""
        if isinstance(node, ast.Name):
            if node.id in module.defined:
                return ""
            return module.imported.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            owner = self.full_name(module, node.value)
            return f"{owner}.{node.attr}" if owner else ""
        return ""

    def attribute(self, owner: _Named, name: str) -> _Named | None:
        """Return the value of an attribute of a class or of its bases."""
        if not isinstance(owner.node, ast.ClassDef) or self.depth > _MAX_DEPTH:
            return None
        local = _definitions(owner.node.body)
        if name in local:
            inner = _Module(owner.module.package, {**owner.module.defined, **local}, owner.module.imported)
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

    def record(self, found: _Named) -> Shape:
        """Return the shape of a dataclass, and Raw for any other class."""
        if (
            not isinstance(found.node, ast.ClassDef)
            or self.depth > _MAX_DEPTH
            or not any(
                self.full_name(found.module, each.func if isinstance(each, ast.Call) else each) == _DATACLASS
                for each in found.node.decorator_list
            )
        ):
            return _UNKNOWN
        if found.node not in self.records:
            self.records[found.node] = _UNKNOWN
            self.depth += 1
            try:
                members, complete = self._members(found.module, found.node)
            finally:
                self.depth -= 1
            self.records[found.node] = Record(name=found.node.name, members=members, complete=complete)
        return self.records[found.node]

    def _members(self, module: _Module, node: ast.ClassDef) -> tuple[dict[str, Member], bool]:
        members: dict[str, Member] = {}
        complete = True
        for each in node.bases:
            base = self.resolve(module, each)
            shape = self.record(base) if base else _UNKNOWN
            if isinstance(shape, Record):
                members |= shape.members
                complete = complete and shape.complete
            else:
                complete = False
        local = {**module.defined, **_definitions(node.body)}
        inner = _Module(module.package, local, module.imported)
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                element = settings.element_name(statement.target.id)
                members.pop(element, None)
                member = self._member(inner, statement)
                if member is not None:
                    members[element] = member
        return members, complete

    def _member(self, module: _Module, statement: ast.AnnAssign) -> Member | None:
        """Return the value of a field. None if the annotation does not make one that can be set."""
        annotation = _unquoted(statement.annotation)
        owner = annotation.value if isinstance(annotation, ast.Subscript) else annotation
        if self.full_name(module, owner) in ("typing.ClassVar", "dataclasses.KW_ONLY"):
            return None
        default = statement.value
        required = default is None
        if isinstance(default, ast.Call) and self.full_name(module, default.func) == "dataclasses.field":
            given = {each.arg: each.value for each in default.keywords}
            init = given.get("init")
            if isinstance(init, ast.Constant) and init.value is False:
                return None
            # `field(**options)` may have a default.
            required = not given.keys() & {"default", "default_factory", None}
        return Member(self.shape(module, annotation), required)

    def shape(self, module: _Module, node: ast.expr) -> Shape:
        """Return the shape of an annotation."""
        if self.depth > _MAX_DEPTH:
            return _UNKNOWN
        self.depth += 1
        try:
            return self._shape(module, _unquoted(node))
        finally:
            self.depth -= 1

    def _shape(self, module: _Module, node: ast.expr) -> Shape:
        full = self.full_name(module, node)
        if full in _LEAVES:
            return _LEAVES[full]
        if full in _LISTS:
            return Many(_UNKNOWN)
        if isinstance(node, ast.Subscript):
            return self._generic(module, self.full_name(module, node.value), node.slice)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return self._union(module, [*_alternatives(node)])
        found = self.resolve(module, node)
        if found is None or not isinstance(node, ast.Name | ast.Attribute):
            return _UNKNOWN
        if not isinstance(found.node, ast.ClassDef):
            return self.shape(found.module, found.node)
        if len(found.node.bases) == 1 and self.full_name(found.module, found.node.bases[0]) in _ENUMS:
            return _enumeration(found.node)
        return self.record(found)

    def _generic(self, module: _Module, owner: str, argument: ast.expr) -> Shape:
        items = argument.elts if isinstance(argument, ast.Tuple) else [argument]
        if owner == "typing.Annotated":
            return self.shape(module, items[0])
        if owner == "typing.Literal":
            values = [each.value for each in items if isinstance(each, ast.Constant)]
            return Choice({str(each): each for each in values}) if len(values) == len(items) else _UNKNOWN
        if owner == "typing.Optional":
            return Maybe(self.shape(module, argument))
        if owner == "typing.Union":
            return self._union(module, items)
        if owner in _LISTS:
            return Many(self.shape(module, items[0]))
        if owner in ("dict", "typing.Dict") and len(items) == 2:
            return Table(self.shape(module, items[1]))
        return _UNKNOWN

    def _union(self, module: _Module, items: list[ast.expr]) -> Shape:
        others = [each for each in items if not (isinstance(each, ast.Constant) and each.value is None)]
        return Maybe(self.shape(module, others[0])) if len(others) == 1 else _UNKNOWN

    def _module(self, name: str) -> _Module | None:
        if name not in self.modules:
            self.modules[name] = _read(self.location, name)
        return self.modules[name]


def _read(location: Path, name: str) -> _Module | None:
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
    return _Module(owner, _definitions(tree.body), dict(_imports(tree.body, owner)))


_AMBIGUOUS = ast.Constant(None)
"""The definition of a name that has several definitions."""


def _definitions(body: list[ast.stmt]) -> dict[str, ast.expr | ast.ClassDef]:
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


def _unquoted(node: ast.expr) -> ast.expr:
    """Return the expression of an annotation, also of one that is written as a text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            return ast.parse(node.value, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return node
    return node


def _alternatives(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        yield from _alternatives(node.left)
        yield from _alternatives(node.right)
    else:
        yield node


def _enumeration(node: ast.ClassDef) -> Shape:
    """Return the values of an enumeration if each of them is written as a constant."""
    values = []
    for each in node.body:
        if isinstance(each, ast.Assign):
            if not isinstance(each.value, ast.Constant):
                return _UNKNOWN
            values.append(each.value.value)
    return Choice({str(each): each for each in values}) if values else _UNKNOWN
