"""Lists of files that have to agree: those of setup.cfg and those that `make install` copies; the files that
it installs and those of the RPM package.
"""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest
from needs import need_tool

ROOT = Path(__file__).parents[2]


def copied() -> set[str]:
    """Return the files that `make install` copies before it builds, as make expands them."""
    said = subprocess.run(
        ["make", "-n", "install-program", "DESTDIR=/nowhere"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"cp -rL --parents ((?:[\w./-]+ )+)", said.stdout)
    assert found is not None
    return set(found[1].split())


def named() -> set[str]:
    """Return the files that setuptools and pip need for a wheel."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    files = {"setup.cfg", "pyproject.toml", *setup["metadata"]["license_files"].split()}
    files |= set(re.findall(r"file:\s*(\S+)", (ROOT / "setup.cfg").read_text()))
    for patterns in setup["options.data_files"].values():
        for pattern in patterns.split():
            # Unlike a pattern, a name has to match a file.
            files |= {str(file.relative_to(ROOT)) for file in ROOT.glob(pattern)} or {pattern} - {
                pattern if "*" in pattern else ""
            }
    return files


def test_an_installation_copies_each_file_that_its_package_is_made_of() -> None:
    assert {"SECURITY.md", "zmsvc/data/man/zmsvcctl.1"} <= named()
    assert {
        file for file in named() if not any(file == each or file.startswith(f"{each}/") for each in copied())
    } == set()


def listed() -> list[str]:
    """Return the absolute paths and patterns among the files of the RPM package."""
    spec = (ROOT / "packaging/zmsvc.spec").read_text()
    for name, path in re.findall(r"%global (_\w+) (/\S+?)\}", spec):
        spec = spec.replace(f"%{{{name}}}", path)
    return re.findall(r"^(?:%\w+(?:\([^)]*\))? )?(/\S+)$", spec[spec.index("\n%files ") :], re.M)


def test_the_rpm_has_each_file_that_make_installs_and_no_other(tmp_path: Path) -> None:
    """rpmbuild refuses a package that leaves an installed file out."""
    directories = (f"DESTDIR={tmp_path}", "PREFIX=/usr", "SYSCONFDIR=/etc")
    subprocess.run(["make", "-s", "install-files", *directories], cwd=ROOT, check=True, capture_output=True)
    installed = {
        f"/{path.relative_to(tmp_path)}"
        for path in tmp_path.rglob("*")
        if not path.is_dir() or not any(path.iterdir())
    }
    assert "/usr/share/doc/zmsvc/drop-ins/own-user.conf" in installed
    # The page for Cockpit is installed if it has been made. The spec then makes a list of this directory.
    page = "/usr/share/cockpit/zmsvc"
    assert f"|| echo {page} > cockpit.files" in (ROOT / "packaging/zmsvc.spec").read_text()
    assert {
        file
        for file in installed
        if not file.startswith(f"{page}/")
        and not any(fnmatch(file, f"{each}{tail}") for each in listed() for tail in ("", "/*"))
    } == set()
    of_python = ("/usr/bin/", "/usr/lib/python3")
    assert [
        each for each in listed() if not each.startswith(of_python) and not [*tmp_path.glob(each[1:])]
    ] == []


def test_each_link_of_an_installed_document_leads_to_an_installed_one(tmp_path: Path) -> None:
    subprocess.run(
        ["make", "-s", "install-files", f"DESTDIR={tmp_path}", "PREFIX=/usr"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    documents = tmp_path / "usr/share/doc/zmsvc"
    links = [
        (page, link)
        for page in documents.rglob("*.md")
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    ]
    assert {link for page, link in links if page == documents / "README.md"} >= {
        "docs/promises.md",
        "SECURITY.md",
    }
    assert [link for page, link in links if "://" not in link and not (page.parent / link).exists()] == []


def searched(home: Path, shell: str, *command: str) -> set[str]:
    """Return the directories in which a shell looks for completions. fish writes into the home."""
    need_tool(shutil.which(shell), f"{shell} is not installed")
    # XDG_DATA_DIRS of a desktop would add directories.
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home)}
    done = subprocess.run([shell, *command], env=environment, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "variables",
    [(), ("PREFIX=/usr", "zsh_functions=/usr/share/zsh/vendor-completions")],
    ids=["make install", "Debian package"],
)
def test_each_shell_looks_where_its_completion_is_installed(
    tmp_path: Path, variables: tuple[str, ...]
) -> None:
    command = ["make", "-s", "install-files", f"DESTDIR={tmp_path}", *variables]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    home = tmp_path / "home of the shells"
    home.mkdir()
    places = {
        f"{path.parent.name}/{path.name}": f"/{path.parent.relative_to(tmp_path)}"
        for path in tmp_path.rglob("*zmsvc*")
        if {"zsh", "fish", "bash-completion", "bash_completion.d"} & set(path.parts)
    }
    zsh = searched(home, "zsh", "-fc", "print -l $fpath")
    fish = searched(home, "fish", "-c", "string join \\n $fish_complete_path")
    configuration = searched(
        home, "fish", "-c", "string join \\n $__fish_sysconf_dir/conf.d $__fish_vendor_confdirs"
    )
    assert {places.pop(file) for file in [*places] if "/_zmsvc" in file} <= zsh
    assert {
        places.pop(file) for file in [*places] if file.endswith(("/zmsvcctl.fish", "/zmsvcd.fish"))
    } <= fish
    assert {places.pop(file) for file in [*places] if file.endswith("/zmsvc.fish")} <= configuration
    bash = {"completions/zmsvcctl.bash", "completions/zmsvcd.bash", "bash_completion.d/zmsvc.bash"}
    assert set(places) == bash
    # It looks into these two and XDG_DATA_DIRS.
    assert places["completions/zmsvcctl.bash"] in {
        f"{prefix}/share/bash-completion/completions" for prefix in ("/usr/local", "/usr")
    }


def test_an_installation_has_the_page_for_cockpit_or_says_that_it_is_missing(tmp_path: Path) -> None:
    """`make cockpit` needs npm, and an installation does not."""
    tree = tmp_path / "tree"
    (tree / "cockpit").mkdir(parents=True)
    for each in ROOT.iterdir():
        if each.name != "cockpit":
            (tree / each.name).symlink_to(each)

    def install(name: str) -> tuple[str, list[str]]:
        command = ["make", "-s", "install-files", f"DESTDIR={tmp_path / name}", "PREFIX=/usr"]
        told = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True)
        place = tmp_path / name / "usr/share/cockpit/zmsvc"
        return told.stderr, sorted(each.name for each in place.iterdir()) if place.exists() else []

    told, installed = install("without")
    assert "cockpit/dist is missing (make cockpit makes it)" in told
    assert installed == []
    (tree / "cockpit/dist").mkdir()
    for name in "index.html", "manifest.json":
        (tree / "cockpit/dist" / name).write_text("")
    told, installed = install("with")
    assert "cockpit" not in told
    assert installed == ["index.html", "manifest.json"]
