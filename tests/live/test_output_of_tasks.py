"""Without journald each line is marked with its task, in the file and on standard error; tasks cannot open the
file or the terminal.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from context import Context
from waiting import PATIENCE, stop_process, wait_for, wait_for_end, wait_for_line

HEAD = re.compile(r"\d{4}-\d\d-\d\dT\S+ (\S+)\[(\d+)\] (?:(\S+) )?([A-Z]+): (.*)")


def lines(context: Context) -> list[tuple[str, str, str, str]]:
    """Return identifier, `TRANSACTION/TASK`, level and text of all entries in the log file."""
    found = []
    for line in log_file(context).read_text(errors="replace").splitlines():
        if match := HEAD.fullmatch(line):
            found.append((match[1], match[3] or "", match[4], match[5]))
    return found


def log_file(context: Context) -> Path:
    return context.home / "state" / context.name / "zmsvcd.log"


def output_process(context: Context) -> int:
    """Return the PID of the output process, when it has set its name."""
    return wait_for(
        lambda: next((pid for pid, name in context.children().items() if name == "zmsvc-output"), 0)
    )


def command(context: Context, task: str, script: str, instance: str = "", **more: object) -> None:
    (context.home / "Services").mkdir(exist_ok=True)
    path = context.home / f"{task}.sh"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    context.task(task, instance or task.title(), kind="Command", config=f"<command>{path}</command>", **more)  # type: ignore[arg-type]


SPEAKER = """
def step(self):
    import os, subprocess
    self.log.info("logged %s", self.service_id)
    print("printed", self.service_id)
    os.write(2, b"native " + self.service_id.encode() + b"\\n")
    subprocess.run(["echo", "program of " + self.service_id])
