"""Find out whether an exception comes from the body of a loop over messages. Imported only when a task with
such a loop has failed.
"""

from __future__ import annotations

import ast
import linecache
import traceback
from types import CodeType

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def raised_in_body(error: BaseException, code: CodeType, line: int) -> bool:
    """Return True if an exception has passed through the body of the loop with its `for` on this line of a
    function. An iterator does not learn how the loop over it ended: by a `break`, or by an exception.
    """
    raised = [at for frame, at in traceback.walk_tb(error.__traceback__) if frame.f_code is code]
    if not raised:
        return False
    bodies = _bodies(code.co_filename, line)
    # Without the source, every exception of the function after that line counts.
    return any(at in body for at in raised for body in bodies or [range(line, line + 1_000_000)])


def _bodies(file: str, line: int) -> list[range]:
    """Return the lines of the bodies of the loops that begin on a line."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError, RecursionError):
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.AsyncFor) and node.lineno <= line <= (node.iter.end_lineno or 0):
            found.append(range(node.body[0].lineno, (node.body[-1].end_lineno or node.lineno) + 1))
        elif isinstance(node, _COMPREHENSIONS) and node.lineno <= line <= (node.end_lineno or 0):
            found.append(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found
