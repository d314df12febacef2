"""Health of programs that do not speak: the probes of `<health>` and `<ready>`, and the process that runs
them.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest
from context import Context, Subscriber
from groups import delegated
from needs import need
from waiting import wait_for, wait_for_end

from zmsvc.host.kernel import cgroups

SLEEP = "<command>sleep 3600</command>"
FAST = 'interval="20ms"'


def command(context: Context, task: str = "ts_1", **more: Any) -> None:
    """Add a program that says nothing."""
    (context.home / "Services").mkdir(exist_ok=True)
    context.task(task, "Sleeper", kind="Command", config=SLEEP, **more)


def probed(context: Context, name: str = "health", more: str = FAST, **rest: Any) -> Path:
    """Add a task whose probe fails while a file exists. Return the file."""
    sign = context.home / "sick"
    exec_probe = f"exec=\"sh -c 'test ! -e {sign} || {{ echo It hurts; exit 7; }}'\""
    service = f"<{name} {exec_probe} {more}/>{rest.pop('service', '')}"
    command(context, service=service, **rest)
    return sign


def has_health(context: Context, health: str) -> dict[str, Any]:
    def fact() -> dict[str, Any]:
        task = context.tasks()["ts_1"]
        assert task["health"] == health, task
        return task

    return wait_for(fact)


def probe_process(context: Context) -> int:
    """Return the PID of the process that runs the probes of ts_1."""

    def found() -> int:
        return next((pid for pid, name in context.children().items() if name.startswith("ts_1-")), 0)

    return wait_for(found)


def test_an_unhealthy_task_is_shown_and_becomes_healthy_again(context: Context) -> None:
    sign = probed(context, more=f'{FAST} retries="1000"')
    context.start("--transaction", "T")
    pid = has_health(context, "healthy")["pid"]
    sign.touch()
    task = has_health(context, "unhealthy")
    assert task["health_text"] == "exit status 7: It hurts"
    assert task["sub"] == "running"
    assert "Unhealthy: exit status 7: It hurts" in context.ctl("status", check=None).stdout
    shown = context.ctl("show", "-p", "Health,HealthText", "ts_1").stdout
    assert shown == "Health=unhealthy\nHealthText=exit status 7: It hurts\n"
    sign.unlink()
    assert has_health(context, "healthy")["pid"] == pid
    events = [each["event"] for each in map(json.loads, context.ctl("--json", "events").stdout.splitlines())]
    assert [each for each in events if each in ("unhealthy", "healthy")] == ["unhealthy", "healthy"]


def test_a_task_that_stays_unhealthy_has_failed_and_its_rules_fire(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    sign = probed(context, more=f'{FAST} retries="2"', rules={"on_fail": ("start", "ts_2")})
    command(context, "ts_2", entry=False)
    context.start("--transaction", "T")
    has_health(context, "healthy")
    heard = subscriber()
    sign.touch()
    status = heard.control("failed", "ts_1")["content"]["status"]
    assert (status["reason"], status["signal"]) == ("unhealthy", "SIGTERM")
    assert status["message"] == "unhealthy: exit status 7: It hurts"
    task = context.task_is("ts_1", "failed")
    assert (task["exit"]["reason"], task["pid"], task["health"]) == ("unhealthy", None, None)
    context.task_is("ts_2", "running")
    wait_for(lambda: not [name for name in context.children().values() if name.startswith("ts_1-")])


def test_failures_in_the_start_period_do_not_count_until_the_first_success(context: Context) -> None:
    count = context.home / "count"
    sign = context.home / "sick"
    sign.touch()
    script = f"echo >> {count}; test ! -e {sign}"
    probe = f'<health exec="sh -c \'{script}\'" {FAST} start_period="1h" retries="1"/>'
    command(context, service=probe)
    context.start("--transaction", "T")
    wait_for(lambda: count.exists() and len(count.read_text()) > 5)
    assert context.tasks()["ts_1"]["health"] == "starting"
    sign.unlink()
    has_health(context, "healthy")
    sign.touch()
    assert context.task_is("ts_1", "failed")["exit"]["reason"] == "unhealthy"


def test_a_command_is_ready_when_its_probe_succeeds(context: Context) -> None:
    sign = probed(context, "ready", FAST)
    sign.touch()
    context.start("--transaction", "T", ready=False)
    wait_for(lambda: (context.runtime / "Live" / "control.sock").exists())
    context.task_is("ts_1", "start")
    probe_process(context)
    sign.unlink()
    context.wait_for_notification("READY=1")
    task = context.task_is("ts_1", "running")
    assert task["health"] is None
    wait_for(lambda: not [name for name in context.children().values() if name.startswith("ts_1-")])


def test_a_command_whose_probe_never_succeeds_is_not_ready_in_time(context: Context) -> None:
    sign = probed(context, "ready", FAST, service="<start_timeout>500ms</start_timeout>")
    sign.touch()
    context.start("--transaction", "T")
    assert context.task_is("ts_1", "failed")["exit"]["reason"] == "not-ready"


def test_a_probe_process_that_dies_is_started_again_and_the_task_goes_on(context: Context) -> None:
    sign = probed(context, more=f'{FAST} retries="1000"')
    context.start("--transaction", "T")
    pid = has_health(context, "healthy")["pid"]
    first = probe_process(context)
    os.kill(first, signal.SIGKILL)
    wait_for_end(first)
    wait_for(lambda: probe_process(context) != first)
    sign.touch()
    assert has_health(context, "unhealthy")["pid"] == pid
    wait_for(lambda: "probe-ended name=health signal=SIGKILL delay=1.0" in context.log.read_text())


def test_a_supervisor_that_crashes_keeps_the_probe_process(context: Context) -> None:
    sign = probed(context, more=f'{FAST} retries="1000"')
    context.start("--transaction", "T")
    has_health(context, "healthy")
    before = probe_process(context)
    context.kill_supervisor()
    sign.touch()
    has_health(context, "unhealthy")
    assert probe_process(context) == before
    assert "stranger" not in context.log.read_text()


def test_a_probe_runs_in_the_place_and_with_the_environment_of_its_task(context: Context) -> None:
    place, found, script = (context.home / name for name in ("place", "found", "probe.sh"))
    place.mkdir()
    script.write_text(f'echo "$PWD $COLOR $MAINPID $(umask)" > {found}')
    command(
        context,
        service=f'<health exec="sh {script}" {FAST}/><working_directory>{place}</working_directory>'
        "<umask>027</umask><environment><COLOR>blue</COLOR></environment>",
    )
    context.start("--transaction", "T")
    pid = has_health(context, "healthy")["pid"]
    # Each probe writes the file again.
    wait_for(lambda: found.read_text() == f"{place} blue {pid} 0027\n")


def test_a_stop_leaves_no_probe_and_counts_none_as_left_behind(either: Context) -> None:
    context = either
    command(context, service=f'<health exec="sleep 3600" {FAST}/>')
    context.start("--transaction", "T")
    probes = wait_for(lambda: psutil.Process(probe_process(context)).children())
    context.ctl("stop", "--task", "ts_1")
    task = context.task_is("ts_1", "stopped")
    assert task["ended"] == []
    for pid in (each.pid for each in probes):
        wait_for_end(pid)


@pytest.mark.parametrize("grouped", [False, True], ids=["sessions", "groups"])
def test_a_probe_runs_as_the_user_and_in_the_group_of_its_task(context: Context, grouped: bool) -> None:
    need(os.geteuid() == 0, "only root can run tasks of several users")
    context.home.chmod(0o755)
    script = context.home / "probe.sh"
    script.write_text("id -un; exit 1")
    service = f'<user>daemon</user><health exec="sh {script}" {FAST} retries="1000"/>'
    command(context, service=service)
    with delegated() if grouped else nullcontext([]) as wrapper:
        context.wrapper = wrapper
        context.start("--transaction", "T")
        task = has_health(context, "unhealthy")
        assert task["health_text"] == "exit status 1: daemon"
        process = psutil.Process(probe_process(context))
        assert process.uids().effective == pwd.getpwnam("daemon").pw_uid
        if grouped:
            group = cgroups.of_process(process.pid)
            assert group.startswith(f"{cgroups.of_process(task['pid'])}/.zmsvc-")
        context.close()