"""


def test_each_line_has_its_task_in_the_file_and_on_standard_error(context: Context) -> None:
    for name in ("alpha", "beta"):
        command(context, name, f"echo out of {name}; echo '<3>bad of {name}' >&2; exec sleep 3600")
    context.looped("Speaker", SPEAKER)
    context.task("py", "Speaker")
    context.start("--transaction", "TX")
    wanted = {
        ("Alpha", "TX/alpha", "INFO", "out of alpha"),
        ("Alpha", "TX/alpha", "ERROR", "bad of alpha"),
        ("Beta", "TX/beta", "INFO", "out of beta"),
        ("Beta", "TX/beta", "ERROR", "bad of beta"),
        ("Speaker", "TX/py", "INFO", "logged py"),
        ("Speaker", "TX/py", "INFO", "printed py"),
        ("Speaker", "TX/py", "INFO", "native py"),
        ("Speaker", "TX/py", "INFO", "program of py"),
    }
    wait_for(lambda: wanted <= set(lines(context)))
    wait_for(lambda: wanted <= {(m[1], m[3], m[4], m[5]) for m in HEAD.finditer(context.log.read_text())})


def test_tasks_that_share_a_process_have_their_own_names(context: Context) -> None:
    context.looped("Speaker", SPEAKER)
    for name in ("one", "two"):
        context.task(name, "Speaker", kind="Thread")
    context.start("--transaction", "TX")
    wanted = {
        ("Speaker", f"TX/{name}", "INFO", f"{how} {name}")
        for name in ("one", "two")
        for how in ("logged", "printed")
    }
    wait_for(lambda: wanted <= set(lines(context)))


def test_two_tasks_of_one_instance_are_told_apart(context: Context) -> None:
    command(context, "ts", "echo hello; exec sleep 3600", "Same")
    context.start("--transaction", "FIRST")
    context.ctl("start", "--transaction", "SECOND")
    wait_for(
        lambda: (
            {("Same", "FIRST/ts", "INFO", "hello"), ("Same", "SECOND/ts", "INFO", "hello")}
            <= set(lines(context))
        )
    )
    assert "FIRST/ts" not in context.ctl("logs", "--transaction", "SECOND", "ts").stdout


@pytest.mark.parametrize("kind", ["Command", "Process", "Thread"])
def test_no_task_has_the_log_file_or_the_terminal(context: Context, kind: str) -> None:
    if kind == "Command":
        command(context, "ts", "exec sleep 3600")
    else:
        context.looped("Quiet")
        context.task("ts", "Quiet", kind=kind)
    context.start()
    pid = context.task_is("ts", "running")["pid"]
    wait_for(lambda: os.readlink(f"/proc/{pid}/exe") and True)
    files = {os.path.realpath(each) for each in Path(f"/proc/{pid}/fd").iterdir()}
    assert not files & {str(log_file(context)), str(context.log)}


def test_the_last_line_of_a_dying_task_is_logged(context: Context) -> None:
    for number in range(20):
        command(context, f"t{number}", f"echo last words of {number} >&2; exit 3")
    context.start("--transaction", "TX")
    wait_for(
        lambda: (
            {(f"TX/t{n}", f"last words of {n}") for n in range(20)}
            <= {(about, text) for _, about, _, text in lines(context)}
        )
    )


def test_logs_and_status_show_the_lines_of_the_task_itself(context: Context) -> None:
    """Users of Supervisor and Docker look for the output of a program by its name."""
    command(
        context,
        "alpha",
        "i=0; while [ $i -lt 50 ]; do i=$((i+1)); echo line of ALPHA; sleep 0.02; done; exec sleep 3600",
    )
    command(context, "beta", "sleep 0.3; echo beta dies of SECRET >&2; exit 3")
    command(context, "gamma", "while :; do echo line of GAMMA; sleep 0.02; done")
    context.start("--transaction", "TX")
    context.task_is("beta", "failed")
    wait_for(lambda: {"beta dies of SECRET", "line of ALPHA"} <= {text for *_, text in lines(context)})
    assert "beta dies of SECRET" in context.ctl("logs", "beta").stdout
    assert "GAMMA" not in context.ctl("logs", "beta").stdout
    assert "line of ALPHA" in context.ctl("logs", "alpha").stdout
    shown = context.ctl("status", check=None).stdout
    assert "beta dies of SECRET" in shown
    assert "GAMMA" not in shown


def test_a_line_without_an_end_is_written_when_its_task_ends(context: Context) -> None:
    command(context, "ts", "printf unfinished; exit 0")
    context.start("--transaction", "TX")
    wait_for(lambda: ("Ts", "TX/ts", "INFO", "unfinished") in lines(context))


def test_a_line_without_end_is_cut_and_holds_no_memory(context: Context) -> None:
    command(context, "ts", "head -c 30000000 /dev/zero | tr '\\0' x; echo; echo done; exec sleep 3600")
    context.start("--transaction", "TX")
    wait_for(lambda: b" TX/ts INFO: done\n" in log_file(context).read_bytes()[-1000:])
    texts = [text for _, about, _, text in lines(context) if about == "TX/ts"]
    assert max(map(len, texts)) <= 48 << 10
    assert sum(text.count("x") for text in texts) == 30_000_000
    status = Path(f"/proc/{output_process(context)}/status").read_text()
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    assert int(peak) < 40_000


def test_a_task_cannot_forge_another_tasks_line(context: Context) -> None:
    forged = "2026-01-01T00:00:00.000+0000 Other[1] TX/other ERROR: forged"
    command(
        context, "evil", f"echo '{forged}'; printf '\\0366 other Other\\037forged too\\n'; exec sleep 3600"
    )
    command(context, "other", "exec sleep 3600")
    context.start("--transaction", "TX")
    wait_for(lambda: any("forged too" in text for *_, text in lines(context)))
    assert "forged" not in context.ctl("logs", "other").stdout
    assert context.ctl("logs", "evil").stdout.count("forged") == 2


def test_the_output_process_outlives_the_supervisor(context: Context) -> None:
    command(
        context,
        "ts",
        "while read -r line; do echo got $line; done < $1; exec sleep 3600".replace(
            "$1", str(context.home / "fifo")
        ),
    )
    os.mkfifo(context.home / "fifo")
    context.start("--transaction", "TX")
    pid = output_process(context)
    context.kill_supervisor()
    context.ctl("reexec")
    with open(context.home / "fifo", "w") as fifo:
        fifo.write("after\n")
    wait_for(lambda: ("Ts", "TX/ts", "INFO", "got after") in lines(context))
    assert output_process(context) == pid


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP and SIGKILL"])
def test_an_output_process_that_dies_is_replaced_and_no_task_notices(context: Context, how: str) -> None:
    """A process that was stopped has read nothing, so its successor has each line. One that works may die with
    a line that it has read and not written, so there the last line comes after its end.
    """
    go_on = context.home / "go-on"
    os.mkfifo(go_on)
    command(
        context,
        "ts",
        "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; done; "
        f"read go < {go_on}; echo end; exec sleep 3600",
    )
    context.start("--transaction", "TX", "--no-autostart")
    pid = output_process(context)
    if how != "SIGKILL":
        stop_process(pid)
    context.ctl("start", "--transaction", "TX")
    if how != "SIGKILL":
        go_on.write_text("\n")
    os.kill(pid, signal.SIGKILL)
    wait_for_end(pid)
    if how == "SIGKILL":
        go_on.write_text("\n")
    wait_for(lambda: ("Ts", "TX/ts", "INFO", "end") in lines(context))
    assert context.tasks("TX")["ts"]["sub"] == "running"
    assert output_process(context) != pid


def test_an_output_process_that_hangs_is_replaced(context: Context) -> None:
    """The keeper sends a ping with each WATCHDOG=1 of the supervisor, which comes often here."""
    command(
        context,
        "ts",
        "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); echo line $i; done; echo end; exec sleep 3600",
    )
    context.start("--transaction", "TX", "--no-autostart", WATCHDOG_USEC="2000000")
    pid = output_process(context)
    stop_process(pid)
    context.ctl("start", "--transaction", "TX")
    wait_for(lambda: ("Ts", "TX/ts", "INFO", "end") in lines(context), 40)
    assert output_process(context) != pid


def test_the_keeper_keeps_no_descriptor_of_a_task_that_has_ended(context: Context) -> None:
    command(context, "ts", "echo one; exit 0")
    context.start("--transaction", "TX")
    wait_for(lambda: context.tasks("TX")["ts"]["sub"] != "running" and len(lines(context)) > 1)
    assert context.daemon is not None
    folders = [Path(f"/proc/{pid}/fd") for pid in (context.daemon.pid, output_process(context))]

    def pipes() -> list[int]:
        return [sum(os.readlink(each).startswith("pipe:") for each in folder.iterdir()) for folder in folders]

    for _ in range(5):
        context.ctl("restart", "ts", check=None)
    first = wait_for(pipes)
    for _ in range(20):
        context.ctl("restart", "ts", check=None)
    # Some pipes of the last task may have been open when they were counted first.
    wait_for(lambda: all(now <= before for now, before in zip(pipes(), first, strict=True)))


def test_the_output_process_has_no_privileges(context: Context) -> None:
    command(context, "ts", "exec sleep 3600")
    context.start()
    status = Path(f"/proc/{output_process(context)}/status")

    def has_none() -> bool:
        """It has its name before it gives them up."""
        told = dict(line.split(":\t") for line in status.read_text().splitlines() if ":\t" in line)
        found = [int(told[name], 16) for name in ("CapEff", "CapPrm", "NoNewPrivs")]
        assert found == [0, 0, 1]
        return True

    wait_for(has_none)


def test_the_last_lines_of_the_context_are_written_before_the_daemon_ends(context: Context) -> None:
    script = "trap 'seq 2000; echo bye; exit 0' TERM; echo waits; while :; do sleep 0.05; done"
    command(context, "ts", script)
    context.start("--transaction", "TX")
    wait_for(lambda: ("Ts", "TX/ts", "INFO", "waits") in lines(context))
    assert context.stop() == 0
    assert ("Ts", "TX/ts", "INFO", "bye") in lines(context)
    assert sum(about == "TX/ts" and text.isdecimal() for _, about, _, text in lines(context)) == 2000


@contextlib.contextmanager
def followed(context: Context, *words: str) -> Iterator[Callable[[], str]]:
    """Run `logs -f`. Yield a function that returns the next line of its output."""
    command_line = [sys.executable, "-P", "-m", "zmsvc.ctl", "-c", context.name, "logs", "-f", *words]
    process = subprocess.Popen(command_line, env=context.environment, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdout is not None
    stream = process.stdout
    try:
        yield lambda: wait_for_line(stream, "said")
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        stream.close()


def test_a_daemon_with_an_unread_standard_error_continues(context: Context) -> None:
    """With `zmsvcd NAME | less`, or a terminal after Ctrl-S, neither keeper nor supervisor nor tasks wait for
    the reader.
    """
    command(context, "ts", "while :; do seq 100000; sleep 0.1; done")
    command(context, "other", "exec sleep 3600")
    context.log = context.home / "nobody-reads"
    os.mkfifo(context.log)
    reader = os.open(context.log, os.O_RDONLY | os.O_NONBLOCK)
    try:
        context.start("--transaction", "TX")
        wait_for(lambda: log_file(context).stat().st_size > 10_000_000)
        for _ in range(3):
            context.kill_supervisor()
            context.ctl("restart", "other")
        assert context.stop() == 0
    finally:
        os.close(reader)
        context.log = log_file(context)
