"""Read the settings class of a service from its source. None of its code is run, because it may belong to
another user than the one who runs `zmsvcctl check`.

This understands the same as the task itself (task/settings.py), as long as it is written plainly: classes and
imports at the top level of the modules of a service and of those beside it. Everything else counts as
unknown, and every value of it is accepted. So each fault that is found here is a real one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from zmsvc.core import settings
from zmsvc.core.settings import Choice, Many, Maybe, Member, Raw, Shape, Structure, Table
from zmsvc.host.config.class_source import MAX_DEPTH, ClassSource, Module, Named, definitions

_LEAVES = settings.LEAVES.by_type()
_DATACLASS = "dataclasses.dataclass"
_ENUMS = ("enum.Enum", "enum.StrEnum", "enum.IntEnum")
_LISTS = ("list", "tuple", "typing.List", "typing.Tuple")
_UNKNOWN = Raw()


def settings_of(location: Path, instance: str) -> Structure | None:
    """Return the shape of the settings of a service in this directory; None if it has no settings class, or
    one that this cannot read.
    """
    try:
        return _settings_of(_Reader(location), instance)
    except RecursionError:
        return None  # no person writes such code


def _settings_of(reader: _Reader, instance: str) -> Structure | None:
    service = reader.find(f"{instance}.Service{instance}.Service{instance}")
    if service is None:
        return None
    task = reader.attribute(service, "task_class")
    found = task and reader.attribute(task, "settings_class")
    shape = reader.record(found) if found else None
    return shape if isinstance(shape, Structure) else None


@dataclass(slots=True)
class _Reader(ClassSource):
    """The modules of one directory of services that were read, and the shapes of their classes."""

    records: dict[ast.ClassDef, Shape] = field(default_factory=dict)
    """If a class contains itself, the type of that field counts as unknown."""

    def record(self, found: Named) -> Shape:
        """Return the shape of a dataclass, and Raw for any other class."""
        if (
            not isinstance(found.node, ast.ClassDef)
            or self.depth > MAX_DEPTH
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
            self.records[found.node] = Structure(name=found.node.name, members=members, complete=complete)
        return self.records[found.node]

    def _members(self, module: Module, node: ast.ClassDef) -> tuple[dict[str, Member], bool]:
        members: dict[str, Member] = {}
        complete = True
        for each in node.bases:
            base = self.resolve(module, each)
            shape = self.record(base) if base else _UNKNOWN
            if isinstance(shape, Structure):
                members |= shape.members
                complete = complete and shape.complete
            else:
                complete = False
        local = {**module.defined, **definitions(node.body)}
        inner = Module(module.package, local, module.imported)
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                element = settings.element_name(statement.target.id)
                members.pop(element, None)
                member = self._member(inner, statement)
                if member is not None:
                    members[element] = member
        return members, complete

    def _member(self, module: Module, statement: ast.AnnAssign) -> Member | None:
        """Return the value of a field. None if the annotation is not that of a field that can be set."""
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

    def shape(self, module: Module, node: ast.expr) -> Shape:
        """Return the shape of an annotation."""
        if self.depth > MAX_DEPTH:
            return _UNKNOWN
        self.depth += 1
        try:
            return self._shape(module, _unquoted(node))
        finally:
            self.depth -= 1

    def _shape(self, module: Module, node: ast.expr) -> Shape:
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

    def _generic(self, module: Module, owner: str, argument: ast.expr) -> Shape:
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

    def _union(self, module: Module, items: list[ast.expr]) -> Shape:
        others = [each for each in items if not (isinstance(each, ast.Constant) and each.value is None)]
        return Maybe(self.shape(module, others[0])) if len(others) == 1 else _UNKNOWN


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
