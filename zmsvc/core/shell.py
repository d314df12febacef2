"""Find shell syntax in the `<command>` of a Command. No shell reads a command, so the program would get the
syntax as plain text. Pure.

zmsvc splits a `<command>` into words as sh(1) does, quotes included, and interprets nothing else. Text in
single quotes is deliberate. An `<arg>` is one word; only a word that is nothing but shell syntax, which no
program expects, causes a warning.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

_PLAIN, _DOUBLE, _SINGLE = "p", "d", "s"
"""The quoting of a character: none, double quotes, or one in which a shell interprets nothing."""

_OPERATOR = re.compile(r"&&|\|\||\|&|[|&;]|\d*(>>?|<<?<?|<>|>\|)(&\d*-?)?|&>>?")
"""Matches a word that is a shell operator and nothing else."""
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
"""Commands and words that a shell executes itself. A word that is also a program (echo, test, kill, ...) is
not among them.
"""
_SHOWN = 4


def warnings(command: Any) -> list[str]:
    """Return warnings about shell syntax in a `<command>`, given as JSON."""
    quoting_hint = ""
    if isinstance(command, str):
        try:
            words = list(_words(command))
        except ValueError:
            return []
        first = words[0][0] if words else ""
        quoting_hint = "; single quotes around it say that no shell syntax is meant"
        found = [*dict.fromkeys(_in_text(words))]
    else:
        arguments = _arguments(command)
        first = arguments[0] if arguments else ""
        found = [
            *dict.fromkeys(
                word for word in arguments if (_OPERATOR.fullmatch(word) and word != ";") or _expands(word)
            )
        ]
    found_warnings = []
    if variable := assigned(first):
        found_warnings.append(
            f"its <command> begins with {first.partition('=')[0]}=, and no shell reads it: "
            f"<environment><{variable}>...</{variable}></environment> in <service> sets a variable, and so "
            f"does /bin/sh -c '...'"
        )
    elif builtin(first):
        found_warnings.append(
            f"its <command> begins with {first}, which is a command of the shell and not a program: /bin/sh "
            f"-c '...' runs it"
        )
    if found:
        shown = ", ".join(word if len(word) <= 40 else f"{word[:37]}..." for word in found[:_SHOWN])
        more = ", ..." if len(found) > _SHOWN else ""
        found_warnings.append(
            f"its <command> has {shown}{more}, which only a shell understands, and none reads it: "
            f"/bin/sh -c '...' gives the line to a shell{quoting_hint}"
        )
    return found_warnings


def assigned(word: str) -> str:
    """Return the variable that a shell would set if this is the first word; empty for a program."""
    return word.partition("=")[0] if _ASSIGNMENT.fullmatch(word) else ""


def builtin(word: str) -> bool:
    """Return True if a first word is a command of the shell, and not a program."""
    return word in _BUILTINS


def _arguments(command: Any) -> Sequence[str]:
    given = command.get("arg") if isinstance(command, dict) else None
    return [each for each in (given if isinstance(given, list) else [given]) if isinstance(each, str)]


def _expands(word: str) -> bool:
    """Return True if an argument is a path that begins with a home directory or with a variable in
    capitals.
    """
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
        # Within an argument, one of these characters alone may be intended, as in ?a=1&b=2.
        if joined := re.search(r"&&|\|\||^[|&;]|[&;]$" if number else r"&&|\|\||[|&;]", plain):
            yield joined[0]
        for expansion in _EXPANSION.finditer(open_):
            yield expansion[0].replace("\0", "")
        if _HOME.fullmatch(plain):
            yield word
        if "*" in plain and not re.search(r"[:=]", plain) and len(word) > 1:
            yield word


def _words(text: str) -> Iterator[tuple[str, str]]:
    """Yield the words of a text as `shlex.split` does, with the quoting of each character. Raises
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
    """Return the quoting of each character of the word that begins here, and the position of its end."""
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
