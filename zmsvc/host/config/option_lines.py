"""Find the lines of an option of tasks in the files of a context."""

from __future__ import annotations

from collections.abc import Iterable

from zmsvc.core import replicas
from zmsvc.core.errors import ConfigError
from zmsvc.core.values import WHITE
from zmsvc.host.config import context_files
from zmsvc.host.config.xml_text import lines, tree


def find(file: str, tasks: Iterable[str], option: str) -> dict[str, str]:
    """Return `FILE:LINE` of this option in the `<service>` of each task, or of the task if it has none. A
    task that the files do not have any more is left out, and all of a file that cannot be read.
    """
    wanted = {replicas.base(task) for task in tasks}
    try:
        files = context_files.read(file)
        texts = [(files.text, file), *((part.text, part.path) for part in files.parts)]
        found: dict[str, str] = {}
        for text, path in texts:
            root = tree(text, path)
            known = lines(text, root)
            for each in root.findall("TaskService"):
                if (name := str(each.get("id", "")).strip(WHITE)) in wanted:
                    element = each.find(f"Task/service/{option}")
                    found[name] = f"{path}:{known[each if element is None else element]}"
    except (OSError, ValueError, ConfigError):
        return {}
    return found
