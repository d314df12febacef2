"""A process of the daemon's own user can move itself into another control group of the unit. It ends with its
task nevertheless.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from context import Context
from needs import need
from others import command, others
from waiting import PATIENCE, wait_for, wait_for_end

from zmsvc.host.kernel import processes

STRAY = """
import os, resource, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if {wiped}:
    resource.setrlimit(10, (7, resource.getrlimit(10)[1]))
group = "{base}/{group}"
os.makedirs(group, exist_ok=True)
open(group + "/cgroup.procs", "w").write("0")
open("{file}", "w").write(str(os.getpid()) + "\\n")
while True:
    signal.pause()
"""


def strays(context: Context, group: str, *, wiped: bool) -> Path:
    """Add a service whose child moves itself into `group`. Return the file to which the child writes its
    PID.
    """
    file = context.home / "stray"
    code = STRAY.format(wiped=wiped, base=context.wrapper[-1], group=group, file=file)
    environment = "{}" if wiped else "None"
    context.looped(
        "Parent",
        f"""
        def setup(self):
            import os, subprocess
            subprocess.Popen([{sys.executable!r}, "-c", {code!r}], start_new_session=True, env={environment})
            while not (os.path.exists("{file}") and open("{file}").read().endswith("\\n")):
                self.wait(0.005)
        """,
    )
    return file


@pytest.mark.parametrize("wiped", [False, True], ids=["with its marks", "without marks"])
@pytest.mark.parametrize("group", ["keeper", "supervisor", "device", "tasks/T:other", "own"])
def test_a_process_that_moves_into_another_cgroup_ends_with_its_task(
    grouped: Context, group: str, wiped: bool
) -> None:
    if wiped and group == "tasks/T:other":
        pytest.skip("it is the other task's then, and ends with that one")
    file = strays(grouped, group, wiped=wiped)
    grouped.task("ts_1", "Parent", service="<stop_timeout>1s</stop_timeout>")
    grouped.task("other", "Sleep", kind="Command", config="<command>sleep 1000</command>")
    grouped.start("--transaction", "T")
    stray, other = int(file.read_text()), grouped.tasks()["other"]["pid"]
    assert Path(f"/proc/{stray}/cgroup").read_text().rstrip().endswith(f"/{group}")
    answer = grouped.ask(verb="stop", tasks=["ts_1"])
    assert answer["ok"], answer
    assert not Path(f"/proc/{stray}").exists(), "the answer comes when nothing is left"
    assert [(entry["pid"], entry["asked"], entry["killed"]) for entry in answer["data"]["ended"]] == [
        (stray, "SIGTERM", True)
    ]
    assert grouped.tasks()["other"]["pid"] == other


def test_a_moved_process_is_found_while_the_zygote_forks_a_spare_task(grouped: Context) -> None:
    """The keeper orders the spare task 0.05 s after the launch. Until the zygote answers, any child that the
    keeper does not know may be that spare task.
    """
    file = strays(grouped, "keeper", wiped=True)
    grouped.task("ts_1", "Parent", service="<stop_timeout>1s</stop_timeout>")
    grouped.start("--no-autostart")
    zygote = grouped.zygote()
    grouped.ask(verb="start", transaction="T", block=False)
    main = wait_for(lambda: grouped.tasks()["ts_1"]["pid"])
    os.kill(zygote, signal.SIGSTOP)
    try:
        stray = int(wait_for(lambda: file.exists() and file.read_text()))
        grouped.task_is("ts_1", "running")
        with ThreadPoolExecutor() as clients:
            stopped = clients.submit(grouped.ask, verb="stop", tasks=["ts_1"])
            wait_for_end(main)
            os.kill(zygote, signal.SIGCONT)
            answer = stopped.result(PATIENCE)
    finally:
        os.kill(zygote, signal.SIGCONT)
    assert answer["ok"], answer
    assert not Path(f"/proc/{stray}").exists(), "the answer comes when nothing is left"
    assert [entry["pid"] for entry in answer["data"]["ended"]] == [stray]


def test_a_moved_process_without_marks_ends_with_the_task_of_its_new_cgroup(grouped: Context) -> None:
    file = strays(grouped, "tasks/T:other", wiped=True)
    grouped.task("ts_1", "Parent")
    grouped.task(
        "other",
        "Sleep",
        kind="Command",
        config="<command>sleep 1000</command>",
        service="<stop_timeout>1s</stop_timeout>",
    )
    grouped.start("--transaction", "T")
    stray = int(file.read_text())
    assert grouped.ask(verb="stop", tasks=["ts_1"])["ok"]
    assert grouped.ask(verb="stop", tasks=["other"])["ok"]
    assert not Path(f"/proc/{stray}").exists()


def test_a_task_of_another_user_cannot_delay_the_end_of_others_with_their_marks(grouped: Context) -> None:
    need(os.geteuid() == 0, "only root can run tasks of several users")
    grouped.home.chmod(0o755)
    (grouped.home / "Services").mkdir()
    file = grouped.home / "forged"
    file.touch()
    file.chmod(0o666)
    marks = f"NOTIFY_SOCKET={grouped.runtime}/{grouped.name}/notify.sock ZMSVC_LAUNCH=2 PATH=$PATH"
    forger = (
        f"(env -i {marks} setsid sh -c 'trap \"\" TERM; echo $$ &gt; {file}; while :; do sleep 1000; done' "
        f"&amp;)"
    )
    grouped.task(
        "forges",
        "Forges",
        kind="Command",
        service="<user>daemon</user><stop_timeout>1s</stop_timeout>",
        config=(f"<command><arg>sh</arg><arg>-c</arg><arg>{forger}; exec sleep 1000</arg></command>"),
    )
    grouped.task("victim", "Victim", kind="Command", entry=False, config="<command>sleep 1000</command>")
    grouped.start("--transaction", "T")
    forged = wait_for(lambda: int(file.read_text() or "0"))
    grouped.ctl("start", "--transaction", "T", "--task", "victim")
    assert b"ZMSVC_LAUNCH=2" in processes.environment_of(grouped.tasks()["victim"]["pid"]), "it was foreseen"
    assert b"ZMSVC_LAUNCH=2" in processes.environment_of(forged)
    assert grouped.ask(verb="stop", tasks=["victim"])["data"]["ended"] == []
    assert Path(f"/proc/{forged}").exists()
    answer = grouped.ask(verb="stop", tasks=["forges"])
    assert forged in [entry["pid"] for entry in answer["data"]["ended"]]
    wait_for_end(forged)


def test_a_process_outside_of_the_context_cannot_delay_the_end_of_a_task_with_its_marks(
    context: Context,
) -> None:
    """Without control groups, the keeper searches all processes of the machine for those of a launch."""
    stranger = others(1)[0]
    (context.home / "Services").mkdir()
    context.task(
        "victim",
        "Victim",
        kind="Command",
        config="<command>sleep 1000</command>",
        service="<stop_timeout>2s</stop_timeout>",
    )
    # The keeper searches all processes of the machine only while there are orphans.
    orphan = "(setsid sleep 1000 &amp;); exec sleep 1000"
    context.task(
        "keeps",
        "Keeps",
        kind="Command",
        config=f"<command><arg>sh</arg><arg>-c</arg><arg>{orphan}</arg></command>",
    )
    context.start("--transaction", "T")
    code = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); "
        "signal.pause()"
    )
    marks = {"NOTIFY_SOCKET": f"{context.runtime}/{context.name}/notify.sock", "ZMSVC_LAUNCH": "1"}
    own = processes.environment_of(context.tasks()["victim"]["pid"]).split(b"\0")
    assert {f"{name}={value}".encode() for name, value in marks.items()} <= set(own), (
        "they are those of the task"
    )
    forger = [*command(stranger), sys.executable, "-P", "-c", code]
    with subprocess.Popen(
        forger, env=marks | {"PATH": os.defpath}, stdout=subprocess.PIPE, text=True, cwd="/"
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            assert context.ask(verb="stop", tasks=["victim"])["data"]["ended"] == []
            assert process.poll() is None
        finally:
            process.kill()


def test_background_processes_of_a_running_task_survive_the_end_of_another(grouped: Context) -> None:
    """An orphan in its own control group, with marks or without them (env -i and another limit)."""
    (grouped.home / "Services").mkdir()
    file = grouped.home / "background"
    daemon = f"(env -i setsid bash -c 'ulimit -S -x 9; echo $$ &gt; {file}; exec sleep 1000' &amp;)"
    script = f"{daemon}; while [ ! -s {file} ]; do sleep 0.01; done"
    grouped.task("keeps", "Keeps", kind="Command", config=(
        f"<command><arg>sh</arg><arg>-c</arg><arg>{script}; exec sleep 1000</arg></command>"
    ))  # fmt: skip
    grouped.task("ends", "Ends", kind="Command", config="<command>sleep 1000</command>")
    grouped.start("--transaction", "T")
    orphan = wait_for(lambda: file.exists() and int(file.read_text() or "0"))
    # The shell waits with another `sleep` before it becomes one.
    main = grouped.tasks()["keeps"]["pid"]
    wait_for(lambda: Path(f"/proc/{main}/comm").read_text() == "sleep\n")
    assert grouped.ask(verb="stop", tasks=["ends"])["data"]["ended"] == []
    assert Path(f"/proc/{orphan}").exists()
    answer = grouped.ask(verb="stop", tasks=["keeps"])
    assert [entry["pid"] for entry in answer["data"]["ended"]] == [orphan]
    wait_for_end(orphan)
