"""docs/from-supervisor.md: its example is imported and runs, and each name on the page exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from context import Context
from ports import free_ports
from tutorial import ROOT

from zmsvc.core.service_options import OPTIONS
from zmsvc.ctl.verb_table import GLOBAL, VERBS

PAGE = (ROOT / "docs/from-supervisor.md").read_text()


def block(language: str, number: int = 0) -> str:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return found[number]


def commands() -> list[list[str]]:
    """The commands of zmsvc on the page, in their order, as words."""
    lines = (block("sh", 0) + block("sh", 1)).splitlines()
    return [line.split() for line in lines if not line.startswith("supervisorctl")]


def test_each_verb_and_option_that_the_page_names_exists() -> None:
    table = PAGE[PAGE.index("## Commands") : PAGE.index("## Options")]
    named = {
        each.split()[0]
        for row in table.splitlines()
        for each in re.findall(r"`([^`]+)`", row.rpartition("| ")[2])
    }
    named |= set(re.findall(r"`zmsvcctl (?:-c [A-Za-z]+ )?([a-z][a-z-]*)", PAGE))
    files = {"systemctl", "Context-NAME.d", "zmsvcd.log", "--transaction", "--json"}
    assert named - files <= {verb.name for verb in VERBS}
    flags = {flag for verb in VERBS for option in (*verb.options, *GLOBAL) for flag in option.flags}
    of_create = {"--command", "--flag"}
    of_others = {"--now", "--detach"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z_-]+", table)) <= flags | of_create | of_others
    elements = set(re.findall(r"<([a-z_]+)[ >]", PAGE[PAGE.index("## Options") :]))
    of_context = {"command", "state", "notify", "on_fail", "nofile", "on_any_fail"}
    assert elements - of_context <= {option.name for option in OPTIONS}


def test_the_example_of_the_page_runs(context: Context) -> None:
    home = context.home
    port = free_ports(1)[0]
    ini = block("ini").replace("80%(process_num)02d", f"{port} --bind 127.0.0.%(process_num)d1")
    (home / "supervisord.conf").write_text(ini.replace("/usr/share", str(home)))
    programs = {"zmsvcctl": "zmsvc.ctl", "zmsvcd": "zmsvc.keeper"}
    told: dict[str, str] = {}
    try:
        for words in commands():
            target = words[-1] if ">" in words else ""
            words = words[: words.index(">")] if target else words
            done = subprocess.run(
                [sys.executable, "-P", "-m", programs[words[0]], *words[1:]],
                cwd=home, env=context.environment, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 0, (words, done.stdout, done.stderr)
            if target:
                Path(home, target).write_text(done.stdout)
            told[" ".join(words)] = done.stderr if target else done.stdout
    finally:
        leave = [sys.executable, "-P", "-m", "zmsvc.ctl", "-c", "Site", "exit"]
        subprocess.run(leave, env=context.environment, capture_output=True, timeout=60, check=False)
    assert told["zmsvcctl import --name Site supervisord.conf"] == block("text")
    assert re.search(
        r"api_00 .*active \(running\)(.|\n)*mailer .*inactive \(waiting\)", told["zmsvcctl status"]
    )
    assert "mailer: active (running)" in told["zmsvcctl start --task mailer"]
    assert not os.path.exists(context.runtime / "Site/control.sock")
