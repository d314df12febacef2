"""Shortcuts through internals of the interpreter: a task starts and ends in the same way when any one of them
is off.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked import Nest, reap, zygote_client

from zmsvc.core.errors import ConfigError
from zmsvc.host.kernel import fork, linux
from zmsvc.host.python import interpreter
from zmsvc.host.python.interpreter import Switch
from zmsvc.protocol.launch import Descriptors


@pytest.fixture
def disable(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Set ZMSVC_DISABLE as for a new zmsvcd."""

    def forget() -> None:
        interpreter.disabled.cache_clear()
        interpreter.environment.cache_clear()

    def to(names: str) -> None:
        monkeypatch.setenv("ZMSVC_DISABLE", names)
        forget()

    yield to
    monkeypatch.undo()
    forget()


@pytest.fixture(autouse=True)
def no_subreaper() -> Iterator[None]:
    """Some tests here make this process a subreaper. Undo that, since otherwise orphans of a later test would
    become zombies of this process.
    """
    yield
    linux._prctl(linux.PR_SET_CHILD_SUBREAPER, 0)


@pytest.mark.parametrize("names", ["", *Switch, ",".join(Switch)])
def test_a_task_starts_has_its_environment_and_stops_without_each_shortcut(
    disable: Callable[[str], None], nest: Nest, names: str
) -> None:
    disable(names)
    nest.looped("""
        def setup(self):
            thread = threading.Thread(target=threading.Event().wait, daemon=True)
            thread.start()
            pid = os.fork()
            if pid == 0:
                os._exit(threading.active_count())
            threads = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            inherited = os.fsdecode(subprocess.check_output(["printenv", "OWN"])).strip()
            self.update(told=os.environ["ZMSVC_TASK"], own=os.environ["OWN"], inherited=inherited, parent=os.getppid(),
                        variable=os.getenv("ZMSVC_DISABLE"), threads=threads, main=threading.main_thread().native_id - os.getpid())
        def step(self):
            pass
    """)
    linux.become_subreaper()
    forks = zygote_client()
    forks.start()
    assert forks.pid is not None
    try:
        for _ in range(2):
            pid = forks.forked(nest.spec(environment={"OWN": "ä"}), None, Descriptors())
            items = json.loads(nest.until("X_ZMSVC_UPDATE")["X_ZMSVC_UPDATE"])
            # The fork of the task has run the hook of threading: it does not know the other thread any more.
            assert items == {
                "told": "ts_100",
                "own": "ä",
                "inherited": "ä",
                "parent": os.getpid(),
                "variable": None,
                "threads": 1,
                "main": 0,
            }
            os.kill(pid, signal.SIGTERM)
            assert reap(pid) == 0, nest.logged()
    finally:
        forks.end()


@pytest.mark.parametrize("off", ["", "fork-hooks"])
def test_the_zygote_withholds_the_fork_hooks_of_two_modules_until_a_task_registers_them(off: str) -> None:
    code = """
import os
from zmsvc.host.python import withheld_hooks
registered = []
register = os.register_at_fork
os.register_at_fork = lambda **hooks: registered.append(min(hook.__module__ for hook in hooks.values()))
with withheld_hooks.during_imports():
    import logging, random
print(*sorted(registered))
withheld_hooks.register()
print(*sorted(registered))
"""
    told = subprocess.run(
        [sys.executable, "-S", "-c", code], env=os.environ | {"ZMSVC_DISABLE": off, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert told == ["logging random threading" if off else "random", "logging random threading"]


def test_a_shortcut_that_does_not_exist_is_refused(disable: Callable[[str], None]) -> None:
    disable("freeze nonsense")
    with pytest.raises(ConfigError, match="ZMSVC_DISABLE: nonsense is not one of sibling-fork, rehearsal, "):
        interpreter.disabled()


def test_zmsvcd_refuses_it_before_anything_is_started(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "zmsvc.keeper", "EchoAction"],
        env=os.environ | {"ZMSVC_DISABLE": "nonsense"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith("zmsvcd: ZMSVC_DISABLE: nonsense is not one of")


def test_environ_of_another_shape_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, disable: Callable[[str], None]
) -> None:
    disable("")
    expected = vars(os.environ)["_data"] if sys.version_info < (3, 12) else None
    assert interpreter.environment() is expected
    disable("")
    monkeypatch.setattr(os, "environ", type("OtherEnviron", (dict,), {})(os.environ))
    assert interpreter.environment() is None


def test_a_kernel_that_refuses_the_sibling_fork_gets_two_forks(
    disable: Callable[[str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    disable("")
    linux.become_subreaper()
    forker = fork.Forker()

    def refused(_cgroup: int | None) -> tuple[int, bool]:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    forker._fork = refused
    pid, inside = forker(None)
    if pid == 0:
        os._exit(7)
    assert (inside, reap(pid)) == (False, 7)
    assert (
        "no sibling fork here ([Errno 1] Operation not permitted); each task is forked twice"
        in capfd.readouterr().err
    )


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
def test_a_fork_without_free_memory_fails(disable: Callable[[str], None], number: int) -> None:
    disable("")
    forker = fork.Forker()

    def failing(_cgroup: int | None) -> tuple[int, bool]:
        raise OSError(number, os.strerror(number))

    forker._fork = failing
    with pytest.raises(OSError, match=os.strerror(number)):
        forker(None)


def test_a_child_of_two_forks_sees_its_new_parent_from_the_beginning() -> None:
    linux.become_subreaper()
    for _ in range(50):
        pid, _ = fork.DoubleFork()(None)
        if pid == 0:
            os._exit(0 if os.getppid() == PARENT else 1)
        assert reap(pid) == 0


PARENT = os.getpid()
