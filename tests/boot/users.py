"""A user of the test machine whose service manager runs without a login (linger), with a context of the
name Mine.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from installed import TALKER
from machine import Machine
from needs import need

NAME = "someone"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user of the machine whose service manager runs, and the context Mine in the home directory."""

    machine: Machine
    uid: int

    def sh(self, command: str, *, check: bool = True) -> str:
        runtime = f"/run/user/{self.uid}"
        environment = (
            f"HOME=/home/{NAME} XDG_RUNTIME_DIR={runtime} DBUS_SESSION_BUS_ADDRESS=unix:path={runtime}/bus"
        )
        return self.machine.sh(
            f"env {environment} sh -c {shlex.quote(command)}", user=NAME, check=check
        ).stdout

    def show(self, prop: str) -> str:
        return self.sh(f"systemctl --user show --value -p {prop} zmsvc@Mine").strip()

    def status(self) -> dict[str, Any]:
        contexts = json.loads(self.sh("zmsvcctl -c Mine --json status", check=False) or '{"contexts": []}')[
            "contexts"
        ]
        assert contexts, "Mine does not answer"
        answer: dict[str, Any] = contexts[0]
        return answer

    def pids(self) -> dict[str, int]:
        tasks = (each for one in self.status()["transactions"] for each in one["tasks"])
        return {each["id"]: each["pid"] for each in tasks if each["state"] == "active"}

    def group(self, pid: int) -> str:
        """Return the cgroup of a process, relative to that of the unit."""
        path = self.machine.sh(f"cat /proc/{pid}/cgroup").stdout.strip()
        return path.partition("/zmsvc@Mine.service/")[2]


@contextmanager
def lingering(machine: Machine, *tasks: str) -> Iterator[User]:
    """Yield a new user with the context Mine, which has these tasks and does not run. Remove the user
    afterwards.
    """
    pam = machine.sh(
        "ls /lib/*/security/pam_systemd.so /usr/lib*/security/pam_systemd.so", check=False
    ).stdout
    need(
        pam,
        "there is no pam_systemd, without which no user's service manager starts (Debian: apt-get install "
        "libpam-systemd)",
    )
    machine.sh(f"useradd --create-home --shell /bin/sh {NAME}")
    uid = int(machine.sh(f"id -u {NAME}").stdout)
    home, runtime = f"/home/{NAME}", f"/run/user/{uid}/zmsvc/Mine"
    machine.put(f"{home}/.local/share/zmsvc/services/Talker/__init__.py", "")
    machine.put(f"{home}/.local/share/zmsvc/services/Talker/ServiceTalker.py", TALKER)
    machine.put(
        f"{home}/.config/zmsvc/Context-Mine.xml",
        f"""<Context>
    <FrontEndEndpoint>ipc://{runtime}/front</FrontEndEndpoint>
    <BackendEndpoint>ipc://{runtime}/back</BackendEndpoint>
    <ContextID>context001</ContextID>
    <TaskLogName>Mine</TaskLogName>{"".join(tasks)}
</Context>
""",
    )
    machine.sh(f"chown -R {NAME}:{NAME} {home}")
    machine.sh(
        f"mkdir -p /var/lib/systemd/linger && touch /var/lib/systemd/linger/{NAME} && systemctl start "
        f"user@{uid}"
    )
    try:
        yield User(machine=machine, uid=uid)
    finally:
        machine.sh(
            f"systemctl stop user@{uid} user-runtime-dir@{uid}; rm -f /var/lib/systemd/linger/{NAME}",
            check=False,
        )
        machine.sh(f"pkill -KILL -u {NAME}; userdel --remove {NAME}", check=False)
