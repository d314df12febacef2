"""host/config: files that load, the text and the line of every fault, and agreement between the published
schema and the code.
"""

from __future__ import annotations

import copy
import json
import os
import re
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from counting import lines_in
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from manual_context import MANUAL

from zmsvc.core import checks
from zmsvc.core.access import BusAccess
from zmsvc.core.errors import ConfigError
from zmsvc.core.model import Action, Context, DeviceEndpoints, Rule, Trigger
from zmsvc.core.service_options import RLIMITS, Limits, ServiceType
from zmsvc.host.config import reader, xml_text
from zmsvc.host.config.schema import explain
from zmsvc.host.config.subscribe_check import declared

FULL = """<Context xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="context.rng">
  <BackendEndpoint>ipc:///run/zmsvc/front</BackendEndpoint>
  <FrontEndEndpoint>ipc:///run/zmsvc/back</FrontEndEndpoint>
  <TaskService id="a" instance="Any" serviceType=" Command ">
    <Task>
      <service>
        <start_timeout>1min 30s</start_timeout><stop_timeout>500ms</stop_timeout><watchdog>infinity</watchdog>
        <restart_delay>1</restart_delay><restart_max_delay>2min</restart_max_delay>
        <start_limit_burst>5</start_limit_burst><start_limit_interval>10s</start_limit_interval>
        <user>root</user><group>root</group><nice>-5</nice>
        <environment><GREETING>hello world</GREETING><EMPTY/></environment>
        <limits><nofile>1024</nofile><as>2G</as><core>infinity</core></limits>
      </service>
      <state type="start_now">
        <on_exit><action>start</action><call>b</call></on_exit>
        <on_exit><action> stop
        </action><call> b </call></on_exit>
      </state>
      <message>
        <content><configuration><command>/bin/echo "a b" c</command><any x="1"><deep>2</deep></any></configuration><more/></content>
        <header><service_name/><service_id>a</service_id></header>
      </message>
    </Task>
  </TaskService>
  <TaskService id="b" instance="Other" serviceType="Thread">
    <Task>
      <message><header><service_name>b</service_name></header><content><configuration/></content></message>
      <state type="on_update"/>
    </Task>
  </TaskService>
</Context>
"""


def parse(text: str | bytes, path: str = "F.xml") -> Context:
    return reader.parse(text if isinstance(text, bytes) else text.encode(), path=path, name="F")


def service_warnings(context: Context) -> list[str]:
    return [str(each) for each in reader.check_services(context)]


def port_warnings(context: Context) -> list[str]:
    return [str(each) for each in reader.check_ports(context)]


def faults(text: str | bytes, path: str = "F.xml") -> list[str]:
    try:
        parse(text, path)
    except ConfigError as error:
        return error.faults
    return []


def changed(*pairs: tuple[str, str], text: str = MANUAL) -> str:
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def with_service(inner: str) -> str:
    return changed(("<Task>", f"<Task><service>{inner}</service>"))


def as_command(inner: str) -> str:
    return changed(("serviceType='Process'", "serviceType='Command'"), ("<location></location>", inner))


def number(text: str, part: str) -> int:
    return text.count("\n", 0, text.index(part)) + 1


# Files that load.


def test_equal_parts_of_the_source_are_one_object() -> None:
    task = MANUAL[MANUAL.index("  <TaskService id='ts_100'") : MANUAL.index('  <TaskService id="ts000"')]
    other = task.replace("ts_100", "ts_101")
    text = MANUAL.replace(task, task + other)
    first, second = (parse(text).tasks[name].source for name in ("ts_100", "ts_101"))
    assert first != second
    assert first["Task"]["message"] == second["Task"]["message"]
    context = parse(text)
    first, second, _ = context.source["TaskService"]
    assert first["Task"]["message"] is second["Task"]["message"]
    assert first is context.tasks["ts_100"].source


@given(
    st.recursive(
        st.sampled_from(["", "a", "b"]),
        lambda part: st.lists(part) | st.dictionaries(st.sampled_from("ab"), part),
    )
)
def test_sharing_equal_parts_changes_no_value(value: Any) -> None:
    assert json.dumps(xml_text.shared(value)) == json.dumps(value)


@pytest.mark.parametrize(
    ("text", "level"),
    [("debug", 7), (" Warning ", 4), ("err", 3), ("ERROR", 3), ("critical", 2), ("emerg", 0), ("5", 5)],
)
def test_a_log_level_is_one_of_journald_or_of_python(text: str, level: int) -> None:
    task = next(iter(parse(with_service(f"<log_level>{text}</log_level>")).tasks.values()))
    assert task.log_level == level


@pytest.mark.parametrize("text", ["", "loud", "8", "-1", "debug info"])
def test_an_unknown_log_level_is_a_fault(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a log level, expected emerg, alert, crit"):
        parse(with_service(f"<log_level>{text}</log_level>"))


MISSPELLED = {
    "interval": changed(("<location></location>", "<intervall>5</intervall>")),
    "location": changed(("<location></location>", "<locations>x</locations>")),
    "notify": as_command("<command>true</command><notifiy>yes</notifiy>"),
}


@pytest.mark.parametrize("meant", MISSPELLED)
def test_a_possibly_misspelled_configuration_element_is_warned_about(meant: str) -> None:
    (reported,) = (text for _, text in parse(MISSPELLED[meant]).passed_over)
    assert reported.endswith(f"zmsvc does not read it (did you mean {meant}?)")


def test_a_custom_element_beside_the_similar_known_one_is_not_warned_about() -> None:
    assert (
        parse(
            changed(("<location></location>", "<interval>1</interval><intervals>5</intervals>"))
        ).passed_over
        == ()
    )


@pytest.mark.parametrize(
    ("configuration", "warning"),
    [
        ("<interval>abc</interval>", "ts_100: its interval 'abc' is not a time"),
        ("<interval>infinity</interval>", "is not a time"),
        ("<interval>-1</interval>", "is not a time"),
        ("<interval>nan</interval>", "is not a time"),
        ("<interval/>", "is not a time"),
        ("<interval>1</interval><interval>2</interval>", "is not a time"),
        ("<interval>0.5</interval>", ""),
        ("<interval>1min 30s</interval>", ""),
        ("<interval>0</interval>", ""),
        ("", ""),
    ],
)
def test_an_invalid_interval_is_warned_about(configuration: str, warning: str) -> None:
    context = parse(changed(("<location></location>", f"<location></location>{configuration}")))
    found = [line for line in checks.warnings(context) if "interval" in line]
    assert (bool(found), warning in "".join(found)) == (bool(warning), True)


@pytest.mark.parametrize(
    ("old", "new", "warning"),
    [
        (
            "<frequency_s>30.0</frequency_s>",
            "<frequency_s>5x</frequency_s>",
            "frequency_s is '5x', expected 10ms to 1d",
        ),
        ("<frequency_s>30.0</frequency_s>", "<frequency_s>0</frequency_s>", "frequency_s is '0'"),
        ("<frequency_s>30.0</frequency_s>", "<frequency_s>2d</frequency_s>", "frequency_s is '2d'"),
        ("<type>pub</type>", "<type>push</type>", "the type 'push' is unknown, expected pub or rep"),
        ("<frequency_s>30.0</frequency_s>", "<frequency_s>5s</frequency_s>", ""),
        ("<frequency_s>30.0</frequency_s>", "", ""),
    ],
)
def test_a_monitor_that_cannot_start_is_warned_about(old: str, new: str, warning: str) -> None:
    found = [line for line in checks.warnings(parse(changed((old, new)))) if "cannot start" in line]
    assert (bool(found), warning in "".join(found)) == (bool(warning), True)


LAST_VALUE = """<Context><ContextID>c</ContextID><TaskService id="ts_last" instance="LastValue"><Task>
<message><header><service_name>last</service_name></header><content><configuration>
<location>.</location><subscribe>temperature</subscribe>
</configuration></content></message>
<service/><state type="on_start"/></Task></TaskService></Context>"""


def test_a_last_value_has_a_descriptor_store_unless_the_user_has_a_service_of_this_name(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "F.xml")
    context = parse(LAST_VALUE, path)
    task = context.tasks["ts_last"]
    assert (task.retains, task.file_descriptor_store_max, context.retaining) == (True, 2, ("ts_last",))
    assert service_warnings(context) == []
    assert declared(context)["ts_last"].hears == ("temperature",)
    off = LAST_VALUE.replace(
        "<service/>", "<service><file_descriptor_store_max>0</file_descriptor_store_max></service>"
    )
    assert parse(off, path).tasks["ts_last"].file_descriptor_store_max == 0
    (tmp_path / "LastValue").mkdir()
    (tmp_path / "LastValue/ServiceLastValue.py").touch()
    own = parse(LAST_VALUE, path)
    assert (own.tasks["ts_last"].retains, own.tasks["ts_last"].file_descriptor_store_max) == (False, 0)
    assert own.retaining == ()


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("<subscribe>", "<max_messages>0</max_messages><subscribe>",
            "F.xml:3: ts_last: <max_messages> '0' is out of range, expected a whole number from 1 to 20000"),
        ("<subscribe>", "<max_bytes>1G</max_bytes><subscribe>",
            "F.xml:3: ts_last: <max_bytes> '1G' is out of range, expected bytes from 1K to 64M, such as 16M"),
        ("<subscribe>", "<max_bytes>1M</max_bytes><max_bytes>2M</max_bytes><subscribe>",
            "F.xml:3: ts_last: a second <max_bytes> in <configuration>, expected one"),
        ('"LastValue"', '"LastValue" serviceType="Thread"',
            "F.xml:1: ts_last: the service LastValue is a Process, expected no serviceType Thread"),
    ],
)  # fmt: skip
def test_a_last_value_that_cannot_start_is_a_fault(old: str, new: str, fault: str, tmp_path: Path) -> None:
    found = faults(LAST_VALUE.replace(old, new), str(tmp_path / "F.xml"))
    assert [each.removeprefix(f"{tmp_path}/") for each in found] == [fault]


