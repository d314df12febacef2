"""`zmsvcctl units`: the systemd units of an installation by pip or pipx, with its own paths."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from zmsvc.ctl.verbs import units as unit_files

SOURCE = Path(__file__).parents[2]
TEMPLATES = SOURCE / "units"


@pytest.fixture
def bindir(tmp_path: Path) -> Path:
    """An installation: two programs that run this tree, in a directory with a blank and a percent sign."""
    directory = tmp_path / "100% mine"
    directory.mkdir()
    for name, module in ("zmsvcctl", "ctl"), ("zmsvcd", "keeper"):
        program = directory / name
        text = (
            f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; sys.argv[0] = \'$0\'; from '
            f"zmsvc.{module}.__main__ import main;"
        )
        program.write_text(f'{text} sys.exit(main())" "$@"\n')
        program.chmod(0o755)
    return directory


def units(bindir: Path, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
    environment |= {"HOME": str(home), "PYTHONPATH": str(SOURCE)}
    return subprocess.run(
        [bindir / "zmsvcctl", "units", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_unit_of_a_user_is_printed_and_nothing_is_written(bindir: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = units(bindir, "--user", home=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == f"# {home}/.config/systemd/user/zmsvc@.service"
    program = str(bindir).replace("%", "%%").replace(" ", "\\x20")
    assert f"\nExecStart={program}/zmsvcd --foreground %i\n" in done.stdout
    assert f"\nExecReload={program}/zmsvcctl -c %i reload\n" in done.stdout
    assert not home.exists()


def test_install_puts_the_unit_of_a_user_where_systemd_looks_and_tells_what_to_run(
    bindir: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    unit = home / ".config/systemd/user/zmsvc@.service"
    for _ in "twice":
        done = units(bindir, "--user", "--install", home=home)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == (
            f"installed {unit}\nnext: systemctl --user daemon-reload && systemctl --user start zmsvc@NAME\n"
        )
    assert [path for path in home.rglob("*") if path.is_file()] == [unit]
    assert units(bindir, "--user", home=home).stdout == f"# {unit}\n{unit.read_text()}"


def test_the_json_output_has_the_same_units(bindir: Path, tmp_path: Path) -> None:
    answer: dict[str, Any] = json.loads(units(bindir, "--user", "--json", home=tmp_path).stdout)
    assert answer["installed"] is False
    assert answer["next"][0] == "systemctl --user daemon-reload"
    (file,) = answer["files"]
    assert file["path"] == f"{tmp_path}/.config/systemd/user/zmsvc@.service"
    assert "\nDelegate=yes\n" in file["text"]


def test_the_units_of_the_system_are_all_that_make_install_brings(tmp_path: Path) -> None:
    def installed(directory: Path) -> set[str]:
        return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}

    made = tmp_path / "made"
    subprocess.run(
        ["make", "-s", "install-files", f"DESTDIR={made}"], cwd=SOURCE, check=True, capture_output=True
    )
    for file in unit_files.system_files(Path("/usr/local/bin"), tmp_path / "own"):
        unit_files.install(file)
    kinds = ("systemd/system/", "sysusers.d/", "tmpfiles.d/")
    assert installed(tmp_path / "own") == {
        path for path in installed(made / "usr/local/lib") if path.startswith(kinds)
    }
    for path in installed(tmp_path / "own"):
        own, other = tmp_path / "own" / path, made / "usr/local/lib" / path
        assert own.read_text() == other.read_text()
        assert own.is_symlink() == other.is_symlink()


def test_an_installation_that_the_system_cannot_reach_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/home/me/.local/share/pipx/venvs/zmsvc")
    with pytest.raises(unit_files.CtlError, match=r"cannot reach /home/me/.*--user") as refused:
        unit_files.check_reachable(Path("/usr/local/bin"))
    assert refused.value.code == 1


def test_a_write_error_is_one_line(bindir: Path, tmp_path: Path) -> None:
    (tmp_path / ".config").write_text("in the way")
    done = units(bindir, "--user", "--install", home=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"zmsvcctl: cannot install {tmp_path}/.config/systemd/user/zmsvc@.service: "
    )
    assert len(done.stderr.splitlines()) == 1
