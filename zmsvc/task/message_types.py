"""The type of a task's messages: the dataclass that the annotation of `on_message` names, and the conversion
of a content to it. Imported only for a task with such an annotation.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

from zmsvc.core import json_values
from zmsvc.core.errors import LaunchError
from zmsvc.task.inbox import Message
from zmsvc.task.settings import leaf_types, shape_of


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
            shape = shape_of(wanted, "Message", leaf_types(json_values.LEAVES))
            return lambda content: json_values.convert(shape, content)
    return None
