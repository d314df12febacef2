"""docs/bus.md: a Command in each language that the machine has joins the bus."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from needs import need_tool
from programs import Programs, program

PAGE = (Path(__file__).parents[2] / "docs/bus.md").read_text()
SENSOR = """
from zmsvc.task import SingleTask, TaskService

class Sensor(SingleTask):
    topics = ("kelvin",)
    def run(self):
        while True:
            self.publish("temperature", {"celsius": 20})
            for message in self.messages(timeout=0.05):
                with open(self.config["file"], "w") as file:
                    print(message.sender, message.transaction, message.content["kelvin"], file=file)
                return
            if self.wait(0):
                return

class ServiceSensor(TaskService):
    task_class = Sensor
"""


def code(language: str) -> str:
    """Return the program of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[0]


def in_python(programs: Programs) -> list[str]:
    return [sys.executable, str(programs.file("kelvin.py", code("python")))]


def in_node(programs: Programs) -> list[str]:
    node = program("node")
    file = programs.file("kelvin.js", code("js"))
    if subprocess.run([node, "-e", "require('zeromq')"], capture_output=True).returncode:
        pytest.skip("NODE_PATH has no zeromq (npm install zeromq)")
    return ["env", f"NODE_PATH={os.environ.get('NODE_PATH', '')}", node, str(file)]


def in_go(programs: Programs) -> list[str]:
    if not (go := shutil.which("go")):
        pytest.skip("go is not installed")
    need_libzmq()
    file = programs.file("kelvin.go", code("go"))
    done = subprocess.run([go, "build", file.name], cwd=file.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [str(file.with_suffix(""))]


def need_libzmq() -> str:
    """Return the C compiler."""
    compiler = shutil.which("cc")
    header = subprocess.run(
        [compiler or "false", "-E", "-include", "zmq.h", "-x", "c", os.devnull], capture_output=True
    )
    need_tool(not header.returncode, "there is no cc with zmq.h (apt-get install gcc libc6-dev libzmq3-dev)")
    return str(compiler)


def in_c(programs: Programs) -> list[str]:
    compiler = need_libzmq()
    file = programs.file("kelvin.c", code("c"))
    built = file.with_suffix("")
    done = subprocess.run(
        [compiler, "-Wall", "-Werror", str(file), "-o", str(built), "-lzmq"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [str(built)]


def in_shell(programs: Programs) -> list[str]:
    ctl = f'zmsvcctl() {{ {shlex.quote(sys.executable)} -m zmsvc.ctl "$@"; }}\n'
    return ["sh", str(programs.file("kelvin.sh", ctl + code("sh")))]


@pytest.mark.parametrize("made", [in_python, in_node, in_go, in_c, in_shell])
def test_the_program_of_the_page_hears_and_publishes(
    programs: Programs, made: Callable[[Programs], list[str]]
) -> None:
    programs.command("ts_kelvin", *made(programs))
    told = programs.home / "told"
    programs.context.service("Sensor", SENSOR)
    programs.context.task("ts_sensor", "Sensor", config=f"<file>{told}</file>")
    programs.context.start("--transaction", "T")
    programs.context.task_is("ts_sensor", "exited")
    assert told.read_text() == "ts_kelvin T 293\n"
    assert programs.context.tasks()["ts_kelvin"]["state"] == "active"
