"""Render the TaskService element of a Command, for `create --command` and for `import`. Options that have
their default are left out.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field

from zmsvc.core.frozen import frozen
from zmsvc.core.values import WHITE
from zmsvc.ctl.create.template_files import filled, xml


@frozen
class CommandTask:
    """A Command as the context file will have it."""

    id: str
    instance: str
    command: str | Sequence[str]
    """The program and its arguments: a text that is split as sh does, or the words."""
    topic: str = "process"
    description: str = ""
    service_name: str = ""
    device_action: str = ""
    notify: bool = False
    notify_reload: bool = False
    entry_action: str = "on_start"
    restart: str = "no"
    """A value of the option `restart`. `on-failure` is written as a rule."""
    options: Sequence[tuple[str, str]] = ()
    """The other options of `<service>` with their texts. A name may occur again."""
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)


def text(task: CommandTask) -> str:
    """Return the element, indented as a child of Context, with a line end."""
    values = {
        "task_id": task.id,
        "task_topic": task.topic,
        "task_service": task.instance,
        "description": xml(task.description),
        "service_name": xml(task.service_name or task.id),
        "configuration": "".join(f"{' ' * 12}{line}\n" for line in _configuration(task)),
        "service": options_text(_options(task), task.environment, task.limits),
        "entry_action": task.entry_action,
        "rules": _rule(task.id) if task.restart == "on-failure" else "",
    }
    return filled("Command.xml", values)


def _configuration(task: CommandTask) -> Iterable[str]:
    if task.device_action:
        yield f"<device_action>{xml(task.device_action)}</device_action>"
    if isinstance(task.command, str):
        yield f"<command>{xml(task.command)}</command>"
    elif _plain(task.command):
        yield f"<command>{xml(shlex.join(task.command))}</command>"
    else:
        yield "<command>"
        yield from (f"  {_kept('arg', word)}" for word in task.command)
        yield "</command>"
    if task.notify:
        yield f"<notify>{'reload' if task.notify_reload else 'yes'}</notify>"


def _plain(words: Sequence[str]) -> bool:
    """Return True if the words are as easy to read in one text as in the file that they come from."""
    return sum(shlex.quote(word) != word for word in words) < 2 and not any("\n" in word for word in words)


def _kept(tag: str, value: str) -> str:
    """Return a leaf that keeps the white space at its ends."""
    space = ' xml:space="preserve"' if value != value.strip(WHITE) else ""
    return f"<{tag}{space}>{xml(value)}</{tag}>"


def _options(task: CommandTask) -> Iterable[tuple[str, str]]:
    if task.restart not in ("no", "on-failure"):
        yield "restart", task.restart
    yield from task.options


def options_text(
    options: Iterable[tuple[str, str]],
    environment: Mapping[str, str] | None = None,
    limits: Mapping[str, str] | None = None,
) -> str:
    """Return the `<service>` element with these options, indented; empty if there are none."""
    lines = [f"<{name}>{xml(value)}</{name}>" for name, value in options]
    for tag, values in (("environment", environment), ("limits", limits)):
        if values:
            lines += [f"<{tag}>", *(f"  {_kept(name, value)}" for name, value in values.items()), f"</{tag}>"]
    if not lines:
        return ""
    return "".join(
        f"{line}\n"
        for line in ["      <service>", *(f"        {each}" for each in lines), "      </service>"]
    )


def _rule(task: str) -> str:
    return f"        <on_fail><action>restart</action><call>{task}</call></on_fail>\n"
