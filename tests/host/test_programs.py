"""host/kernel/programs: why the kernel does not execute a program."""

from __future__ import annotations

import os

import pytest

from zmsvc.host.kernel.programs import LONGEST_WORD, obstacle, too_long


def executed(arguments: list[str], environment: dict[str, str]) -> int | None:
    """Return the error of execve, None without one."""
    try:
        pid = os.posix_spawn("/bin/true", arguments, environment)
    except OSError as error:
        return error.errno
    assert os.waitpid(pid, 0)[1] == 0
    return None


def test_the_longest_word_is_that_of_the_kernel() -> None:
    assert executed(["true", "x" * LONGEST_WORD], {}) is None
    number = executed(["true", "x" * (LONGEST_WORD + 1)], {})
    assert obstacle("/bin/true", number, ["true", "x" * (LONGEST_WORD + 1)]) == (
        "argument 1 has 131072 bytes, and the kernel takes 131071 (let the program read a file)"
    )
    assert executed(["true"], {"V": "x" * (LONGEST_WORD - 2)}) is None
    assert executed(["true"], {"V": "x" * (LONGEST_WORD - 1)}) == number


@pytest.mark.parametrize(
    ("arguments", "environment", "found"),
    [
        (["true"], {b"V": b"x" * 131_070}, "the variable V has 131072 bytes, and the kernel takes 131071"),
        (
            ["x" * 100_000] * 30,
            {},
            "30 arguments and variables have 3000270 bytes, and the kernel takes about ",
        ),
    ],
)
def test_what_is_too_long_is_named(arguments: list[str], environment: dict[bytes, bytes], found: str) -> None:
    assert too_long(arguments, environment.items()).startswith(found)