def test_a_command_has_no_log_level() -> None:
    text = changed(
        ("serviceType='Process'", "serviceType='Command'"),
        ("<location></location>", "<command>true</command>"),
    )
    with pytest.raises(ConfigError, match="<log_level> is for a task in Python, expected none for a Command"):
        parse(changed(("<Task>", "<Task><service><log_level>debug</log_level></service>"), text=text))


def test_the_example_of_the_manual_loads_unchanged() -> None:
    context = parse(MANUAL)
    echo, monitor = context.tasks.values()
    assert (context.name, context.id, context.log_name) == ("F", "context001", "EchoAction")
    assert (context.endpoints.subscribe_endpoint, context.endpoints.publish_endpoint) == (
        "tcp://127.0.0.1:5556",
        "tcp://127.0.0.1:5557",
    )
    assert (context.endpoints.publish_bind, context.endpoints.subscribe_bind) == (
        "tcp://*:5557",
        "tcp://*:5556",
    )
    assert (echo.id, echo.instance, echo.topic, echo.service_type) == (
        "ts_100",
        "EchoAction",
        "process",
        ServiceType.PROCESS,
    )
    assert echo.description == "An echo action is for shouting the time after counting 10s"
    assert (echo.service_name, echo.device_action, echo.location, echo.entry) == (
        "echo_action",
        "shout",
        None,
        True,
    )
    assert echo.rules == (
        Rule(trigger=Trigger.ON_FAIL, action=Action.RESTART, call="ts_100"),
        Rule(trigger=Trigger.ON_EXIT, action=Action.START, call="ts000"),
    )
    assert echo.limits == Limits()
    assert monitor.configuration["service"]["frequency_s"] == "30.0"
    assert monitor.configuration["monitor_options"] == {
        "opened_files": "1",
        "open_connections": "1",
        "memory_maps": "1",
    }


def test_every_documented_option_is_read() -> None:
    context = parse(FULL)
    task, other = context.tasks.values()
    assert (context.id, context.log_name) == ("context001", "F")
    assert (context.endpoints.publish_bind, context.endpoints.subscribe_bind) == (
        "ipc:///run/zmsvc/front",
        "ipc:///run/zmsvc/back",
    )
    assert task.limits == Limits(
        start_timeout=90.0,
        stop_timeout=0.5,
        watchdog=0.0,
        restart_delay=1.0,
        restart_max_delay=120.0,
        start_limit_burst=5,
        start_limit_interval=10.0,
    )
    assert (task.user, task.group, task.nice) == ("root", "root", -5)
    assert task.environment == {"GREETING": "hello world", "EMPTY": ""}
    assert task.rlimits == {"nofile": 1024, "as": 2 << 30, "core": resource.RLIM_INFINITY}
    assert task.command == ("/bin/echo", "a b", "c")
    assert [(rule.action, rule.call) for rule in task.rules] == [("start", "b"), ("stop", "b")]
    assert (task.service_type, other.service_type) == (ServiceType.COMMAND, ServiceType.THREAD)
    assert (task.service_name, other.service_name) == ("Any", "b")
    assert other.configuration == {}


@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        ("on_start", True),
        ("start_now", True),
        (" on_start ", True),
        ("on_update", False),
        ("on_exit", False),
        ("", False),
        ("later", False),
    ],
)
def test_only_on_start_and_start_now_start_with_the_transaction(kind: str, entry: bool) -> None:
    assert parse(changed(('type="on_start"', f'type="{kind}"'))).tasks["ts_100"].entry is entry


def test_a_state_without_type_waits() -> None:
    assert not parse(changed((' type="on_start"', ""))).tasks["ts_100"].entry


def test_arguments_of_a_command_may_be_elements() -> None:
    text = as_command("<command><arg>/bin/sh</arg><arg>-c</arg><arg>echo 'x  y'; exit</arg><arg/></command>")
    assert parse(text).tasks["ts_100"].command == ("/bin/sh", "-c", "echo 'x  y'; exit", "")


def test_a_command_in_a_process_is_the_tasks_own() -> None:
    task = parse(changed(("<location></location>", "<command>'</command>"))).tasks["ts_100"]
    assert (task.command, task.configuration["command"]) == ((), "'")


@pytest.mark.parametrize("given", ["Services", "./Services/", "{}/Services"])
def test_a_relative_location_is_beside_the_context_file(tmp_path: Path, given: str) -> None:
    (tmp_path / "Services").mkdir()
    text = changed(("<location></location>", f"<location>\n  {given.format(tmp_path)} </location>"))
    file = tmp_path / "Context-Echo.xml"
    file.write_text(text)
    context = reader.load(file)
    assert (context.name, context.path) == ("Echo", str(file))
    assert context.tasks["ts_100"].location == str(tmp_path / "Services")


def test_the_name_is_the_stem_of_any_other_file_or_what_is_given(tmp_path: Path) -> None:
    file = tmp_path / "other.xml"
    file.write_text(MANUAL)
    assert reader.load(str(file)).name == "other"
    assert reader.load(file, name="Given").name == "Given"


def test_the_option_restart_is_short_for_rules_on_the_task_itself() -> None:
    task = parse(with_service("<restart>always</restart>")).tasks["ts_100"]
    assert [(each.trigger, each.action, each.call) for each in task.rules] == [
        ("on_fail", "restart", "ts_100"),
        ("on_exit", "start", "ts000"),
        ("on_exit", "restart", "ts_100"),
    ]


def with_rule(attributes: str, service: str = "") -> str:
    """Return the manual's file whose rule for on_fail has these attributes."""
    return changed(
        ("<on_fail>", f"<on_fail {attributes}>"), text=with_service(service) if service else MANUAL
    )


def test_a_rule_has_the_ends_and_the_count_that_its_attributes_say() -> None:
    text = with_rule("when='exit-code:75  signal:segv signal:RTMIN+3 oom-kill' after='3 in 1min'")
    (fails, exits) = parse(text).tasks["ts_100"].rules
    assert (fails.conditions, exits.conditions) == (
        "when exit-code:75 signal:SIGSEGV signal:SIG37 oom-kill after 3 in 60s",
        "",
    )
    assert parse(text).tasks["ts_100"].source["Task"]["state"]["on_fail"]["after"] == "3 in 1min"


def test_on_recover_and_the_rules_of_the_context_have_conditions_as_well() -> None:
    call = "<action>start</action><call>ts000</call>"
    text = changed(("<on_fail>", f"<on_recover after='2 in 5s'>{call}</on_recover><on_fail>"))
    assert "on_recover" in [each.trigger for each in parse(text).tasks["ts_100"].rules]
    text = changed(("<TaskService", f"<on_any_fail when='oom-kill'>{call}</on_any_fail><TaskService"))
    assert parse(text).on_any_fail[0].conditions == "when oom-kill"


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        (
            "when='exit-code:75 watchdgo'",
            "the when of <on_fail> 'watchdgo' is unknown, .* [(]did you mean watchdog",
        ),
        (f"when='signal:{'X' * 99}'", "the when of <on_fail> 'X{57}[.]{3}' is not a signal, expected"),
        ("when='signal:SEGVV'", "the when of <on_fail> 'SEGVV' is not a signal, .* [(]did you mean SIGSEGV"),
        ("when='exit-code:300'", "the when of <on_fail> 'exit-code:300' has no exit status of a failure"),
        ("when='exited'", "the when of <on_fail> 'exited' is not a failure, and on_exit fires on it"),
        (
            "when='watchdog'",
            "<on_fail> can never fire: the task has no <watchdog>, so it never fails by watchdog",
        ),
        ("after='often'", "the after of <on_fail> 'often' is not a count and a time span"),
        ("afterr='3 in 1min'", "unknown attribute afterr in <on_fail>, expected another name .*after"),
    ],
)
def test_a_condition_that_cannot_be_met_is_a_fault_on_the_line_of_its_rule(
    attributes: str, words: str
) -> None:
    text = with_rule(attributes)
    (fault,) = faults(text)
    assert re.match(f"F.xml:{number(text, '<on_fail')}: ts_100: {words}", fault), fault
    assert "expected" in fault


