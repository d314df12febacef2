"""Contexts in a cluster: the commands of pcs, and what differs between hosts."""

from __future__ import annotations

import shlex
from xml.etree import ElementTree

import pytest

from zmsvc.core.cluster import commands, differences, resource_id


def test_a_context_alone_is_one_resource() -> None:
    assert commands("Orders") == [
        "pcs resource create orders ocf:zmsvc:context context=Orders op monitor interval=10s "
        "meta migration-threshold=3 failure-timeout=10min"
    ]


def test_disk_and_address_come_before_the_context_in_one_group() -> None:
    disk, address, context = (
        shlex.split(each)
        for each in commands("Orders", address="10.0.0.9/24", disk="/dev/drbd 1", kind="xfs")
    )
    assert disk[3:8] == [
        "orders-disk",
        "ocf:heartbeat:Filesystem",
        "device=/dev/drbd 1",
        "directory=/var/lib/zmsvc/Orders",
        "fstype=xfs",
    ]
    assert address[3:7] == ["orders-ip", "ocf:heartbeat:IPaddr2", "ip=10.0.0.9", "cidr_netmask=24"]
    assert "state=shared" in context
    assert {tuple(each[-2:]) for each in (disk, address, context)} == {("--group", "orders-all")}


@pytest.mark.parametrize("address", ["10.0.0.9", "/24", "10.0.0.9/x", "10.0.0.9/"])
def test_an_address_needs_its_prefix(address: str) -> None:
    with pytest.raises(ValueError, match=r"such as 10\.0\.0\.9/24"):
        commands("Orders", address=address)


@pytest.mark.parametrize(
    ("context", "ident"), [("Orders", "orders"), ("7up", "zmsvc-7up"), ("a:b.c_d", "a-b.c_d")]
)
def test_the_id_of_a_resource_is_one_that_pacemaker_takes(context: str, ident: str) -> None:
    assert resource_id(context) == ident


def test_what_differs_between_hosts_is_told_with_the_hosts() -> None:
    facts = {
        "version": "1.1",
        "agent": "aa",
        "file": "f1",
        "services": "s",
        "keys": None,
        "uid": 996,
        "gid": 996,
    }
    assert differences({"h1": facts, "h2": dict(facts)}) == []
    found = differences({"h1": facts, "h2": {**facts, "file": "f2", "keys": "k", "uid": 995}})
    assert [(each.level, each.text.partition(" (")[0].partition(" differs")[0]) for each in found] == [
        ("fault", "the context file"),
        ("fault", "the keys"),
        ("warning", "the user ID of the context's user"),
    ]
    assert found[0].text == "the context file differs: h1 f1, h2 f2"
    assert found[1].text.endswith("h1 none, h2 k")


def test_the_hosts_of_tasks_run_a_clone_that_may_run_nowhere_else() -> None:
    create, constrain, order, enable = commands("Orders", hosts=("h2", "h3"))[1:]
    assert create == (
        "pcs resource create orders-hosts systemd:zmsvc-host@Orders op monitor interval=5s start timeout=60s "
        "stop timeout=100s clone orders-hosts-clone --disabled"
    )
    first = "pcs constraint order stop orders-hosts-clone then stop"
    assert order == f"{first} orders kind=Optional symmetrical=false"
    in_group = commands("Orders", address="10.0.0.9/24", hosts=("h2",))
    assert f"{first} orders-all kind=Optional symmetrical=false" in in_group
    assert enable == "pcs resource enable orders-hosts-clone"
    *words, text = shlex.split(constrain)
    assert words == ["cibadmin", "--create", "--scope", "constraints", "--xml-text"]
    location = ElementTree.fromstring(text)
    assert (location.tag, location.get("rsc")) == ("rsc_location", "orders-hosts-clone")
    (rule,) = location
    assert (rule.get("score"), rule.get("boolean-op")) == ("-INFINITY", "and")
    assert [(each.get("attribute"), each.get("operation"), each.get("value")) for each in rule] == [
        ("#uname", "ne", "h2"),
        ("#uname", "ne", "h3"),
    ]
    assert len({each.get("id") for each in location.iter()}) == 4
