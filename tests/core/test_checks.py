"""core/checks: faults and warnings about several elements together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from counting import calls_in
from hypothesis import given
from hypothesis import strategies as st

from zmsvc.core.checks import Fault, config_warnings, faults, monitor_endpoints, warnings
from zmsvc.core.listening import ListenSocket
from zmsvc.core.model import (
    Action,
    Context,
    DeviceEndpoints,
    EndCondition,
    Rule,
    TaskDefinition,
    Threshold,
    Trigger,
)
from zmsvc.core.service_options import Limits, Restart, ServiceType
from zmsvc.core.values import Endpoint, endpoint

LOCAL = DeviceEndpoints(
    subscribe_endpoint="tcp://127.0.0.1:5556",
    publish_endpoint="tcp://127.0.0.1:5557",
    publish_bind="tcp://127.0.0.1:5557",
    subscribe_bind="tcp://127.0.0.1:5556",
)


def rule(words: str) -> Rule:
    trigger, action, call = words.split()
    return Rule(trigger=Trigger(trigger), action=Action(action), call=call)


def task(name: str, *rules: str, **more: Any) -> TaskDefinition:
    return TaskDefinition(id=name, instance="Echo", rules=tuple(map(rule, rules)), **more)


def context_of(*tasks: TaskDefinition, endpoints: DeviceEndpoints = LOCAL, binds: bool = True) -> Context:
    """Return a context whose file has elements for its binds, or only the endpoints of clients."""
    own = {"FrontBind": endpoints.publish_bind, "BackendBind": endpoints.subscribe_bind} if binds else {}
    connected = {
        "FrontEndEndpoint": endpoints.subscribe_endpoint,
        "BackendEndpoint": endpoints.publish_endpoint,
    }
    return Context(
        name="T",
        id="c",
        log_name="T",
        endpoints=endpoints,
        tasks={task.id: task for task in tasks},
        source=connected | own,
    )


def warned(*tasks: TaskDefinition, endpoints: DeviceEndpoints = LOCAL) -> list[str]:
    return warnings(context_of(*tasks, endpoints=endpoints))


def binds(**places: str) -> Mapping[str, Endpoint]:
    return {name: endpoint(text, bind=True) for name, text in places.items()}


# Faults.


def test_a_valid_file_has_no_faults() -> None:
    places = binds(
        FrontEndEndpoint="tcp://h:5556",
        BackendEndpoint="tcp://h:5557",
        FrontBind="tcp://*:5557",
        BackendBind="tcp://*:5556",
    )
    assert faults([task("a", "on_exit start b"), task("b")], places) == []


def test_a_duplicate_id_is_a_fault_at_the_later_task() -> None:
    assert [fault.task for fault in faults([task("a"), task("b"), task("a"), task("a")], {})] == [2, 3]


def test_tasks_without_an_id_are_not_duplicates() -> None:
    assert faults([task(""), task("")], {}) == []


def test_a_rule_that_calls_an_unknown_task_is_a_fault_at_that_rule() -> None:
    (fault,) = faults([task("a", "on_exit start a", "on_fail start z")], {})
    assert fault == Fault(text="on_fail calls 'z', expected the id of a task of this context", task=0, rule=1)


@pytest.mark.parametrize(
    ("places", "element"),
    [
        ({"FrontBind": "tcp://*:1", "BackendBind": "tcp://127.0.0.1:1"}, "BackendBind"),
        ({"FrontEndEndpoint": "ipc:///a", "BackendEndpoint": "ipc:///a"}, "BackendEndpoint"),
        ({"FrontBind": "tcp://*:1", "BackendEndpoint": "tcp://h:2"}, "FrontBind"),
        ({"BackendBind": "ipc:///a", "FrontEndEndpoint": "ipc:///b"}, "BackendBind"),
        ({"BackendBind": "ipc:///a", "FrontEndEndpoint": "tcp://h:1"}, "BackendBind"),
    ],
)
def test_colliding_or_missing_ports_are_a_fault(places: dict[str, str], element: str) -> None:
    (fault,) = faults([], binds(**places))
    assert fault.element == element
    assert "expected" in fault.text


# Warnings.


def test_a_plain_context_has_no_warnings() -> None:
    assert (
        warned(
            task("a", "on_fail restart a", "on_exit start b"),
            task("b", "on_fail restart b", "on_update stop a", entry=False),
        )
        == []
    )


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("tcp://*:5557", "every address of this machine. Without CURVE"),
        ("tcp://0.0.0.0:5557", "every address of this machine. Without CURVE"),
        ("tcp://[::]:5557", "every address of this machine. Without CURVE"),
    ],
)
def test_a_bind_that_other_machines_reach_is_warned_about(place: str, words: str) -> None:
    ends = DeviceEndpoints(
        subscribe_endpoint=LOCAL.subscribe_endpoint,
        publish_endpoint=LOCAL.publish_endpoint,
        publish_bind=place,
        subscribe_bind=LOCAL.subscribe_bind,
    )
    (told,) = warned(task("a"), endpoints=ends)
    assert told.startswith(f"FrontBind {place} ")
    assert words in told


def test_with_keys_a_bind_that_other_machines_reach_is_not_warned_about() -> None:
    ends = replace(LOCAL, publish_bind="tcp://*:5557")
    context = context_of(task("a", "on_exit stop a"), endpoints=ends)
    assert any("FrontBind" in each.text for each in config_warnings(context))
    assert not any("FrontBind" in each.text for each in config_warnings(context, curve=True))


def test_a_bind_is_warned_about_by_the_element_that_the_file_has() -> None:
    ends = replace(LOCAL, publish_bind="tcp://*:5557", subscribe_bind="tcp://*:5556")
    found = config_warnings(context_of(task("a"), endpoints=ends, binds=False))
    assert [(each.element, each.text.split()[0]) for each in found] == [
        ("BackendEndpoint", "BackendEndpoint"),
        ("FrontEndEndpoint", "FrontEndEndpoint"),
    ]


def test_a_bind_address_that_differs_from_the_connect_address_is_warned_about() -> None:
    ends = DeviceEndpoints(
        subscribe_endpoint="tcp://10.0.0.1:5556",
        publish_endpoint=LOCAL.publish_endpoint,
        publish_bind=LOCAL.publish_bind,
        subscribe_bind=LOCAL.subscribe_bind,
    )
    assert warned(task("a"), endpoints=ends) == [
        "BackendBind tcp://127.0.0.1:5556 is another address than tcp://10.0.0.1:5556, to which clients connect"
    ]


def test_a_task_that_nothing_starts_is_warned_about() -> None:
    told = warned(
        task("a", "on_exit stop b"), task("b", "on_exit start c", entry=False), task("c", entry=False)
    )
    assert told == [
        "b: it waits for a rule, and no rule starts it",
        "c: it waits for a rule, and only tasks that nothing starts call it",
    ]


def test_a_context_without_any_entry_is_warned_about() -> None:
    assert warned(task("a", entry=False))[0].startswith("no task starts with its transaction")


def test_a_ring_of_rules_is_shown_in_its_order() -> None:
    told = warned(
        task("a", "on_exit start b"),
        task("b", "on_update restart c"),
        task("c", "on_fail start a", "on_exit stop a"),
    )
    assert told == [
        "ring of rules, which is legal but may run forever: a -[on_exit: start]-> b -[on_update: "
        "restart]-> c -[on_fail: start]-> a"
    ]


def test_a_task_whose_on_exit_starts_itself_is_a_ring() -> None:
    assert warned(task("a", "on_exit start a")) == [
        "ring of rules, which is legal but may run forever: a -[on_exit: start]-> a"
    ]
    assert "ring" in warned(task("a", "on_start restart a"))[0]


def test_a_task_that_always_restarts_is_not_a_ring() -> None:
    assert warned(task("a", "on_exit restart a", restart=Restart.ALWAYS)) == []


def test_a_task_whose_on_fail_restarts_itself_is_not_a_ring() -> None:
    assert warned(task("a", "on_fail restart a"), task("b", "on_fail start b")) == []


def test_every_ring_is_reported_once() -> None:
    told = warned(
        task("a", "on_exit start b"),
        task("b", "on_exit start a"),
        task("c", "on_exit start d", "on_exit start a"),
        task("d", "on_exit start c"),
    )
    assert len(told) == 2


def test_the_work_for_a_chain_of_rules_is_in_proportion_to_its_length() -> None:
    def ring(size: int) -> list[TaskDefinition]:
        many = [task(f"t{at}", f"on_exit start t{at + 1}", entry=not at) for at in range(size - 1)]
        return [*many, task(f"t{size - 1}", "on_exit start t0")]

    small, large = ring(500), ring(5000)
    told: list[str] = []
    assert calls_in(lambda: told.extend(warned(*large))) < 20 * calls_in(lambda: warned(*small))
    assert told[0].count("->") == 5000


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("on_start stop a", "it stops itself"),
        ("on_update stop a", "it stops itself"),
        ("on_exit stop a", "it has already ended"),
        ("on_start start a", "it does nothing"),
        ("on_recover stop a", "it stops itself"),
        ("on_recover start a", "it does nothing"),
    ],
)
def test_a_rule_that_a_task_aims_at_itself_is_warned_about(words: str, why: str) -> None:
    (told,) = warned(task("a", words))
    assert told.startswith("a: the rule ")
    assert why in told


def conditional(words: str, *when: str, after: Threshold | None = None) -> Rule:
    ends = tuple(EndCondition(reason=each) for each in when)
    return replace(rule(words), when=ends, after=after)


def test_a_rule_with_a_useless_condition_is_warned_about() -> None:
    other = task("b")
    vain = replace(task("a"), rules=(conditional("on_fail start b", "watchdog", "oom-kill"),))
    assert warned(vain, other) == [
        "a: the rule on_fail: start b, when watchdog oom-kill names an end that cannot happen: the task has no <watchdog>, "
        "so it never fails by watchdog"
    ]
    counting = conditional("on_fail start b", after=Threshold(count=3, within=60.0))
    both = replace(task("a", "on_fail start b"), rules=(rule("on_fail start b"), counting))
    assert warned(both, other) == [
        "a: the rule on_fail: start b, after 3 in 60s has no effect beside the rule on_fail: start b"
    ]
    different = (counting, conditional("on_fail start b", "oom-kill"), rule("on_exit start b"))
    assert warned(replace(task("a"), rules=different), other) == []


def test_a_count_that_the_delays_between_restarts_do_not_reach_is_warned_about() -> None:
    rules = (rule("on_fail restart a"), conditional("on_fail start b", after=Threshold(count=5, within=60.0)))
    slow, quick = (Limits(restart_delay=delay, restart_max_delay=120.0) for delay in (10.0, 1.0))
    made = replace(task("a", limits=slow), rules=rules)
    assert warned(made, task("b")) == [
        "a: the rule on_fail: start b, after 5 in 60s is about 5 failures within 60 s, and the delays between "
        "restarts of the task by its own rule take 150 s"
    ]
    assert warned(replace(made, limits=quick), task("b")) == []
    assert warned(replace(made, rules=rules[1:]), task("b")) == [], (
        "orders and other tasks may start it at once"
    )


def test_a_task_that_restarts_itself_when_it_has_recovered_is_not_a_ring() -> None:
    assert warned(task("a", "on_recover restart a")) == []
    assert "ring of rules" in warned(task("a", "on_recover restart b"), task("b", "on_start restart a"))[0]


def test_a_duplicate_rule_is_warned_about() -> None:
    assert warned(task("a", "on_exit start b", "on_exit start b"), task("b")) == [
        "a: the rule on_exit: start b occurs 2 times"
    ]


def test_reserved_environment_variables_are_warned_about() -> None:
    assert "NOTIFY_SOCKET" in warned(task("a", environment={"NOTIFY_SOCKET": "/x", "HOME": "/"}))[0]


def test_a_watchdog_of_a_command_is_warned_about() -> None:
    limits = Limits(watchdog=1.0)
    assert "WATCHDOG=1" in warned(task("a", service_type=ServiceType.COMMAND, limits=limits))[0]
    assert warned(task("a", limits=limits)) == []


def test_an_unknown_state_type_is_warned_about() -> None:
    odd, old = ({"Task": {"state": {"type": kind}}} for kind in ("on_strat", "on_update"))
    assert warned(task("a", source=odd))[0] == (
        "a: its state type 'on_strat' is none of on_start, start_now, on_update, on_fail, on_exit: it waits for a rule"
    )
    assert warned(task("a", source=old)) == []


def test_threads_that_cannot_share_a_process_are_warned_about() -> None:
    kind = ServiceType.THREAD
    told = warned(
        task("a", service_type=kind, user="x"), task("b", service_type=kind, user="z"), task("c", user="y")
    )
    assert told == ["the Thread tasks a, b share one process, but differ in user"]


RULES = st.builds(
    lambda trigger, action, call: Rule(trigger=trigger, action=action, call=call),
    st.sampled_from(Trigger),
    st.sampled_from(Action),
    st.sampled_from("abcde"),
)


@given(st.lists(st.tuples(st.booleans(), st.lists(RULES, max_size=4)), min_size=5, max_size=5))
def test_every_reported_ring_exists_in_the_rules(drawn: list[tuple[bool, list[Rule]]]) -> None:
    tasks = [
        TaskDefinition(id=name, instance="Echo", entry=entry, rules=tuple(rules))
        for name, (entry, rules) in zip("abcde", drawn, strict=True)
    ]
    known = {
        (task.id, f"-[{rule.trigger}: {rule.action}]->", rule.call) for task in tasks for rule in task.rules
    }
    for told in warned(*tasks):
        if told.startswith("ring"):
            words = told.split(": ", 1)[1].replace(": ", ":").split()
            steps = [
                (a, arrow.replace(":", ": "), b)
                for a, arrow, b in zip(words[::2], words[1::2], words[2::2], strict=False)
            ]
            assert words[0] == words[-1]
            assert set(steps) <= known


@pytest.mark.parametrize(
    ("instance", "configuration", "places"),
    [
        ("Monitor", {"service": {"endpoint": "tcp://127.0.0.1:1"}}, ["tcp://127.0.0.1:1"]),
        ("Monitor", {"publisher": {"endpoint": "ipc:///run/x"}}, ["ipc:///run/x"]),
        ("Monitor", {"service": {"endpoint": "inproc://x"}}, []),
        ("Monitor", {"service": {"endpoint": ["tcp://127.0.0.1:1"]}}, []),
        ("Monitor", {"service": {}, "publisher": "tcp://127.0.0.1:1"}, []),
        ("Echo", {"service": {"endpoint": "tcp://127.0.0.1:1"}}, []),
    ],
)
def test_the_endpoints_of_a_monitor_are_those_that_it_can_bind(
    instance: str, configuration: Mapping[str, Any], places: list[str]
) -> None:
    assert monitor_endpoints(TaskDefinition(id="m", instance=instance, configuration=configuration)) == places


def test_a_signal_that_would_be_a_clean_end_of_a_thread_is_warned_about() -> None:
    statuses = (3, "SIGKILL")
    (told,) = warned(task("a", service_type=ServiceType.THREAD, success_exit_status=statuses))
    assert told == (
        "a: it is a Thread task, which no signal ends alone: SIGKILL in its <success_exit_status> has no effect"
    )
    assert warned(task("a", success_exit_status=statuses)) == []


def test_a_topic_of_zmsvc_in_a_last_value_is_warned_of() -> None:
    kept = {"subscribe": ["control", "temperature", "zmsvc.record"]}
    assert warned(task("a", retains=True, configuration=kept)) == [
        f"a: its <subscribe> '{name}' is a topic of zmsvc itself, and a LastValue keeps no message of those"
        for name in ("control", "zmsvc.record")
    ]
    assert warned(task("a", retains=True, configuration={"subscribe": "temperature"})) == []
    assert warned(task("a", configuration=kept)) == []


def test_a_task_that_only_the_context_calls_is_reached() -> None:
    alert = task("alert", entry=False)
    lone = Context(name="T", id="c", log_name="T", endpoints=LOCAL, tasks={"a": task("a"), "alert": alert})
    assert any("no rule starts it" in text for text in warnings(lone))
    told = replace(lone, on_any_fail=(rule("on_any_fail start alert"),))
    assert not any("no rule starts it" in text for text in warnings(told))


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"memory_high": 2, "memory_max": 2}, "its <memory_high> is not below its <memory_max>"),
        (
            {"memory_restart": "50%", "memory_max": "49.9%"},
            "its <memory_restart> is not below its <memory_max>",
        ),
        ({"memory_restart": 1, "memory_high": 1, "memory_max": 2}, ""),
        ({"memory_restart": 5, "memory_high": 5}, ""),
        ({"memory_restart": 1 << 40, "memory_max": "1%"}, ""),
    ],
)
def test_a_limit_of_memory_that_another_one_makes_useless_is_a_warning(
    limits: dict[str, int | str], told: str
) -> None:
    found = warned(task("a", **limits))
    assert [each for each in found if told in each] == found
    assert len(found) == (1 if told else 0)


# Order.


def test_a_ring_of_after_and_requires_is_a_fault_that_names_it() -> None:
    tasks = [
        task("a", after=("b", "x")),
        task("b", requires=("c",)),
        task("c", after=("a",)),
        task("x"),
        task("d", after=("a",)),
        task("e", requires=("e",)),
    ]
    found = faults(tasks, {})
    assert [(fault.text.split(": ", 1)[1].split(",")[0], fault.task, fault.option) for fault in found] == [
        ("a after b after c after a", 0, "after"),
        ("e after e", 5, "requires"),
    ]


def test_order_without_a_ring_has_no_fault_however_long() -> None:
    names = [f"t{number}" for number in range(3000)]
    tasks = [task(name, after=tuple(names[max(0, at - 2) : at])) for at, name in enumerate(names)]
    assert faults(tasks[::-1], {}) == []


def test_the_work_of_a_check_is_in_proportion_to_the_number_of_tasks() -> None:
    def ring_with_tail(size: int) -> list[TaskDefinition]:
        """A chain in which each task waits for the next one, and that ends in rings of two."""
        half = size // 2
        chain = [task(f"t{at}", after=(f"t{at + 1}",)) for at in range(half)]
        rings = [task(f"t{at}", after=(f"t{at ^ 1}", f"t{at + 2}")) for at in range(half, size - 2)]
        return [*chain, *rings, task(f"t{size - 2}"), task(f"t{size - 1}")]

    def with_sockets(size: int) -> list[TaskDefinition]:
        sockets = [ListenSocket(address=f"tcp://127.0.0.1:{port}") for port in range(1000, 1000 + size)]
        return [task(f"t{at}", listen=(each,)) for at, each in enumerate(sockets)]

    def backward(size: int) -> list[TaskDefinition]:
        return [task(f"t{at}", after=(f"t{at + 1}",)) for at in range(size - 1)] + [task(f"t{size - 1}")]

    def unknown(size: int) -> list[TaskDefinition]:
        return [task(f"t{at}", f"on_exit start x{at}", after=(f"y{at}",)) for at in range(size)]

    def work(tasks: list[TaskDefinition]) -> tuple[int, int]:
        told: list[Fault] = []
        return calls_in(lambda: told.extend(faults(tasks, {}))), len(told)

    for made, expected in ((ring_with_tail, 1249), (with_sockets, 0), (backward, 0), (unknown, 10_000)):
        (calls, found), (calls_of_few, _) = work(made(5000)), work(made(500))
        assert calls < 20 * calls_of_few, made
        assert found == expected


def test_after_and_requires_of_an_unknown_task_are_faults() -> None:
    (fault,) = faults([task("ts_1", requires=("ts_2",), after=()), task("ts_22")], {})
    assert fault.text.startswith("<requires> names 'ts_2', expected the id of a task of this context")
    assert (fault.task, fault.option, fault.word) == (0, "requires", "ts_2")


def test_a_required_task_is_reached() -> None:
    tasks = (task("a", requires=("b",)), task("b", entry=False))
    assert not any("it waits for a rule" in text for text in warned(*tasks))
    assert any("it waits for a rule" in text for text in warned(task("a", after=("b",)), tasks[1]))


def test_each_rule_of_a_task_that_counts_adds_little_work_to_the_check() -> None:
    own = rule("on_fail restart a")

    def work(size: int) -> int:
        counting = [
            replace(
                own,
                when=(EndCondition(reason="exit-code", detail=number + 1),),
                after=Threshold(count=100, within=60.0),
            )
            for number in range(size)
        ]
        one = TaskDefinition(id="a", instance="Echo", rules=tuple(counting))
        made = context_of(one)
        assert sum("the delays between restarts" in each for each in warnings(made)) == size
        return calls_in(lambda: warnings(made))

    assert work(80) < work(20) + 60 * 200


@pytest.mark.parametrize(
    ("address", "given", "fault"),
    [
        ("tcp://127.0.0.1:1", {"mode": 0o600}, True),
        ("tcp://127.0.0.1:1", {"user": "www"}, True),
        ("ipc://@abstract", {"group": "www"}, True),
        ("tcp://127.0.0.1:1", {}, False),
        ("ipc:///run/x", {"mode": 0o600, "user": "www", "group": "www"}, False),
    ],
)
def test_the_owner_and_the_mode_of_a_socket_are_for_a_path(
    address: str, given: dict[str, Any], fault: bool
) -> None:
    found = faults([task("a", listen=(ListenSocket(address=address, **given),))], {})
    assert [each.text.partition(" has a mode, user or group,")[0] for each in found] == (
        [f"<listen> {address}"] if fault else []
    )