def test_a_condition_in_the_wrong_place_is_a_fault() -> None:
    on_start = changed(("<on_start>", "<on_start when='watchdog'>"))
    (fault,) = faults(on_start)
    assert (
        "the when of <on_start> has no meaning: on_start is not about the end of a task, expected none"
        in fault
    )
    (fault,) = faults(changed(("<on_start>", "<on_start after='3 in 1min'>")))
    assert "<on_start> has the attribute after and no rule, expected <action> and <call>" in fault
    (fault,) = faults(changed(("<on_fail>", "<on_fail><when>watchdog</when>")))
    assert "unknown element <when> in <on_fail>" in fault
    rule = "<on_any_fail when='silent'><action>start</action><call>ts000</call></on_any_fail>"
    text = changed(("<TaskService", f"{rule}<TaskService"))
    assert faults(text) == [
        f"F.xml:{number(text, '<on_any_fail')}: <on_any_fail> can never fire: no task can fail by silent, "
        "expected another when"
    ]


def test_an_option_goes_on_covering_the_ends_that_a_rule_of_the_file_does_not_name() -> None:
    text = with_rule(
        "when='exit-code:75'", "<restart>on-watchdog</restart><memory_restart>1G</memory_restart>"
    )
    rules = parse(text).tasks["ts_100"].rules
    assert [
        (each.trigger.value, each.only and each.only.value) for each in rules if each.call == "ts_100"
    ] == [("on_fail", None), ("on_fail", "on-watchdog"), ("on_fail", "memory-limit")]
    assert "contradicts its <restart> no" in faults(with_rule("when='oom-kill'", "<restart>no</restart>"))[0]


def test_a_rule_that_contradicts_the_option_restart_is_a_fault_on_its_line() -> None:
    text = with_service("<restart>on-watchdog</restart>")
    line = text[: text.index("ts_100</call>")].count("\n") + 1
    assert faults(text) == [
        f"F.xml:{line}: on_fail has the action restart for 'ts_100' itself, which contradicts its <restart> "
        f"on-watchdog, expected one of them"
    ]


def test_one_restart_delay_alone_adjusts_the_other() -> None:
    longer = parse(with_service("<restart_delay>5min</restart_delay>")).tasks["ts_100"].limits
    shorter = parse(with_service("<restart_max_delay>10ms</restart_max_delay>")).tasks["ts_100"].limits
    assert (longer.restart_delay, longer.restart_max_delay) == (300.0, 300.0)
    assert (shorter.restart_delay, shorter.restart_max_delay) == (0.01, 0.01)


def test_comments_and_processing_instructions_are_ignored() -> None:
    text = changed(
        ("ts000</call></on_exit>", "ts<!-- x -->0<?x y?>00</call></on_exit>"),
        ("<Context>", "<!-- <!DOCTYPE x> --><Context>"),
    )
    assert parse(text).source == parse(MANUAL).source


def test_other_encodings_are_read() -> None:
    text = changed(("shout</device_action>", "grüß</device_action>"))
    for encoding in ("utf-8", "utf-16", "iso-8859-1"):
        assert parse(text.replace("utf8", encoding).encode(encoding)).tasks["ts_100"].device_action == "grüß"


def test_the_limits_are_those_of_this_python() -> None:
    assert all(hasattr(resource, f"RLIMIT_{name.upper()}") for name in RLIMITS)


# XML as JSON.


def as_json(text: str) -> Any:
    return reader.to_json(etree.fromstring(text))


def test_the_json_has_the_form_of_zmicroservices() -> None:
    task = parse(MANUAL).tasks["ts_100"].source
    assert {key: task[key] for key in ("id", "topic", "instance", "serviceType")} == {
        "id": "ts_100",
        "topic": "process",
        "instance": "EchoAction",
        "serviceType": "Process",
    }
    assert task["Task"]["message"] == {
        "header": {"action": "start", "service_name": "echo_action"},
        "content": {"configuration": {"device_action": "shout", "location": ""}},
    }
    assert task["Task"]["state"]["type"] == "on_start"
    assert task["Task"]["state"]["on_fail"] == {"action": "restart", "call": "ts_100"}


def test_repeated_children_are_a_list_and_one_is_not() -> None:
    assert as_json("<a><b>1</b><c/><b>2</b><b><d/></b></a>") == {"b": ["1", "2", {"d": ""}], "c": ""}
    source = parse(MANUAL).source
    assert [task["id"] for task in source["TaskService"]] == ["ts_100", "ts000"]


def test_the_environment_of_a_task_is_not_in_its_json() -> None:
    context = parse(with_service("<environment><PASSWORD>hunter2</PASSWORD></environment><nice>5</nice>"))
    assert dict(context.tasks["ts_100"].environment) == {"PASSWORD": "hunter2"}
    assert context.tasks["ts_100"].source["Task"]["service"] == {"nice": "5"}
    assert "hunter2" not in str(context.source)


def test_json_keeps_what_the_form_of_zmicroservices_cannot_hold() -> None:
    assert as_json('<a x="1"><x>2</x><x>3</x></a>') == {"x": ["1", "2", "3"]}
    assert as_json('<a unit="s"> 5 </a>') == {"unit": "s", "#text": "5"}
    assert as_json("<a> one <b/> two </a>") == {"b": "", "#text": "one two"}


def values(tree: Any) -> list[str]:
    if isinstance(tree, str):
        return [tree] if tree else []
    return [text for part in (tree.values() if isinstance(tree, dict) else tree) for text in values(part)]


TREES: st.SearchStrategy[Any] = st.recursive(
    st.tuples(
        st.sampled_from("abc"),
        st.dictionaries(st.sampled_from("abc"), st.text("xyz", min_size=1)),
        st.text("xyz"),
        st.just([]),
    ),
    lambda inner: st.tuples(
        st.sampled_from("abc"),
        st.dictionaries(st.sampled_from("abc"), st.text("xyz", min_size=1)),
        st.text("xyz"),
        st.lists(inner),
    ),
    max_leaves=12,
)


def build(tree: Any) -> etree._Element:
    tag, attributes, text, children = tree
    element = etree.Element(tag, attributes)
    element.text = text
    element.extend([build(child) for child in children])
    return element


@given(TREES)
def test_every_text_and_attribute_of_any_element_is_in_its_json(tree: Any) -> None:
    element = build(tree)
    there = [text for node in element.iter() for text in (*node.attrib.values(), node.text) if text]
    assert sorted(values(reader.to_json(element))) == sorted(map(str, there))
    json.dumps(reader.to_json(element))


# Time spans.


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0", 0),
        ("500ms", 0.5),
        ("1min 30s", 90),
        ("2h30min", 9000),
        ("1.5s", 1.5),
        (" 5 s ", 5),
        ("20us", 2e-5),
        ("1M", 2629800),
        ("1d", 86400),
        ("infinity", 0),
    ],
)
def test_time_spans_are_those_of_systemd(text: str, seconds: float) -> None:
    assert reader.timespan(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", " ", "s", "-1", "1 parsec", "1s,", "1e3", "nan", "inf", "INFINITY", "1:30", "9" * 400, "٣s"]
)
def test_a_malformed_time_span_is_refused_with_the_expected_form(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        reader.timespan(text)


UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


@given(
    st.lists(
        st.tuples(st.integers(0, 999), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " "])), min_size=1
    )
)
def test_a_time_span_is_the_sum_of_its_parts(parts: list[tuple[int, str, str]]) -> None:
    text = " ".join(f"{count}{space}{unit}" for count, unit, space in parts)
    assert reader.timespan(text) == pytest.approx(sum(count * UNITS[unit] for count, unit, _ in parts))


# Faults: a file with one change, the text on the line of the fault, and the beginning of the message.

