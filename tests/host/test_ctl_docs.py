"""The manual and the completion of zmsvcctl agree with its table of verbs."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
from needs import need, need_tool

from zmsvc.core.world import Reason
from zmsvc.ctl.verb_table import GLOBAL, VERBS, Argument, VerbEntry

DATA = Path(__file__).parents[2] / "zmsvc" / "data"
MANUAL = DATA / "man" / "zmsvcctl.1"
COMPLETION = DATA / "completion" / "zmsvcctl.bash"
HELP = {"-h", "--help"}
OWN = [verb for verb in VERBS if not verb.own_arguments]
"""`create` has a table of its own."""


def flags(*options: Argument) -> set[str]:
    return {flag for option in options for flag in option.flags if flag.startswith("-")}


def plain(text: str) -> str:
    """Return the manual without its markup."""
    text = re.sub(r"\\f[A-Z]", "", text).replace("\\-", "-").replace("\\(aq", "'")
    return re.sub(r"^\.(?:B|I|BR|RI|IR|SS|SH) ", "", text, flags=re.M)


def section(name: str) -> str:
    return re.search(rf"^\.SH \"?{name}\"?\n(.*?)(?=^\.SH )", MANUAL.read_text(), re.M | re.S)[1]  # type: ignore[index]


def items(name: str) -> list[str]:
    """Return the heading of each paragraph of a section."""
    return [plain(line) for line in re.findall(r"^\.TP\n(.*)$", section(name), re.M)]


def test_the_manual_has_every_verb_and_no_other() -> None:
    assert sorted(item.split()[0] for item in items("VERBS")) == sorted(verb.name for verb in VERBS)


@pytest.mark.parametrize("verb", OWN, ids=lambda verb: verb.name)
def test_the_manual_has_every_argument_of_a_verb(verb: VerbEntry) -> None:
    (synopsis,) = [item for item in items("VERBS") if item.split()[0] == verb.name]
    shown = set(re.findall(r"(?<!\w)--?[A-Za-z][a-z-]*", synopsis))
    assert shown <= flags(*verb.options)
    assert [
        option.flags
        for option in verb.options
        if option.flags[0].startswith("-") and not shown & set(option.flags)
    ] == []
    positional = [option for option in verb.options if not option.flags[0].startswith("-")]
    assert [
        option.flags for option in positional if str(option.settings["metavar"]).split("|")[0] not in synopsis
    ] == []


def test_the_manual_has_every_option_and_no_other() -> None:
    told = {flag for item in items("OPTIONS") for flag in re.findall(r"(?<!\w)--?[A-Za-z][a-z-]*", item)}
    assert told == flags(*GLOBAL, *(option for verb in VERBS for option in verb.options)) | HELP | {
        "--version"
    }


def test_the_manual_has_every_exit_status() -> None:
    assert items("EXIT STATUS") == ["0", "1", "2", "3", "4", "5", "124"]


def test_the_manual_can_be_set() -> None:
    need(shutil.which("groff"), "groff is not installed")
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z", "-Tutf8", str(MANUAL)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


NO_BLOCK = next(option for option in GLOBAL if "--no-block" in option.flags)


def completed(*words: str) -> set[str]:
    """Return the words that bash offers for the last of these words."""
    script = (
        f'. "{COMPLETION}"; COMP_WORDS=(zmsvcctl "$@"); COMP_CWORD=$#; COMP_LINE="${{COMP_WORDS[*]}}"; '
        f'COMP_POINT=${{#COMP_LINE}}; _zmsvcctl zmsvcctl "${{COMP_WORDS[-1]}}"; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    environment = {"PATH": "/usr/bin:/bin", "ZMSVC_CONFIG_DIR": "/nowhere", "ZMSVC_RUNTIME_DIR": "/nowhere"}
    done = subprocess.run(
        ["bash", "-c", script, "bash", *words], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    return set(done.stdout.split())


def test_bash_completes_verbs() -> None:
    wanted = {verb.name for verb in VERBS}
    assert {word for word in completed("") if not word.startswith("-")} == wanted
    assert completed("re") == {name for name in wanted if name.startswith("re")}
    assert completed("-c", "logs", "ex") == {"exit"}


def test_bash_completes_options_before_the_verb() -> None:
    assert completed("--") == {
        flag for flag in flags(*GLOBAL) | HELP | {"--version"} if flag.startswith("--")
    }


@pytest.mark.parametrize("verb", OWN, ids=lambda verb: verb.name)
def test_bash_completes_options_of_a_verb(verb: VerbEntry) -> None:
    understood = [option for option in GLOBAL if verb.understands(option)]
    assert completed("--json", verb.name, "-") == flags(*understood, *verb.options) | HELP
    assert ("--no-block" in completed(verb.name, "--")) is verb.understands(NO_BLOCK)


def test_bash_completes_values() -> None:
    formats = {
        verb.name: {*option.settings["choices"]}
        for verb in VERBS
        for option in verb.options
        if "--format" in option.flags
    }
    assert formats.keys() == {"graph", "wiring"}
    for verb, choices in formats.items():
        assert completed(verb, "--format", "") == choices
    assert completed("status", "--transaction", "") == set()
    assert completed("nonsense", "") == set()


def test_bash_completes_the_value_of_a_flag_that_has_another_meaning_for_another_verb() -> None:
    assert "MainPID" in completed("show", "-p", "")
    assert "warning" not in completed("show", "-p", "")
    assert "warning" in completed("logs", "-p", "")


def test_bash_completes_context_files(tmp_path: Path) -> None:
    (tmp_path / "Context-A.xml").touch()
    (tmp_path / "other").touch()
    assert completed("check", f"{tmp_path}/") == {f"{tmp_path}/Context-A.xml"}


def test_the_completions_are_made_of_the_table() -> None:
    made = runpy.run_path(str(DATA.parents[1] / "scripts" / "completion.py"), run_name="completion")
    assert {path.name: path.read_text() for path in COMPLETION.parent.iterdir() if path.is_file()} == {
        name: make() for name, make in (made["FILES"] | made["FILES_OF_DAEMON"]).items()
    }


FILES = (
    "bash zmsvcctl.bash", "zsh _zmsvcctl", "fish zmsvcctl.fish",
    "bash zmsvcd.bash", "zsh _zmsvcd", "fish zmsvcd.fish", "bash units/zmsvc.bash", "zsh units/_zmsvc_units", "fish units/zmsvc.fish",
)  # fmt: skip


@pytest.mark.parametrize("file", FILES)
def test_each_shell_can_read_its_completion(file: str) -> None:
    shell, name = file.split()
    need_tool(shutil.which(shell), f"{shell} is not installed")
    done = subprocess.run([shell, "-n", str(COMPLETION.parent / name)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_fish_completes_verbs_options_and_values() -> None:
    need_tool(shutil.which("fish"), "fish is not installed")

    def offered(line: str) -> set[str]:
        script = f'source "{COMPLETION.parent / "zmsvcctl.fish"}"; complete -C "{line}"'
        done = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return {each.split("\t")[0] for each in done.stdout.splitlines()}

    assert "--no-block" in offered("zmsvcctl --no") & offered("zmsvcctl start --no")
    assert "--no-block" not in offered("zmsvcctl status --no")
    assert offered("zmsvcctl re") == {verb.name for verb in VERBS if verb.name.startswith("re")}
    (graph,) = [verb for verb in VERBS if verb.name == "graph"]
    assert {flag for flag in flags(*graph.options) if flag.startswith("--")} <= offered("zmsvcctl graph --")
    assert offered("zmsvcctl graph --format ") == {"dot", "mermaid", "svg"}


def test_the_manual_says_what_each_reason_means() -> None:
    assert items("WHY A TASK ENDED") == [reason.value for reason in Reason]
