"""The confinement of the unit, the owners of files under systemd, and keys that root makes for a service of
another user.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from installed import Installed, task
from machine import Machine
from waiting import wait_for

ROOT = Path(__file__).parents[2]
EXPOSURE = 2.0
"""The highest exposure that `systemd-analyze security` may report for the unit."""

FILES = {
    "/run/zmsvc/Talk": "755 zmsvc:zmsvc",
    "/run/zmsvc/Talk/back": "660 zmsvc:zmsvc",
    "/run/zmsvc/Talk/bus.members": "640 zmsvc:zmsvc",
    "/run/zmsvc/Talk/control.sock": "660 zmsvc:zmsvc",
    "/run/zmsvc/Talk/front": "660 zmsvc:zmsvc",
    "/run/zmsvc/Talk/keeper.sock": "600 zmsvc:zmsvc",
    "/run/zmsvc/Talk/notify.sock": "600 zmsvc:zmsvc",
    "/run/zmsvc/Talk/zmsvcd.lock": "640 zmsvc:zmsvc",
    "/run/zmsvc/Talk/zmsvcd.pid": "640 zmsvc:zmsvc",
    "/var/lib/zmsvc/Talk": "750 zmsvc:zmsvc",
    "/var/lib/zmsvc/Talk/state.db": "600 zmsvc:zmsvc",
    "/var/lib/zmsvc/Talk/state.db-shm": "600 zmsvc:zmsvc",
    "/var/lib/zmsvc/Talk/state.db-wal": "600 zmsvc:zmsvc",
    "/etc/zmsvc/keys": "755 root:root",
    "/etc/zmsvc/keys/Talk": "755 root:root",
    "/etc/zmsvc/keys/Talk/client.key": "644 root:root",
    "/etc/zmsvc/keys/Talk/client.key_secret": "600 zmsvc:zmsvc",
    "/etc/zmsvc/keys/Talk/clients": "755 root:root",
    "/etc/zmsvc/keys/Talk/clients/context.key": "644 root:root",
    "/etc/zmsvc/keys/Talk/server.key": "644 root:root",
    "/etc/zmsvc/keys/Talk/server.key_secret": "600 zmsvc:zmsvc",
}
"""Every file that a system context with keys has made, except the pid files of its tasks."""


@pytest.fixture
def keyed(context: Callable[..., Installed], machine: Machine) -> Installed:
    """A context whose administrator has made keys before its first start."""
    made = context("Talk", task("ts_100", "Talker"))
    made.ctl("keys", "make")
    return made


@pytest.fixture(autouse=True)
def _no_keys_left(machine: Machine) -> object:
    yield
    machine.sh("rm -rf /etc/zmsvc/keys")


def test_the_exposure_is_what_the_page_says(echo: Installed) -> None:
    echo.start()
    told = echo.machine.sh(f"systemd-analyze security --no-pager {echo.unit}").stdout
    measured = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert measured, told
    assert float(measured[1]) <= EXPOSURE, told
    quoted = re.search(
        r"`systemd-analyze security` rates a running `zmsvc@` unit ([0-9.]+) \(systemd (\d+)",
        (ROOT / "docs/access.md").read_text(),
    )
    assert quoted
    # The result differs a little between versions of systemd.
    if quoted[2] == echo.machine.sh("systemctl --version").stdout.split()[1]:
        assert measured[1] == quoted[1]


def test_every_file_has_its_mode_and_owner(keyed: Installed) -> None:
    keyed.start()
    places = "/run/zmsvc/Talk /var/lib/zmsvc/Talk /etc/zmsvc/keys"
    listed = keyed.machine.sh(f"find {places} ! -name '*:ts_*.pid' -printf '%p %m %u:%g\\n'").stdout
    assert dict(sorted(line.split(" ", 1) for line in listed.splitlines())) == dict(sorted(FILES.items()))


def test_only_the_owner_root_and_the_group_may_give_orders(talker: Installed) -> None:
    sh = talker.machine.sh
    sh(
        "useradd --no-create-home member; usermod -aG zmsvc member; useradd --no-create-home stranger",
        check=False,
    )
    as_user = f"HOME=/ zmsvcctl -c {talker.name}"
    assert sh(f"{as_user} restart --task ts_100", user="member", check=False).returncode == 0
    for verb in ("reload", "reexec", "exit"):
        refused = sh(f"{as_user} {verb}", user="member", check=False)
        assert (refused.returncode, "only root and the daemon's user may" in refused.stderr) == (1, True)
    refused = sh(f"{as_user} status", user="stranger", check=False)
    assert refused.returncode == 5
    assert "permission denied" in refused.stderr


def test_over_loopback_tcp_without_keys_only_members_give_orders(
    context: Callable[..., Installed], machine: Machine
) -> None:
    """The gate works in the confinement of the unit, and reads the members of the group from the user
    database.
    """
    sh = machine.sh
    sh(
        "useradd --no-create-home member; usermod -aG zmsvc member; useradd --no-create-home stranger",
        check=False,
    )
    talk = context("Talk", task("ts_100", "Talker"))
    machine.put(
        "/etc/zmsvc/Context-Talk.xml",
        "<Context><FrontEndEndpoint>tcp://127.0.0.1:5556</FrontEndEndpoint><BackendEndpoint>tcp://127.0.0.1:5557</BackendEndpoint>"
        f"{task('ts_100', 'Talker')}</Context>",
    )
    talk.start()
    command = (
        "/usr/local/lib/zmsvc/bin/python -I -c 'from zmsvc.ctl.compat.conf_command import main; raise "
        "SystemExit(main())'"
    )
    order = f"{command} --endpoint=tcp://127.0.0.1:5557 --service_name=context --transaction=T --action"
    refused = sh(f"{order}=exit", user="stranger", check=False)
    assert (refused.returncode, "members of its group and the <user> of each task may" in refused.stderr) == (
        5,
        True,
    ), refused.stderr
    assert talk.show("ActiveState") == "active"
    wait_for(lambda: "stranger" in machine.journal("-u", talk.unit))
    sh(f"{order}=start", user="member")
    wait_for(lambda: any(key[0] == "T" for key in talk.pids()))
    sh(f"{order}=exit", user="member")
    wait_for(lambda: talk.show("ActiveState") == "inactive")


def test_keys_of_root_serve_a_context_and_tasks_that_cannot_read_them(
    keyed: Installed, machine: Machine
) -> None:
    """These are a tcp endpoint, a task of another user, and a Monitor of another user that answers with the
    key of the device.
    """
    monitor = "<service><endpoint>tcp://127.0.0.1:6558</endpoint><frequency_s>0.2</frequency_s></service>"
    tasks = (
        task("ts_100", "Talker", service="<user>nobody</user><group>zmsvc</group>"),
        task("ts_000", "Monitor", service="<user>nobody</user><group>zmsvc</group>", configuration=monitor),
    )
    machine.put(
        "/etc/zmsvc/Context-Talk.xml",
        "<Context><FrontEndEndpoint>tcp://127.0.0.1:5556</FrontEndEndpoint><BackendEndpoint>tcp://127.0.0.1:5557</BackendEndpoint>"
        f"<FrontBind>tcp://*:5557</FrontBind><BackendBind>tcp://*:5556</BackendBind>{''.join(tasks)}</Context>",
    )
    machine.put(
        f"/run/systemd/system/{keyed.unit}.d/user.conf",
        "[Service]\nUser=root\nProtectProc=default\nCapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_KILL "
        "CAP_CHOWN\n"
        "AmbientCapabilities=CAP_SETUID CAP_SETGID CAP_KILL CAP_CHOWN\n",
    )
    # Root without capabilities is like any other user.
    machine.sh("chown root /etc/zmsvc/keys/Talk/*.key_secret; systemctl daemon-reload")
    try:
        keyed.start()
        assert len(keyed.pids()) == 2
        pids = ",".join(map(str, keyed.pids().values()))
        assert set(machine.sh(f"ps -o user= -p {pids}").stdout.split()) == {"nobody"}
        assert keyed.ctl("watch", "--topic control", "--count 1", "--timeout 25")
        assert (
            "0.0.0.0:5556" in machine.sh("cat /proc/net/tcp").stdout
            or "00000000:15B4" in machine.sh("cat /proc/net/tcp").stdout
        )
        python = "/usr/local/lib/zmsvc/bin/python"
        shown = machine.sh(
            f"timeout 45 {python} -m zmsvc.ctl.compat.display --count 1 tcp://127.0.0.1:6558", check=False
        )
        assert shown.returncode == 0, shown.stdout + shown.stderr
    finally:
        keyed.stop()
        machine.sh(f"rm -r /run/systemd/system/{keyed.unit}.d; systemctl daemon-reload")


def test_secrets_that_the_service_cannot_read_are_told_with_the_way_out(keyed: Installed) -> None:
    keyed.machine.sh("chown root:root /etc/zmsvc/keys/Talk/server.key_secret")
    assert keyed.machine.sh(f"systemctl start {keyed.unit}", check=False).returncode == 1
    assert keyed.show("ExecMainStatus") == "2"
    told = keyed.machine.journal("-u", keyed.unit)
    assert (
        "cannot read CURVE keys: /etc/zmsvc/keys/Talk/server.key_secret: permission denied; it belongs to "
        "uid 0" in told
    )
