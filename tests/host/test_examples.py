"""Every context file that we ship or show in a manual page loads, and its services exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from zmsvc.core import checks
from zmsvc.host.config import reader
from zmsvc.task import loader

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "zmsvc" / "data" / "examples"
FILES = sorted([*(ROOT / "etc").rglob("Context-*.xml"), *EXAMPLES.rglob("Context-*.xml")])


def test_there_are_examples() -> None:
    assert {file.stem for file in FILES} >= {"Context-EchoAction", "Context-StateMachine"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_loads_and_its_services_do(file: Path) -> None:
    context = reader.load(file)
    for service in context.tasks.values():
        where = service.location or str(EXAMPLES / "Services")
        assert loader.load(service.instance, [where]).__name__ == f"Service{service.instance}"


def test_the_state_machine_is_a_ring_and_check_says_so() -> None:
    (file,) = [file for file in FILES if file.stem == "Context-StateMachine"]
    assert any("ring" in warning for warning in checks.warnings(reader.load(file)))


def test_the_example_of_the_manual_page_loads() -> None:
    text = (ROOT / "zmsvc" / "data" / "man" / "zmsvc.xml.5").read_text()
    example = text.partition(".Bd -literal\n")[2].partition(".Ed")[0]
    assert list(reader.parse(example.encode(), path="Context-Manual.xml", name="Manual").tasks) == ["ts_100"]


def test_a_task_of_the_manual_without_an_entry_state_waits_and_has_no_fault() -> None:
    text = (ROOT / "zmsvc" / "data" / "man" / "zmsvc.xml.5").read_text()
    example = text.partition(".Ss state\n")[2].partition(".Bd -literal -compact\n")[2].partition(".Ed")[0]
    caller = """<TaskService id="ts_100" instance="Mail" serviceType="Command"><Task>
      <message><header><service_name>x</service_name></header><content><configuration>
      <command>true</command></configuration></content></message>
      <state type="on_start"><on_fail><action>start</action><call>ts_mail</call></on_fail></state>
    </Task></TaskService>"""
    ends = "<FrontEndEndpoint>tcp://127.0.0.1:5556</FrontEndEndpoint><BackendEndpoint>tcp://127.0.0.1:5557</BackendEndpoint>"
    file = f"<Context>{ends}{example}{caller}</Context>"
    context = reader.parse(file.encode(), path="Context-Manual.xml", name="Manual")
    assert not context.tasks["ts_mail"].entry
    assert checks.warnings(context) == []
