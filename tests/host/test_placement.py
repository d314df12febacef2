"""`<hosts>` and `<placement>` of a context file: what they mean, and each fault with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lxml import etree

from zmsvc.core.checks import config_warnings
from zmsvc.core.errors import ConfigError
from zmsvc.core.model import Context, at_home
from zmsvc.core.placement import ListedHosts, Placement
from zmsvc.host.config import exposed_binds, reader

HEAD = """<Context>
  <FrontEndEndpoint>tcp://10.0.0.9:5556</FrontEndEndpoint>
  <BackendEndpoint>tcp://10.0.0.9:5557</BackendEndpoint>
  <FrontBind>tcp://*:5557</FrontBind>
  <BackendBind>tcp://*:5556</BackendBind>
"""
HOSTS = """  <hosts endpoint="tcp://10.0.0.9:5558" bind="tcp://*:5558">
    h2 h3 h4
  </hosts>
"""


def task(name: str, placement: str | None, options: str = "", kind: str = "Command") -> str:
    inner = "" if placement is None else f"\n<placement>{placement}</placement>"
    return f"""  <TaskService id="{name}" instance="run" serviceType="{kind}"><Task>
    <message><header><service_name>run</service_name></header><content><configuration>
      <command>/bin/true</command></configuration></content></message>
    <state type="on_start"/>
    <service>{options}{inner}</service>
  </Task></TaskService>
