"""Finds in the `<command>` of a Command what only a shell understands: no shell reads it, so a program gets
it as it stands. Pure.

A `<command>` is split into words as sh(1) does it, quotes included, and nothing else of a shell is done. Text
in single quotes is meant as it stands. An `<arg>` is one word; there only a whole word that is hardly meant
for a program counts.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

_PLAIN, _DOUBLE, _SINGLE = "p", "d", "s"
"""How a character is quoted: not, in double quotes, or so that a shell leaves it alone."""

_OPERATOR = re.compile(r"&&|\|\||\|&|[|&;]|\d*(>>?|<<?<?|<>|>\|)(&\d*-?)?|&>>?")
"""A word that is an operator of the shell and nothing else."""
_REDIRECTION = re.compile(r"\d*(>>|>\||>&|<&|<<<?|<>|>(?!=)|<(?!=))\S*|&>>?\S*")
_EXPANSION = re.compile(r"\$[A-Za-z_]\w*|\$[({][^)}]*[)}]?|`[^`]*`?")
_HOME = re.compile(r"~[A-Za-z0-9_-]*(/\S*)?")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_BUILTINS = frozenset(
    {
        "cd",
        "source",
        ".",
        "export",
        "exec",
        "eval",
        "set",
        "unset",
        "ulimit",
        "umask",
        "trap",
        "alias",
        "if",
        "while",
        "until",
        "for",
        "case",
        "{",
        "(",
        "!",
        "pushd",
        "popd",
        "shopt",
        "declare",
        "local",
        "let",
        "[[",
        "wait",
    }
)
"""Commands and words that a shell carries out itself. What is also a program (echo, test, kill, ...) is
none of them.
"""
_SHOWN = 4


def warnings(command: Any) -> list[str]:
    """Tell what in a `<command>`, as JSON, only a shell understands."""
    meant = ""
    if isinstance(command, str):
        try:
            words = list(_words(command))
        except ValueError:
            return []
        first = words[0][0] if words else ""
        meant = "; single quotes around it say that it is meant as it stands"
        found = [*dict.fromkeys(_in_text(words))]
    else:
        arguments = _arguments(command)
        first = arguments[0] if arguments else ""
        found = [
            *dict.fromkeys(
                word for word in arguments if (_OPERATOR.fullmatch(word) and word != ";") or _expands(word)
            )
        ]
    told = []
    if variable := assigned(first):
        told.append(
            f"its <command> begins with {first.partition('=')[0]}=, and no shell reads it: "
            f"<environment><{variable}>...</{variable}></environment> in <service> sets a variable, and so "
            f"does /bin/sh -c '...'"
        )
    elif builtin(first):
        told.append(
            f"its <command> begins with {first}, which is a command of the shell and no program: /bin/sh "
            f"-c '...' runs it"
        )
    if found:
        shown = ", ".join(word if len(word) <= 40 else f"{word[:37]}..." for word in found[:_SHOWN])
        more = ", ..." if len(found) > _SHOWN else ""
        told.append(
            f"its <command> has {shown}{more}, which only a shell understands, and none reads it: "
            f"/bin/sh -c '...' gives the line to a shell{meant}"
        )
    return told


def assigned(word: str) -> str:
    """Return the variable that a first word would set in a shell; empty for a program."""
    return word.partition("=")[0] if _ASSIGNMENT.fullmatch(word) else ""


def builtin(word: str) -> bool:
    """Tell whether a first word is a command of the shell, and no program."""
    return word in _BUILTINS


def _arguments(command: Any) -> Sequence[str]:
    given = command.get("arg") if isinstance(command, dict) else None
    return [each for each in (given if isinstance(given, list) else [given]) if isinstance(each, str)]


def _expands(word: str) -> bool:
    """Tell whether an argument is a path that begins with a home directory or with a variable in capitals."""
    return bool(
        re.fullmatch(r"~(/\S*)?", word)
        or re.fullmatch(r"\$(\{[A-Z_][A-Z0-9_]*\}|[A-Z_][A-Z0-9_]*)(/\S*)?", word)
    )


def _in_text(words: Sequence[tuple[str, str]]) -> Iterator[str]:
    for number, (word, quoting) in enumerate(words):
        plain = "".join(char if how == _PLAIN else "\0" for char, how in zip(word, quoting, strict=True))
        open_ = "".join(char if how != _SINGLE else "\0" for char, how in zip(word, quoting, strict=True))
        if _OPERATOR.fullmatch(plain):
            yield word
            continue
        if redirection := _REDIRECTION.search(plain):
            yield word[redirection.start() : redirection.end()]
        # Within an argument a single one of these may be meant: ?a=1&b=2.
        if joined := re.search(r"&&|\|\||^[|&;]|[&;]$" if number else r"&&|\|\||[|&;]", plain):
            yield joined[0]
        for expansion in _EXPANSION.finditer(open_):
            yield expansion[0].replace("\0", "")
        if _HOME.fullmatch(plain):
            yield word
        if "*" in plain and not re.search(r"[:=]", plain) and len(word) > 1:
            yield word


def _words(text: str) -> Iterator[tuple[str, str]]:
    """Split a text into words as `shlex.split` does, and say of each character how it is quoted. Raises
    ValueError.
    """
    expected = shlex.split(text)
    position = 0
    for word in expected:
        while text[position : position + 1] in (" ", "\t", "\r", "\n"):
            position += 1
        quoting, position = _quoting(text, position)
        if len(quoting) != len(word):
            raise ValueError("cannot be split")
        yield word, quoting


def _quoting(text: str, at: int) -> tuple[str, int]:
    """Return how each character of the word is quoted that begins here, and where it ends."""
    marks: list[str] = []
    inside = ""
    while at < len(text):
        char = text[at]
        if inside == "'":
            if char == "'":
                inside = ""
            else:
                marks.append(_SINGLE)
        elif char == "\\" and (not inside or text[at + 1 : at + 2] in ('"', "\\")):
            marks.append(_SINGLE)
            at += 1
        elif inside:
            if char == '"':
                inside = ""
            else:
                marks.append(_DOUBLE)
        elif char in "'\"":
            inside = char
        elif char in " \t\r\n":
            break
        else:
            marks.append(_PLAIN)
        at += 1
    return "".join(marks), at
