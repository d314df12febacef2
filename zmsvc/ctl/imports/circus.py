"""Read the files of Circus: [watcher:x], the sockets of [socket:x], and the variables of [env] and [env:x].
Files that [circus] includes are read as well.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

from zmsvc.ctl.imports import ini_file
from zmsvc.ctl.imports.drafts import TaskDraft, copies
from zmsvc.ctl.imports.import_report import FileLine, Report
from zmsvc.ctl.imports.ini_file import Section

COMMENTS = (";",)
_TRUE = ("true", "1", "yes", "on", "t")
_VARIABLE = re.compile(
    r"\$\(circus\.([\w.-]+)\)|\(\(circus\.([\w.-]+)\)\)|\$\((wid)\)|\$(WID)\b", re.IGNORECASE
)

_LOG = "zmsvc keeps the output of all tasks in one log, see zmsvcctl logs"
_SOCKET = re.compile(r"\$\(circus\.sockets\.([\w.-]+)\)|\(\(circus\.sockets\.([\w.-]+)\)\)", re.IGNORECASE)
_FIRST_DESCRIPTOR = 3
_OF_SOCKET = {
    "umask": "the attribute mode of <listen> has the permissions of a Unix socket",
    "backlog": "the attribute backlog of <listen> has this number",
    "interface": "a socket listens at an address, and not at an interface",
}
"""Options of [socket:x] that have no counterpart, with the way out."""
_OF_WATCHER = {
    "warmup_delay": "the processes start at once",
    "on_demand": "the task starts with its transaction",
    "priority": "",
    "max_age": "no task is restarted for its age; a systemd timer can run zmsvcctl restart TASK_ID",
    "max_age_variance": "no task is restarted for its age",
    "check_flapping": "<start_limit_burst> in <service> ends restarts that follow each other",
    "virtualenv": "name the program by its path in the virtual environment",
    "virtualenv_py_ver": "name the program by its path in the virtual environment",
    "copy_path": "set PYTHONPATH in <environment>",
    "close_child_stdin": "stdin of a task is /dev/null",
    "close_child_stdout": _LOG,
    "close_child_stderr": _LOG,
    "executable": "the first word of <command> is the program",
    "shell_args": "the command is an argument of /bin/sh -c",
    "stop_children": "",
}
_READ = (
    "cmd", "args", "shell", "working_dir", "uid", "gid", "numprocesses", "stop_signal", "graceful_timeout",
    "max_retry", "respawn", "autostart", "singleton", "copy_env", "send_hup", "use", "use_sockets",
)  # fmt: skip
_OF_CIRCUS = ("check_delay", "endpoint", "pubsub_endpoint", "pidfile", "include", "include_dir", "umask")
"""Options of [circus] that need no warning: they are read here, or only say how circusctl reaches circusd."""
_PLUGIN = "there are no plugins; zmsvcctl watch, or a rule of the task, tells of events"


def read(path: Path, report: Report) -> list[TaskDraft]:
    """Return the watchers of a file. Raises UnreadableError."""
    sections = _with_included(path, report)
    circus = sections.get("circus") or Section("circus", FileLine(str(path), 1))
    for key, value in circus.values.items():
        if key not in _OF_CIRCUS and value.text.strip().lower() not in ("0", "false", ""):
            report.warn(value.place, f"{key}: zmsvc has no such setting")
    drafts: list[TaskDraft] = []
    sockets = _Sockets(sections)
    for section in sections.values():
        kind, _, name = section.name.partition(":")
        if kind == "watcher":
            drafts += _Watcher(section, name, sections, report, sockets).drafts(circus)
        elif kind == "plugin":
            report.warn(section.place, f"[{section.name}]: {_PLUGIN}")
        elif kind not in ("circus", "env", "socket"):
            report.warn(section.place, f"[{section.name}]: the section is unknown, and left out")
    for name, section in sockets.sections.items():
        if name not in sockets.owners:
            report.warn(section.place, f"[{section.name}]: no watcher uses it")
    return drafts


def _with_included(path: Path, report: Report) -> dict[str, Section]:
    sections = ini_file.parse(ini_file.read_text(path), path, COMMENTS)
    circus = sections.get("circus")
    if circus is None:
        return sections
    patterns = [("include", each) for each in circus.text("include").split()]
    patterns += [("include_dir", f"{each}/*.ini") for each in circus.text("include_dir").split()]
    for key, pattern in patterns:
        files = sorted(glob.glob(os.path.join(path.absolute().parent, pattern)))
        if not files:
            report.warn(circus.at(key), f"{key}={pattern}: there is no such file here")
        for file in files:
            sections |= ini_file.parse(ini_file.read_text(Path(file)), Path(file), COMMENTS)
    return sections


class _Sockets:
    """The [socket:x] of a file by name, and the watchers that have them."""

    def __init__(self, sections: Mapping[str, Section]) -> None:
        named = ((each.name.partition(":"), each) for each in sections.values())
        self.sections = {name.lower(): each for (kind, _, name), each in named if kind == "socket"}
        self.owners: dict[str, str] = {}

    def wanted(self, command: str, *, use_sockets: bool) -> list[str]:
        """Return the sockets that a command names, or all if it names none and its watcher uses sockets."""
        named = [(match[1] or match[2]).lower() for match in _SOCKET.finditer(command)]
        found = [name for name in dict.fromkeys(named) if name in self.sections]
        return found or (list(self.sections) if use_sockets and not named else [])


def _address(section: Section) -> str:
    """Return the address of a socket, as <listen> has it."""
    if path := section.text("path").strip():
        return path
    host = section.text("host").strip() or "localhost"
    host = {"localhost": "127.0.0.1", "0.0.0.0": "*"}.get(host, f"[{host}]" if ":" in host else host)
    return f"{host}:{section.text('port').strip() or '8080'}"


class _Watcher:
    """A reader of one [watcher:x]."""

    def __init__(
        self, section: Section, name: str, sections: Mapping[str, Section], report: Report, sockets: _Sockets
    ) -> None:
        self.section, self.name, self.report, self.sockets = section, name, report, sockets
        self._descriptors: dict[str, int] = {}
        """The descriptors of the sockets that the task has, by their names."""
        self._replicated = False
        """All processes are replicas of one task."""
        self._replica = ""
        """The text that takes the place of $(wid) in the command of replicas."""
        self.variables = dict(_variables(sections, name))
        for key, value in section.values.items():
            self._say_unsaid(key, value.text.strip(), value.place)

    def _say_unsaid(self, key: str, text: str, place: FileLine) -> None:
        if key in _READ or key.startswith("rlimit_"):
            if key == "copy_env" and text.lower() not in _TRUE:
                self.report.warn(place, "copy_env: a task inherits the environment of the daemon")
            return
        if key.startswith(("stdout_stream.", "stderr_stream.")):
            if not (key.endswith(".class") and text.endswith("StdoutStream")):
                self.report.warn(place, f"{key}: {_LOG}")
        elif key.startswith("hooks."):
            self.report.warn(place, f"{key}: there are no hooks; a rule of the task starts another task")
        elif key not in _OF_WATCHER:
            self.report.warn(place, f"{key}: unknown as an option of a watcher, and left out")
        elif text.lower() not in ("", "0", "false") and _OF_WATCHER[key]:
            self.report.warn(place, f"{key}: {_OF_WATCHER[key]}")

    def drafts(self, circus: Section) -> Iterator[TaskDraft]:
        """Yield a task for each process."""
        if not self.section.text("cmd"):
            self.report.warn(self.section.place, f"[{self.section.name}] has no cmd, and is left out")
            return
        count = self.number("numprocesses", 1)
        count = copies(count, self.section.at("numprocesses"), f"numprocesses={count}", self.report)
        wanted = self.sockets.wanted(
            f"{self.section.text('cmd')} {self.section.text('args')}",
            use_sockets=self._is("use_sockets", default=False),
        )
        # Several tasks could not share a socket.
        tasks = 1 if wanted and count else count
        for number in range(1, tasks + 1):
            draft = TaskDraft(
                name=self.name if tasks == 1 else f"{self.name}-{number}",
                place=self.section.place, report=self.report, instance=self.name,
            )  # fmt: skip
            self._listen(draft, wanted)
            if tasks < count:
                draft.put("replicas", str(count), self.section.at("numprocesses"), f"numprocesses={count}")
                self._replicated, self._replica = True, "$ZMSVC_REPLICA"
            draft.command = self._command(number)
            self._replica = ""
            # Circus starts the highest priority first.
            draft.rank = (-self.number("priority", 0),)
            draft.entry = self._is("autostart", default=True)
            draft.restart = "always" if self._is("respawn", default=True) else "no"
            if "umask" in circus.values:
                draft.put("umask", circus.text("umask"), circus.at("umask"), f"umask={circus.text('umask')}")
            self._options(draft, number)
            for variable, (value, place) in self.variables.items():
                draft.set_variable(variable, self._expanded(value, number, place), place)
            yield draft

    def _listen(self, draft: TaskDraft, wanted: list[str]) -> None:
        """Give a task its sockets. A socket of another task is left out, since two tasks cannot share it."""
        for name in wanted:
            section = self.sockets.sections[name]
            owner = self.sockets.owners.setdefault(name, self.name)
            if owner != self.name:
                self.report.warn(
                    self.section.place, f"[{section.name}]: the task {owner} has this socket alone"
                )
                continue
            for key, value in section.values.items():
                if key in _OF_SOCKET:
                    self.report.warn(value.place, f"{key}={value.text}: {_OF_SOCKET[key]}")
            before = len(draft.options.get("listen", ()))
            draft.add("listen", _address(section), section.place, f"[{section.name}]")
            if len(draft.options.get("listen", ())) > before:
                self._descriptors[name] = _FIRST_DESCRIPTOR + before

    def number(self, key: str, default: int) -> int:
        text = self.section.text(key).strip()
        try:
            return int(text) if text else default
        except ValueError:
            self.report.warn(self.section.at(key), f"{key}={text}: not a number, so {default} counts")
            return default

    def _is(self, key: str, *, default: bool) -> bool:
        text = self.section.text(key).strip().lower()
        return text in _TRUE if text else default

    def _value(self, key: str, number: int) -> str:
        return self._expanded(self.section.text(key).strip(), number, self.section.at(key))

    def _command(self, number: int) -> str | list[str]:
        command = " ".join(f"{self._value('cmd', number)} {self._value('args', number)}".split("\n")).strip()
        if self._is("shell", default=False):
            return ["/bin/sh", "-c", command]
        if self._replica and self._replica in command:
            return ["/bin/sh", "-c", f"exec {command}"]
        try:
            shlex.split(command)
        except ValueError as error:
            self.report.warn(
                self.section.at("cmd"), f"cmd: a shell runs it, because it cannot be split: {error}"
            )
            return ["/bin/sh", "-c", command]
        return command

    def _options(self, draft: TaskDraft, number: int) -> None:
        for key, option, unit in (
            ("working_dir", "working_directory", ""), ("uid", "user", ""), ("gid", "group", ""),
            ("stop_signal", "stop_signal", ""), ("graceful_timeout", "stop_timeout", "s"),
        ):  # fmt: skip
            if text := self._value(key, number):
                draft.put(option, f"{text}{unit}", self.section.at(key), f"{key}={text}")
        if not self.section.text("graceful_timeout").strip():
            draft.put("stop_timeout", "30s", self.section.place, "graceful_timeout")
        if self._is("send_hup", default=False):
            draft.put("reload_signal", "HUP", self.section.at("send_hup"), "send_hup")
        for key, value in self.section.values.items():
            if key.startswith("rlimit_"):
                text = value.text.strip() or "infinity"
                draft.set_limit(key.removeprefix("rlimit_").lower(), text, value.place, f"{key}={text}")
        if "max_retry" in self.section.values and (retries := self.number("max_retry", 5)) >= 0:
            draft.limit_retries(retries, 1, self.section.at("max_retry"), f"max_retry={retries}")

    def _expanded(self, text: str, number: int, place: FileLine) -> str:
        """Return a value with its $(circus...) replaced. One that cannot be replaced stays, with a
        warning.
        """

        def value(match: re.Match[str]) -> str:
            name = next(group for group in match.groups() if group).lower()
            if name == "wid" and self._replicated and not self._replica:
                self.report.warn(
                    place, f"{match[0]} stays as it is: each replica has its number in ZMSVC_REPLICA"
                )
                return match[0]
            if name == "wid":
                return self._replica or str(number)
            kind, _, rest = name.partition(".")
            if kind == "sockets" and rest in self._descriptors:
                return str(self._descriptors[rest])
            for variable, (known, _) in self.variables.items():
                if kind == "env" and variable.lower() == rest:
                    return known
            for variable, known in os.environ.items():
                if kind == "env" and variable.lower() == rest:
                    self.report.warn(
                        place, f"{match[0]} is the value of {variable} in the environment of this import"
                    )
                    return known
            self.report.warn(place, f"{match[0]} stays as it is: it is unknown here")
            return match[0]

        return _VARIABLE.sub(value, text)


def _variables(sections: Mapping[str, Section], watcher: str) -> Iterator[tuple[str, tuple[str, FileLine]]]:
    """Yield the variables of a watcher, those for all of them first."""
    for section in sorted(sections.values(), key=lambda each: each.name != "env"):
        kind, _, patterns = section.name.partition(":")
        if section.name == "env" or (
            kind == "env" and any(fnmatch(watcher, each.strip()) for each in patterns.split(","))
        ):
            for name, value in section.values.items():
                yield name, (value.text, value.place)