FAULTS: dict[str, tuple[str, str, str]] = {
    "repeated id": (
        changed(
            ('id="ts000"', 'id="ts_100"'), ("<call>ts000", "<call>ts_100"), ("<call>ts000", "<call>ts_100")
        ),
        'id="ts_100"',
        "the id 'ts_100' is taken.*expected",
    ),
    "call of an unknown task": (
        changed(("<call>ts000", "<call>ts_9")),
        "ts_9",
        "on_exit calls 'ts_9', expected the id of a task",
    ),
    "unknown action": (
        changed(("<action>restart", "<action>revive")),
        "revive",
        "<action> 'revive' is unknown, expected start, stop or restart",
    ),
    "action in capitals": (
        changed(("<action>restart", "<action>Restart")),
        "Restart",
        r"did you mean restart\?",
    ),
    "unknown order": (changed(("<action>start", "<action>begin")), "begin", "<action> 'begin' is unknown"),
    "action without call": (
        changed(("<call>ts000</call>", "<call/>")),
        "<call/></on_exit>",
        "an action and no call, expected <call>",
    ),
    "call without action": (
        changed(("<action>restart</action>", "<action/>")),
        "<action/><call>",
        "a call and no action, expected <action>",
    ),
    "two calls": (
        changed(("<call>ts000</call>", "<call>ts000</call><call>ts000</call>")),
        "<on_exit>",
        "a second <call> in <on_exit>",
    ),
    "no location": (
        changed(("<location>", "<location>/nowhere/at/all")),
        "<location>",
        "'/nowhere/at/all' does not exist, expected a directory",
    ),
    "location is a file": (
        changed(("<location>", "<location>/etc/passwd")),
        "<location>",
        "is not a directory",
    ),
    "two locations": (
        changed(("</location>", "</location><location/>")),
        "<location>",
        "a second <location>",
    ),
    "no id": (
        changed(("id='ts_100' ", ""), ("<call>ts_100", "<call>ts000")),
        "topic='process'",
        "<TaskService> has no attribute id",
    ),
    "bad id": (
        changed(("id='ts_100'", "id='ts/100'"), ("<call>ts_100", "<call>ts000")),
        "ts/100",
        "the id 'ts/100'.*expected",
    ),
    "long id": (
        changed(("id='ts_100'", f"id='{'x' * 65}'"), ("<call>ts_100", "<call>ts000")),
        "xxxxx",
        "the id 'xxx.*expected",
    ),
    "id of dots": (
        changed(("id='ts_100'", "id='..'"), ("<call>ts_100", "<call>ts000")),
        "'..'",
        "the id '..'.*expected",
    ),
    "no instance": (changed(("instance='EchoAction' ", "")), "ts_100", "has no attribute instance"),
    "bad instance": (
        changed(("instance='EchoAction'", "instance='../Echo'")),
        "../Echo",
        "the instance '../Echo'.*expected",
    ),
    "misspelled new element": (
        changed(("<ContextID>", "<max_transaction>7</max_transaction><ContextID>")),
        "<max_transaction>",
        r"unknown element <max_transaction> in <Context>.*did you mean max_transactions\?",
    ),
    "misspelled new attribute": (
        changed(("<Context>", "<Context busaccess='anyone'>")),
        "<Context ",
        r"busaccess.*did you mean bus_access\?",
    ),
    "misspelled service": (
        changed(("<description>", "<servcie><user>root</user></servcie><description>")),
        "<servcie>",
        r"unknown element <servcie> in <Task>.*did you mean service\?",
    ),
    "element named as an attribute": (
        changed(("<Task>", "<id>x</id><Task>")),
        "<id>",
        "unknown element <id> in <TaskService>",
    ),
    "attribute of a leaf": (
        changed(("<TaskLogName>", "<TaskLogName lang='en'>")),
        "<TaskLogName",
        "unknown attribute lang",
    ),
    "attribute named as an element": (
        changed(("<Context>", "<Context TaskService='x'>")),
        "<Context ",
        "unknown attribute TaskService",
    ),
    "unknown serviceType": (
        changed(("'Process'", "'process'")),
        "'process' ",
        r"serviceType 'process'.*expected Process, Thread or Command",
    ),
    "Command without command": (as_command(""), "<configuration>", "of a Command has no <command>"),
    "empty command": (as_command("<command> </command>"), "<command>", "<command> is empty"),
    "open quote": (
        as_command("<command>a 'b</command>"),
        "<command>",
        "<command> .*no closing quotation.*expected",
    ),
    "text and arguments": (
        as_command("<command>a<arg>b</arg></command>"),
        "<command>",
        "<command> has more than <arg>",
    ),
    "stray text": (
        changed(("<Task>", "<Task>oops")),
        "oops",
        "text 'oops' in <Task>, expected elements only",
    ),
    "no endpoint": (
        changed(("  <FrontEndEndpoint>tcp://127.0.0.1:5556</FrontEndEndpoint>", "")),
        "<Context>",
        "<Context> has <BackendEndpoint> and no <FrontEndEndpoint>, expected both or neither",
    ),
    "no tasks": (
        re.sub("<TaskService.*</TaskService>", "", MANUAL, flags=re.S),
        "<Context>",
        "<Context> has no <TaskService>, expected at least one",
    ),
    "no message": (
        re.sub("<message>.*?</message>", "", MANUAL, count=1, flags=re.S),
        "<Task>",
        "<Task> has no <message>",
    ),
    "no state": (
        re.sub("<state .*?</state>", "", MANUAL, count=1, flags=re.S),
        "<Task>",
        "<Task> has no <state>",
    ),
    "bad port": (
        changed(("127.0.0.1:5556", "127.0.0.1:65536")),
        "65536",
        "has port 65536, expected one from 1 to 65535",
    ),
    "no port": (
        changed(("127.0.0.1:5556", "127.0.0.1")),
        "<FrontEnd",
        "is not an endpoint, expected tcp://HOST:PORT or ipc:///PATH",
    ),
    "unknown transport": (
        changed(("tcp://127.0.0.1:5556", "udp://127.0.0.1:5556")),
        "udp",
        "is not an endpoint",
    ),
    "connect to all": (
        changed(("tcp://127.0.0.1:5556", "tcp://*:5556")),
        "<FrontEnd",
        "cannot be connected to",
    ),
    "long ipc": (
        changed(("tcp://127.0.0.1:5556", "ipc:///" + 107 * "x")),
        "xxx",
        "108 bytes, expected at most 107",
    ),
    "abstract ipc": (
        changed(("tcp://127.0.0.1:5556", "ipc://@x")),
        "ipc://@x",
        "is abstract and has no file whose mode keeps",
    ),
    "unknown bus_access": (
        changed(("<Context>", "<Context bus_access='all'>")),
        "<Context ",
        "bus_access 'all' is unknown, expected members or anyone",
    ),
    "no transactions": (
        changed(("<ContextID>", "<max_transactions>0</max_transactions><ContextID>")),
        "<max_transactions>",
        "<max_transactions> '0' is out of range, expected a whole number from 1 to",
    ),
    "record by halves": (
        changed(("<ContextID>", "<record>maybe</record><ContextID>")),
        "<record>",
        "<record> 'maybe' is not a boolean, expected yes or no",
    ),
    "ring of after": (
        changed(("<Task>", "<Task><service>\n<nice>1</nice><after>\nts_100</after></service>")),
        "<after>",
        "ring of <after> and <requires>: ts_100 after ts_100, expected an order in which each",
    ),
    "unknown task in requires": (
        changed(("<Task>", "<Task><service>\n<requires/><requires>nobody</requires></service>")).replace(
            "<requires/>", ""
        ),
        "<requires>",
        "<requires> names 'nobody', expected the id of a task of this context",
    ),
    "bad id in after": (
        changed(("<Task>", "<Task><service><after>a b/c</after></service>")),
        "<after>",
        "'b/c' cannot be the id of a task, expected 1 to 64 of",
    ),
    "on_any_fail of an unknown task": (
        changed(
            ("<ContextID>", "<on_any_fail><action>start</action><call>nobody</call></on_any_fail><ContextID>")
        ),
        "<on_any_fail>",
        "on_any_fail calls 'nobody', expected the id of a task of this context",
    ),
    "on_any_fail with an unknown action": (
        changed(
            ("<ContextID>", "<on_any_fail><action>mail</action><call>ts_100</call></on_any_fail><ContextID>")
        ),
        "<on_any_fail>",
        "'mail' is unknown, expected start, stop or restart",
    ),
    "on_any_fail without a call": (
        changed(("<ContextID>", "<on_any_fail><action>start</action></on_any_fail><ContextID>")),
        "<on_any_fail>",
        "<on_any_fail> has an action and no call",
    ),
    "relative ipc": (changed(("tcp://127.0.0.1:5556", "ipc://run/x")), "run/x", "no absolute path"),
    "colliding binds": (
        changed(("*:5556", "127.0.0.1:5557")),
        "<BackendBind>",
        r"BackendBind .*collides with FrontBind tcp://\*:5557",
    ),
    "bind elsewhere": (
        changed(("*:5557", "*:5558")),
        "<FrontBind>",
        "FrontBind .* is not where BackendEndpoint .* leads, expected port 5557",
    ),
    "monitor's port": (
        changed(("6558", "5557")),
        "<endpoint>",
        "<endpoint> tcp://127.0.0.1:5557 collides with FrontBind",
    ),
    "monitor's endpoint": (
        changed(("tcp://127.0.0.1:6558", "here")),
        "<endpoint>",
        "<endpoint> 'here' is not an endpoint",
    ),
    "bad ContextID": (
        changed(("context001", "context 001")),
        "<ContextID>",
        "<ContextID> 'context 001' is no id, expected",
    ),
    "bad time span": (
        with_service("<start_timeout>5 parsecs</start_timeout>"),
        "<service>",
        "<start_timeout> 'parsecs' is not a unit of time, expected",
    ),
    "empty time span": (
        with_service("<watchdog/>"),
        "<service>",
        "<watchdog> '' is not a time span, expected",
    ),
    "endless delay": (
        with_service("<restart_delay>infinity</restart_delay>"),
        "<service>",
        "<restart_delay> 'infinity' is not allowed",
    ),
    "crossed delays": (
        with_service("<restart_delay>2</restart_delay><restart_max_delay>1</restart_max_delay>"),
        "<service>",
        "<restart_max_delay> is shorter",
    ),
    "bad burst": (
        with_service("<start_limit_burst>-1</start_limit_burst>"),
        "<service>",
        "<start_limit_burst> '-1' is out of range",
    ),
    "bad nice": (
        with_service("<nice>20</nice>"),
        "<service>",
        "<nice> '20' is out of range, expected a whole number from -20 to 19",
    ),
    "impossible user": (
        with_service("<user>no body</user>"),
        "<service>",
        "<user> 'no body' cannot be a name, expected the name or the number of one",
    ),
    "no user": (with_service("<user></user>"), "<service>", "<user> '' cannot be a name"),
    "user ID that means none": (
        with_service("<user>4294967295</user>"),
        "<service>",
        "<user> '4294967295' is not an ID",
    ),
    "user ID that meant none": (
        with_service("<user>65535</user>"),
        "<service>",
        "<user> '65535' is not an ID",
    ),
    "user ID of many digits": (
        with_service(f"<user>{'0' * 20}1000</user>"),
        "<service>",
        "<user> '0{20}' is not an ID",
    ),
    "group ID in other digits": (
        with_service("<group>\u0663\u0663</group>"),
        "<service>",
        "<group> .* is not an ID",
    ),
    "impossible group": (with_service("<group>a:b</group>"), "<service>", "<group> 'a:b' cannot be a name"),
    "unknown limit": (
        with_service("<limits><nofiles>1</nofiles></limits>"),
        "<service>",
        r"unknown element <nofiles> in <limits>.*mean nofile\?",
    ),
    "bad limit": (
        with_service("<limits><nofile>many</nofile></limits>"),
        "<service>",
        "<nofile> 'many' is not a limit, expected a number",
    ),
    "bad variable": (
        with_service("<environment><A.B/></environment>"),
        "<service>",
        "the variable 'A.B' cannot be one",
    ),
    "variable twice": (
        with_service("<environment><A/><A/></environment>"),
        "<service>",
        "a second <A> in <environment>",
    ),
    "unknown setting": (
        with_service("<stop_timeot>1</stop_timeot>"),
        "<service>",
        r"did you mean stop_timeout\?",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_each_fault_is_reported_with_its_line_and_the_expectation(case: str) -> None:
    text, where, words = FAULTS[case]
    reported = faults(text)
    assert len(reported) == 1, reported
    lines = {at for at, line in enumerate(text.splitlines(), 1) if where in line}
    match = re.fullmatch(r"F\.xml:(\d+): (.*)", reported[0])
    assert match is not None
    assert int(match[1]) in lines, reported
    assert re.search(words, match[2]), reported
    assert "expected" in match[2]


PASSED_OVER = {
    "attribute of TaskService": (
        ("topic='process'", "topik='process'"),
        "attribute topik in <TaskService> is passed over (did you mean topic?)",
    ),
    "attribute of state": (("<state ", "<state since='2015' "), "attribute since in <state> is passed over"),
    "attribute of Task": (("<Task>", "<Task owner='me'>"), "attribute owner in <Task> is passed over"),
    "attribute of a rule": (("<on_fail>", "<on_fail why='x'>"), "attribute why in <on_fail> is passed over"),
    "attribute of message": (
        ("<message>", "<message version='1'>"),
        "attribute version in <message> is passed over",
    ),
    "element of Context": (
        ("<TaskLogName>", "<MonitorEndpoint>tcp://127.0.0.1:6558</MonitorEndpoint><TaskLogName>"),
        "element <MonitorEndpoint> in <Context> is passed over",
    ),
    "element of TaskService": (
        ("<Task>", "<note><a b='c'>d</a></note><Task>"),
        "element <note> in <TaskService> is passed over",
    ),
    "option in a TaskService": (
        ("<Task>", "<service><nice>5</nice></service><Task>"),
        "element <service> in <TaskService> is passed over (its place is in <Task>)",
    ),
    "option in a Task": (
        ("<description>", "<umask>022</umask><description>"),
        "element <umask> in <Task> is passed over (its place is in <service>)",
    ),
    "element of header": (
        ("<service_name>", "<service_id>a</service_id><service_nmae/><service_name>"),
        "element <service_nmae> in <header> is passed over (did you mean service_name?)",
    ),
    "configuration in a header": (
        ("<service_name>", "<configuration/><service_name>"),
        "element <configuration> in <header> is passed over (its place is in <content>)",
    ),
    "element of content": (
        ("<configuration>", "<interval>2</interval><configuration>"),
        "element <interval> in <content> is passed over (its place is in <configuration>)",
    ),
    "element of Task": (
        ("<description>", "<author/><description>"),
        "element <author> in <Task> is passed over",
    ),
    "element of message": (
        ("<content>", "<footer/><content>"),
        "element <footer> in <message> is passed over",
    ),
    "element of state": (
        ("<on_fail>", "<on_pause/><on_fail>"),
        "element <on_pause> in <state> is passed over",
    ),
    "misspelled rule": (
        ("<on_fail>", "<on_fali/><on_fail>"),
        "element <on_fali> in <state> is passed over (did you mean on_fail?)",
    ),
    "element of a rule": (
        ("<on_fail>", "<on_fail><delay>5</delay>"),
        "element <delay> in <on_fail> is passed over",
    ),
    "namespace": (
        ("<on_fail>", "<on_fail xmlns='urn:x'/><on_fail>"),
        "element <{urn:x}on_fail> in <state> is passed over",
    ),
}


@pytest.mark.parametrize("case", PASSED_OVER)
def test_elements_that_zmicroservices_ignored_are_warned_about_with_their_line(case: str) -> None:
    change, words = PASSED_OVER[case]
    text = changed(change)
    context = parse(text)
    number = 1 + text[: text.index(change[1])].count("\n")
    told = f"unknown {words}" if case == "element of Context" else f"ts_100: unknown {words}"
    assert context.passed_over == ((number, told),)
    assert f"line {number}: {told}" in checks.warnings(context)
    assert context.tasks.keys() == parse(MANUAL).tasks.keys()
    assert SCHEMA.validate(etree.fromstring(text.encode())), SCHEMA.error_log


def test_swapped_binds_are_recognized() -> None:
    reported = faults(
        changed(
            ("tcp://*:5557", "tcp://*:X"), ("tcp://*:5556", "tcp://*:5557"), ("tcp://*:X", "tcp://*:5556")
        )
    )
    assert len(reported) == 2
    assert all("are FrontBind and BackendBind swapped?" in fault for fault in reported)


def test_all_faults_come_in_one_pass_sorted_by_line() -> None:
    text = changed(
        ("*:5557", "*:5558"),
        ("context001", "c 1"),
        ("'Process'", "'process'"),
        ("<action>start", "<action>begin"),
        ("<call>ts_100", "<call>missing"),
        ('id="ts000"', 'id="ts_100"'),
        ("<call>ts000", "<call>ts_100"),
        ("<call>ts000", "<call>noone"),
        ("</TaskService>\n</Context>", "</TaskService><bus_access/>\n</Context>"),
    )
    reported = faults(text)
    lines = [int(fault.split(":")[1]) for fault in reported]
    assert len(reported) == 8
    assert lines == sorted(lines)
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value) == "\n".join(reported)


def test_a_bad_id_is_reported_once_and_not_again_at_the_rules_that_call_it() -> None:
    reported = faults(changed(("id='ts_100'", "id='ts 100'"), ("<call>ts_100", "<call>ts 100")))
    assert len(reported) == 1


def test_the_line_is_where_the_tag_begins() -> None:
    text = changed(
        ("<TaskService id='ts_100' topic='process'", "<TaskService\n  id='ts/100'\n  topic='process'"),
        ("<call>ts_100", "<call>ts000"),
    )
    assert faults(text)[0].startswith(f"F.xml:{number(text, '<TaskService')}: ")


def test_line_numbers_are_right_beyond_libxml2s_limit() -> None:
    text = changed(("<Context>", "<Context>" + "\n" * 70_000), ("<call>ts000", "<call>ts_9"))
    assert faults(text)[0].startswith(f"F.xml:{number(text, 'ts_9')}: ")


# Files that are not XML, or have elements of other formats.


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "the file is empty, expected <Context>"),
        ("hello", 1, "this is not XML, expected <Context>"),
        ("<Context>\n<Task>\n</Context>", 3, "<Task> of line 2 is closed by </Context>, expected </Task>"),
        ("<Context>\n<Task>\n", 3, "the file ends inside <Task> of line 2, expected </Task>"),
        ("<Context>\n<Task id=1/></Context>", 2, "an attribute's value has no quotes"),
        ("<Context>\n<Task id='1' id='2'/></Context>", 2, "the attribute id is there twice"),
        ("<Context>\na & b</Context>", 2, "a bare &, expected &amp;"),
        ("<Context>\n&nbsp;</Context>", 2, "the entity &nbsp; is not known"),
        ("<Context>\n\x01</Context>", 2, "a control character"),
        ("<Context/>\n<Context/>", 2, "something follows the end of the root element"),
        ("<a>" * 300 + "</a>" * 300, 1, "elements lie too deep"),
        ("\n<?xml version='1.0'?><Context/>", 2, "<?xml ...?> is not at the start"),
        ("<!-- \n<Context/>", 2, "a comment is not finished"),
        ("<?xml version='1.0' encoding='klingon'?><Context/>", 1, "the encoding klingon is not known"),
        ("\n<MetaServiceConf/>", 2, "the root element is <MetaServiceConf>, expected <Context>"),
        ("<context/>", 1, "the root element is <context>, expected <Context>"),
    ],
)
def test_malformed_xml_is_reported_in_words_with_its_line(text: str, line: int, words: str) -> None:
    (reported,) = faults(text)
    assert reported.startswith(f"F.xml:{line}: ")
    assert words in reported
    assert "expected" in reported


