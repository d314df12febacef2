"""Read the files of Supervisor: [program:x], and the settings of [supervisord] that its programs inherit.
Files that [include] names are read as well.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from zmsvc.core.values import quote
from zmsvc.ctl.imports import ini_file
from zmsvc.ctl.imports.drafts import TaskDraft, copies
from zmsvc.ctl.imports.import_report import FileLine, Report
from zmsvc.ctl.imports.ini_file import OptionText, Section

COMMENTS = (";", "#")
_TRUE = ("true", "yes", "on", "1")
_WHOLE_VARIABLE = re.compile(r"%\(ENV_(\w+)\)s")

_LOG = "zmsvc keeps the output of all tasks in one log, see zmsvcctl logs"
_ROTATION = "the journal, or logrotate for the file of zmsvc, limits the log"
_EVENTS = "zmsvcctl watch, a rule of the task, or <on_any_fail> tells of events"
_OF_PROGRAM = {
    "startsecs": "a Command is active as soon as its program runs; with <notify> when it says so",
    "serverurl": "a program finds its context by ZMSVC_CONTEXT in its environment",
    "stdout_capture_maxbytes": _EVENTS,
    "stderr_capture_maxbytes": _EVENTS,
    "stdout_events_enabled": _EVENTS,
    "stderr_events_enabled": _EVENTS,
    "stdout_syslog": _LOG,
    "stderr_syslog": _LOG,
}
"""The options of a program that have no counterpart, with the reason or the way out."""
_READ = (
    "command", "process_name", "numprocs", "numprocs_start", "autostart", "autorestart", "exitcodes",
    "startretries", "stopsignal", "stopwaitsecs", "stopasgroup", "killasgroup", "user", "redirect_stderr",
    "stdout_logfile", "stderr_logfile", "environment", "directory", "umask",
    "stdout_logfile_maxbytes", "stderr_logfile_maxbytes", "stdout_logfile_backups", "stderr_logfile_backups",
)  # fmt: skip
_STANDARD = (
    "", "auto", "/dev/stdout", "/dev/stderr", "/dev/fd/1", "/dev/fd/2", "/proc/1/fd/1", "/proc/1/fd/2",
)  # fmt: skip
"""The files of output that goes to the log of the daemon."""
_LOG_OF_DAEMON = "zmsvcd logs to the journal, or to zmsvcd.log in its state directory"
_OF_DAEMON = {
    "logfile": _LOG_OF_DAEMON,
    "logfile_maxbytes": _LOG_OF_DAEMON,
    "logfile_backups": _LOG_OF_DAEMON,
    "loglevel": _LOG_OF_DAEMON,
    "childlogdir": _LOG,
    "strip_ansi": "zmsvcctl logs escapes control characters when it prints them",
    "identifier": "a context has the name of its file",
    "minprocs": "LimitNPROC= of the unit zmsvc@.service limits processes",
}
_OF_DAEMON_READ = (
    "pidfile",
    "nodaemon",
    "nocleanup",
    "silent",
    "umask",
    "directory",
    "user",
    "environment",
    "minfds",
)
_SECTIONS = {
    "inet_http_server": "there is no web page; zmsvcctl reaches a context through its control socket",
    "eventlistener": f"{_EVENTS}; the listener is left out",
    "fcgi-program": "there are no FastCGI sockets; the program is left out",
    "group": "there are no groups: name the tasks, or give them a context of their own",
}
_OWN_SOCKET = ("unix_http_server", "supervisorctl", "rpcinterface")
"""Sections about the way from supervisorctl to supervisord. zmsvcctl knows its way."""


def read(path: Path, report: Report) -> list[TaskDraft]:
    """Return the programs of a file. Raises UnreadableError."""
    sections = _with_included(path, report)
    daemon = sections.get("supervisord") or Section("supervisord", FileLine(str(path), 1))
    _say_unsaid(daemon, _OF_DAEMON, _OF_DAEMON_READ, "of [supervisord]", report)
    groups = _groups(sections.values())
    drafts: list[TaskDraft] = []
    for section in sections.values():
        kind, _, name = section.name.partition(":")
        if kind == "program":
            drafts += _Program(section, name, groups.get(name), daemon, report).drafts()
        elif kind in _SECTIONS:
            report.warn(section.place, f"[{section.name}]: {_SECTIONS[kind]}")
        elif kind == "unix_http_server":
            _say_unsaid(
                section,
                dict.fromkeys(
                    ("username", "password", "chmod", "chown"),
                    "the group of the daemon may use zmsvcctl, and systemctl edit zmsvc@NAME changes it",
                ),
                ("file",), "of [unix_http_server]", report,
            )  # fmt: skip
        elif kind not in (*_OWN_SOCKET, "supervisord", "include"):
            report.warn(section.place, f"[{section.name}]: the section is unknown, and left out")
    return drafts


def _with_included(path: Path, report: Report) -> dict[str, Section]:
    sections = _sections(path)
    include = sections.get("include")
    for pattern in include.text("files").split() if include else ():
        names = {"here": str(path.absolute().parent), "host_node_name": socket.gethostname()}
        place = include.at("files") if include else FileLine(str(path), 1)
        pattern = _expand(pattern, names, place, report) or pattern
        files = sorted(glob.glob(os.path.join(path.absolute().parent, pattern)))
        if not files:
            report.warn(place, f"files={pattern}: there is no such file here")
        for file in files:
            sections |= _sections(Path(file))
    return sections


def _sections(path: Path) -> dict[str, Section]:
    here = str(path.absolute().parent)
    sections = ini_file.parse(ini_file.read_text(path), path, COMMENTS)
    for section in sections.values():
        section.values = {
            key: OptionText(value.text.replace("%(here)s", here), value.place)
            for key, value in section.values.items()
        }
    return sections


def _groups(sections: Iterable[Section]) -> Mapping[str, Section]:
    """Return the group of each program that is in one."""
    return {
        program.strip(): section
        for section in sections
        if section.name.startswith("group:")
        for program in section.text("programs").split(",")
    }


def _say_unsaid(
    section: Section, unsaid: Mapping[str, str], read: tuple[str, ...], of: str, report: Report
) -> None:
    for key, value in section.values.items():
        if key in unsaid:
            report.warn(value.place, f"{key}: {unsaid[key]}")
        elif key not in read:
            report.warn(value.place, f"{key}: unknown as an option {of}, and left out")


class _Expansions(dict[str, object]):
    """The names that a value may have in %(...)s. Those of the environment are looked up here and now."""

    def __init__(self, names: Mapping[str, object]) -> None:
        super().__init__(names)
        self.inherited: list[str] = []

    def __missing__(self, name: str) -> object:
        variable = name.removeprefix("ENV_")
        if variable == name or variable not in os.environ:
            raise KeyError(name)
        self.inherited.append(variable)
        return os.environ[variable]


def _expand(text: str, names: Mapping[str, object], place: FileLine, report: Report) -> str | None:
    """Return a value with its %(...)s replaced; None, with a warning, if one of them is unknown."""
    expansions = _Expansions(names)
    try:
        result = text % expansions
    except (KeyError, ValueError, TypeError) as error:
        what = f"%({error.args[0]})s is unknown here" if isinstance(error, KeyError) else str(error)
        report.warn(place, f"{quote(' '.join(text.split()))} cannot be expanded: {what}")
        return None
    for variable in expansions.inherited:
        report.warn(place, f"%(ENV_{variable})s is the value of {variable} in the environment of this import")
    return result


class _Program:
    """A reader of one [program:x]."""

    def __init__(
        self, section: Section, name: str, group: Section | None, daemon: Section, report: Report
    ) -> None:
        self.section, self.name, self.group, self.daemon, self.report = section, name, group, daemon, report
        _say_unsaid(section, _OF_PROGRAM, (*_READ, "priority"), "of a program", report)
        own = self._number("priority", 999)
        # The groups are ordered first. A program without one is a group of its own.
        self.rank = (own if group is None else self._number("priority", 999, group), own)

    def drafts(self) -> Iterator[TaskDraft]:
        """Yield a task for each process."""
        if "command" not in self.section.values:
            self.report.warn(self.section.place, f"[{self.section.name}] has no command, and is left out")
            return
        count, start = self._number("numprocs", 1), self._number("numprocs_start", 0)
        count = copies(count, self.section.at("numprocs"), f"numprocs={count}", self.report)
        for number in range(start, start + count):
            names = {
                "program_name": self.name,
                "group_name": self.group.name.partition(":")[2] if self.group else self.name,
                "process_num": number,
                "numprocs": count,
                "host_node_name": socket.gethostname(),
            }
            yield self._draft(names)

    def _draft(self, names: Mapping[str, object]) -> TaskDraft:
        name = self._value("process_name", names) or self.name
        # A command that cannot be expanded stays as it is, because a task needs one.
        command = " ".join((self._value("command", names) or self.section.text("command")).split("\n"))
        draft = TaskDraft(name=name, place=self.section.place, report=self.report, instance=self.name)
        draft.command, draft.rank = command, self.rank
        draft.entry = self._text("autostart", "true") in _TRUE
        self._restart(draft)
        self._stop(draft)
        for key, option in (("directory", "working_directory"), ("umask", "umask"), ("user", "user")):
            self._inherited(draft, key, option, names)
        self._environment(draft, names)
        self._output()
        if "minfds" in self.daemon.values:
            text, place = self.daemon.text("minfds"), self.daemon.at("minfds")
            draft.set_limit("nofile", text, place, f"minfds={text}")
        return draft

    def _text(self, key: str, default: str) -> str:
        return self.section.text(key, default).strip().lower()

    def _number(self, key: str, default: int, section: Section | None = None) -> int:
        section = section or self.section
        text = section.text(key, str(default)).strip()
        try:
            return int(text)
        except ValueError:
            self.report.warn(section.at(key), f"{key}={text}: not a number, so {default} counts")
            return default

    def _value(self, key: str, names: Mapping[str, object]) -> str:
        """Return the value of an option; empty if it is not there or cannot be expanded."""
        return _expand(self.section.text(key), names, self.section.at(key), self.report) or ""

    def _inherited(self, draft: TaskDraft, key: str, option: str, names: Mapping[str, object]) -> None:
        """Set an option from the section of the program. If it is not there, set it from that of the daemon,
        from which programs inherit it.
        """
        section = self.section if key in self.section.values else self.daemon
        if not (text := section.text(key)) or (section is self.daemon and (key, text) == ("user", "root")):
            return
        text = _expand(text, names, section.at(key), self.report) or ""
        if not text:
            return
        if option == "working_directory" and text.startswith("~"):
            text = os.path.expanduser(text)
        draft.put(option, text, section.at(key), f"{key}={text}")

    def _restart(self, draft: TaskDraft) -> None:
        when = self._text("autorestart", "unexpected")
        draft.restart = "on-failure" if when == "unexpected" else "always" if when in _TRUE else "no"
        codes = [code.strip() for code in self.section.text("exitcodes", "0").split(",")]
        place = self.section.at("exitcodes")
        if when == "unexpected":
            if "0" not in codes:
                self.report.warn(place, "exitcodes: status 0 is a clean end, after which the task stays down")
            if more := [code for code in codes if code not in ("0", "")]:
                draft.put("success_exit_status", " ".join(more), place, f"exitcodes={','.join(codes)}")
        if "startretries" in self.section.values and draft.restart != "no":
            retries = self._number("startretries", 3)
            draft.limit_retries(
                min(retries, 1_000_000), max(1, self._number("startsecs", 1)),
                self.section.at("startretries"), f"startretries={retries}",
            )  # fmt: skip

    def _stop(self, draft: TaskDraft) -> None:
        for key, option, unit in (("stopsignal", "stop_signal", ""), ("stopwaitsecs", "stop_timeout", "s")):
            if text := self.section.text(key).strip():
                draft.put(option, f"{text}{unit}", self.section.at(key), f"{key}={text}")
        together = self._text("stopasgroup", "false") in _TRUE
        if not together and self._text("killasgroup", "false") in _TRUE:
            draft.put("kill_mode", "mixed", self.section.at("killasgroup"), "killasgroup=true")
        elif not together and "stopasgroup" in self.section.values:
            self.report.warn(
                self.section.at("stopasgroup"),
                "stopasgroup=false: a stop asks all processes of the task, with <kill_mode>mixed</kill_mode> "
                "the main one alone; none is left behind",
            )

    def _environment(self, draft: TaskDraft, names: Mapping[str, object]) -> None:
        for section in (self.daemon, self.section):
            text, place = section.text("environment"), section.at("environment")
            try:
                pairs = _pairs(text)
            except ValueError as error:
                self.report.warn(place, f"environment: it cannot be read, and is left out: {error}")
                continue
            for name, value in pairs:
                whole = _WHOLE_VARIABLE.fullmatch(value)
                if whole and whole[1] == name:
                    draft.add("pass_environment", name, place, f"environment={name}")
                elif (expanded := _expand(value, names, place, self.report)) is not None:
                    draft.set_variable(name, expanded, place)

    def _output(self) -> None:
        """Warn of output that does not go to the log of the daemon."""
        for stream in ("stdout", "stderr"):
            key = f"{stream}_logfile"
            text = self.section.text(key, "auto").strip()
            if text.lower() in _STANDARD:
                continue
            self.report.warn(self.section.at(key), f"{key}={text}: {_LOG}")
            for more in (f"{key}_maxbytes", f"{key}_backups"):
                if more in self.section.values:
                    self.report.warn(self.section.at(more), f"{more}: {_ROTATION}")


def _pairs(text: str) -> list[tuple[str, str]]:
    """Return the variables of KEY=value,KEY2="value, with a comma". Raises ValueError."""
    lexer = shlex.shlex(text)
    lexer.wordchars += "/.+-():%@*$~"
    tokens, pairs = list(lexer), []
    for index in range(0, len(tokens), 4):
        if (
            len(tokens) < index + 3
            or tokens[index + 1] != "="
            or tokens[index + 3 : index + 4] not in ([], [","])
        ):
            raise ValueError(f"expected KEY=value and a comma at {quote(''.join(tokens[index:])[:40])}")
        pairs.append((tokens[index], tokens[index + 2].strip("'\"")))
    return pairs
