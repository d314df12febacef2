"""The unit files in their installed form, checked by tools of systemd that need no booted systemd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from needs import need

ROOT = Path(__file__).parents[2]

EXPOSURE = 20
"""The highest exposure that `systemd-analyze security` may report, in tenths; 92 without the confinement."""


def make(*arguments: str) -> str:
    return subprocess.run(
        ["make", "-s", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def analyze(*arguments: str | Path, runtime: Path = Path("/run")) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"XDG_RUNTIME_DIR": str(runtime)}
    return subprocess.run(
        ["systemd-analyze", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        check=False,
    )


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """A directory with all units, whose programs exist."""
    need(shutil.which("systemd-analyze"), "systemd is not installed")
    need(shutil.which("make"), "make is not installed")
    for name in ("zmsvcd", "zmsvcctl"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.touch(0o755)
    make("install-files", f"DESTDIR={tmp_path}/made", f"PREFIX={tmp_path}")
    for file in (tmp_path / "made" / tmp_path.relative_to("/") / "lib/systemd/system").glob("zmsvc*.*"):
        shutil.copy(file, tmp_path)
    service = tmp_path / "zmsvc@.service"
    service.write_text(make("unit", f"PREFIX={tmp_path}"))
    return service


def test_systemd_finds_no_fault(unit: Path) -> None:
    units = sorted(unit.parent.glob("zmsvc*.*"))
    assert {each.suffix for each in units} == {".service", ".target", ".slice", ".timer", ".socket"}
    found = analyze("verify", "--man=no", *units)
    assert (found.returncode, found.stdout) == (0, "")


def test_systemd_finds_no_fault_in_the_unit_of_a_user(unit: Path, tmp_path: Path) -> None:
    directory = tmp_path / "user"
    directory.mkdir()
    service = directory / "zmsvc@.service"
    service.write_text(make("user-unit", f"PREFIX={tmp_path}"))
    assert f"ExecStart={tmp_path}/bin/zmsvcd" in service.read_text()
    found = analyze("--user", "verify", "--man=no", service, runtime=tmp_path)
    assert (found.returncode, found.stdout) == (0, "")


def test_the_units_of_the_package_are_those_of_the_tree() -> None:
    assert (ROOT / "zmsvc/data/units").resolve() == ROOT / "units"


def test_every_manual_page_that_is_named_exists() -> None:
    there = {f"{page.stem}({page.suffix[1:]})" for page in (ROOT / "zmsvc/data/man").iterdir()}
    files = [
        ROOT / "zmsvc/data/zmsvc.catalog",
        *(path for path in (ROOT / "units").rglob("*") if path.is_file()),
    ]
    named = {name for file in files for name in re.findall(r"man:(zmsvc[\w.]*\(\d\))", file.read_text())}
    assert named
    assert named <= there


def test_the_confinement_is_as_tight_as_arbitrary_tasks_allow(unit: Path) -> None:
    found = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", unit)
    assert found.returncode == 0, found.stdout


def test_a_unit_removes_ipc_objects_and_keys_of_its_context_and_limits_its_tasks(unit: Path) -> None:
    lines = unit.read_text().splitlines()
    assert {
        "RemoveIPC=yes",
        "KeyringMode=private",
        "TasksMax=32768",
        "UMask=0027",
        "NoNewPrivileges=yes",
    } <= set(lines)


def test_the_unit_of_a_user_limits_tasks_and_gains_no_privileges() -> None:
    lines = (ROOT / "units/user/zmsvc@.service.in").read_text().splitlines()
    assert {"TasksMax=32768", "UMask=0077", "NoNewPrivileges=yes"} <= set(lines)


def test_only_names_of_directories_are_filled_in(unit: Path) -> None:
    for template in (ROOT / "units").glob("*.service.in"):
        assert set(re.findall(r"@(\w+)@", template.read_text())) == {"bindir", "sysconfdir"}
        assert not re.search(r"@\w+@", unit.with_name(template.stem).read_text())


def test_the_unit_permits_what_libraries_need(unit: Path) -> None:
    """Each of these is needed: without the first two libzmq aborts the process, without the third
    python-daemon cannot start, without the last no task has a control group.
    """
    text = unit.read_text()
    assert re.search(r"^RestrictAddressFamilies=.*\bAF_NETLINK\b", text, re.MULTILINE)
    assert re.search(r"^SystemCallFilter=[^~]*\bsched_setscheduler\b", text, re.MULTILINE)
    assert re.search(r"^SystemCallFilter=[^~]*@setuid\b", text, re.MULTILINE)
    assert "\nProtectControlGroups=no\n" in text