def test_a_wrong_encoding_is_reported() -> None:
    (reported,) = faults(MANUAL.replace("shout", "gr\xfc\xdf").replace("utf8", "utf-8").encode("latin-1"))
    assert reported.startswith(f"F.xml:{number(MANUAL, 'shout')}: ")
    assert "expected UTF-8" in reported


LAUGHS = "".join(f'<!ENTITY l{i + 1} "{f"&l{i};" * 10}">\n' for i in range(12))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "doctype",
    [
        "<!DOCTYPE Context>",
        "<!DOCTYPE Context SYSTEM 'http://127.0.0.1:9/context.dtd'>",
        "<!DOCTYPE Context [<!ENTITY passwd SYSTEM 'file:///etc/passwd'>]>",
        f"<!DOCTYPE Context [<!ENTITY l0 'ha'>\n{LAUGHS}]>",
    ],
)
def test_a_doctype_is_refused_with_its_line(doctype: str, encoding: str) -> None:
    text = f"<?xml version='1.0'?>\n<!-- a\nb -->\n{doctype}\n<Context a='&l12;'>&passwd;</Context>"
    assert faults(text.encode(encoding)) == [
        "F.xml:4: a DOCTYPE is not allowed, expected a file without DTD and entities"
    ]


def test_a_prolog_of_many_comments_is_not_split_in_all_ways() -> None:
    """There are so many ways that this test would not end: its time doubles with each comment."""
    assert faults("<!-- x --> <?x ?>" * 50_000 + "<x/>") != []


