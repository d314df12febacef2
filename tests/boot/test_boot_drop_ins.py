"""The drop-ins in units/drop-ins: a context runs with each of them, and is confined as the drop-in documents."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from installed import Installed, task
from machine import Machine
from waiting import wait_for

Probed = Callable[..., dict[str, Any]]

DROP_INS = Path(__file__).parents[2] / "units" / "drop-ins"

PROBER = """
    import ctypes
    import json
    import mmap
    import os
    import socket

    from zmsvc.task import LoopedTask, TaskService


    def tried(call):
        try:
            call()
        except OSError as error:
            return type(error).__name__
        return "done"


    def execute():
        # The C library's mmap: Python's own module makes no memory that can be executed and written.
        mmap_ = ctypes.CDLL(None, use_errno=True).mmap
        mmap_.restype = ctypes.c_void_p
        if mmap_(None, ctypes.c_size_t(4096), 7, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0) == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), "cannot map")


    class Probing(LoopedTask):
        interval = 3600.0

        def step(self):
            credentials = os.environ.get("CREDENTIALS_DIRECTORY")
            found = dict(
                uid=os.getuid(),
                execute=tried(execute),
                outside=tried(lambda: socket.create_connection(("192.0.2.1", 7), 5).close()),
                loopback=tried(lambda: socket.create_connection(("127.0.0.1", 7), 5).close()),
                device=tried(lambda: os.close(os.open("/dev/tty", os.O_RDONLY))),
                users=open("/proc/self/uid_map").read().split(),
                secret=open(credentials + "/dbpw").read() if credentials else "",
                capabilities=open("/proc/self/status").read().partition("CapPrm:")[2].split()[0],
                **{name: tried(lambda path=path: open(path).close()) for name, path in self.config.get("read", {}).items()},
            )
            self.log.info("found %s", json.dumps(found))


    class ServiceProber(TaskService):
        service_name = "prober"
        task_class = Probing
