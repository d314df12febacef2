"""core/resource_limits: the values of the options, and what they mean in the files of a control group."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from simulation import task

from zmsvc.core.option_kinds import Value
from zmsvc.core.resource_limits import CONTROLLERS, UNLIMITED, Whole, limits_of, named
from zmsvc.core.service_options import OPTIONS

KINDS = {each.name: each.kind for each in OPTIONS if each.name in CONTROLLERS}
WHOLE = Whole(memory=8 << 30, tasks=30_000)


def read(option: str, text: str) -> Any:
    kind = KINDS[option]
    assert isinstance(kind, Value)
    return kind.read(text)


def files(**texts: str) -> dict[str, str]:
    values = {option: read(option, text) for option, text in texts.items()}
    limits = limits_of(replace(task("a"), **values), lambda: WHOLE)
    return {file: text for each in limits for file, text in each.files.items()}


@pytest.mark.parametrize(
    ("option", "text", "expected"),
    [
        ("memory_max", "1048576", {"memory.max": "1048576"}),
        ("memory_max", " 512M ", {"memory.max": str(512 << 20)}),
        ("memory_max", "1.5G", {"memory.max": str(3 << 29)}),
        ("memory_max", "50%", {"memory.max": str(4 << 30)}),
        ("memory_high", "12.5 %", {"memory.high": str(1 << 30)}),
        ("memory_high", "1GB", {"memory.high": str(1 << 30)}),
        ("memory_high", "infinity", {}),
        ("cpu_quota", "20%", {"cpu.max": "20000 100000"}),
        ("cpu_quota", "250.25%", {"cpu.max": "250250 100000"}),
        ("cpu_quota", "0.5%", {"cpu.max": "1000 200000"}),
        ("cpu_quota", "0.01%", {"cpu.max": "1000 1000000"}),
        ("cpu_weight", "10000", {"cpu.idle": "0", "cpu.weight": "10000"}),
        ("cpu_weight", "idle", {"cpu.idle": "1"}),
        ("tasks_max", "12", {"pids.max": "12"}),
        ("tasks_max", "10%", {"pids.max": "3000"}),
        ("tasks_max", "0.01%", {"pids.max": "3"}),
        ("tasks_max", "infinity", {}),
        ("io_weight", "1", {"io.bfq.weight": "1", "io.weight": "default 1"}),
        ("io_weight", "101", {"io.bfq.weight": "100", "io.weight": "default 101"}),
        ("io_weight", "10000", {"io.bfq.weight": "1000", "io.weight": "default 10000"}),
    ],
)
def test_a_limit_is_written_as_systemd_writes_it(option: str, text: str, expected: dict[str, str]) -> None:
    assert files(**{option: text}) == expected


@pytest.mark.parametrize(
    ("option", "text"),
    [
        *(
            (name, bad)
            for name in ("memory_max", "memory_high")
            for bad in ("0", "-1", "1Q", "0%", "101%", "")
        ),
        *(("memory_max", bad) for bad in ("9000000T", "1.5.5G", "G", "half")),
        *(("cpu_quota", bad) for bad in ("20", "0%", "-5%", "infinity", "1.234%", "")),
        *(("cpu_weight", bad) for bad in ("0", "10001", "Idle", "1.5", "")),
        *(("tasks_max", bad) for bad in ("0", "-1", "1K", "0%", "200%", "")),
        *(("io_weight", bad) for bad in ("0", "10001", "idle")),
    ],
)
def test_a_bad_limit_is_refused_with_the_expected_form(option: str, text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        read(option, text)


def test_a_task_without_limits_asks_nothing_of_the_machine() -> None:
    def whole() -> Whole:
        raise AssertionError

    assert (named(task("a")), limits_of(task("a"), whole)) == ([], [])


def test_each_file_of_a_limit_has_a_text_that_removes_it() -> None:
    some = {"memory_max": "1G", "memory_high": "1G", "cpu_quota": "5%", "tasks_max": "5", "io_weight": "5"}
    assert {*files(**some, cpu_weight="5")} == {*UNLIMITED}
    assert {*named(replace(task("a"), **{name: read(name, text) for name, text in some.items()}))} == {*some}
    assert {*some, "cpu_weight"} == {*CONTROLLERS}
