"""Read Procfiles of Heroku, Foreman and Honcho: `NAME: COMMAND` on each line, which a shell runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from zmsvc.core import shell
from zmsvc.ctl.imports import ini_file
from zmsvc.ctl.imports.drafts import TaskDraft
from zmsvc.ctl.imports.import_report import FileLine, Report, UnreadableError

LINE = re.compile(r"([A-Za-z0-9_-]+)\s*:\s*(\S.*)")
_PLAIN = re.compile(r"""[A-Za-z0-9_./:=@%+,'" -]+""")
"""A command in which no character has a meaning for a shell, except quotes."""

FIRST_PORT, NEXT_PORT = 5000, 100
"""The PORT that Foreman gives to the first process, and the distance to that of the next one."""


def read(path: Path, report: Report) -> list[TaskDraft]:
    """Return the processes of a file. Raises UnreadableError."""
    home = path.absolute().parent
    drafts: list[TaskDraft] = []
    for number, line in enumerate(ini_file.read_text(path).split("\n"), start=1):
        place = FileLine(str(path), number)
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.fullmatch(line.strip())
        if match is None:
            raise UnreadableError(place, "expected NAME: COMMAND")
        draft = TaskDraft(name=match[1], place=place, report=report, instance=match[1])
        draft.command = with_shell(match[2])
        draft.put("working_directory", str(home), place, f"the directory {home}")
        if match[1] == "release":
            draft.entry, draft.restart = False, "no"
            report.warn(
                place, "release: nothing runs it before a deployment: zmsvcctl start --task release does"
            )
        else:
            draft.set_variable("PORT", str(FIRST_PORT + NEXT_PORT * len(drafts)), place)
        if (home / ".env").is_file():
            draft.add("environment_file", str(home / ".env"), place, "the file .env")
        drafts.append(draft)
    if (home / ".env").is_file():
        report.warn(
            FileLine(str(home / ".env"), 1),
            "the tasks read this file at each start, in the syntax of systemd.exec(5)",
        )
    return drafts


def with_shell(command: str) -> str | list[str]:
    """Return a command that needs no shell as it is, and any other as the arguments of one."""
    if _PLAIN.fullmatch(command):
        try:
            first = "".join(shlex.split(command)[:1])
        except ValueError:
            first = ""
        if first and not shell.assigned(first) and not shell.builtin(first):
            return command
    return ["/bin/sh", "-c", command]
