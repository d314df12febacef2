"""The elements of a context file and of the files in its directory as one tree, with the file and the line of
each. So the code that reads the tree need not know of several files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from zmsvc.core.errors import ConfigError
from zmsvc.core.model import ContextPart
from zmsvc.core.values import TASK_ID, WHITE, quote
from zmsvc.host.config.faults import Note
from zmsvc.host.config.xml_text import lines_of, tree

if TYPE_CHECKING:
    from lxml import etree


@dataclass(slots=True, kw_only=True)
class _File:
    path: str
    text: bytes
    root: etree._Element
    children: Sequence[etree._Element]
    """The children of the root of this file, which are now below the root of the context file."""

    def lines(self) -> Mapping[etree._Element, int]:
        return lines_of(self.text, [self.root, *(each for child in self.children for each in child.iter())])


@dataclass(kw_only=True)
class MergedTree:
    """A tree of several files. `faults` has those of the files in the directory, which may contain nothing
    but tasks.
    """

    root: etree._Element
    files: list[_File]
    faults: list[Note] = field(default_factory=list)

    @cached_property
    def _lines(self) -> Mapping[etree._Element, tuple[int, int]]:
        """The index of the file and the line of each element. To find them takes time."""
        return {
            element: (index, line)
            for index, file in enumerate(self.files)
            for element, line in file.lines().items()
        }

    def place(self, element: etree._Element) -> str:
        """Return `FILE:LINE` of an element."""
        index, line = self._lines[element]
        return f"{self.files[index].path}:{line}"

    def errors(self, notes: Iterable[Note]) -> ConfigError:
        """Return the error that has these notes in the order of the files, each once."""
        found = sorted(
            {(self._lines[element], _with_task(element, words)): None for element, words in notes},
            key=lambda fault: fault[0],
        )
        return ConfigError([f"{self.files[index].path}:{line}: {words}" for (index, line), words in found])

    def lined(self, notes: Sequence[Note]) -> Sequence[tuple[tuple[int, str], ...]]:
        """Return the notes of each file with their lines, in the order of the files."""
        placed = sorted((*self._lines[element], _with_task(element, words)) for element, words in notes)
        return [
            tuple((line, words) for at, line, words in placed if at == index)
            for index in range(len(self.files))
        ]


def _with_task(element: etree._Element, words: str) -> str:
    """Return a note with the ID of the task in which its element is, if the task has an ID."""
    task = next((each for each in (element, *element.iterancestors()) if each.tag == "TaskService"), None)
    given = "" if task is None else str(task.get("id", "")).strip(WHITE)
    return f"{given}: {words}" if TASK_ID.fullmatch(given) and quote(given) not in words else words


def merged(text: bytes, path: str, parts: Sequence[ContextPart] = ()) -> MergedTree:
    """Parse a context file and the files of its directory, and add their tasks to it. Raises ConfigError with
    the faults of all files that are not XML.
    """
    faults: list[str] = []
    files: list[_File] = []
    for name, data in [(path, text), *((each.path, each.text) for each in parts)]:
        try:
            root = tree(data, name)
        except ConfigError as error:
            faults += error.faults
        else:
            files.append(_File(path=name, text=data, root=root, children=list(root)))
    if faults:
        raise ConfigError(faults)
    whole = MergedTree(root=files[0].root, files=files)
    if whole.root.tag == "Context":
        for file in files[1:]:
            whole.faults += _add(whole.root, file)
    return whole


def _add(context: etree._Element, file: _File) -> Iterable[Note]:
    """Move the tasks of a file to the context. Yield a fault for everything else in it."""
    root = file.root
    if root.tag != "Context":
        yield root, f"the root element is <{root.tag}>, expected <Context>"
        return
    only = "expected <TaskService> alone in a file that adds tasks"
    for name in root.attrib:
        # Editors write attributes of other namespaces.
        if not str(name).startswith("{") or str(name).startswith("{http://www.w3.org/XML/1998/namespace}"):
            yield root, f"the attribute {str(name).rpartition('}')[2]} of <Context>, {only}"
    for owner, text in ((root, root.text), *((child, child.tail) for child in root)):
        if text and text.strip(WHITE):
            yield owner, f"text {quote(text.strip(WHITE))} in <Context>, {only}"
    for child in file.children:
        child.tail = None
        if child.tag == "TaskService":
            context.append(child)
        else:
            yield child, f"<{child.tag}> in <Context>, {only}"
    if not any(child.tag == "TaskService" for child in file.children):
        yield root, "<Context> has no <TaskService>, expected at least one"