"""

COMMAND = """
    <TaskService id="ts_200" topic="process" instance="shell" serviceType="Command">
        <Task><description>x</description><message><header><action>start</action><service_name>shell</service_name></header>
        <content><configuration><device_action>x</device_action>
            <command><arg>sh</arg><arg>-c</arg><arg>cat "$CREDENTIALS_DIRECTORY/dbpw"; exec sleep 3600</arg></command>
        </configuration></content></message><state type="on_start"></state></Task>
    </TaskService>"""


@pytest.fixture
def probed(context: Callable[..., Installed], machine: Machine) -> Iterator[Probed]:
    """Start a context with drop-ins, and return the findings of its task."""
    machine.put("/etc/zmsvc/services/Prober/__init__.py", "")
    machine.put("/etc/zmsvc/services/Prober/ServiceProber.py", PROBER)
    started: list[Installed] = []

    def start(
        *drop_ins: str, name: str = "Probe", tasks: tuple[str, ...] = (task("ts_100", "Prober"),)
    ) -> dict[str, Any]:
        installed = context(name, *tasks)
        started.append(installed)
        for drop_in in drop_ins:
            machine.put(f"/etc/systemd/system/{installed.unit}.d/{drop_in}", (DROP_INS / drop_in).read_text())
        machine.sh("systemctl daemon-reload")
        installed.start()
        told = found(installed)
        # The bus works, too, since the order comes over it.
        order = {
            "header": {
                "service_transaction": "T",
                "service_id": "context001",
                "action": "start",
                "service_name": "context",
            }
        }
        installed.ctl("send", "context", f"'{json.dumps(order | {'content': {}})}'")
        wait_for(lambda: any(key[0] == "T" for key in installed.pids()))
        return told

    yield start
    for each in started:
        each.stop()
        machine.sh(
            f"rm -rf /etc/systemd/system/{each.unit}.d /var/lib/private/zmsvc /etc/zmsvc/keys; systemctl "
            f"daemon-reload"
        )


def found(installed: Installed, ident: str = "ts_100") -> dict[str, Any]:
    def told() -> dict[str, Any]:
        lines = installed.machine.journal(
            f"ZMSVC_CONTEXT={installed.name}", f"ZMSVC_TASK={ident}", output="cat"
        ).splitlines()
        words = [line.partition("found ")[2] for line in lines]
        answers: list[dict[str, Any]] = [json.loads(each) for each in words if each.startswith("{")]
        return answers[-1] if answers else {}

    answer: dict[str, Any] = wait_for(told)
    return answer


def uid(machine: Machine, user: str) -> int:
    return int(machine.sh(f"id -u {user}").stdout)


def test_without_drop_ins_a_task_may_do_what_they_forbid(probed: Probed, machine: Machine) -> None:
    told = probed()
    assert (told["execute"], told["uid"], told["secret"]) == ("done", uid(machine, "zmsvc"), "")
    assert told["users"] == ["0", "0", "4294967295"]


def test_the_drop_in_against_networks_keeps_tasks_on_this_machine(probed: Probed, machine: Machine) -> None:
    machine.sh("ip address add 192.0.2.1/32 dev lo", check=False)
    try:
        open_ = probed(name="Open")
        told = probed("no-network.conf")
    finally:
        machine.sh("ip address del 192.0.2.1/32 dev lo", check=False)
    assert (open_["outside"], open_["loopback"]) == ("ConnectionRefusedError", "ConnectionRefusedError"), (
        "no process listens there"
    )
    assert told["loopback"] == "ConnectionRefusedError"
    assert told["outside"] in ("PermissionError", "TimeoutError")


def test_no_task_makes_code_at_run_time(probed: Probed) -> None:
    assert probed("no-jit.conf")["execute"] == "PermissionError"


def test_tasks_reach_one_device(probed: Probed, machine: Machine) -> None:
    told = probed("device.conf")
    assert told["uid"] == uid(machine, "zmsvc")
    show = machine.sh(
        "systemctl show -p DevicePolicy -p DeviceAllow -p PrivateDevices zmsvc@Probe"
    ).stdout.split("\n")
    assert {"DevicePolicy=closed", "DeviceAllow=/dev/ttyS0 rw", "PrivateDevices=no"} <= set(show)


def test_tasks_see_no_other_users(probed: Probed, machine: Machine) -> None:
    own = uid(machine, "zmsvc")
    told = probed("private-users.conf")
    assert told["users"] != ["0", "0", "4294967295"]
    machine.sh("useradd --no-create-home member; usermod -aG zmsvc member", check=False)
    for user in ("member", "zmsvc"):
        machine.sh("HOME=/ zmsvcctl -c Probe restart --transaction T --task ts_100", user=user)
    machine.sh("zmsvcctl -c Probe exit")
    assert told["uid"] == own


PLACES = {
    "state": "/var/lib/zmsvc/Other/state.db",
    "secret_key": "/etc/zmsvc/keys/Other/server.key_secret",
    "client_key": "/etc/zmsvc/keys/Other/client.key_secret",
}


@pytest.mark.parametrize("drop_in", ["own-user.conf", "dynamic-user.conf"])
def test_contexts_are_separated(
    probed: Probed, context: Callable[..., Installed], machine: Machine, drop_in: str
) -> None:
    """Without the drop-in, a task of one context can read the state and the keys of another one, and end
    it.
    """
    if drop_in == "own-user.conf":
        machine.sh("useradd --system --no-create-home --shell /usr/sbin/nologin zmsvc-Probe", check=False)
    other = context("Other", task("ts_100", "Talker"))
    other.ctl("keys", "make")
    other.start()
    read = "".join(f"<{name}>{path}</{name}>" for name, path in PLACES.items())
    tasks = (task("ts_100", "Prober", configuration=f"<read>{read}</read>"),)
    together = probed(name="Together", tasks=tasks)
    assert {together[name] for name in PLACES} == {"done"}
    told = probed(drop_in, tasks=tasks)
    assert {told[name] for name in PLACES} == {"PermissionError"}
    assert told["uid"] != uid(machine, "zmsvc")
    asked = machine.sh(
        f"setpriv --reuid={told['uid']} --regid={told['uid']} --clear-groups env HOME=/ zmsvcctl -c Other "
        f"exit",
        check=False,
    )
    assert asked.returncode == 5
    assert other.show("ActiveState") == "active"
    other.stop()


def test_a_task_with_a_user_leaves_the_others_as_they_were(
    probed: Probed, context: Callable[..., Installed], machine: Machine
) -> None:
    machine.put("/etc/zmsvc/dbpw", "s3cret", 0o600)
    tasks = (task("ts_100", "Prober"), task("ts_101", "Prober", service="<user>daemon</user>"))
    own = probed("task-users.conf", "credential.conf", tasks=tasks)
    other = found(context("Probe"), "ts_101")
    assert (own["uid"], other["uid"]) == (uid(machine, "zmsvc"), uid(machine, "daemon"))
    assert (own["capabilities"], other["capabilities"]) == ("0" * 16, "0" * 16)
    assert (own["secret"], other["secret"]) == ("s3cret", "")
    assert "ts_100 has no <user>, while ts_101 has one" in machine.journal("-u", "zmsvc@Probe")
    machine.sh("zmsvcctl -c Probe restart --task ts_101 --transaction T")
    machine.sh("systemctl stop zmsvc@Probe")
    assert machine.sh("ps -u daemon -o pid=", check=False).stdout == ""


def test_a_credential_of_the_unit_reaches_python_tasks_and_programs(probed: Probed, machine: Machine) -> None:
    machine.put("/etc/zmsvc/dbpw", "s3cret\n", 0o600)
    told = probed("credential.conf", tasks=(task("ts_100", "Prober"), COMMAND))
    assert told["secret"] == "s3cret\n"
    wait_for(lambda: "s3cret" in machine.journal("-u", "zmsvc@Probe"))


def test_a_context_with_other_hosts_is_in_the_group_that_may_ask_the_cluster(
    probed: Probed, context: Callable[..., Installed], machine: Machine
) -> None:
    # Pacemaker makes it.
    machine.sh("getent group haclient || groupadd --system haclient")
    assert probed("other-hosts.conf")["uid"] == uid(machine, "zmsvc")
    supervisor = context("Probe").status()["pid"]
    groups = machine.sh(f"ps -o supgrp= -p {supervisor}").stdout
    assert "haclient" in groups.strip().split(",")


def test_every_drop_in_is_tested() -> None:
    text = Path(__file__).read_text()
    assert [file.name for file in DROP_INS.iterdir() if f'"{file.name}"' not in text] == []
