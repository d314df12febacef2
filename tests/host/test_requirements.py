"""A missing requirement is named in one line with the way out, and the status is 2, before anything is
started.
"""

from __future__ import annotations

import ast
import configparser
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from needs import need

from zmsvc.core.errors import RequirementError
from zmsvc.host.python import libraries

ROOT = Path(__file__).parents[2]
PROGRAMS = {"zmsvcd": "zmsvc.keeper", "zmsvcctl": "zmsvc.ctl"}
WORDS = {"zmsvcd": ["EchoAction"], "zmsvcctl": ["status"]}

WITHOUT_SYSTEM_CALL = """
import ctypes, os, struct, sys
# A seccomp filter: load the number of the system call; is it ours? then fail with ENOSYS (38), else allow.
code = [(0x20, 0, 0, 0), (0x15, 0, 1, int(sys.argv[1])), (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
filter = struct.pack("@HP", len(code), ctypes.addressof(program))
assert libc.prctl(22, 2, filter, 0, 0) == 0, os.strerror(ctypes.get_errno())  # PR_SET_SECCOMP
os.execv(sys.argv[2], sys.argv[2:])
"""

MEMFD_CREATE = {"x86_64": 319, "aarch64": 279, "riscv64": 279, "loongarch64": 279}

WITHOUT_PROC = 'mount -t tmpfs none /proc && exec "$@"'

OLD_PYTHON = (
    "import runpy, sys; sys.version_info = (3, 10, 12, 'final', 0); runpy.run_{kind}({what!r}, "
    "run_name='__main__')"
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Directories for all files of a daemon, with a context that could be started."""
    shutil.copy(ROOT / "etc/zmsvc/Context-EchoAction.xml", tmp_path)
    return tmp_path


def refused(home: Path, command: list[str], path: str = "") -> str:
    """Run a program that has to refuse. Return its one line."""
    places = {f"ZMSVC_{kind}_DIR": str(home / kind.lower()) for kind in ("RUNTIME", "STATE")}
    path = os.pathsep.join(filter(None, [path, str(ROOT)]))
    environment = os.environ | places | {"ZMSVC_CONFIG_DIR": str(home), "PYTHONPATH": path}
    done = subprocess.run(
        command, env=environment, cwd="/", capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert [file.name for file in home.iterdir() if file.name != "metadata"] == ["Context-EchoAction.xml"]
    (line,) = done.stderr.splitlines()
    return line


def program(name: str, *options: str) -> list[str]:
    return [sys.executable, "-P", *options, "-m", PROGRAMS[name], *WORDS[name]]


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(("library", "lowest"), libraries.LOWEST.items())
def test_a_library_below_its_lowest_version_is_named(
    home: Path, name: str, library: str, lowest: str
) -> None:
    (home / f"metadata/{library.replace('-', '_')}-0.2.9.dist-info").mkdir(parents=True)
    line = refused(home, program(name), path=str(home / "metadata"))
    assert line.startswith(
        f"{name}: cannot run: {library} 0.2.9 is older than {lowest} (apt-get install python3-"
    )
    assert line.endswith(f", or pip install '{library}>={lowest}')")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_library_that_is_missing_is_named(home: Path, name: str) -> None:
    """Without the site module, only the modules of Python itself can be imported."""
    line = refused(home, program(name, "-S"))
    assert line.startswith(
        f"{name}: cannot run: pyzmq is not installed for {sys.executable} (apt-get install python3-zmq, or "
        f"pip"
    )


@pytest.mark.parametrize(
    ("number", "feature"),
    [
        (434, "pidfd_open(2)"),
        (424, "pidfd_send_signal(2)"),
        (MEMFD_CREATE.get(platform.machine()), "memfd_create(2)"),
    ],
)
def test_a_kernel_without_a_system_call_is_named(home: Path, number: int | None, feature: str) -> None:
    need(number, "the number of the system call is not known for this machine")
    line = refused(home, [sys.executable, "-c", WITHOUT_SYSTEM_CALL, str(number), *program("zmsvcd")])
    assert line.startswith(f"zmsvcd: cannot run: Linux {os.uname().release} here lacks ")
    assert feature in line
    assert line.endswith("or newer, and no filter that hides it")


def test_a_machine_without_proc_is_named(home: Path) -> None:
    need(os.geteuid() == 0, "only root can mount")
    line = refused(home, ["unshare", "--mount", "sh", "-c", WITHOUT_PROC, "sh", *program("zmsvcd")])
    assert "here lacks /proc with the children of each thread (CONFIG_PROC_CHILDREN)" in line


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_older_python_is_named(home: Path, name: str) -> None:
    line = refused(home, [sys.executable, "-P", "-c", OLD_PYTHON.format(kind="module", what=PROGRAMS[name])])
    assert line.startswith(
        f"zmsvc: cannot run: {sys.executable} is Python 3.10, and 3.11 or newer is needed ("
    )


OLD_COMMANDS = ["conf_command.py", "create_service.py", "display.py", "service_context.py"]


@pytest.mark.parametrize("script", OLD_COMMANDS)
def test_an_older_python_is_named_by_the_old_commands_too(home: Path, script: str) -> None:
    line = refused(
        home,
        [sys.executable, "-P", "-c", OLD_PYTHON.format(kind="path", what=str(ROOT / "scripts" / script))],
    )
    assert "is Python 3.10, and 3.11 or newer is needed" in line


def test_an_older_python_can_parse_the_first_imported_modules() -> None:
    """Otherwise the user would only see a SyntaxError. The other scripts run in .venv, by make."""
    for file in ROOT / "zmsvc/__init__.py", *(ROOT / "scripts" / name for name in OLD_COMMANDS):
        ast.parse(file.read_text(), feature_version=(3, 8))


def test_the_lowest_versions_are_those_of_the_package() -> None:
    package = configparser.ConfigParser()
    package.read(ROOT / "setup.cfg")
    needed = dict(line.split(">=") for line in package["options"]["install_requires"].split())
    assert needed == libraries.LOWEST
    assert package["options"]["python_requires"] == ">=3.11"


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["pyzmq-24.0.1-py3.11.egg-info"], ""),
        (["python_daemon-2.3.2.egg-info", "Python_Daemon-1.0.dist-info"], ""),
        (["lxml-4.9rc1.dist-info"], ""),
        (["lxml-4.10.dist-info"], ""),
        (["lxml-4.8.99.dist-info"], "lxml 4.8.99 is older than 4.9"),
        (["PyZMQ-24b1.dist-info"], ""),
        (["sdnotify-0.3.egg-info"], "sdnotify 0.3 is older than 0.3.1"),
    ],
)
def test_names_of_metadata_are_read_as_installers_write_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], complaint: str
) -> None:
    for name in names:
        (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "missing"), str(tmp_path), *sys.path])
    if not complaint:
        libraries.check()
        return
    with pytest.raises(RequirementError, match=complaint):
        libraries.check()


def test_the_first_distribution_on_the_path_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, version in ("first", "25.0"), ("second", "20.0"):
        (tmp_path / place / f"pyzmq-{version}.dist-info").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(tmp_path / "second"), *sys.path])
    libraries.check()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "second"), str(tmp_path / "first"), *sys.path])
    with pytest.raises(RequirementError, match=r"pyzmq 20\.0 is older"):
        libraries.check()
