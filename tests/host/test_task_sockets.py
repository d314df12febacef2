"""The keeper opens a socket of a task only where no other user chooses what it opens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from needs import need

from zmsvc.core.errors import ZmsvcError
from zmsvc.core.listening import ListenSocket
from zmsvc.keeper.machine import Machine
from zmsvc.keeper.task_sockets import TaskSockets

NOBODY = 65534


def opened(path: Path) -> TaskSockets:
    sockets = TaskSockets(Machine())
    wanted = [ListenSocket(address=f"ipc://{path}").as_json()]
    sockets.hold(wanted)
    sockets.open(wanted)
    return sockets


def test_missing_directories_of_a_socket_are_created(tmp_path: Path) -> None:
    sockets = opened(tmp_path / "a" / "b" / "s")
    assert (tmp_path / "a" / "b" / "s").is_socket()
    assert sockets.hold([]) is not None
    assert not (tmp_path / "a" / "b" / "s").exists()
    os.wait()


def test_no_directory_is_created_where_another_user_chooses_its_place(tmp_path: Path) -> None:
    need(os.geteuid() == 0, "only root can give a directory to another user")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    os.chown(foreign, NOBODY, NOBODY)
    (foreign / "link").symlink_to(tmp_path)
    for place in ("new", "link/new"):
        with pytest.raises(ZmsvcError, match=r"cannot listen at ipc://.*foreign"):
            opened(foreign / place / "s")
    assert not (tmp_path / "new").exists()
    assert not (foreign / "new").exists()
