"""Read context files in a process that ends afterwards, so that the supervisor has neither lxml (4 MB) nor
what is left of parsing (2 MB and more).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from zmsvc.core.checks import ConfigWarning
from zmsvc.core.model import Context, ContextFiles
from zmsvc.host import separate_process
from zmsvc.host.config import reader


def parse(files: ContextFiles, *, path: Path, name: str) -> Context:
    """Do what `reader.parse` does. Raises ConfigError; ZmsvcError if the process that reads is killed."""
    read = partial(reader.parse, files.text, path=str(path), name=name, parts=files.parts)
    return separate_process.call(read, f"read {path}")


def placed(context: Context, found: Sequence[ConfigWarning]) -> list[ConfigWarning]:
    """Do what `reader.placed` does, with the same errors."""
    if not found:
        return []
    return separate_process.call(
        partial(reader.placed, context, found), f"find the lines of warnings in {context.path}"
    )
