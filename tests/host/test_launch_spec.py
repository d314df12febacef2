"""The options of a task that a keeper of an earlier release would drop."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from zmsvc.core.model import TaskDefinition
from zmsvc.core.service_options import OPTIONS, Limits, ServiceType
from zmsvc.protocol import PROTOCOL
from zmsvc.protocol.launch import LaunchSpec
from zmsvc.supervisor.launch_spec import dropped_options

OF_AUXILIARIES = {"ready", "health"}
"""The options that the launch of an auxiliary process carries."""
OF_1_0 = {"user", "group", "nice", "environment", "rlimits", "watchdog"}
"""The options that a launch of zmsvc 1.0 carries."""


def test_each_option_that_a_launch_carries_names_the_first_protocol_that_has_it() -> None:
    carried = {each.name for each in fields(LaunchSpec)}
    for option in OPTIONS:
        if option.field in OF_AUXILIARIES:
            assert option.protocol, option.name
        elif option.field in carried and set(option.in_place) != set(option.types):
            assert bool(option.protocol) is (option.field not in OF_1_0), option.name
        else:
            assert option.protocol == 0, f"no launch carries <{option.name}>"


def test_a_keeper_of_this_release_knows_every_option() -> None:
    assert [option.name for option in OPTIONS if option.protocol > PROTOCOL] == []


@pytest.mark.parametrize(
    ("kind", "options", "dropped"),
    [
        ("Process", {}, []),
        ("Process", {"nice": 5}, []),
        ("Process", {"stop_signal": "SIGQUIT", "umask": 0o77}, ["umask", "stop_signal"]),
        ("Process", {"log_level": 7, "fresh": True}, ["log_level", "fresh"]),
        ("Thread", {"memory_max": 1 << 30, "cpu_weight": 0}, ["memory_max", "cpu_weight"]),
        # The supervisor applies this option.
        ("Command", {"memory_restart": 1 << 30}, []),
        # The supervisor sends this signal.
        ("Command", {"stop_signal": "SIGQUIT"}, []),
        ("Command", {"no_new_privileges": True}, ["no_new_privileges"]),
        # The default of a task with another user, which zmsvc 1.0 did not have.
        ("Command", {"user": "daemon", "no_new_privileges": True}, []),
    ],
)
def test_no_task_starts_without_an_option_that_a_keeper_of_1_0_would_drop(
    kind: str, options: dict[str, Any], dropped: list[str]
) -> None:
    service = TaskDefinition(id="a", instance="Echo", service_type=ServiceType(kind), **options)
    assert dropped_options(service, 0) == dropped
    assert dropped_options(service, PROTOCOL) == []


def test_a_keeper_that_would_drop_a_time_limit_does_not_start_the_task_that_needs_it() -> None:
    """zmsvc 1.0 has every time limit of today, so the test makes one that is newer."""
    (watchdog,) = (each for each in OPTIONS if each.field == "watchdog")
    later = [replace(watchdog, protocol=PROTOCOL)]
    service = TaskDefinition(id="a", instance="Echo", limits=Limits(watchdog=5.0))
    assert dropped_options(service, PROTOCOL - 1, later) == ["watchdog"]
    assert dropped_options(service, PROTOCOL, later) == []
    assert dropped_options(replace(service, limits=Limits()), PROTOCOL - 1, later) == []
