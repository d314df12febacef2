"""The files of a context: `Context-NAME.xml`, and `Context-NAME.d/*.xml` beside it, which add tasks. This
module converts them to and from the model of the core; `file_bytes` reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from zmsvc.core.model import ContextFiles, ContextPart
from zmsvc.host.config import file_bytes
from zmsvc.host.config.file_bytes import MAX_SIZE, File, parts_directory

__all__ = [
    "MAX_SIZE",
    "context_file_of",
    "digest",
    "parts_directory",
    "parts_of_saved",
    "read",
    "saved_parts",
]


def context_file_of(part: Path) -> Path | None:
    """Return the context file to which a file adds tasks; None if it is not in the directory of one."""
    directory = part.absolute().parent
    # The root directory has no name, and with_suffix would raise.
    if directory.suffix != ".d":
        return None
    file = directory.with_suffix(".xml")
    return file if file.is_file() else None


def read(path: str | Path) -> ContextFiles:
    """Return the bytes of a context file and of the files in its directory. Raises OSError and ConfigError,
    as `file_bytes.read` does.
    """
    text, parts = file_bytes.read(path)
    return ContextFiles(text=text, parts=tuple(ContextPart(path=name, text=each) for name, each in parts))


# --- the state file


def saved_parts(text: bytes, parts: Iterable[ContextPart]) -> str:
    """Return the files of the directory in the form of the state file. The `text` of the context file is
    stored there separately.
    """
    return file_bytes.saved(text, _files(parts))


def digest(text: bytes, parts: Iterable[ContextPart]) -> str:
    """Return a digest of all files of a context, by which a client sees that they have changed."""
    return file_bytes.digest(text, _files(parts))


def _files(parts: Iterable[ContextPart]) -> Iterator[File]:
    return ((each.path, each.text) for each in parts)


def parts_of_saved(saved: object, text: bytes, path: str | Path) -> tuple[ContextPart, ...]:
    """Return the files that `saved_parts` has converted; none if they belong to another text. `path` is the
    context file.
    """
    try:
        value = json.loads(saved) if isinstance(saved, str) else {}
        if value.get("of") != file_bytes.digest_of_text(text):
            return ()
        directory = parts_directory(path)
        return tuple(
            ContextPart(path=str(directory / name), text=each.encode("latin-1"))
            for name, each in value["files"].items()
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return ()