def test_a_file_of_more_than_16_mib_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "big.xml"
    file.write_bytes(b"<Context>" + b" " * reader.MAX_SIZE)
    with pytest.raises(ConfigError, match=r"big\.xml:1: the file is too large, expected at most 16 MiB"):
        reader.load(file)


@pytest.mark.parametrize(
    ("name", "why"), [("none.xml", "no such file"), (".", "is a directory"), ("a\0b", "null byte")]
)
def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(ConfigError, match=f":1: cannot read the file .*{why}"):
        reader.load(f"{tmp_path}/{name}")


@given(
    st.binary(max_size=400)
    | st.text("<>/='\"&;!-[]? \nContextTaskService0a#x\x00\ud7ff").map(lambda text: text.encode())
)
@settings(max_examples=200)
def test_no_bytes_raise_anything_but_a_config_error(data: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(data)
    assert all(re.match(r"F\.xml:[1-9]\d*: .+, expected .+", fault, re.S) for fault in caught.value.faults)


@given(st.data())
@settings(max_examples=150)
def test_no_damage_to_a_good_file_raises_anything_but_a_config_error(data: st.DataObject) -> None:
    text = bytearray(data.draw(st.sampled_from([MANUAL, FULL])).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        text[start : start + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=8))
    assert all(": " in fault for fault in faults(bytes(text)))


# The published schema and the code agree.

SCHEMA = etree.RelaxNG(etree.parse(reader.SCHEMA))
WORDS = [
    "Context",
    "FrontBind",
    "BackendBind",
    "ContextID",
    "TaskLogName",
    "TaskService",
    "Task",
    "description",
    "message",
    "header",
    "content",
    "configuration",
    "action",
    "call",
    "service_name",
    "state",
    *Trigger,
    "service",
    "nice",
    "user",
    "limits",
    "environment",
    "nofile",
    "watchdog",
    "restart_delay",
    "start_limit_burst",
    "x",
    "{urn:x}action",
]
TEXTS = [
    "",
    " ",
    "\n",
    "start",
    " stop ",
    "ts_100",
    "x y",
    "1",
    "-1",
    "90s",
    "infinity",
    "root",
    "tcp://127.0.0.1:5556",
    "\u00a0",
    "é",
]


def test_without_endpoints_the_bus_is_in_the_runtime_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ZMSVC_RUNTIME_DIR", str(tmp_path))
    text = re.sub(r"\s*<(FrontEndEndpoint|BackendEndpoint|FrontBind|BackendBind)>.*?</\1>", "", MANUAL)
    context = reader.parse(text.encode(), path="F.xml", name="Echo")
    assert context.endpoints == DeviceEndpoints(
        subscribe_endpoint=f"ipc://{tmp_path}/Echo/sub",
        publish_endpoint=f"ipc://{tmp_path}/Echo/pub",
        publish_bind=f"ipc://{tmp_path}/Echo/pub",
        subscribe_bind=f"ipc://{tmp_path}/Echo/sub",
    )
    assert not {"FrontEndEndpoint", "BackendEndpoint"} & context.source.keys()
    assert SCHEMA.validate(etree.fromstring(text.encode())), SCHEMA.error_log
    monkeypatch.setenv("ZMSVC_RUNTIME_DIR", f"/{'x' * 100}")
    with pytest.raises(ConfigError, match=r"those in the runtime directory cannot be used: .* has a path of"):
        reader.parse(text.encode(), path="F.xml", name="Echo")


def test_who_may_connect_and_how_many_transactions_may_be_open_are_read() -> None:
    assert (parse(MANUAL).bus_access, parse(MANUAL).max_transactions) == (BusAccess.MEMBERS, 1000)
    given = parse(
        changed(("<Context>", "<Context bus_access='anyone'><max_transactions>7</max_transactions>"))
    )
    assert (given.bus_access, given.max_transactions) == (BusAccess.ANYONE, 7)


def test_a_context_is_recorded_if_its_file_says_so() -> None:
    assert not parse(MANUAL).record
    for word, records in (("yes", True), ("no", False), ("On", True), ("0", False)):
        assert parse(changed(("<ContextID>", f"<record>{word}</record><ContextID>"))).record is records


def test_on_any_fail_is_read_as_the_rules_of_the_context() -> None:
    rules = "".join(
        f"<on_any_fail><action>{action}</action><call>ts_100</call></on_any_fail>"
        for action in ("start", "stop")
    )
    assert [
        (rule.trigger, rule.action, rule.call)
        for rule in parse(changed(("<ContextID>", f"{rules}<ContextID>"))).on_any_fail
    ] == [("on_any_fail", "start", "ts_100"), ("on_any_fail", "stop", "ts_100")]


@pytest.mark.parametrize("text", [MANUAL, FULL])
def test_the_schema_accepts_all_that_the_code_accepts(text: str) -> None:
    assert SCHEMA.validate(etree.fromstring(text.encode())), SCHEMA.error_log


# Faults that a schema cannot express: they need the machine, the rest of the file, or arithmetic.
BEYOND = {
    "repeated id",
    "call of an unknown task",
    "ring of after",
    "unknown task in requires",
    "on_any_fail of an unknown task",
    "on_any_fail without a call",
    "action without call",
    "call without action",
    "no location",
    "location is a file",
    "two locations",
    "id of dots",
    "Command without command",
    "empty command",
    "open quote",
    "text and arguments",
    "bad port",
    "colliding binds",
    "bind elsewhere",
    "monitor's port",
    "no endpoint",
    "monitor's endpoint",
    "long ipc",
    "bad time span",
    "crossed delays",
    "user ID that means none",
    "user ID that meant none",
    "user ID of many digits",
    "group ID in other digits",
    "bad variable",
    "variable twice",
    "misspelled new element",
    "misspelled new attribute",
    "misspelled service",
}


@pytest.mark.parametrize("case", FAULTS)
def test_the_schema_refuses_what_the_code_refuses_where_a_schema_can(case: str) -> None:
    assert SCHEMA.validate(etree.fromstring(FAULTS[case][0].encode())) is (case in BEYOND)


def _remove(element: etree._Element, _word: str, _text: str) -> None:
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)


