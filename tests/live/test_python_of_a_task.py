"""`<python>`: a task in the interpreter of another environment."""

from __future__ import annotations

import ast
import site
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from context import Context, Subscriber
from waiting import wait_for

import zmsvc
from zmsvc.task import new_interpreter

SERVICE = """
import multiprocessing, sys
from zmsvc.task import SingleTask, TaskService

class Work(SingleTask):
    def run(self):
        import only_here
        self.update(prefix=sys.prefix, found=only_here.__file__, asked=self.config["asked"], main=sys.path[0])
        self.wait()

class ServiceOwn(TaskService):
    task_class = Work
"""


@pytest.fixture
def environment(home: Path) -> Path:
    """Make a virtual environment with a module of its own. It has no zmsvc."""
    made = home / "env"
    venv.create(made, symlinks=True, with_pip=False)
    (packages(made) / "only_here.py").touch()
    return made


def packages(environment: Path) -> Path:
    return environment / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


def test_a_task_runs_in_the_interpreter_of_its_environment_or_fails_alone(
    context: Context, home: Path, environment: Path, subscriber: Callable[..., Subscriber]
) -> None:
    context.service("Own", SERVICE)
    python = environment / "bin/python"
    for name, program in (("ts_1", python), ("ts_2", home / "none/bin/python")):
        context.task(
            name, "Own", entry=False, config="<asked>yes</asked>", service=f"<python>{program}</python>"
        )
    context.looped("Other")
    context.task("ts_3", "Other")
    context.start("--transaction", "T")
    # Without zmsvc in the environment.
    refused = context.ctl("start", "--transaction", "T", "ts_1", check=1).stderr
    assert f"cannot run the task in {python} (Python {sys.version.split()[0]}): " in refused
    assert "No module named 'zmsvc' (zmsvc has to be installed for this interpreter)" in refused
    assert context.task_is("ts_1", "failed", "T")["exit"]["reason"] == "cannot-launch"
    wait_for(lambda: "cannot run the task in" in context.ctl("logs", "ts_1").stdout)
    # The interpreter that ts_2 names does not exist.
    refused = context.ctl("start", "--transaction", "T", "ts_2", check=1).stderr
    assert f"cannot execute {home}/none/bin/python: No such file or directory" in refused
    assert context.task_is("ts_2", "failed", "T")["exit"]["reason"] == "cannot-launch"
    # With zmsvc.
    heard = subscriber(b"control @@@ ")
    places = [str(Path(zmsvc.__file__).parents[1]), *site.getsitepackages()]
    (packages(environment) / "zmsvc.pth").write_text("\n".join(places))
    context.ctl("start", "--transaction", "T", "ts_1")
    update = heard.control("updated", "ts_1")["content"]["status"]
    assert update["prefix"] == str(environment)
    assert update["found"] == str(packages(environment) / "only_here.py")
    assert update["asked"] == "yes"
    assert update["main"] != "", "the working directory is not a place for modules"
    context.ctl("stop", "--transaction", "T", "ts_1")
    assert context.tasks("T")["ts_3"]["sub"] == "running"


def test_an_old_interpreter_understands_the_code_that_reports_it() -> None:
    ast.parse(new_interpreter.BEGIN, feature_version=(3, 4))


def test_check_warns_of_a_missing_interpreter_and_refuses_what_cannot_be(context: Context) -> None:
    context.service("Own", SERVICE)
    context.task("ts_1", "Own", service="\n<python>/none/bin/python</python>")
    context.write()
    checked = context.ctl("check", str(context.file))
    assert "its <python> /none/bin/python is not found, or may not be executed" in checked.stdout
    context.clear_tasks()
    context.task("ts_1", "Own", service="\n<python>bin/python</python>")
    context.task("ts_2", "Own", service="<python>/usr/bin/python3</python>\n<fresh>no</fresh>")
    context.task("ts_3", "Own", kind="Thread", service="<python>/usr/bin/python3</python>")
    context.write()
    refused = context.ctl("check", str(context.file), check=2).stderr.splitlines()
    assert refused == [
        f"{context.file}:3: ts_1: <python> 'bin/python' is not an absolute path, expected one that begins with /",
        f"{context.file}:5: ts_2: <fresh> cannot be no with <python>, expected yes",
        f"{context.file}:6: ts_3: <python> is for a Process, expected none for a Thread",
    ]
