"""The type of a task's messages: the dataclass that the annotation of `on_message` names, and the conversion
of a content to it. Imported only for a task with such an annotation.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from zmsvc.core import json_values
from zmsvc.core.errors import LaunchError
from zmsvc.core.settings import Leaf
from zmsvc.task.inbox import Message
from zmsvc.task.settings import shape_of

_LEAVES: Mapping[object, Leaf] = {
    str: json_values.TEXT,
    int: json_values.WHOLE,
    float: json_values.NUMBER,
    bool: json_values.TRUTH,
    Path: Leaf(lambda value: Path(str(json_values.FILE.read(value)))),
    timedelta: Leaf(lambda value: timedelta(seconds=json_values.SPAN.read(value))),  # type: ignore[arg-type]
}


def conversion(on_message: Callable[..., Any]) -> Callable[[Any], Any] | None:
    """Return the conversion of a content that the annotation `Message[TYPE]` of a method asks for, or None.
    Raises LaunchError.
    """
    try:
        hints = typing.get_type_hints(on_message)
    except Exception as error:  # an annotation is code of the user
        raise LaunchError(f"cannot use the annotations of on_message: {error}") from error
    for name, hint in hints.items():
        if name != "return" and typing.get_origin(hint) is Message:
            (wanted,) = typing.get_args(hint)
            if isinstance(wanted, typing.TypeVar):
                return None
            shape = shape_of(wanted, "Message", _LEAVES)
            return lambda content: json_values.convert(shape, content)
    return None
