"""The line that says for which exception a task has failed."""

from __future__ import annotations

import traceback

from zmsvc.core.errors import ZmsvcError


def headline(error: BaseException) -> str:
    """Return the type of an exception and the first line of its text. For zmsvc's own errors, return the text
    alone.

    The last line would not help: SQLAlchemy and pydantic end with the address of a web page, and notes (PEP
    678) come last, too.
    """
    if isinstance(error, ZmsvcError):
        return str(error)
    if isinstance(error, SyntaxError):
        # The text of the error has only the name of the file, which several services may have.
        where = f" ({error.filename}, line {error.lineno})" if error.filename else ""
        return f"{type(error).__name__}: {error.msg}{where}"
    first, *more = [
        line.strip() for line in "".join(traceback.format_exception_only(error)).splitlines() if line.strip()
    ]
    # The first line has only the type if the text begins with an empty line.
    return f"{first} {more[0]}" if more and first.find(":") == len(first) - 1 else first
