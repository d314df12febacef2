"""The elements `<health>` and `<ready>` of a context file."""

from __future__ import annotations

import pytest
from test_config import as_command, changed, faults, parse, service_warnings, with_service

from zmsvc.core import probing
from zmsvc.core.expected_topics import ExpectedTopic, ReadyTopic
from zmsvc.core.probing import Address
from zmsvc.core.ready_line import ReadyLine
from zmsvc.supervisor.launch_spec import dropped_options

PROGRAM = "<command>sleep 3600</command>"


def as_probed(*elements: str, command: str = PROGRAM) -> str:
    return changed(("<Task>", f"<Task><service>{''.join(elements)}</service>"), text=as_command(command))


def test_the_probes_of_a_command_are_read() -> None:
    text = as_probed(
        "<health exec=\"sh -c 'exit 0'\" interval='1min 30s' timeout='500ms' retries='5' start_period='0'/>",
        "<ready http='http://[::1]:8080/up' interval='100ms'/>",
    )
    task = parse(text).tasks["ts_100"]
    assert task.health == probing.Probe(
        command=("sh", "-c", "exit 0"), interval=90.0, timeout=0.5, retries=5, start_period=0.0
    )
    address = Address(host="::1", port=8080, target="/up", authority="[::1]:8080")
    assert task.ready == probing.Probe(address=address, interval=0.1, timeout=10.0)


@pytest.mark.parametrize(
    ("element", "fault"),
    [
        ("<health/>", "<health> has no probe, expected one of the attributes exec, tcp and http"),
        (
            "<health tcp='80' exec='true'/>",
            "<health> has exec and tcp, expected one of the attributes exec, tcp and http",
        ),
        (
            "<health tcp='example.org:80'/>",
            "the tcp of <health> 'example.org:80' is not an address, expected a port or ADDRESS:PORT; expected "
            "localhost, an IPv4 address or an IPv6 address in brackets",
        ),
        (
            "<health tcp='80' interval='0'/>",
            "the interval of <health> '0' is not possible here, expected a time span from 10ms on",
        ),
        (
            "<ready exec='\"'/>",
            "the exec of <ready> '\"' cannot be split (no closing quotation), expected words quoted as in sh",
        ),
        ("<ready line=''/>", "the line of <ready> '' has 0 characters, expected 1 to 1000"),
        (
            "<ready line='(a'/>",
            "the line of <ready> '(a' is not a regular expression (missing ), unterminated subpattern at position "
            "0), expected one of Python's re",
        ),
        ("<ready line='a' interval='1s'/>", "<ready> has line and other attributes, expected line alone"),
        ("<ready tcp='0'/>", "the tcp of <ready> '0' has the port 0, expected one from 1 to 65535"),
    ],
)
def test_a_bad_probe_is_a_fault_on_its_line(element: str, fault: str) -> None:
    text = as_probed(element)
    line = text[: text.index(element)].count("\n") + 1
    assert faults(text) == [f"F.xml:{line}: ts_100: {fault}"]


@pytest.mark.parametrize("element", ["<health tcp='80'>x</health>", "<ready tcp='80' retries='3'/>"])
def test_a_text_or_an_unknown_attribute_is_a_fault(element: str) -> None:
    assert len(faults(as_probed(element))) == 1


def test_a_program_that_says_when_it_is_ready_needs_no_probe_for_that() -> None:
    (fault,) = faults(as_probed("<ready tcp='80'/>", command=f"{PROGRAM}<notify>yes</notify>"))
    assert fault.endswith("<notify> yes and <ready> both say when the task is ready, expected one of them")


def test_the_line_by_which_a_command_is_ready_is_read() -> None:
    task = parse(as_probed("<ready line=' ^up on port [0-9]+$ '/>")).tasks["ts_100"]
    assert task.ready == ReadyLine(pattern=" ^up on port [0-9]+$ ")
    assert dropped_options(task, 4) == ["ready"]


def test_a_task_in_python_may_have_health_and_no_ready() -> None:
    assert faults(with_service("<health tcp='80'/>")) == []
    (fault,) = faults(with_service("<ready tcp='80'/>"))
    assert fault.endswith(
        "<ready> with a probe is for a Command, expected <ready topic=...> or none for a Process, which is "
        "ready when its setup has ended"
    )


def test_a_program_of_a_probe_that_is_missing_is_a_warning() -> None:
    (warning,) = service_warnings(parse(as_probed("<health exec='/nowhere/probe'/>")))[:1]
    assert "its program /nowhere/probe is not found, or may not be executed (of its <health>)" in warning


@pytest.mark.parametrize("element", ["health", "ready"])
def test_a_keeper_that_cannot_run_a_probe_starts_no_task_without_it(element: str) -> None:
    task = parse(as_probed(f"<{element} tcp='80'/>")).tasks["ts_100"]
    assert dropped_options(task, 4) == [element]
    assert dropped_options(task, 5) == []


def test_expected_topics_and_the_topic_of_a_ready_are_read_for_every_kind_of_task() -> None:
    elements = ("<expect topic='t' within='30s'/>", "<ready topic='t'/>", "<expect within='1min' topic='u'/>")
    for text in (as_probed(*elements), with_service("".join(elements))):
        task = parse(text).tasks["ts_100"]
        assert task.expect == (ExpectedTopic(topic="t", within=30.0), ExpectedTopic(topic="u", within=60.0))
        assert task.ready == ReadyTopic(topic="t")
        assert dropped_options(task, 4) == ["ready", "expect"]


@pytest.mark.parametrize(
    ("element", "fault"),
    [
        ("<expect topic='t'/>", "<expect> has no within, expected the attributes topic and within"),
        ("<expect within='1s'/>", "<expect> has no topic, expected the attributes topic and within"),
        (
            "<expect topic='t' within='0'/>",
            "the within of <expect> '0' is not possible here, expected a time span from 10ms on",
        ),
        ("<ready topic='t' timeout='1s'/>", "<ready> has topic and other attributes, expected topic alone"),
        ("<ready/>", "<ready> has no probe, expected one of the attributes exec, tcp, http, topic and line"),
    ],
)
def test_a_bad_topic_is_a_fault_on_its_line(element: str, fault: str) -> None:
    text = as_probed(element)
    line = text[: text.index(element)].count("\n") + 1
    assert faults(text) == [f"F.xml:{line}: ts_100: {fault}"]
