"""The cgroups that a context may divide among its tasks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zmsvc.host.kernel import cgroups


def cgroup(directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "cgroup.procs").touch()
    return directory


def test_a_users_own_service_may_divide_its_cgroup_without_the_mark_of_systemd(tmp_path: Path) -> None:
    below = tmp_path / "user.slice/user-1000.slice/user@1000.service/app.slice"
    assert cgroups.is_delegated(cgroup(below / "app-zmsvc.slice/zmsvc@Mine.service"))


@pytest.mark.parametrize(
    "path",
    [
        "system.slice/zmsvc@Mine.service",
        "user.slice/user@1000.service/app.slice/run-1.scope",
        "user@1000.service",
    ],
)
def test_other_cgroups_need_the_mark_of_systemd(tmp_path: Path, path: str) -> None:
    assert not cgroups.is_delegated(cgroup(tmp_path / path))


def test_a_cgroup_with_the_mark_of_systemd_is_delegated(tmp_path: Path) -> None:
    directory = cgroup(tmp_path / "system.slice/zmsvc@Mine.service")
    try:
        os.setxattr(directory, "user.delegate", b"1")
    except OSError:
        pytest.skip("this file system has no user extended attributes")
    assert cgroups.is_delegated(directory)
    os.setxattr(directory, "user.delegate", b"0")
    assert not cgroups.is_delegated(directory)


def test_a_cgroup_of_another_user_is_not_delegated(tmp_path: Path) -> None:
    directory = cgroup(tmp_path / "user@1000.service/app.slice/zmsvc@Mine.service")
    if os.geteuid():
        directory.chmod(0o555)
    else:
        os.chown(directory, 65534, 65534)
    assert not cgroups.is_delegated(directory)


def test_the_memory_of_a_container_is_the_lowest_limit_of_the_groups_around(tmp_path: Path) -> None:
    own = tmp_path / "mount" / "slice" / "unit"
    own.mkdir(parents=True)
    (tmp_path / "memory.max").write_text("5\n")
    (own / "memory.max").write_text("max\n")
    (own.parent / "memory.max").write_text("4096\n")
    (tmp_path / "mount" / "memory.max").write_text("8192\n")
    assert cgroups.limits_around(own, tmp_path / "mount", "memory.max") == [4096, 8192]
    assert cgroups.limits_around(own, tmp_path / "mount", "memory.limit_in_bytes") == []
    assert 0 < cgroups.memory_size() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