"""


def file(*tasks: str, hosts: str = HOSTS, head: str = HEAD) -> str:
    return f"{head}{hosts}{''.join(tasks)}</Context>"


def parse(text: str) -> Context:
    return reader.parse(text.encode(), path="F.xml", name="F")


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return caught.value.faults


def warned(context: Context) -> list[str]:
    return [each.text for each in config_warnings(context, curve=True)]


def test_a_placement_names_hosts_and_tasks() -> None:
    context = parse(
        file(
            task("a", "<host>h3</host><with>b c</with><apart> d </apart>\n<host>h2 h3</host>"),
            *(task(name, "<host>h3</host>") for name in "bcd"),
            task("e", ""),
            task("f", None),
        )
    )
    assert context.listed == ListedHosts(
        names=("h2", "h3", "h4"), endpoint="tcp://10.0.0.9:5558", bind="tcp://*:5558"
    )
    assert context.hosts == ("h2", "h3", "h4")
    assert context.tasks["a"].placement == Placement(hosts=("h3", "h2"), apart=("d",), together=("b", "c"))
    assert (context.tasks["e"].placement, context.tasks["f"].placement) == (Placement(), None)
    assert (context.placed, context.apart["d"], context.together["b"]) == (tuple("abcde"), ("a",), ("a", "c"))
    assert at_home(context).placed == ()


def test_the_bind_is_the_endpoint_by_default() -> None:
    hosts = '<hosts endpoint=" tcp://10.0.0.9:5558 ">h2</hosts>\n'
    assert parse(file(task("a", ""), hosts=hosts)).listed.bind == "tcp://10.0.0.9:5558"


PLAIN = task("b", "<host>h3</host>")
FAULTS = {
    "no cluster": (
        file(task("a", "<host>h2</host>"), hosts=""),
        "<placement>",
        "a: <placement> is for a context in a cluster, expected <hosts> in <Context>",
    ),
    "unknown host": (
        file(task("a", "\n<host>h2</host>\n<host>g2</host>")),
        "<host>g2",
        r"<host> names 'g2', expected a host of <hosts>: h2, h3, h4",
    ),
    "misspelled host": (
        file(task("a", "<host>worker-2</host>"), hosts=HOSTS.replace("h2", "workers-2")),
        "<placement>",
        r"\(did you mean workers-2\?\)",
    ),
    "no name of a host": (
        file(task("a", "<host>-h2</host>")),
        "<placement>",
        "<host> '-h2' cannot be the name of a host, expected 1 to 64",
    ),
    "empty host": (file(task("a", "<host/>")), "<placement>", "<host> is empty, expected the name of a host"),
    "unknown element": (
        file(task("a", "<hots>h2</hots>")),
        "<placement>",
        r"unknown element <hots> in <placement>, .*mean host\?",
    ),
    "unknown task": (
        file(task("a", "\n<with>b</with>\n<with>web_10</with>"), PLAIN, task("web_1", "")),
        "<with>web_10",
        r"<with> names 'web_10', expected the id of a task of this context \(did you mean web_1\?\)",
    ),
    "with itself": (file(task("a", "<with>a</with>")), "<placement>", "<with> names the task itself"),
    "apart from itself": (file(task("a", "<apart>a</apart>")), "<placement>", "<apart> names the task itself"),
    "with a task of this host": (
        file(task("a", "<with>b</with>"), task("b", None)),
        "<placement>",
        "<with> names 'b', which has no <placement>",
    ),
    "circle": (
        file(task("a", "\n<with>b</with>"), task("b", "<with>c</with>"), task("c", "<with>a</with>")),
        "<with>b",
        "ring of <with>: a with b with c with a, expected",
    ),
    "apart and with": (
        file(task("a", "<with>b</with>\n<apart>c</apart>"), task("b", "<with>c</with>"), task("c", "")),
        "<apart>c",
        "<apart> names 'c', with which the task shares a host by <with>",
    ),
    "replicas that are apart and with one task": (
        file(task("a", "<apart>a</apart>", "<replicas>2</replicas>"), task("b", "<with>a</with>")),
        "<placement><apart>a",
        "<apart> names 'a', with which the task shares a host",
    ),
    "no common host": (
        file(PLAIN, task("a", "<host>h2</host><host>h4</host>\n<with>b</with>")),
        "<placement><host>h2",
        r"none of the hosts h2, h4 is one of b, with which the task shares a host, .* \(see F.xml:\d+\)",
    ),
    "thread": (
        file(task("a", "", kind="Thread").replace("<command>/bin/true</command>", "")),
        "<placement>",
        "expected none for a Thread",
    ),
    "socket": (
        file(task("a", "", "<listen>80</listen>")),
        "<placement>",
        "<listen> and <placement> exclude each other, because the keeper of the context holds the sockets",
    ),
    "store": (
        file(task("a", "", "<file_descriptor_store_max>1</file_descriptor_store_max>")),
        "<placement>",
        "<file_descriptor_store_max> and <placement> exclude each other",
    ),
    "memory": (
        file(task("a", "", "<memory_restart>1G</memory_restart>")),
        "<placement>",
        "<memory_restart> and <placement> exclude each other",
    ),
    "last value": (
        file(
            task("a", "", kind="Process")
            .replace("<command>/bin/true</command>", "")
            .replace('"run"', '"LastValue"')
        ),
        "<placement>",
        "a LastValue and <placement> exclude each other",
    ),
    "second placement": (
        file(task("a", "").replace("<placement>", "<placement/>\n<placement>")),
        "<placement></placement>",
        "a second <placement> in <service>",
    ),
    "bus of one host": (
        file(task("a", ""), head=HEAD.replace("tcp://10.0.0.9:5556", "ipc:///run/b").replace(
            "tcp://*:5556", "ipc:///run/b")),
        "<FrontEndEndpoint>",
        "FrontEndEndpoint ipc:///run/b is a socket of one host",
    ),
    "hosts without an endpoint": (
        file(task("a", ""), hosts="<hosts>h2</hosts>"),
        "<hosts>",
        "<hosts> has no attribute endpoint, expected",
    ),
    "no hosts in hosts": (
        file(task("a", ""), hosts='<hosts endpoint="tcp://10.0.0.9:1"> </hosts>'),
        "<hosts ",
        "<hosts> is empty, expected the names",
    ),
    "a host twice": (
        file(task("a", ""), hosts='<hosts endpoint="tcp://10.0.0.9:1">h2 h3 h2</hosts>'),
        "<hosts ",
        "<hosts> has 'h2' twice",
    ),
    "ipc for hosts": (
        file(task("a", ""), hosts='<hosts endpoint="ipc:///run/h">h2</hosts>'),
        "<hosts ",
        "the endpoint of <hosts> 'ipc:///run/h' is a socket of one host, expected tcp:",
    ),
    "endpoint of any address": (
        file(task("a", ""), hosts='<hosts endpoint="tcp://*:80">h2</hosts>'),
        "<hosts ",
        r"the endpoint of <hosts> 'tcp://\*:80' cannot be connected to",
    ),
    "bind at another port": (
        file(task("a", ""), hosts=HOSTS.replace("*:5558", "*:5559")),
        "<hosts ",
        r"the bind tcp://\*:5559 of <hosts> is not where its endpoint .* leads, expected port 5558",
    ),
    "bind at a port of the bus": (
        file(task("a", ""), hosts=HOSTS.replace("5558", "5557")),
        "<hosts ",
        r"the bind tcp://\*:5557 of <hosts> collides with FrontBind tcp://\*:5557",
    ),
    "listen at the bind of the hosts": (
        file(task("a", ""), task("b", None, "\n<listen>tcp://127.0.0.1:5558</listen>")),
        "<listen>",
        r"<listen> tcp://127\.0\.0\.1:5558 collides with the bind tcp://\*:5558 of <hosts>, expected an "
        r"address of its own \(see F\.xml:6\)",
    ),
    "listen at an endpoint of the bus": (
        file(task("a", ""), task("b", None, "\n<listen>tcp://127.0.0.1:5557</listen>")),
        "<listen>",
        r"collides with the FrontBind of the bus, expected an address of its own \(see F\.xml:4\)",
    ),
    "misspelled hosts": (
        file(task("a", None), hosts=HOSTS.replace("hosts", "hostss")),
        "<hostss ",
        r"unknown element <hostss> in <Context>, expected another name \(did you mean hosts\?\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_each_fault_of_a_placement_is_reported_with_its_line(case: str) -> None:
    text, where, words = FAULTS[case]
    reported = faults(text)
    assert len(reported) == 1, reported
    lines = [at for at, line in enumerate(text.splitlines(), 1) if where in line]
    match = re.fullmatch(r"F\.xml:(\d+): (.*)", reported[0])
    assert match is not None
    assert int(match[1]) in lines, reported
    assert re.search(words, match[2]), reported
    assert "expected" in match[2]


def test_the_bus_in_the_runtime_directory_is_for_one_host() -> None:
    reported = faults(file(task("a", ""), head="<Context>\n"))
    assert [each.partition(" is a socket")[0].partition(" ")[2].split()[0] for each in reported] == [
        "FrontEndEndpoint",
        "BackendEndpoint",
    ]


def test_tasks_may_be_apart_if_they_are_replicas() -> None:
    context = parse(file(task("a", "<apart>a</apart>", "<replicas>3</replicas>")))
    assert context.apart["a@1"] == ("a@2", "a@3")
    assert warned(context) == []


def test_more_replicas_than_hosts_and_hosts_without_tasks_are_warned_about() -> None:
    context = parse(
        file(task("a", "<host>h2</host><host>h3</host><apart>a</apart>", "<replicas>3</replicas>"))
    )
    assert warned(context) == [
        "a: 3 replicas keep apart from each other and may run on 2 hosts, so 1 of them will wait"
    ]
    assert warned(parse(file(task("a", None)))) == [
        "<hosts> lists hosts, and no task has a <placement>: all run on the host of the context"
    ]
    text = file(task("a", ""), hosts=HOSTS.replace("10.0.0.9", "localhost"))
    assert warned(parse(text)) == ["the endpoint tcp://localhost:5558 of <hosts> leads each host to itself"]


def test_the_schema_takes_what_the_reader_takes() -> None:
    schema = etree.RelaxNG(etree.parse(reader.SCHEMA))
    good = file(task("a", "<host>h2</host>\n<host> h3 h4 </host><apart>b</apart>"), task("b", ""))
    assert schema.validate(etree.fromstring(good)), schema.error_log
    assert parse(good).placed == ("a", "b")
    for old, new in (("<host>h2", "<host>-h"), ("<apart>b", "<apart>"), ("<host>h2", "<at>x</at><host>h2")):
        assert not schema.validate(etree.fromstring(good.replace(old, new)))


def test_hosts_need_keys_even_on_loopback() -> None:
    text = file(task("a", ""), hosts=HOSTS.replace("10.0.0.9", "127.0.0.1").replace("*", "127.0.0.1"))
    local = text.replace("tcp://10.0.0.9", "tcp://127.0.0.1").replace("tcp://*", "tcp://127.0.0.1")
    (told,) = exposed_binds.refused(parse(local))
    assert told[0] == local[: local.index("<hosts")].count("\n") + 1
    assert told[1].startswith("cannot bind tcp://127.0.0.1:5558 for <hosts> without CURVE keys: ")
    assert "(zmsvcctl -c F keys make)" in told[1]
    assert (
        exposed_binds.refused(
            parse(
                local.replace("<hosts", "<!--hosts")
                .replace("</hosts>", "-->")
                .replace("<placement></placement>", "")
            )
        )
        == []
    )


def test_the_example_of_the_manual_has_tasks_on_other_hosts_and_no_fault() -> None:
    page = Path(__file__).parents[2] / "docs/cluster-context.xml"
    context = reader.load(page)
    assert context.hosts == ("h2", "h3", "h4")
    assert context.placed == ("ingest", "parse", "work@1", "work@2")
    assert (context.together["parse"], context.apart["work@1"]) == (("ingest",), ("work@2",))
    assert warned(context) == []
