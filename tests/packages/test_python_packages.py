"""The source distribution and the wheel: their files, their metadata, and that the links in the metadata lead
to a page.

The build backend is called directly, since `python -m build` would download setuptools.
"""

from __future__ import annotations

import email
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest
from needs import need

from zmsvc import __version__

ROOT = Path(__file__).parents[2]

BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
GENERATED = {"PKG-INFO"}
"""Files that setuptools adds to the tree, beside *.egg-info and the `setup.cfg` that it writes again."""


def tracked() -> list[str]:
    need(shutil.which("git") and (ROOT / ".git").exists(), "this is not a git checkout")
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [name for name in listed.split("\0") if name and (ROOT / name).exists()]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree without what earlier builds left in it."""
    version = importlib.metadata.version("setuptools") if importlib.util.find_spec("setuptools") else "0"
    if int(version.partition(".")[0]) < 77:
        pytest.skip(
            f"setuptools {version} knows no license expressions and builds no wheel by itself; 77 does"
        )
    directory = tmp_path_factory.mktemp("source")
    for name in tracked():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    return directory


def build(source: Path, kind: str, output: Path) -> tuple[Path, str]:
    """Build `kind`; return the file and all output."""
    command = [sys.executable, "-W", "default", "-c", BUILD, f"build_{kind}", str(output)]
    done = subprocess.run(
        command, cwd=source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    (file,) = output.iterdir()
    return file, done.stdout


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    return {kind: build(source, kind, tmp_path_factory.mktemp(kind)) for kind in ("sdist", "wheel")}


@pytest.fixture(scope="module")
def wheel(built: dict[str, tuple[Path, str]]) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(built["wheel"][0]) as archive:
        yield archive


@pytest.fixture(scope="module")
def sdist(built: dict[str, tuple[Path, str]]) -> Iterator[tarfile.TarFile]:
    with tarfile.open(built["sdist"][0]) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return email.message_from_string(wheel.read(f"zmsvc-{__version__}.dist-info/METADATA").decode())


def test_the_source_distribution_is_the_whole_tree(sdist: tarfile.TarFile) -> None:
    top = f"zmsvc-{__version__}/"
    packed = {each.name.removeprefix(top): each for each in sdist.getmembers() if each.isfile()}
    wanted = {name for name in tracked() if not (ROOT / name).is_symlink() and name != ".gitignore"}
    assert wanted - packed.keys() == set()
    assert {"README.md", "SECURITY.md", "NEWS", "docs/promises.md"} <= packed.keys()
    units = {name for name in wanted if name.startswith("units/")}
    assert {f"zmsvc/data/{name}" for name in units} <= packed.keys(), "the link to units/ has become a copy"
    extra = packed.keys() - wanted - GENERATED - {f"zmsvc/data/{name}" for name in units}
    assert {name for name in extra if not name.startswith("zmsvc.egg-info/")} == set()
    for name in sorted(wanted - {"setup.cfg"}):
        file = sdist.extractfile(packed[name])
        assert file is not None
        assert file.read() == (ROOT / name).read_bytes(), name
        assert packed[name].mode & 0o111 == (ROOT / name).stat().st_mode & 0o111, name


def test_a_wheel_of_the_source_distribution_is_the_same(
    sdist: tarfile.TarFile, wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-x", "-C", tmp_path / "unpacked", "-f", sdist.name], check=True)
    (tmp_path / "wheel").mkdir()
    file, _ = build(tmp_path / f"unpacked/zmsvc-{__version__}", "wheel", tmp_path / "wheel")
    with zipfile.ZipFile(file) as other:
        assert sorted(other.namelist()) == sorted(wheel.namelist())


def test_the_wheel_has_the_package_and_what_lies_beside_it(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    package = {name for name in tracked() if name.startswith("zmsvc/") and not (ROOT / name).is_symlink()}
    units = {f"zmsvc/data/{name}" for name in tracked() if name.startswith("units/")}
    assert {name for name in names if name.startswith("zmsvc/")} == package | units
    data = f"zmsvc-{__version__}.data/data/share/"
    pages = {
        f"{data}man/man{Path(name).suffix[1:]}/{Path(name).name}"
        for name in package
        if name.startswith("zmsvc/data/man/")
    }
    assert {name for name in names if name.startswith(f"{data}man/")} == pages
    assert f"{data}bash-completion/completions/zmsvcctl.bash" in names
    assert wheel.read(f"{data}doc/zmsvc/SECURITY.md") == (ROOT / "SECURITY.md").read_bytes()
    assert not [name for name in names if re.match(r"(tests|docs|scripts|debian)/", name)]


def test_setuptools_warns_of_nothing(built: dict[str, tuple[Path, str]]) -> None:
    # Warnings that are not the project's fault: a MANIFEST.in pattern without a match, and byte-compiling
    # switched off.
    harmless = r"no previously-included|byte-compiling is disabled|no directories found matching"
    for kind, (_, said) in built.items():
        warnings = [
            line for line in said.splitlines() if re.search(r"warning|deprecat|absent from", line, re.I)
        ]
        assert [line for line in warnings if not re.search(harmless, line)] == [], kind


def test_the_metadata_says_what_the_index_shows(metadata: Message) -> None:
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Summary"]
    assert metadata["Keywords"]
    assert metadata["Author"]
    assert "BSD-3-Clause" in (metadata["License-Expression"], metadata["License"])
    classifiers = metadata.get_all("Classifier", [])
    for kind in (
        "Development Status",
        "Environment",
        "Intended Audience",
        "Operating System",
        "Topic",
        "Typing :: Typed",
    ):
        assert any(each.startswith(kind) for each in classifiers), kind
    assert not any(each.startswith("License ::") for each in classifiers), (
        "a license expression replaces them"
    )


def test_the_page_on_the_index_has_no_dead_link(metadata: Message) -> None:
    """The index shows only this page, in which a path of the tree would lead nowhere. README.md is for
    readers who have the tree.
    """
    page = str(metadata.get_payload())
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert page.startswith("# zmsvc\n")
    assert [
        target for target in re.findall(r"\]\(([^)]*)\)", page) if not target.startswith("https://")
    ] == []


def test_readme_leads_to_files_that_are_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    assert [
        target for target in targets if not target.startswith("https://") and not (ROOT / target).exists()
    ] == []


def test_every_library_that_is_needed_has_a_version_and_hashes() -> None:
    setup = (ROOT / "setup.cfg").read_text()
    needed = re.findall(
        r"^    ([\w-]+)", re.search(r"^install_requires =\n((?:    .*\n)+)", setup, re.M)[1], re.M
    )  # type: ignore[index]
    locked = {}
    for entry in re.split(r"\n(?=\S)", (ROOT / "packaging/locked/libraries.txt").read_text()):
        if found := re.match(r"([\w-]+)==([\w.]+) \\", entry):
            locked[found[1]] = len(re.findall(r"--hash=sha256:[0-9a-f]{64}", entry))
    assert set(needed) <= locked.keys()
    # A source archive, or wheels of every Python for two machines as well.
    assert {
        name: count for name, count in locked.items() if count < (40 if name in ("lxml", "pyzmq") else 1)
    } == {}
