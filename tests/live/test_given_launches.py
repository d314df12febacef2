"""A launch that comes alone is given to the spare task, which was forked and warmed up before. It makes no
other difference: whatever dies, a task runs once, and no process is left.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from context import Context
from waiting import stop_process, wait_for, wait_for_end, wait_until_it_sleeps

NAME = "zmsvc-spare"
RESTART = {"on_fail": ("restart", "ts_1")}
QUICK = "<restart_delay>0</restart_delay><restart_max_delay>0</restart_max_delay>"


def spare_of(context: Context) -> int:
    """Wait until the keeper can give a launch to its spare task. Return its PID."""

    def found() -> int:
        pids = context.spare_tasks()
        assert len(pids) == 1, pids
        # It gets this title when it has told the keeper that it is ready.
        assert Path(f"/proc/{pids[0]}/cmdline").read_bytes().startswith(NAME.encode())
        return pids[0]

    spare = wait_for(found)
    # The zygote sleeps when it has told the keeper this PID.
    wait_until_it_sleeps(context.zygote())
    return spare


def started(context: Context, service: str = "", kind: str = "Process") -> int:
    """Start a context with one task, which restarts when it fails. Return the PID of its spare task."""
    if kind == "Process":
        context.looped("Echo")
        context.task("ts_1", "Echo", service=QUICK + service, rules=RESTART)
    else:
        (context.home / "Services").mkdir()
        config = "<command>sleep 1000</command>"
        context.task("ts_1", "Sleep", kind=kind, config=config, service=QUICK + service, rules=RESTART)
    context.start("--transaction", "T")
    context.task_is("ts_1", "running")
    return spare_of(context)


def killed(context: Context) -> dict[str, object]:
    """Kill the task, and return its entry in `status` when it runs again."""
    before = context.tasks()["ts_1"]["pid"]
    os.kill(before, signal.SIGKILL)
    return context.task_is("ts_1", "running", also=lambda task: task["pid"] != before)


@pytest.mark.parametrize("kind", ["Process", "Command"])
def test_a_task_that_fails_alone_is_replaced_by_the_spare_task(context: Context, kind: str) -> None:
    spare = started(context, kind=kind)
    again = killed(context)
    assert again["pid"] == spare
    name = "sleep" if kind == "Command" else "ts_1"
    wait_for(lambda: Path(f"/proc/{spare}/comm").read_text().strip() == name)
    assert os.getsid(spare) == spare
    next_one = spare_of(context)
    assert killed(context)["pid"] == next_one


def test_a_spare_task_is_no_task_of_the_context(context: Context) -> None:
    spare = started(context)
    assert [task["pid"] for task in context.tasks().values()] != [spare]
    assert str(spare) not in context.ctl("status").stdout
    environment = Path(f"/proc/{spare}/environ").read_bytes()
    assert b"ZMSVC_LAUNCH=" not in environment


def test_a_spare_task_that_is_killed_is_replaced_after_the_next_launch(context: Context) -> None:
    spare = started(context)
    os.kill(spare, signal.SIGKILL)
    wait_for(lambda: not context.spare_tasks())
    again = killed(context)
    assert again["launch"] == 2
    assert spare_of(context) not in (spare, again["pid"])


def test_a_launch_goes_elsewhere_if_the_spare_task_has_died_at_the_same_moment(context: Context) -> None:
    """The keeper gives the launch to a dead process, which has not read it. So it is forked."""
    spare = started(context)
    assert context.daemon is not None
    before = context.tasks()["ts_1"]["pid"]
    stop_process(context.daemon.pid)
    os.kill(spare, signal.SIGKILL)
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: Path(f"/proc/{spare}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    os.kill(context.daemon.pid, signal.SIGCONT)
    again = context.task_is("ts_1", "running", also=lambda task: task["pid"] != before)
    assert again["pid"] != spare
    assert again["launch"] == 2


def test_a_spare_task_that_dies_with_its_launch_unread_is_a_task_that_has_failed(context: Context) -> None:
    spare = started(context)
    stop_process(spare)
    before = context.tasks()["ts_1"]["pid"]
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: context.tasks()["ts_1"]["pid"] == spare)
    os.kill(spare, signal.SIGKILL)
    again = context.task_is("ts_1", "running", also=lambda task: task["pid"] not in (before, spare))
    assert again["launch"] == 3


def test_a_spare_task_ends_with_its_zygote(context: Context) -> None:
    spare = started(context)
    os.kill(context.zygote(), signal.SIGKILL)
    wait_for_end(spare)
    again = killed(context)
    assert spare_of(context) not in (spare, again["pid"])


def test_a_spare_task_stays_when_the_supervisor_dies_and_serves_the_next_one(context: Context) -> None:
    spare = started(context)
    context.kill_supervisor()
    context.task_is("ts_1", "running")
    assert killed(context)["pid"] == spare


@pytest.mark.parametrize("stopped", [False, True])
def test_a_spare_task_does_not_survive_the_keeper(context: Context, stopped: bool) -> None:
    spare = started(context)
    if stopped:
        stop_process(spare)
    assert context.daemon is not None
    context.daemon.kill()
    context.wait()
    wait_for_end(spare)


def test_no_spare_task_is_left_when_the_context_has_ended(context: Context) -> None:
    spare = started(context)
    assert context.stop() == 0
    wait_for_end(spare)
    assert not Path(f"/proc/{spare}").exists()


def test_a_reload_of_the_file_applies_to_a_task_that_was_a_spare_task(context: Context) -> None:
    """A spare task knows nothing of the file: what it becomes is all in its launch."""
    spare = started(context)
    context.clear_tasks()
    context.task("ts_1", "Echo", service=QUICK + "<nice>7</nice>", rules=RESTART)
    context.write()
    context.ctl("reload")
    before = context.tasks()["ts_1"]["pid"]
    if before != spare:
        os.kill(before, signal.SIGKILL)
        context.task_is("ts_1", "running", also=lambda task: task["pid"] == spare)
    assert os.getpriority(os.PRIO_PROCESS, spare) == 7


def test_without_the_shortcut_there_is_no_spare_task(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo", service=QUICK, rules=RESTART)
    context.start("--transaction", "T", ZMSVC_DISABLE="spare-tasks")
    killed(context)
    again = killed(context)
    assert not context.spare_tasks()
    assert again["launch"] == 3


@pytest.mark.parametrize("option", ["<tasks_max>40</tasks_max>", "<memory_max>200M</memory_max>"])
def test_a_task_that_is_replaced_runs_in_its_control_group_with_its_limits(
    grouped: Context, option: str
) -> None:
    """A fork may begin in its control group (clone3). There the first spare task ends, and no other follows.
    A task whose memory is limited is forked everywhere, because the memory of a spare task counts elsewhere.
    """
    grouped.looped("Echo")
    grouped.task("ts_1", "Echo", service=QUICK + option, rules=RESTART)
    grouped.start("--transaction", "T")
    first = grouped.task_is("ts_1", "running")
    for _ in range(3):
        spares = grouped.spare_tasks()
        again = killed(grouped)
        group = Path(str(again["cgroup"]))
        assert group == Path(str(first["cgroup"]))
        assert str(again["pid"]) in (group / "cgroup.procs").read_text().split()
        assert again["pid"] not in spares or "memory" not in option
        if (group / "pids.max").exists() and "tasks_max" in option:
            assert (group / "pids.max").read_text().strip() == "40"
    assert grouped.ask(verb="stop", tasks=["ts_1"])["ok"]
    grouped.task_is("ts_1", "stopped")
    wait_for(lambda: not Path(str(first["cgroup"])).exists())
