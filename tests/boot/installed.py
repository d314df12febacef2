"""A context on the test machine as its administrator sees it: context files, services, systemctl, zmsvcctl
and the journal.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from machine import Machine

TRANSACTION = "6FDAHH3WPRVV7FGZCRIN"

TALKER = """
    import logging
    import subprocess

    from zmsvc.task import LoopedTask, TaskService


    class Talking(LoopedTask):
        \"\"\"Says one thing in each of the ways that there are.\"\"\"

        interval = 0.2
        said = 0

        def step(self):
            self.said += 1
            self.log.info("logged by the task")
            logging.getLogger("library").warning("logged by a library")
            print("printed by the task")
            if self.said == 1:
                # It stays for a while, because journald cannot say to which control group a process belonged
                # that is gone when journald reads its line.
                subprocess.Popen(["sh", "-c", "echo printed by another program; echo printed on stderr >&2; sleep 20"])
            self.update(said=self.said)


    class ServiceTalker(TaskService):
        service_name = "talker"
        task_class = Talking
"""

DEAF = """
    import signal
    import subprocess

    from zmsvc.task import SingleTask, TaskService


    class Deaf(SingleTask):
        \"\"\"Hears no SIGTERM, and has a child in a session of its own that hears none either.\"\"\"

        def run(self):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            subprocess.Popen(["setsid", "sleep", "3600"])
            print("deaf now")
            while True:
                signal.pause()


    class ServiceDeaf(TaskService):
        service_name = "deaf"
        task_class = Deaf
"""


def task(
    name: str,
    instance: str,
    *,
    rules: str = "",
    service: str = "",
    entry: bool = True,
    configuration: str = "",
) -> str:
    """Return a TaskService element. `rules` is the content of its `<state>`, `service` that of its
    `<service>`.
    """
    return f"""
    <TaskService id="{name}" topic="process" instance="{instance}" serviceType="Process">
        <Task>
            <description>A task of the boot tests</description>
            <message>
                <header><action>start</action><service_name>{instance.lower()}</service_name></header>
                <content><configuration><device_action>test</device_action>{configuration}</configuration></content>
            </message>
            <service>{service}</service>
            <state{' type="on_start"' if entry else ""}>{rules}</state>
        </Task>
    </TaskService>"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """The context `name` on `machine`."""

    machine: Machine
    name: str

    @property
    def unit(self) -> str:
        return f"zmsvc@{self.name}.service"

    def configure(self, *tasks: str) -> None:
        """Write the context file. Its endpoints are in the runtime directory."""
        self.machine.put(
            f"/etc/zmsvc/Context-{self.name}.xml",
            f"""<Context>
    <FrontEndEndpoint>ipc:///run/zmsvc/{self.name}/front</FrontEndEndpoint>
    <BackendEndpoint>ipc:///run/zmsvc/{self.name}/back</BackendEndpoint>
    <ContextID>context001</ContextID>
    <TaskLogName>{self.name}</TaskLogName>{"".join(tasks)}
</Context>
""",
        )

    def start(self) -> None:
        self.machine.sh(f"systemctl start {self.unit}")

    def stop(self) -> None:
        self.machine.sh(f"systemctl stop {self.unit}")

    def ctl(self, *arguments: str, check: bool = True) -> str:
        """Return the output of `zmsvcctl -c NAME ...`, run as root."""
        return self.machine.sh(f"zmsvcctl -c {self.name} {' '.join(arguments)}", check=check).stdout

    def show(self, prop: str) -> str:
        """Return a property of the unit."""
        return self.machine.sh(f"systemctl show --value -p {prop} {self.unit}").stdout.strip()

    def status(self) -> dict[str, Any]:
        """Return the context in `zmsvcctl --json status`."""
        # The exit status is 3 if something is not active. The output is the same.
        contexts = json.loads(self.ctl("--json", "status", check=False) or '{"contexts": []}')["contexts"]
        assert contexts, f"{self.name} does not answer"
        answer: dict[str, Any] = contexts[0]
        return answer

    def tasks(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the tasks in the status, by transaction and ID."""
        return {
            (one["id"], each["id"]): each for one in self.status()["transactions"] for each in one["tasks"]
        }

    def pids(self) -> dict[tuple[str, str], int]:
        """Return the PIDs of the active tasks, by transaction and ID."""
        return {key: each["pid"] for key, each in self.tasks().items() if each["state"] == "active"}

    def processes(self) -> Sequence[int]:
        """Return every process in the control group of the unit and below."""
        group = self.show("ControlGroup")
        if not group:
            return []
        listed = self.machine.sh(
            f"find /sys/fs/cgroup{group} -name cgroup.procs -exec cat {{}} +", check=False
        )
        return [int(line) for line in listed.stdout.split()]

    def entries(self, *matches: str) -> list[dict[str, Any]]:
        """Return the entries of the journal for the matches, with all fields."""
        return [json.loads(line) for line in self.machine.journal(*matches, output="json").splitlines()]


def processes_of_user(machine: Machine, user: str = "zmsvc") -> set[int]:
    """Return every running process of a user of the machine, whatever its control group or parent is."""
    listed = (
        line.split() for line in machine.sh(f"ps -u {user} -o pid=,stat=", check=False).stdout.splitlines()
    )
    return {int(pid) for pid, state in listed if not state.startswith("Z")}


def alive(machine: Machine, pids: Sequence[int]) -> list[int]:
    """Return those of the processes that still exist."""
    return [pid for pid in pids if machine.sh(f"test -e /proc/{pid}", check=False).returncode == 0]
