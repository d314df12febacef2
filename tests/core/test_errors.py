"""core/errors: exit statuses and the kernel's reasons in words."""

from __future__ import annotations

import errno
import os

import pytest

from zmsvc.core.errors import RequirementError, reason


def test_a_missing_requirement_has_status_2() -> None:
    assert RequirementError.code == 2


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EACCES, os.strerror(errno.EACCES), "/etc/x"), "/etc/x: permission denied"),
        (OSError(errno.EXDEV, "Cross-device link", "/a", None, "/b"), "/b: cross-device link"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device"),
        (OSError("Timed out"), "timed out"),
        (OSError(errno.EBADF, "Bad file descriptor", 5), "bad file descriptor"),
    ],
)
def test_a_reason_is_the_kernels_words_with_the_file_if_it_is_known(error: OSError, words: str) -> None:
    assert reason(error) == words
