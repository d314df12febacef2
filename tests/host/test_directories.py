"""Directories and files that are accepted as ours: owners, modes and links, on the whole path from the
root.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from needs import need
from others import command, others

from zmsvc.core.errors import ConfigError, PlaceError
from zmsvc.ctl.client import CtlError
from zmsvc.ctl.verbs import metrics
from zmsvc.host import directories
from zmsvc.host.config import reader

STRANGER = 1_999_999

CONTEXT = """<Context><FrontEndEndpoint>tcp://127.0.0.1:5556</FrontEndEndpoint><BackendEndpoint>tcp://127.0.0.1:5557</BackendEndpoint>
<TaskService id="ts_100" instance="sleep" serviceType="Command"><Task><message><header><service_name>x</service_name></header>
<content><configuration><command>sleep 1</command></configuration></content></message><state/></Task></TaskService></Context>"""


@pytest.fixture(autouse=True)
def _root() -> None:
    need(os.geteuid() == 0, "only root can give files away")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "above" / "ours"


def test_a_directory_is_made_with_its_mode_and_its_parents(place: Path) -> None:
    directories.claim(place, 0o750)
    assert stat.S_IMODE(place.stat().st_mode) == 0o750


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "of another user": (
        lambda place: os.chown(place, STRANGER, 0),
        "belongs to uid 1999999, and this is user root",
    ),
    "everybody may write": (
        lambda place: place.chmod(0o777),
        "may be changed by everybody (mode 0777; chmod go-w",
    ),
    "in a sticky mode": (lambda place: place.chmod(0o1777), "may be changed by everybody"),
    "a group may write": (
        lambda place: (os.chown(place, 0, STRANGER), place.chmod(0o770))[1],
        f"may be changed by group {STRANGER}",
    ),
    "below one of another user": (
        lambda place: os.chown(place.parent, STRANGER, 0),
        "above, which belongs to uid 1999999",
    ),
    "below one of everybody": (
        lambda place: place.parent.chmod(0o777),
        "above, which may be changed by everybody",
    ),
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_directory_that_another_user_could_change_is_refused(place: Path, how: str) -> None:
    directories.claim(place, 0o755)
    change, told = CHANGES[how]
    change(place)
    with pytest.raises(PlaceError) as error:
        directories.claim(place, 0o755)
    assert told in str(error.value)


def test_a_directory_in_a_sticky_directory_is_accepted(place: Path) -> None:
    directories.claim(place, 0o755)
    place.parent.chmod(0o1777)
    directories.check(place)


def test_nothing_is_made_below_a_directory_of_another_user(place: Path) -> None:
    precious = place.parent.parent / "precious"
    precious.mkdir(mode=0o755)
    place.parent.mkdir()
    (place.parent / "link").symlink_to(precious)
    os.chown(place.parent, STRANGER, STRANGER)
    for path in (place, place.parent / "link" / "made"):
        with pytest.raises(PlaceError, match="above, which belongs to uid 1999999"):
            directories.claim(path, 0o755)
    os.chown(place.parent, 0, 0)
    os.chown(place.parent / "link", STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(PlaceError, match="leads through the link"):
        directories.claim(place.parent / "link" / "made", 0o755)
    assert (sorted(os.listdir(place.parent)), os.listdir(precious)) == (["link"], [])


SWAP = """
import contextlib, os, sys
for turn in range(1_000):
    for call, *paths in (
        (os.symlink, sys.argv[1], "ours"), (os.unlink, "ours"), (os.mkdir, "ours"), (os.rename, "ours", f"{turn}")
    ):
        with contextlib.suppress(OSError):
            call(*paths)
