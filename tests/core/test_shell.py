"""core/shell: there is a warning about syntax that only a shell understands, and none about arguments for the
program.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulation import context, task

from zmsvc.core import checks, shell

SHELL = {
    "echo hello > f 2>&1": [">", "2>&1"],
    "echo hello>f": [">f"],
    "prog 2>/dev/null": ["2>/dev/null"],
    "prog < in >> out": ["<", ">>"],
    "prog &> f": ["&>"],
    "a && b": ["&&"],
    "a || b": ["||"],
    "a | b": ["|"],
    "a|b": ["|"],
    "a; b": [";"],
    "a &": ["&"],
    "prog $HOME/x ${TMPDIR} $(date) `id`": ["$HOME", "${TMPDIR}", "$(date)", "`id`"],
    'prog "$HOME"': ["$HOME"],
    'prog "a\\"b" $HOME': ["$HOME"],
    'prog "a\\\\" > f': [">"],
    "prog ~/data ~www ~": ["~/data", "~www", "~"],
    "rm /tmp/*.log": ["/tmp/*.log"],
    "cd /srv && prog": ["begins with cd", "&&"],
    "exec prog": ["begins with exec"],
    "FOO=bar prog": ["begins with FOO=", "<FOO>...</FOO>"],
}
NONE = (
    "redis-server --port 16397 --save '900 1'",
    "nginx -g 'daemon off;'",
    "sh -c 'a > b && c | d; e $HOME ~ &'",
    "grep '>' file",
    "grep \\> file",
    "curl http://example.org/?a=1&b=2",
    "pip install requests>=2.0",
    "awk '{print $1}' file",
    "prog cost$ 5$ a$",
    "prog --bind=*:80 tcp://*:5555",
    "find . -exec ls {} \\;",
    "prog '$HOME' \\$HOME '~'",
    "echo a=b",
    "",
    "'not closed",
)


@pytest.mark.parametrize("command", SHELL)
def test_shell_syntax_in_a_command_is_warned_about_with_the_fix(command: str) -> None:
    told = shell.warnings(command)
    assert told
    for part in SHELL[command]:
        assert any(part in each for each in told), told
    assert all("/bin/sh -c '...'" in each for each in told)


@pytest.mark.parametrize("command", NONE)
def test_words_that_a_program_may_take_are_not_warned_about(command: str) -> None:
    assert shell.warnings(command) == []


@pytest.mark.parametrize("word", [">", "2>&1", "&&", "|", "$HOME", "${HOME}/x", "~/x"])
def test_a_shell_operator_as_a_word_is_warned_about(word: str) -> None:
    assert word in shell.warnings({"arg": ["prog", word]})[0]
    assert "FOO=" in shell.warnings({"arg": ["FOO=1", "prog"]})[0]


@pytest.mark.parametrize(
    "words",
    [["sh", "-c", "a > b; c $HOME"], ["find", "/", "-exec", "ls", ";"], ["grep", "^a$"], ["prog", "a > b"]],
)
def test_arguments_that_a_program_may_take_are_not_warned_about(words: list[str]) -> None:
    assert shell.warnings({"arg": words}) == []


def test_only_commands_are_warned_about_shell_syntax() -> None:
    command = replace(task("c", kind="Command"), command=("a", ">", "b"), configuration={"command": "a > b"})
    python = replace(task("p"), configuration={"command": "a > b"})
    told = [warning for warning in checks.warnings(context(command, python)) if "only a shell" in warning]
    assert [warning.partition(":")[0] for warning in told] == ["c"]
