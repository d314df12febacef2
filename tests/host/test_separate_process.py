"""host/separate_process: a function runs in a fork, and its result or its error comes back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from others import others, python

from zmsvc.core.errors import ConfigError, ZmsvcError
from zmsvc.host import separate_process


def test_the_result_comes_back_and_the_process_is_gone() -> None:
    large = b"x" * (1 << 20)
    pid, got = separate_process.call(lambda: (os.getpid(), large), "work")
    assert got == large
    assert pid != os.getpid()
    assert not Path(f"/proc/{pid}").exists()


def test_errors_come_back_whole() -> None:
    def bad_file() -> None:
        raise ConfigError(["a.xml:1: one", "a.xml:2: two"])

    def missing() -> None:
        os.stat("/nonexistent-file")

    def broken() -> None:
        raise ValueError("a defect")

    with pytest.raises(ConfigError) as config:
        separate_process.call(bad_file, "work")
    assert config.value.faults == ["a.xml:1: one", "a.xml:2: two"]
    assert str(config.value) == "a.xml:1: one\na.xml:2: two"
    with pytest.raises(FileNotFoundError) as system:
        separate_process.call(missing, "work")
    assert system.value.filename == "/nonexistent-file"
    with pytest.raises(ValueError, match="a defect") as other:
        separate_process.call(broken, "work")
    assert "in broken" in other.value.__notes__[0]


def test_a_process_that_is_killed_is_an_error_that_names_the_work() -> None:
    with pytest.raises(
        ZmsvcError, match=r"^cannot read a\.xml: the process that does this was killed by SIGKILL$"
    ):
        separate_process.call(lambda: os.kill(os.getpid(), signal.SIGKILL), "read a.xml")


def test_a_result_that_cannot_be_pickled_is_an_error() -> None:
    with pytest.raises(Exception, match="pickle"):
        separate_process.call(lambda: lambda: None, "work")


def test_signals_of_the_process_do_not_reach_the_handlers_of_its_parent() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    woken = signal.set_wakeup_fd(writer)
    try:
        with pytest.raises(ZmsvcError, match="SIGTERM"):
            separate_process.call(lambda: os.kill(os.getpid(), signal.SIGTERM), "work")
        os.set_blocking(reader, False)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGTERM, before)
        os.close(reader)
        os.close(writer)


def test_without_a_fork_the_function_runs_here() -> None:
    (uid,) = others(1)
    code = """
import os, resource
from zmsvc.host import separate_process
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
before = os.listdir("/proc/self/fd")
print(separate_process.call(os.getpid, "work") == os.getpid(), before == os.listdir("/proc/self/fd"))
"""
    assert python(uid, code).stdout == "True True\n"