def _double(element: etree._Element, _word: str, _text: str) -> None:
    element.addnext(copy.deepcopy(element))


def _rename(element: etree._Element, word: str, _text: str) -> None:
    element.tag = word


def _add(element: etree._Element, word: str, text: str) -> None:
    etree.SubElement(element, word).text = text


def _fill(element: etree._Element, _word: str, text: str) -> None:
    element.text = text


def _trail(element: etree._Element, _word: str, text: str) -> None:
    element.tail = text


def _mark(element: etree._Element, word: str, text: str) -> None:
    element.set(word, text)


def _unmark(element: etree._Element, _word: str, _text: str) -> None:
    element.attrib.clear()


def _turn(element: etree._Element, _word: str, _text: str) -> None:
    element[:] = reversed(element)


CHANGES = [_remove, _double, _rename, _add, _fill, _trail, _mark, _unmark, _turn]


@given(st.data())
@settings(max_examples=250)
def test_schema_and_code_agree_on_any_change_of_a_good_file(data: st.DataObject) -> None:
    parser = etree.XMLParser(remove_comments=True)
    root = etree.fromstring(data.draw(st.sampled_from([MANUAL, FULL])).encode(), parser)
    for _ in range(data.draw(st.integers(1, 3))):
        element = data.draw(
            st.sampled_from(list(root.iter()) if data.draw(st.booleans()) else list(root.iter())[1:6])
        )
        change: Callable[[etree._Element, str, str], None] = data.draw(st.sampled_from(CHANGES))
        if change in (_double, _trail) and element is root:
            continue
        change(element, data.draw(st.sampled_from(WORDS)), data.draw(st.sampled_from(TEXTS)))
    reported = faults(etree.tostring(root))
    valid = SCHEMA.validate(root)
    assert not (valid and list(explain(root))), (list(explain(root)), reported)
    assert valid or reported, (SCHEMA.error_log, etree.tostring(root))
    assert not any("the schema refuses" in fault for fault in reported), reported


# The machine.


def ported(publish_endpoint: str, subscribe_endpoint: str) -> Context:
    return parse(
        changed(
            ("127.0.0.1:5556", subscribe_endpoint),
            ("127.0.0.1:5557", publish_endpoint),
            ("tcp://*:5557", f"tcp://{publish_endpoint}"),
            ("tcp://*:5556", f"tcp://{subscribe_endpoint}"),
        )
    )


def test_a_port_in_use_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as other:
        publish_endpoint, subscribe_endpoint = (
            f"127.0.0.1:{server.getsockname()[1]}" for server in (taken, other)
        )
        other.close()
        (reported,) = port_warnings(ported(publish_endpoint, subscribe_endpoint))
    assert reported.startswith(f"FrontBind tcp://{publish_endpoint}: ")
    assert "in use" in reported
    assert port_warnings(ported(publish_endpoint, subscribe_endpoint)) == []


def test_a_port_in_use_is_reported_with_the_line_and_the_element_of_the_file() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        ends = (("ipc:///run/zmsvc/front", bind), ("ipc:///run/zmsvc/back", "tcp://127.0.0.1:1"))
        context = parse(changed(*ends, text=FULL))
        found = [each for each in reader.check_ports(context) if "address already in use" in each.text]
    (placed,) = reader.placed(context, found)
    told = placed.in_file("F.xml")
    assert told.startswith(f"F.xml:2: BackendEndpoint {bind}: address already in use")


@pytest.mark.parametrize(
    ("inner", "fault"),
    [
        ("<working_directory>tmp</working_directory>", "'tmp' is not an absolute path, expected one, or ~"),
        ("<environment_file>a.env</environment_file>", "'a.env' is not an absolute path, expected one"),
        ("<environment_file>/etc/*.env</environment_file>", "'/etc/*.env' has a wildcard, expected the path"),
        (
            "<pass_environment>1FOO</pass_environment>",
            "'1FOO' cannot be a variable, expected letters, digits",
        ),
        (
            "<stop_signal>HPU</stop_signal>",
            "a name such as QUIT or SIGQUIT, or a number (did you mean SIGHUP?)",
        ),
        ("<reload_command></reload_command>", "<reload_command> is empty, expected a program"),
        ("<reload_command>a 'b</reload_command>", "cannot be split (no closing quotation)"),
        ("<reload_command>a<arg>b</arg></reload_command>", "<reload_command> has more than <arg> elements"),
        (
            "<reload_command>a</reload_command><reload_signal>HUP</reload_signal>",
            "has both <reload_signal> and <reload_command>, expected one of them",
        ),
    ],
)
def test_a_fault_of_a_value_says_what_is_wrong(inner: str, fault: str) -> None:
    assert any(fault in each for each in faults(with_service(inner))), faults(with_service(inner))


def test_a_reload_command_that_is_missing_is_a_warning() -> None:
    (warning, *_) = service_warnings(
        parse(with_service("<reload_command>/nowhere/reload now</reload_command>"))
    )
    assert (
        "its program /nowhere/reload is not found, or may not be executed (of its <reload_command>)"
        in warning
    )


def test_a_warning_about_a_rule_is_at_the_line_of_the_rule() -> None:
    plain = "<on_fail><action>restart</action><call>ts_100</call></on_fail>"
    counted = "<on_fail after='2 in 1min'><action>restart</action>\n<call>ts_100</call></on_fail>"
    text = changed(("<on_fail>", f"{plain}\n{counted}<on_fail>"))
    context = parse(text)
    found = [each.in_file("F.xml") for each in reader.placed(context, checks.config_warnings(context))]
    line = text[: text.index(counted)].count("\n") + 2
    assert [each for each in found if "has no effect beside" in each] == [
        f"F.xml:{line}: ts_100: the rule on_fail: restart ts_100, after 2 in 60s has no effect beside the rule "
        f"on_fail: restart ts_100"
    ]


def test_a_warning_about_a_setting_is_at_the_line_of_the_setting() -> None:
    text = changed(("<location></location>", "<location></location>\n\n<interval>ten</interval>"))
    context = parse(text)
    found = [each.in_file("F.xml") for each in reader.placed(context, checks.config_warnings(context))]
    line = number(text, "<interval>")
    assert any(each.startswith(f"F.xml:{line}: ts_100: its interval 'ten' is not a time") for each in found)


def test_a_fault_between_two_sockets_is_at_its_own_line_and_names_the_other_one() -> None:
    sockets = (
        "<service>\n<listen>bad</listen>\n<listen>8080</listen>\n<listen>127.0.0.1:8080</listen>\n</service>"
    )
    text = changed(("<Task>", f"<Task>{sockets}"))
    line = number(text, "<listen>8080")
    assert [each for each in faults(text) if "collides" in each] == [
        f"F.xml:{line + 1}: ts_100: <listen> tcp://127.0.0.1:8080 collides with <listen> of ts_100, expected an "
        f"address of its own (see F.xml:{line})"
    ]


def test_a_misspelled_call_and_instance_are_followed_by_a_suggestion(tmp_path: Path) -> None:
    (told,) = faults(changed(("<call>ts_100</call>", "<call>ts_10</call>")))
    assert told.endswith("calls 'ts_10', expected the id of a task of this context (did you mean ts_100?)")
    (tmp_path / "Echo").mkdir()
    (tmp_path / "Echo/ServiceEcho.py").touch()
    place = ("<location></location>", f"<location>{tmp_path}</location>")
    context = parse(
        changed(place, ('instance="EchoAction"', 'instance="Ehco"'), text=MANUAL.replace("'", '"'))
    )
    told = [each.text for each in reader.check_services(context)]
    assert f"ts_100: there is no Ehco/ServiceEhco.py in {tmp_path} (did you mean Echo?)" in told


