"""`make install DESTDIR=`, as a packager runs it: files name the directories in which they will be, and
uninstall removes all of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from needs import need

ROOT = Path(__file__).parents[2]
PYTHON = Path("/usr/bin/python3")


def make(*arguments: str) -> None:
    done = subprocess.run(
        ["make", "-C", ROOT, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need(shutil.which("make"), "make is not installed")
    check = "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"
    usable = (
        PYTHON.exists()
        and subprocess.run([PYTHON, "-c", check], stderr=subprocess.DEVNULL, check=False).returncode == 0
    )
    need(usable, f"{PYTHON} is not a Python >= 3.11 with venv")
    directory = tmp_path_factory.mktemp("stage")
    make("install", f"DESTDIR={directory}", "PREFIX=/usr", "SYSCONFDIR=/etc", f"PYTHON={PYTHON}")
    return directory


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]


def test_nothing_names_the_staging_directory(stage: Path) -> None:
    # pip notes the directory in which it found the package, which has been removed by now.
    naming = [
        path for path in files(stage) if bytes(stage) in path.read_bytes() and path.name != "direct_url.json"
    ]
    assert naming == []


def test_the_programs_start_with_the_python_that_will_be_there(stage: Path) -> None:
    for name in ("zmsvcd", "zmsvcctl"):
        link = stage / "usr/bin" / name
        assert os.readlink(link) == f"../lib/zmsvc/bin/{name}"
        assert link.read_text().splitlines()[0] == "#!/usr/lib/zmsvc/bin/python"
    assert os.readlink(stage / "usr/lib/zmsvc/bin/python3") == str(PYTHON)


def test_the_package_brings_its_data(stage: Path) -> None:
    (package,) = (stage / "usr/lib/zmsvc/lib").glob("python3.*/site-packages/zmsvc")
    wanted = {path.relative_to(ROOT / "zmsvc") for path in files(ROOT / "zmsvc") if path.suffix != ".pyc"}
    assert wanted - {path.relative_to(package) for path in files(package)} == set()


def test_the_unit_runs_what_was_installed(stage: Path) -> None:
    unit = (stage / "usr/lib/systemd/system/zmsvc@.service").read_text()
    assert "\nExecStart=/usr/bin/zmsvcd --foreground %i\n" in unit
    assert "\nExecReload=/usr/bin/zmsvcctl -c %i reload\n" in unit


def test_every_user_may_read_the_installed_files(stage: Path) -> None:
    assert [
        path for path in stage.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o4 == 0
    ] == []


def test_what_the_administrator_made_survives_another_installation_and_the_removal(tmp_path: Path) -> None:
    need(shutil.which("make"), "make is not installed")
    directories = (f"DESTDIR={tmp_path}", "PREFIX=/usr", "SYSCONFDIR=/etc")
    make("install-files", *directories)
    edited, own = tmp_path / "etc/zmsvc/Context-EchoAction.xml", tmp_path / "usr/lib/zmsvc/services/mine.py"
    assert "<Context>" in edited.read_text()
    edited.write_text("edited")
    own.parent.mkdir(parents=True)
    own.touch()
    make("install-files", *directories)
    assert edited.read_text() == "edited"
    make("uninstall", *directories)
    assert sorted(files(tmp_path)) == sorted([edited, own])


def test_uninstall_leaves_no_file(tmp_path: Path) -> None:
    need(shutil.which("make"), "make is not installed")
    directories = (f"DESTDIR={tmp_path}", "PREFIX=/usr", "SYSCONFDIR=/etc")
    make("install-files", *directories)
    make("uninstall", *directories)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir() or path.name == "zmsvc"] == []
