"""Read a service unit of systemd. Options that belong to the whole context are for a drop-in of
zmsvc@.service.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from zmsvc.core.service_options import RLIMITS, Restart
from zmsvc.ctl.imports import ini_file, unit_file
from zmsvc.ctl.imports.drafts import TaskDraft
from zmsvc.ctl.imports.import_report import FileLine, Report, UnreadableError
from zmsvc.ctl.imports.ini_file import OptionText
from zmsvc.ctl.imports.unit_file import UnitSection

_DROP_IN = "a drop-in of the context's unit (systemctl edit zmsvc@NAME) sets it for all tasks"
_BOOT = "systemctl enable zmsvc@NAME, and a drop-in of that unit, say when the context runs"
_ORDER = "a rule starts one task after another; a drop-in of zmsvc@NAME orders the context among units"

_OF_UNIT = {
    **dict.fromkeys(("After", "Before", "Wants", "Requires", "BindsTo", "PartOf", "Conflicts"), _ORDER),
    **dict.fromkeys(("OnFailure", "OnSuccess"), "a rule in <on_fail> or <on_exit> starts another task"),
}
"""The options of [Unit] that have no counterpart, with the way out."""

_SAME = {
    "TimeoutStartSec": "start_timeout",
    "TimeoutStopSec": "stop_timeout",
    "WatchdogSec": "watchdog",
    "RestartSec": "restart_delay",
    "RestartMaxDelaySec": "restart_max_delay",
    "User": "user",
    "Group": "group",
    "Nice": "nice",
    "OOMScoreAdjust": "oom_score_adjust",
    "WorkingDirectory": "working_directory",
    "UMask": "umask",
    "KillMode": "kill_mode",
    "KillSignal": "stop_signal",
    "ReloadSignal": "reload_signal",
    "NotifyAccess": "notify_access",
    "NoNewPrivileges": "no_new_privileges",
    "MemoryMax": "memory_max",
    "MemoryHigh": "memory_high",
    "CPUQuota": "cpu_quota",
    "CPUWeight": "cpu_weight",
    "TasksMax": "tasks_max",
    "IOWeight": "io_weight",
    "FileDescriptorStoreMax": "file_descriptor_store_max",
}
"""The options of [Service] that are an option of `<service>` with the same values."""
_LISTS = {"EnvironmentFile": "environment_file", "PassEnvironment": "pass_environment"}
_LIMITS_OF_START = {
    "StartLimitIntervalSec": "start_limit_interval",
    "StartLimitInterval": "start_limit_interval",
    "StartLimitBurst": "start_limit_burst",
}
_READ = (
    "Type", "ExecStart", "ExecReload", "ExecStop", "Restart", "SuccessExitStatus", "Environment",
    "TimeoutSec", "StandardInput", "GuessMainPID",
)  # fmt: skip
_UNSAID = {
    "ExecStartPre": "a task that ends, with a rule in its <on_exit> that starts this one, runs before it",
    "ExecStartPost": "a task that a rule in <on_start> starts runs after it",
    "ExecStopPost": "a task that a rule in <on_exit> or <on_fail> starts runs after it",
    "ExecCondition": "a task that ends, with a rule in its <on_exit> that starts this one, runs before it",
    "RemainAfterExit": "a task that has ended well is inactive (exited)",
    "PIDFile": "the program has to stay in the foreground",
    "StandardOutput": "the output of all tasks goes to one log, see zmsvcctl logs",
    "StandardError": "the output of all tasks goes to one log, see zmsvcctl logs",
    "SyslogIdentifier": "the log names the instance of the task",
    "RestartPreventExitStatus": "<success_exit_status> has the statuses after which no failure counts",
    "RestartForceExitStatus": "<restart>always</restart> restarts a task after each end",
    "UnsetEnvironment": "/usr/bin/env -u NAME before the program removes a variable",
}
_SILENT_OUTPUT = ("journal", "inherit", "syslog", "journal+console")
_VARIABLE = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$([A-Za-z_][A-Za-z0-9_]*)")
_KILL = re.compile(r"(?:/usr)?/bin/kill\s+(?:-s\s+|-)(?:SIG)?([A-Z0-9+]+)\s+\$\{?MAINPID\}?")


def read(path: Path, report: Report) -> list[TaskDraft]:
    """Return the service of a unit. Raises UnreadableError."""
    sections = unit_file.parse(ini_file.read_text(path), path)
    if "Service" not in sections:
        raise UnreadableError(str(path), "it has no [Service]")
    return [_Unit(path, sections, report).draft()]


class _Unit:
    """A reader of one unit."""

    def __init__(self, path: Path, sections: Mapping[str, UnitSection], report: Report) -> None:
        self.report, self.sections = report, sections
        self.service = sections["Service"]
        self.name = path.name.removesuffix(".service")
        self.place = FileLine(str(path), 1)
        self.task = TaskDraft(name=self.name.rstrip("@"), place=self.place, report=report)

    def draft(self) -> TaskDraft:
        self._describe()
        self._environment()
        self._command()
        self._kind()
        self._reload()
        self._restart()
        if "TimeoutStopSec" not in self.service.values and "TimeoutSec" not in self.service.values:
            self.task.put("stop_timeout", "90s", self.place, "the default of TimeoutStopSec=")
        for key, values in self.service.values.items():
            for value in values:
                self._option(key, value)
        return self.task

    def _describe(self) -> None:
        for name, section in self.sections.items():
            for key, values in () if name == "Service" else section.values.items():
                for value in values:
                    said = f"{key}={value.text}"
                    if key == "Description":
                        self.task.description = self._specified(value)
                    elif key in _LIMITS_OF_START:
                        self.task.put(_LIMITS_OF_START[key], value.text, value.place, said)
                    elif name == "Unit" and key != "Documentation":
                        why = _OF_UNIT.get(key, _BOOT)
                        self.report.warn(value.place, f"{said}: {why}")
                    elif name == "Install" and said not in (
                        "WantedBy=multi-user.target",
                        "WantedBy=default.target",
                    ):
                        self.report.warn(value.place, f"{said}: {_BOOT}")
                    elif name not in ("Unit", "Install"):
                        self.report.warn(value.place, f"[{name}]: the section is unknown, and left out")

    def _environment(self) -> None:
        for value in self.service.values.get("Environment", ()):
            for word in self._words(value):
                name, _, text = word.partition("=")
                self.task.set_variable(name, text, value.place)

    def _command(self) -> None:
        starts = self.service.values.get("ExecStart", [])
        if not starts:
            raise UnreadableError(self.place, "[Service] has no ExecStart=")
        for more in starts[1:]:
            self.report.warn(
                more.place, f"ExecStart={more.text}: a task has one program, and this one is left out"
            )
        start = starts[0]
        marks = re.match("[-@:+!|]*", start.text)
        prefix = marks[0] if marks else ""
        words = self._words(OptionText(start.text[len(prefix) :].strip(), start.place))
        if "@" in prefix:
            self.report.warn(
                start.place, f"ExecStart={prefix}: the program gets its own name as its first argument"
            )
            words = [*words[:1], *words[2:]]
        if "-" in prefix:
            self.report.warn(
                start.place, "ExecStart=-: a status other than 0 is a failure; <success_exit_status> has more"
            )
        if set(prefix) & {"+", "!", "|"}:
            self.report.warn(
                start.place, f"ExecStart={prefix}: the program runs with the rights of <user> alone"
            )
        if ":" not in prefix:
            words = list(self._substituted(words, start))
        if not words:
            raise UnreadableError(start.place, "ExecStart= has no program")
        self.task.command = words

    def _substituted(self, words: list[str], start: OptionText) -> Iterator[str]:
        """Yield the words with the variables that the unit itself sets, which zmsvc does not replace."""

        def replaced(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name is None:
                return "$"
            if name == "MAINPID":
                return "$MAINPID"
            if name not in self.task.environment:
                self.report.warn(
                    start.place,
                    f"{match[0]} stays as it is: zmsvc replaces no variables, /bin/sh -c '...' does",
                )
                return match[0]
            return self.task.environment[name]

        for word in words:
            alone = re.fullmatch(r"\$([A-Za-z_][A-Za-z0-9_]*)", word)
            if alone and alone[1] in self.task.environment:
                yield from self.task.environment[alone[1]].split()
            else:
                yield _VARIABLE.sub(replaced, word)

    def _words(self, value: OptionText) -> list[str]:
        try:
            return unit_file.words(self._specified(value))
        except ValueError as error:
            raise UnreadableError(value.place, str(error)) from error

    def _specified(self, value: OptionText) -> str:
        """Return a value with its %-specifiers replaced."""
        prefix, _, instance = self.name.partition("@")
        known = {
            "%": "%", "n": f"{self.name}.service", "N": self.name, "p": prefix, "i": instance, "I": instance,
            "t": "/run", "S": "/var/lib", "C": "/var/cache", "L": "/var/log", "E": "/etc", "T": "/tmp",
            "V": "/var/tmp",
        }  # fmt: skip

        def replaced(match: re.Match[str]) -> str:
            found = known.get(match[1], "")
            if not found:
                self.report.warn(value.place, f"%{match[1]} stays as it is: it is unknown here")
            return found or match[0]

        return re.sub("%(.)", replaced, value.text)

    def _kind(self) -> None:
        kind = self.service.last("Type")
        text = kind.text if kind else "simple"
        place = kind.place if kind else self.place
        self.task.notify = text in ("notify", "notify-reload")
        if text in ("forking", "dbus"):
            why = {
                "forking": "a task stays in the foreground: give the program its option for that",
                "dbus": "the task is active as soon as its program runs",
            }[text]
            self.report.warn(place, f"Type={text}: {why}")
        elif text == "oneshot":
            self.report.warn(
                place, "Type=oneshot: the task is active while it runs; <on_exit> has what follows"
            )
            self.task.restart = "no"
        self.task.notify_reload = text == "notify-reload"

    def _restart(self) -> None:
        value = self.service.last("Restart")
        if value is None:
            return
        if value.text in [*Restart]:
            self.task.restart = value.text
        else:
            self.task.restart = "no"
            self.report.warn(
                value.place, f"Restart={value.text}: no <restart> says this; a rule in <on_exit> may"
            )

    def _option(self, key: str, value: OptionText) -> None:
        said = f"{key}={value.text}"
        if key in _SAME:
            self._same(key, value, said)
        elif key in _LISTS:
            for word in self._words(value):
                self.task.add(_LISTS[key], word, value.place, said)
        elif key in _LIMITS_OF_START:
            self.task.put(_LIMITS_OF_START[key], value.text, value.place, said)
        elif key == "TimeoutSec":
            for option in ("start_timeout", "stop_timeout"):
                self.task.put(option, value.text, value.place, said)
        elif key == "SuccessExitStatus":
            self.task.add("success_exit_status", _statuses(value.text), value.place, said)
        elif key.startswith("Limit"):
            self._limit(key.removeprefix("Limit").lower(), value, said)
        elif key == "ExecStop":
            self._stop(value, said)
        elif key in _UNSAID:
            if not (key in ("StandardOutput", "StandardError") and value.text in _SILENT_OUTPUT):
                self.report.warn(value.place, f"{said}: {_UNSAID[key]}")
        elif key not in _READ:
            self.report.warn(value.place, f"{said}: {_DROP_IN}")

    def _same(self, key: str, value: OptionText, said: str) -> None:
        text = self._specified(value)
        if key == "WorkingDirectory" and text in ("-", ""):
            return
        if key == "RestartSec":
            # systemd waits this long each time, unless RestartSteps= is given.
            self.task.put("restart_max_delay", text, value.place, said)
        if key == "KillMode" and text in ("process", "none"):
            self.report.warn(value.place, f"{said}: no process of a task is left behind")
            return
        self.task.put(_SAME[key], text, value.place, said)

    def _limit(self, name: str, value: OptionText, said: str) -> None:
        """Set a limit. Of SOFT:HARD the soft one counts; a size may end with K, M, G or T."""
        if name not in RLIMITS:
            self.report.warn(value.place, f"{said}: {_DROP_IN}")
            return
        soft, _, hard = value.text.partition(":")
        if hard:
            self.report.warn(value.place, f"{said}: a task has one limit of a kind, and {soft} is it")
        self.task.set_limit(name, soft.strip(), value.place, said)

    def _reload(self) -> None:
        """Read the commands that reload: one that sends a signal to the main process, or others in their
        order.
        """
        values = self.service.values.get("ExecReload", [])
        if not values:
            return
        said = f"ExecReload={values[0].text}"
        match = _KILL.fullmatch(values[0].text.lstrip("-"))
        if len(values) == 1 and match:
            self.task.put("reload_signal", match[1], values[0].place, said)
            return
        commands = [self._reload_words(value) for value in values]
        if len(values) == 1 and not values[0].text.startswith("-") and "$MAINPID" not in "".join(commands[0]):
            self.task.put("reload_command", shlex.join(commands[0]), values[0].place, said)
            return
        script = " && ".join(
            " ".join(map(_shell_word, words)) + (" || :" if value.text.startswith("-") else "")
            for words, value in zip(commands, values, strict=True)
        )
        self.task.put("reload_command", shlex.join(["/bin/sh", "-c", script]), values[0].place, said)

    def _reload_words(self, value: OptionText) -> list[str]:
        return list(self._substituted(self._words(OptionText(value.text.lstrip("-"), value.place)), value))

    def _stop(self, value: OptionText, said: str) -> None:
        """Read a command that sends a signal to the main process. Other commands are left out."""
        match = _KILL.fullmatch(value.text.lstrip("-"))
        if match:
            self.task.put("stop_signal", match[1], value.place, said)
        else:
            self.report.warn(value.place, f"{said}: a signal stops a task, <stop_signal> says which")


def _shell_word(word: str) -> str:
    """Return a word for sh, which replaces $MAINPID in it and nothing else."""
    parts = word.split("$MAINPID")
    return '"$MAINPID"'.join(shlex.quote(part) if part else "" for part in parts) or "''"


def _statuses(text: str) -> str:
    """Return exit statuses with the names of sysexits.h as numbers."""
    return " ".join(str(getattr(os, f"EX_{word}", word)) for word in text.split())
