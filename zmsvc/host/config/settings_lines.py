"""Find the line of a setting in a context file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from zmsvc.core import replicas
from zmsvc.core.errors import ConfigError
from zmsvc.core.model import ContextPart
from zmsvc.core.settings import Place
from zmsvc.core.values import WHITE
from zmsvc.host.config import context_files
from zmsvc.host.config.xml_text import kept, lines, to_json, tree

if TYPE_CHECKING:
    from lxml import etree


class SettingLines:
    """The lines of the settings of one file's tasks."""

    def __init__(self, text: bytes, path: str) -> None:
        """Raises ConfigError for a text that is not XML."""
        self.path = path
        root = tree(text, path)
        self._lines = lines(text, root)
        self._configurations: Mapping[str, etree._Element] = {
            str(each.get("id", "")).strip(WHITE): found
            for each in root.findall("TaskService")
            if (found := each.find("Task/message/content/configuration")) is not None
        }

    def has(self, task: str, configuration: Mapping[str, object] | None = None) -> bool:
        """Return True if the file has this task or replica, with this configuration."""
        element = self._configurations.get(replicas.base(task))
        if element is None:
            return False
        return configuration is None or to_json(element, keep=kept(element)) == configuration

    def prefix(self, task: str, place: Place) -> str:
        """Return `FILE:LINE: ` of an element."""
        return f"{self.path}:{self.line(task, place)}: "

    def line(self, task: str, place: Place) -> int:
        """Return the line of an element. The line of an attribute is that of its element."""
        here = self._configurations[replicas.base(task)]
        for tag, number in place:
            children = here.findall(tag)
            if not children:
                break
            # An attribute of the same name stands before the elements in their list.
            here = children[min(number, len(children) - 1)]
        return self._lines[here]


def of_context(text: bytes, path: str, parts: Sequence[ContextPart]) -> list[SettingLines]:
    """Return the lines of the context file and of each file that adds tasks to it."""
    return [SettingLines(text, path), *(SettingLines(part.text, part.path) for part in parts)]


def find(file: str, task: str, configuration: Mapping[str, object]) -> SettingLines | None:
    """Return the lines of the file that has this task with this configuration. None if there is no such file,
    or if it cannot be read: by the time a task starts the files may have changed.
    """
    try:
        files = context_files.read(file)
        found = of_context(files.text, file, files.parts)
    except (OSError, ValueError, ConfigError):
        return None
    return next((each for each in found if each.has(task, configuration)), None)