def test_every_fault_of_one_value_is_told_with_its_task() -> None:
    told = faults(
        with_service(
            "<success_exit_status>0 999 SIGFOO 1.5</success_exit_status><start_timeout>1x 2y 3z</start_timeout>"
            "<nice>1.5</nice>"
        )
    )
    expected = [
        "<success_exit_status> '999' is not an exit status",
        "<success_exit_status> 'SIGFOO' is not an exit status",
        "<success_exit_status> '1.5' is not an exit status",
        "<start_timeout> 'x' is not a unit of time",
        "<start_timeout> 'z' is not a unit of time",
        "<nice> '1.5' is not a whole number",
    ]
    for text in expected:
        assert any(f" ts_100: {text}, expected " in each for each in told), told


def test_an_ipc_path_in_use_is_reported_and_no_file_is_left_behind(tmp_path: Path) -> None:
    ends = (
        ("ipc:///run/zmsvc/front", f"ipc://{tmp_path}/front"),
        ("ipc:///run/zmsvc/back", f"ipc://{tmp_path}/none/back"),
    )
    context = parse(changed(*ends, text=FULL))
    assert port_warnings(context) == [
        f"FrontEndEndpoint ipc://{tmp_path}/none/back: the directory {tmp_path}/none does not exist now"
    ]
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{tmp_path}/front")
        server.listen()
        assert any("another process listens" in reported for reported in port_warnings(context))
    # The socket file of a dead process does not block the bind.
    assert not any("FrontBind" in reported for reported in port_warnings(context))
    assert [path.name for path in tmp_path.iterdir()] == ["front"]


def test_a_missing_runtime_directory_is_not_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZMSVC_RUNTIME_DIR", str(tmp_path / "run"))
    context = parse(
        re.sub(r"\s*<(FrontEndEndpoint|BackendEndpoint|FrontBind|BackendBind)>.*?</\1>", "", MANUAL)
    )
    assert context.endpoints.publish_bind.startswith(f"ipc://{tmp_path}/run/")
    assert port_warnings(context) == []


def test_tasks_that_cannot_be_launched_are_reported(tmp_path: Path) -> None:
    text = changed(("<location></location>", f"<location>{tmp_path}</location>"))
    (reported,) = service_warnings(parse(text))
    assert reported == f"ts_100: there is no EchoAction/ServiceEchoAction.py in {tmp_path}"
    (tmp_path / "EchoAction").mkdir()
    (tmp_path / "EchoAction" / "ServiceEchoAction.py").touch()
    assert service_warnings(parse(text)) == []
    assert service_warnings(parse(as_command("<command>true</command>"))) == []
    assert "no-such-program" in service_warnings(parse(as_command("<command>no-such-program</command>")))[0]


@pytest.mark.filterwarnings("error")
def test_a_syntax_error_of_a_service_is_reported_with_its_line_without_running_it(tmp_path: Path) -> None:
    service = tmp_path / "EchoAction"
    service.mkdir()
    (service / "ServiceEchoAction.py").write_text("raise SystemExit('it was run')\n")
    (service / "warned.py").write_text("print('\\d')\n")
    (service / "broken.py").write_text("x = 1\ny = (\n")
    (service / "zeros.py").write_bytes(b"x = 1\0")
    (service / "deep.py").write_text("(" * 5000)
    (service / "latin.py").write_bytes(b"'\xe4'\n")
    os.mkfifo(service / "pipe.py")
    found = service_warnings(parse(changed(("<location></location>", f"<location>{tmp_path}</location>"))))
    assert (
        f"ts_100: {service}/broken.py:2: SyntaxError: '(' was never closed: a task that imports it cannot "
        f"start" in found
    )
    assert {re.search(r"(\w+)\.py:", each)[1] for each in found} == {"broken", "zeros", "deep", "latin"}  # type: ignore[index]


@pytest.mark.parametrize(
    ("service", "reported"),
    [
        ("<user>unknown-here</user>", ["its <user> unknown-here is unknown on this machine"]),
        ("<group>unknown-here</group>", ["its <group> unknown-here is unknown on this machine"]),
        ("<user>root</user><group>root</group>", []),
        ("<user>033</user><group>4294967294</group>", []),
    ],
)
def test_a_user_that_this_machine_does_not_know_is_a_warning_about_that_task(
    service: str, reported: list[str]
) -> None:
    text = as_command("<command>true</command>").replace("<Task>", f"<Task><service>{service}</service>", 1)
    context = parse(text)
    found = [warning for warning in service_warnings(context) if "only root can give it" not in warning]
    assert [warning.removeprefix("ts_100: ").split(",")[0] for warning in found] == reported
    if "033" in service:
        assert (context.tasks["ts_100"].user, context.tasks["ts_100"].group) == ("33", "4294967294")


def test_a_program_is_searched_on_the_path_of_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task has its own PATH, and its working directory is /, whatever those of `check` are."""
    program = tmp_path / "run.sh"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)

    def reported(command: str, environment: str = "") -> list[str]:
        service = f"<service><environment>{environment}</environment></service>"
        return service_warnings(
            parse(as_command(f"<command>{command}</command>").replace("<Task>", f"<Task>{service}", 1))
        )

    assert reported("run.sh", f"<PATH>/nowhere:{tmp_path}</PATH>") == []
    assert reported(str(program)) == []
    assert reported(f".{program}") == [], "it leads there from /"
    assert reported("sh", "<PATH>/nowhere</PATH>")[0].endswith("in the PATH of its <environment>")
    assert "a relative path leads from /" in reported("./run.sh")[0]
    assert "is not found" in reported("run.sh")[0]
    program.write_text("#!/bin/sh\r\n")
    assert (
        "its interpreter '/bin/sh\\r' cannot be executed, which its #! line names (its lines end with CR LF"
        in reported(str(program))[0]
    )
    program.write_text("#! /no/such/one -x\n")
    assert "its interpreter '/no/such/one' cannot be executed" in reported(str(program))[0]


SPACED = """<command><arg>echo</arg><arg>  both  </arg><arg xml:space="preserve">  kept  </arg><arg xml:space="default"> not </arg><arg>
    layout
  </arg></command>"""
KEY = "-----BEGIN KEY-----\nabc\n-----END KEY-----\n"


def test_white_space_around_a_value_is_kept_on_request_and_never_dropped_silently() -> None:
    variables = (
        f"<A> x</A><B>{KEY}</B><C xml:space='preserve'>{KEY}</C><D>\n y \n</D><E xml:space='other'> e</E>"
    )
    service = f"<service><environment>{variables}</environment></service>"
    context = parse(as_command(SPACED).replace("<Task>", f"<Task>{service}", 1))
    task = context.tasks["ts_100"]
    assert task.command == ("echo", "both", "  kept  ", "not", "layout")
    assert dict(task.environment) == {"A": "x", "B": KEY.strip(), "C": KEY, "D": "y", "E": "e"}
    assert task.configuration["command"] == {"arg": ["echo", "both", "  kept  ", "not", "layout"]}
    lost = [warning.partition(" is read ")[0] for _, warning in context.passed_over]
    kinds = ("the variable 'A'", "the variable 'B'", "the variable 'E'", "an <arg>")
    assert lost == [f"ts_100: {kind}" for kind in kinds]
    assert all('xml:space="preserve" keeps it' in warning for _, warning in context.passed_over)


def test_white_space_is_kept_below_an_element_that_says_so() -> None:
    service = (
        "<service><environment xml:space='preserve'><A> x </A><B xml:space='default'> y "
        "</B></environment></service>"
    )
    text = changed(
        ("<Task>", f"<Task>{service}"),
        ("<configuration>", "<configuration xml:space='preserve'><key> k\n</key>"),
    )
    context = parse(text)
    task = context.tasks["ts_100"]
    assert (dict(task.environment), task.configuration["key"], context.passed_over) == (
        {"A": " x ", "B": "y"},
        " k\n",
        (),
    )
    assert task.device_action == "shout"
    assert not any("{http" in key for key in json.dumps(task.source))


# Cost.


def file_of(tasks: int) -> bytes:
    start, end = MANUAL.index("  <TaskService"), MANUAL.index("</TaskService>") + len("</TaskService>")
    task = MANUAL[start:end].replace("ts000", "ts_100")
    all_of_them = "\n".join(task.replace("ts_100", f"ts_{index}") for index in range(tasks))
    return (MANUAL[:start] + all_of_them + "</Context>").encode()


def test_the_cost_of_a_file_grows_with_its_tasks() -> None:
    """Measured: 1,200 lines of Python for each task. A file of a thousand tasks takes 0.4 s."""
    few, many = file_of(100), file_of(400)
    assert len(parse(many).tasks) == 400
    cost = lines_in(lambda: parse(many))
    assert cost < 400 * 2500
    assert cost < 4.5 * lines_in(lambda: parse(few))
