"""`status` compares the files of a context with the supervisor's digest, and opens nothing that only another user
names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fake_supervisor as fake
import pytest
from fake_supervisor import House, status, transaction
from needs import need

from zmsvc.ctl.file_change import needs_reload
from zmsvc.ctl.status_reply import ContextStatus
from zmsvc.host import paths
from zmsvc.host.config import context_files

TEXT = b"<Context/>"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with fake.house(tmp_path) as made:
        yield made


def found(home: House, file: Path, digest: str | None = None) -> bool | None:
    """Return True if `status` says that this file has changed since the supervisor read TEXT from it."""
    known = context_files.digest(TEXT, ()) if digest is None else digest
    answer = status(transaction(), file=str(file), file_digest=known)
    return needs_reload(ContextStatus(answer["data"]), paths.places("Echo"))


def test_a_file_that_differs_or_is_gone_needs_a_reload(home: House) -> None:
    home.supervisor()
    file = home.file(text=TEXT.decode())
    assert found(home, file) is False
    part = file.with_suffix(".d") / "more.xml"
    part.parent.mkdir()
    part.write_text("<Context/>")
    assert found(home, file) is True
    part.unlink()
    assert found(home, file) is False
    file.write_text("<Context />")
    assert found(home, file) is True
    file.unlink()
    assert found(home, file) is True


def test_a_change_is_unknown_for_an_earlier_supervisor_or_a_path_without_a_file(home: House) -> None:
    home.supervisor()
    assert found(home, home.file(text="<Context />"), "") is None
    pipe = home.root / "Context-Echo.xml"
    os.mkfifo(pipe)
    assert found(home, pipe) is None, "and it does not wait for a writer"


def test_a_path_that_only_another_user_names_is_not_opened(home: House) -> None:
    need(os.geteuid() == 0, "only root can give a socket to another user")
    there, elsewhere = home.supervisor(), home.root / "elsewhere.xml"
    elsewhere.write_text("<Context />")
    assert found(home, elsewhere) is True
    os.chown(there.path, 65534, -1)
    assert found(home, elsewhere) is None
    assert found(home, home.file(text="<Context />")) is True, "the file that root itself would start"
