"""zmsvc.testing with a whole context, in another project, whose environment has zmsvc and pytest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SERVICE = """
from zmsvc.task import SingleTask, TaskService

class Work(SingleTask):
    def run(self):
        self.update(said=self.config["say"])
        self.wait()

class ServiceEcho(TaskService):
    task_class = Work
"""
FILE = """<Context>
  <FrontEndEndpoint>tcp://127.0.0.1:1</FrontEndEndpoint>
  <BackendEndpoint>tcp://127.0.0.1:2</BackendEndpoint>
  {task}
</Context>
"""
TASK = """<TaskService id="{id}" instance="Echo" serviceType="Process"><Task>
    <message><header><action>start</action><service_name>Echo</service_name></header>
      <content><configuration><location>Services</location><say>{id}</say></configuration></content></message>
    <state type="{entry}"/></Task></TaskService>"""
TEST = """
from zmsvc import testing

def test_the_plant(zmsvc_context: testing.MakeContext) -> None:
    context = zmsvc_context("Context-Plant.xml")
    context.start()
    assert context.wait_for("ts_1", "active")["name"] == "Echo"
    messages = context.listen("control")
    context.ctl("start", "ts_2")
    assert messages.next(action="updated", task="ts_2")["content"]["status"]["said"] == "ts_2"
    context.publish("process", {"header": {}, "content": {}})
    context.ctl("stop", "ts_1")
    context.wait_for("ts_1", "inactive")
    assert context.stop() == 0

def test_that_fails(zmsvc_context: testing.MakeContext) -> None:
    zmsvc_context("Context-Plant.xml").start("--no-such-option")

def test_simulated(zmsvc_simulation: testing.Simulation) -> None:
    zmsvc_simulation.run(60)
    assert zmsvc_simulation.now == 60
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "Services/Echo").mkdir(parents=True)
    (tmp_path / "Services/Echo/ServiceEcho.py").write_text(SERVICE)
    (tmp_path / "Context-Plant.d").mkdir()
    first, second = (
        TASK.format(id=name, entry=entry) for name, entry in (("ts_1", "on_start"), ("ts_2", ""))
    )
    (tmp_path / "Context-Plant.xml").write_text(FILE.format(task=first))
    (tmp_path / "Context-Plant.d/more.xml").write_text(f"<Context>{second}</Context>")
    (tmp_path / "test_plant.py").write_text(TEST)
    return tmp_path


def test_pytest_has_the_fixtures_in_another_project(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"],
        cwd=project, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "the context Plant is not ready" in done.stdout
    assert "unrecognized arguments: --no-such-option" in done.stdout
