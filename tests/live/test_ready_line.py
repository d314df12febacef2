"""A Command that is ready when it has written a certain line: `<ready line="PATTERN"/>`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from context import Context
from test_output_of_tasks import command, lines, output_process
from waiting import wait_for, wait_for_end

LINE = '<ready line="^up on [0-9]+$"/>'


def waiting(context: Context, script: str, service: str = LINE) -> Path:
    """Add and start a task that runs a script when a file exists. Return the file."""
    sign = context.home / "sign"
    command(
        context,
        "ts",
        f"echo not up on 1; printf 'up '; until test -e {sign}; do sleep 0.02; done; {script}",
        service=service,
    )
    context.start("--transaction", "TX", ready=False)
    wait_for(lambda: ("Ts", "TX/ts", "INFO", "not up on 1") in lines(context))
    context.task_is("ts", "start")
    return sign


@pytest.mark.parametrize("stream", [1, 2])
def test_a_command_is_ready_when_it_has_written_its_line(context: Context, stream: int) -> None:
    sign = waiting(context, f"echo on 1 >&{stream}; exec sleep 3600")
    why = context.ctl("why", "ts").stdout
    assert "has to write the line of its <ready>" in why
    sign.touch()
    context.wait_for_notification("READY=1")
    context.task_is("ts", "running")
    # The output process reports the line before it writes it.
    wait_for(lambda: ("Ts", "TX/ts", "INFO", "up on 1") in lines(context))


def test_the_line_counts_if_supervisor_or_output_process_die_before_it_comes(context: Context) -> None:
    sign = waiting(context, "echo; echo up on 2; exec sleep 3600")
    context.kill_supervisor()
    output = output_process(context)
    os.kill(output, signal.SIGKILL)
    wait_for_end(output)
    sign.touch()
    context.task_is("ts", "running")


def test_the_line_counts_if_it_comes_while_supervisor_and_output_process_do_not_run(context: Context) -> None:
    sign = waiting(context, "echo; echo up on 2; echo > $0.done; exec sleep 3600")
    supervisor, output = context.status()["pid"], output_process(context)
    os.kill(output, signal.SIGSTOP)
    os.kill(supervisor, signal.SIGSTOP)
    sign.touch()
    wait_for(lambda: (context.home / "ts.sh.done").exists())
    # The line is in the pipe, which the next output process gets, or is reported to the next supervisor.
    os.kill(output, signal.SIGCONT)
    wait_for(lambda: ("Ts", "TX/ts", "INFO", "up on 2") in lines(context))
    os.kill(supervisor, signal.SIGKILL)
    wait_for_end(supervisor)
    context.task_is("ts", "running")
    context.kill_supervisor()
    context.task_is("ts", "running")


def test_a_command_that_does_not_write_its_line_in_time_is_not_ready(context: Context) -> None:
    service = f"{LINE}<start_timeout>500ms</start_timeout>"
    command(context, "ts", "echo not up on 1; exec sleep 3600", service=service)
    context.start("--transaction", "TX")
    assert context.task_is("ts", "failed")["exit"]["reason"] == "not-ready"