"""


def test_a_user_who_swaps_directories_and_links_cannot_redirect_a_new_directory(tmp_path: Path) -> None:
    (stranger,) = others(1)
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o111)
    above, precious = tmp_path / "above", tmp_path / "precious"
    precious.mkdir(mode=0o755)
    above.mkdir(mode=0o755)
    os.chown(above, stranger, stranger)
    words = [*command(stranger), sys.executable, "-c", SWAP, str(precious)]
    with subprocess.Popen(words, cwd=above) as attacker:
        while attacker.poll() is None:
            with pytest.raises(PlaceError):
                directories.claim(above / "ours" / "made", 0o755)
    assert os.listdir(precious) == []


def test_links_of_root_are_followed_and_links_of_other_users_are_not(place: Path) -> None:
    directories.claim(place, 0o755)
    link = place.parent / "link"
    link.symlink_to("../above/./ours")
    directories.check(link)
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(PlaceError, match="leads through the link"):
        directories.check(link)


def test_a_directory_of_another_user_is_entered_but_not_through_a_link_that_the_user_can_make(
    tmp_path: Path,
) -> None:
    theirs, real = tmp_path / "theirs", tmp_path / "real"
    (theirs / "dir").mkdir(parents=True)
    real.mkdir()
    for each in (theirs, theirs / "dir"):
        os.chown(each, STRANGER, STRANGER)
    (tmp_path / "ours").symlink_to("theirs/dir")
    (theirs / "link").symlink_to("../real")
    fd = directories.enter(tmp_path / "ours")
    assert os.path.samestat(os.fstat(fd), os.stat(theirs / "dir"))
    os.close(fd)
    for owner in (STRANGER, 0):
        os.chown(theirs / "link", owner, owner, follow_symlinks=False)
        with pytest.raises(PlaceError, match="theirs"):
            directories.enter(theirs / "link")
    with pytest.raises(CtlError, match="theirs"):
        metrics.write(theirs / "link" / "zmsvc.prom", b"new")
    assert os.listdir(real) == []
    (theirs / "file").touch()
    with pytest.raises(NotADirectoryError):
        directories.enter(theirs / "file")


def test_a_loop_of_links_is_refused(place: Path) -> None:
    directories.claim(place, 0o755)
    (place / "one").symlink_to("two")
    (place / "two").symlink_to("one")
    with pytest.raises(PlaceError, match="leads through the link"):
        directories.check(place / "one")


def test_only_a_regular_file_is_opened(place: Path) -> None:
    directories.claim(place, 0o755)
    os.mkfifo(place / "pipe")
    (place / "link").symlink_to("/etc/passwd")
    for name, told in (("pipe", "not a regular file"), ("link", "a symbolic link")):
        with pytest.raises(PlaceError, match=told):
            directories.open_file(place / name, os.O_RDONLY)


def test_a_new_file_takes_the_place_of_a_link(place: Path) -> None:
    directories.claim(place, 0o755)
    precious = place / "precious"
    precious.write_text("mine")
    for name in ("pid", "pid.new"):
        (place / name).symlink_to(precious)
    directories.write_new(place / "pid", "1\n")
    assert (precious.read_text(), (place / "pid").read_text(), (place / "pid").is_symlink()) == (
        "mine",
        "1\n",
        False,
    )


def test_chmod_of_a_socket_does_not_follow_a_link(place: Path) -> None:
    directories.claim(place, 0o755)
    precious = place / "precious"
    precious.touch(0o600)
    (place / "bus").symlink_to(precious)
    with pytest.raises(FileExistsError):
        directories.chmod_socket(place / "bus", 0o660)
    assert stat.S_IMODE(precious.stat().st_mode) == 0o600


# --- context files


FILE_CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "everybody may write": (
        lambda file: file.chmod(0o666),
        "it may be changed by everybody (mode 0666; chmod go-w",
    ),
    "a group may write": (
        lambda file: (os.chown(file, 0, STRANGER), file.chmod(0o664))[1],
        f"it may be changed by group {STRANGER}",
    ),
    "of another user": (lambda file: os.chown(file, STRANGER, 0), "it belongs to uid 1999999"),
    "in a directory of everybody": (
        lambda file: file.parent.chmod(0o777),
        "which may be changed by everybody",
    ),
}


@pytest.mark.parametrize("how", FILE_CHANGES)
def test_root_refuses_a_context_file_that_others_may_write(place: Path, how: str) -> None:
    directories.claim(place, 0o755)
    file = place / "Context-X.xml"
    file.write_text(CONTEXT)
    reader.load(file)
    change, told = FILE_CHANGES[how]
    change(file)
    with pytest.raises(ConfigError) as error:
        reader.load(file)
    assert error.value.faults[0].startswith(f"{file}:1: root cannot use this file: ")
    assert told in error.value.faults[0]


def test_a_file_of_the_user_who_typed_sudo_is_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directories.claim(place, 0o755)
    file = place / "Context-X.xml"
    file.write_text(CONTEXT)
    os.chown(file, STRANGER, 0)
    monkeypatch.setenv("SUDO_UID", str(STRANGER))
    assert reader.load(file).tasks
