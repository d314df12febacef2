"""`restart --one-by-one`: a task is stopped when the one before it is ready again."""

from __future__ import annotations

import json

from context import Context
from waiting import wait_for

WORK = """
def setup(self):
    import pathlib
    if pathlib.Path(self.config["broken"]).exists():
        raise ValueError("no such database")
"""


def begin(context: Context) -> dict[str, int]:
    """Start a context of three tasks that run and one that waits. Return their PIDs."""
    context.looped("Echo", WORK)
    for number in (1, 2, 3):
        context.task(f"ts_{number}", "Echo", config=f"<broken>{context.home}/broken_{number}</broken>")
    context.task("ts_4", "Echo", entry=False, config="<broken>/none</broken>")
    context.start("--transaction", "T")
    return pids(context)


def pids(context: Context) -> dict[str, int]:
    return {name: task["pid"] for name, task in context.tasks("T").items()}


def test_each_task_that_runs_gets_a_new_process_when_the_one_before_is_ready(context: Context) -> None:
    before = begin(context)
    told = context.ctl("restart", "--one-by-one").stdout.splitlines()
    after = pids(context)
    assert [line.partition(",")[0] for line in told] == [
        f"T/ts_{number}: active (running)" for number in (1, 2, 3)
    ]
    assert all(before[name] != after[name] for name in ("ts_1", "ts_2", "ts_3"))
    assert after["ts_4"] is None
    rows = [json.loads(line) for line in context.ctl("--json", "events").stdout.splitlines()]
    steps = [(row["task"], row["event"]) for row in rows if row["event"] in ("stopping", "started")][3:]
    expected = [(f"ts_{number}", event) for number in (1, 2, 3) for event in ("stopping", "started")]
    assert steps == expected


def test_the_first_task_that_does_not_come_back_ends_it(context: Context) -> None:
    before = begin(context)
    (context.home / "broken_2").touch()
    done = context.ctl("restart", "--one-by-one", "ts_2", "ts_1", "ts_3", check=1)
    assert "cannot restart ts_2: failed" in done.stderr
    assert "; not restarted: T/ts_1, T/ts_3 (zmsvcctl -c Live logs --transaction T ts_2)" in done.stderr
    after = pids(context)
    assert (after["ts_1"], after["ts_3"]) == (before["ts_1"], before["ts_3"])
    answer = json.loads(context.ctl("--json", "restart", "--one-by-one", "ts_2", "ts_3", check=1).stdout)
    assert (answer["not_restarted"], answer["code"]) == (["T/ts_3"], 1)
    assert [each["id"] for each in answer["tasks"]] == ["ts_2"]


def test_a_task_that_requires_others_is_restarted_once(context: Context) -> None:
    context.looped("Echo")
    context.task("web", "Echo", service="<requires>base other</requires>")
    context.task("base", "Echo")
    context.task("other", "Echo", service="<requires>base</requires>")
    context.start("--transaction", "T")
    before = pids(context)
    done = json.loads(context.ctl("--json", "restart", "--one-by-one", "web", "base", "other").stdout)
    assert sorted(task["id"] for task in done["tasks"]) == ["base", "other", "web"]
    assert all(pid != before[name] for name, pid in pids(context).items())
    rows = [json.loads(line) for line in context.ctl("--json", "events").stdout.splitlines()]
    launched = [row["task"] for row in rows if row["event"] == "launching"]
    assert sorted(launched) == sorted(2 * ["web", "base", "other"])


def test_what_cannot_be_restarted_one_by_one_is_refused(context: Context) -> None:
    begin(context)
    assert "--no-block" in context.ctl("restart", "--one-by-one", "--no-block", check=2).stderr
    assert "no such task" in context.ctl("restart", "--one-by-one", "ts_9", check=4).stderr
    context.ctl("stop")
    assert "no transaction is open" in context.ctl("restart", "--one-by-one", check=4).stderr


def test_status_says_that_a_file_has_changed_until_it_is_reloaded(context: Context) -> None:
    begin(context)

    def needed() -> list[object]:
        (found,) = json.loads(context.ctl("--json", "status").stdout)["contexts"]
        return [
            found["need_reload"],
            context.ctl("show", "--value", "-p", "NeedDaemonReload").stdout.strip(),
            f"File: {context.file} (changed, not reloaded: zmsvcctl -c Live reload)\n"
            in context.ctl("status").stdout,
        ]

    assert needed() == [False, "no", False]
    text = context.file.read_text()
    context.file.write_text(text.replace("</Context>", "<!-- later --></Context>"))
    assert needed() == [True, "yes", True]
    context.ctl("reload")
    assert needed() == [False, "no", False]
    part = context.file.with_suffix(".d") / "more.xml"
    part.parent.mkdir()
    task = text[text.index("<TaskService") : text.index("</TaskService>")].replace("ts_1", "ts_5")
    part.write_text(f"<Context>{task}</TaskService></Context>")
    assert needed() == [True, "yes", True]
    context.ctl("reload")
    assert needed() == [False, "no", False]
    context.file.unlink()
    assert needed() == [True, "yes", True]
    pid = context.status()["pid"]
    context.file.write_text(text.replace("</Context>", "<!-- later --></Context>"))
    context.ctl("reexec")
    wait_for(lambda: context.status()["pid"] != pid)
    assert needed() == [False, "no", False]
