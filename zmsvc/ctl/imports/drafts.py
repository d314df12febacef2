"""One task of an import while its file is read. Each value is checked as the reader of context files checks
it, so a bad one becomes a warning and never a faulty context.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from lxml import etree

from zmsvc.core.service_options import OPTIONS, RLIMITS
from zmsvc.core.values import TASK_ID, quote
from zmsvc.ctl.create.command_task import CommandTask
from zmsvc.ctl.create.fields import not_xml
from zmsvc.ctl.imports.import_report import FileLine, Report
from zmsvc.host.config.faults import FaultList
from zmsvc.host.config.service_options import read_options

_BY_NAME = {option.name: option for option in OPTIONS}
_MAX_COPIES = 1000
"""The limit of tasks for one program."""
_VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*")


@dataclass(slots=True, kw_only=True)
class TaskDraft:
    """A Command that is not complete yet."""

    name: str
    place: FileLine
    report: Report
    instance: str = ""
    command: str | Sequence[str] = ""
    description: str = ""
    notify: bool = False
    notify_reload: bool = False
    entry: bool = True
    rank: tuple[int, ...] = ()
    """Tasks of a lower rank start before this one, and stop after it."""
    restart: str = "on-failure"
    options: dict[str, list[str]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)

    def put(self, option: str, text: str, place: FileLine, said: str) -> None:
        """Set an option of `<service>`. `said` is its line in the file, for the warning about a bad value."""
        if why := self._fault(option, text):
            self.report.warn(place, f"{said}: {why}")
        else:
            self.options[option] = [text]

    def add(self, option: str, text: str, place: FileLine, said: str) -> None:
        """Add a value of an option that may occur again."""
        if why := self._fault(option, text):
            self.report.warn(place, f"{said}: {why}")
        else:
            self.options.setdefault(option, []).append(text)

    def set_variable(self, name: str, value: str, place: FileLine) -> None:
        """Set a variable of the environment."""
        if not _VARIABLE.fullmatch(name):
            self.report.warn(place, f"the variable {quote(name)} is left out: its name has other characters")
        elif why := not_xml(value):
            self.report.warn(place, f"the variable {name} is left out: its value {why}")
        else:
            self.environment[name] = value

    def set_limit(self, name: str, text: str, place: FileLine, said: str) -> None:
        """Set a limit of setrlimit(2)."""
        if name not in RLIMITS:
            self.report.warn(place, f"{said}: expected one of {', '.join(RLIMITS)}")
        elif why := self._fault("limits", text, name):
            self.report.warn(place, f"{said}: {why}")
        else:
            self.limits[name] = text

    def limit_retries(self, retries: int, seconds_each: float, place: FileLine, said: str) -> None:
        """Give up after this many starts in a row that end within `seconds_each`."""
        if not retries:
            self.report.warn(
                place, f"{said}: a task that fails is started again, <start_limit_burst> 1 or more ends that"
            )
            return
        # zmsvc doubles its delays, up to a minute, and may add a tenth.
        delays = sum(min(0.1 * 2**count, 60) * 1.1 for count in range(min(retries, 1000)))
        self.put("start_limit_burst", str(retries), place, said)
        self.put("start_limit_interval", f"{int(delays + retries * seconds_each) + 5}s", place, said)

    def _fault(self, option: str, text: str, inner: str = "") -> str:
        """Return the reason why an option cannot have this text; empty if it can."""
        if option not in _BY_NAME:
            return f"this zmsvc has no <{option}>"
        if why := not_xml(text):
            return why
        service = etree.Element("service")
        element = etree.SubElement(service, option)
        if inner:
            element = etree.SubElement(element, inner)
        element.text = text
        notes = FaultList()
        read_options(service, [_BY_NAME[option]], notes)
        return "; ".join(words for _, words in notes.found)


def copies(count: int, place: FileLine, said: str, report: Report) -> int:
    """Return the number of tasks of a program that runs `count` times."""
    if 0 <= count <= _MAX_COPIES:
        return count
    report.warn(place, f"{said}: expected 0 to {_MAX_COPIES}")
    return min(max(count, 0), _MAX_COPIES)


def finished(drafts: Iterable[TaskDraft], restart: str | None) -> list[CommandTask]:
    """Return the tasks in the order of their ranks, with ids of their own. `restart` overrides what the file
    says.
    """
    tasks: dict[str, CommandTask] = {}
    ranks: dict[tuple[int, ...], list[str]] = {}
    for draft in sorted(drafts, key=lambda each: each.rank):
        if why := _impossible(draft.command):
            draft.report.warn(draft.place, f"the task {quote(draft.name)} is left out: its command {why}")
            continue
        task = _own_id(draft, tasks)
        tasks[task] = CommandTask(
            id=task,
            instance=_instance(draft) or task,
            command=draft.command,
            description=" ".join(draft.description.split()),
            notify=draft.notify,
            notify_reload=draft.notify_reload,
            entry_action="on_start" if draft.entry else "",
            restart=restart or draft.restart,
            options=[(name, text) for name, texts in draft.options.items() for text in texts],
            environment=draft.environment,
            limits=draft.limits,
        )
        ranks.setdefault(draft.rank, []).append(task)
    _put_in_order(tasks, list(ranks.values()))
    return list(tasks.values())


def _put_in_order(tasks: dict[str, CommandTask], ranks: Sequence[Sequence[str]]) -> None:
    """Let the tasks of each rank start after those of the previous rank."""
    before: list[str] = []
    for rank in ranks:
        for task in rank if before else ():
            tasks[task] = replace(tasks[task], options=[*tasks[task].options, ("after", " ".join(before))])
        # No task waits for one that only an order starts, so the tasks of earlier ranks are named as well.
        alone = not any(tasks[task].entry_action for task in rank)
        before = [*(before if alone else ()), *rank]


def _impossible(command: str | Sequence[str]) -> str | None:
    """Return the reason why a context file cannot have a command, or None."""
    if why := not_xml(command if isinstance(command, str) else "".join(command)):
        return why
    try:
        words = shlex.split(command) if isinstance(command, str) else command
    except ValueError as error:
        return f"cannot be split: {str(error).lower()}"
    return None if "".join(words[:1]) else "has no program"


def _own_id(draft: TaskDraft, taken: Iterable[str]) -> str:
    task = draft.name if TASK_ID.fullmatch(draft.name) else _cleaned(draft.name) or "task"
    number, stem = 2, task[:56]
    while task in taken:
        task, number = f"{stem}-{number}", number + 1
    if task != draft.name:
        draft.report.warn(draft.place, f"the task {quote(draft.name)} has the id {task}")
    return task


def _instance(draft: TaskDraft) -> str:
    words: Sequence[str] = draft.command if not isinstance(draft.command, str) else ()
    if isinstance(draft.command, str):
        try:
            words = shlex.split(draft.command)
        except ValueError:
            pass
    return _cleaned(draft.instance or (words[0].rpartition("/")[2] if words else ""))


def _cleaned(name: str) -> str:
    return re.sub("[^A-Za-z0-9_.-]+", "-", name).strip("-")[:64]
