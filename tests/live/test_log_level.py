"""`<log_level>` of a task limits its log, and `ps` shows the task of each process."""

from __future__ import annotations

from pathlib import Path

import pytest
from context import Context
from waiting import wait_for

TX = "5HGAHZ3WPZUI71PACRPP"
TALKS = """
def step(self):
    for level in ("debug", "info", "error"):
        getattr(self.log, level)("at level %s", level)
    self.update(said=True)
    self.wait()
"""


@pytest.mark.parametrize("kind", ["Process", "Thread"])
@pytest.mark.parametrize(
    ("level", "said"),
    [("debug", "debug info error"), ("", "info error"), ("warning", "error"), ("crit", "")],
    ids=str,
)
def test_a_task_logs_up_to_its_level(context: Context, level: str, said: str, kind: str) -> None:
    context.looped("Talks", TALKS)
    context.task("ts_1", "Talks", kind=kind, service=f"<log_level>{level}</log_level>" if level else "")
    context.start("--transaction", TX)
    context.task_is("ts_1", "running", also=lambda task: task["action"] == "updated")
    context.ctl("stop")

    def logged() -> list[str]:
        lines = context.ctl("--json", "logs", "-g", "at level ").stdout
        return [word for word in ("debug", "info", "error") if f"at level {word}" in lines]

    # The output process writes the log, perhaps after the end of the task.
    wait_for(lambda: logged() == said.split())


def test_different_log_levels_in_one_shared_process_are_warned_about(context: Context) -> None:
    context.looped("Talks", TALKS)
    context.task("ts_1", "Talks", kind="Thread", service="<log_level>debug</log_level>")
    context.task("ts_2", "Talks", kind="Thread")
    context.write()
    assert "share one process, but differ in log_level" in context.ctl("check", str(context.file)).stdout


@pytest.mark.parametrize("service", ["", "<fresh>yes</fresh>"], ids=["fork", "fresh"])
def test_the_command_line_of_a_task_names_it(context: Context, service: str) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo", service=service)
    context.start("--transaction", TX)
    pid = context.tasks()["ts_1"]["pid"]
    shown = wait_for(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode())
    assert f"zmsvc: ts_1 (Echo) of {context.name}/{TX}".startswith(shown)
    assert shown.startswith("zmsvc: ts_1 (Echo) of")
