"""A context that was given to a cluster, on one machine without a cluster: the guard of the unit, and the
resource agent with each of its exit statuses. `make cluster` tests both in a real cluster.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from installed import Installed, task
from machine import Machine
from needs import need
from waiting import wait_for

AGENT = "/usr/lib/ocf/resource.d/zmsvc/context"
UNKNOWN, MISSING, WRONG, STOPPED, DEGRADED = 3, 5, 6, 7, 190

FAILING = """
    from zmsvc.task import SingleTask, TaskService


    class Failing(SingleTask):
        def run(self):
            raise SystemExit(7)


    class ServiceFailing(TaskService):
        service_name = "failing"
        task_class = Failing
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """The resource of the context, to which the agent is called as the cluster calls it."""

    installed: Installed

    @property
    def machine(self) -> Machine:
        return self.installed.machine

    def __call__(
        self, action: str, *, seconds: float = 60, interval: int = 10, **parameters: str
    ) -> tuple[int, str]:
        """Return the exit status of an action, and its reason."""
        words = {
            "OCF_RESKEY_context": self.installed.name,
            "OCF_RESKEY_CRM_meta_timeout": str(int(seconds * 1000)),
            "OCF_RESKEY_CRM_meta_interval": str(interval * 1000),
            "OCF_RESKEY_CRM_meta_on_node": "h1",
            **{f"OCF_RESKEY_{name}": value for name, value in parameters.items()},
        }
        environment = " ".join(f"{name}={shlex.quote(value)}" for name, value in words.items())
        done = self.machine.sh(f"env {environment} {AGENT} {action}", check=False)
        reasons = [each for each in done.stderr.splitlines() if each.startswith("ocf-exit-reason:")]
        assert len(reasons) <= 1, done.stderr
        return done.returncode, reasons[0].partition(":")[2] if reasons else ""

    def carried(self) -> dict[str, Any]:
        """Return what the cluster's configuration has about the context."""
        text = self.machine.sh(f"cat /run/cib/zmsvc-{self.installed.name}", check=False).stdout
        return dict(json.loads(text or "{}"))

    def carry(self, *opened: str, host: str = "h2", held: tuple[tuple[str, str], ...] = ()) -> None:
        text = json.dumps({"host": host, "open": opened, "held": held})
        self.machine.put(f"/run/cib/zmsvc-{self.installed.name}", text)

    def opened(self) -> set[str]:
        return {each["id"] for each in self.installed.status()["transactions"] if each["state"] != "inactive"}


@pytest.fixture
def given(context: Callable[..., Installed], machine: Machine) -> Iterator[Installed]:
    """A context that was given to a cluster."""
    installed = context("Orders", task("ts_1", "Talker"), task("ts_2", "Talker"))
    machine.put("/usr/sbin/crm_attribute", (Path(__file__).parent / "crm_attribute").read_text(), 0o755)
    machine.sh("mkdir -p /etc/zmsvc/cluster; touch /etc/zmsvc/cluster/Orders")
    yield installed
    machine.sh(f"systemctl kill -s CONT {installed.unit}; systemctl stop {installed.unit}", check=False)
    machine.sh(
        "rm -rf /etc/zmsvc/cluster /run/zmsvc-cluster /run/cib /usr/sbin/crm_attribute "
        f"/run/systemd/system/{installed.unit}.d /etc/systemd/system/{installed.unit}.d; systemctl daemon-reload"
    )


@pytest.fixture
def orders(given: Installed) -> Resource:
    return Resource(installed=given)


# --- the guard


def test_nobody_starts_a_context_of_a_cluster_by_hand_or_at_boot(given: Installed, machine: Machine) -> None:
    done = machine.sh(f"systemctl start {given.unit}", check=False)
    assert done.returncode == 1
    assert "Assertion failed on job for zmsvc@Orders.service" in done.stderr
    machine.sh(f"systemctl enable --quiet {given.unit}; systemctl restart zmsvc.target")
    try:
        assert machine.sh(f"systemctl is-active {given.unit}", check=False).stdout.strip() != "active"
        assert given.processes() == []
    finally:
        machine.sh(f"systemctl disable --quiet {given.unit}")


# --- the exit statuses


def test_the_agent_passes_ocf_tester(given: Installed, machine: Machine) -> None:
    need(shutil.which("ocf-tester"), "ocf-tester is not installed (apt-get install resource-agents)")
    # Its document type is that of OCF 1.0, which has neither of these.
    later = """'s/("reload-agent", 10, ""),//; s/ reloadable="1"//'"""
    machine.sh(f"sed {later} {AGENT} > /run/context; chmod 755 /run/context")
    done = machine.sh("ocf-tester -n orders -o context=Orders /run/context", check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "/run/context passed all tests" in done.stdout


HOSTILE = ("", "../Orders", "-x", "$(touch /run/hostile)", "x\ny", "a" * 65)


def test_a_hostile_name_is_refused_and_reaches_no_program(orders: Resource, machine: Machine) -> None:
    for name in HOSTILE:
        status, why = orders("start", context=name)
        assert (status, "is not the name of a context" in why) == (WRONG, True)
        assert orders("stop", context=name) == (0, ""), "a stop that fails would cost the host its power"
    assert machine.sh("ls /run/hostile /run/zmsvc-cluster", check=False).stdout == ""


def test_wrong_parameters_are_wrong_on_every_host(orders: Resource) -> None:
    assert orders("start", state="both") == (WRONG, "state='both', expected one of carry, shared")
    assert orders("start", failed_tasks="x") == (
        WRONG,
        "failed_tasks='x', expected one of degraded, fail, ignore",
    )
    assert orders("promote")[0] == UNKNOWN


def test_a_host_that_lacks_something_says_what(orders: Resource, machine: Machine) -> None:
    file, unit = "/etc/zmsvc/Context-Orders.xml", orders.installed.unit
    lacking = [
        (f"mv {file} /run/aside", f"mv /run/aside {file}", f"{file} is not on this host"),
        (f"cp {file} /run/aside; echo '<Context>' > {file}", f"mv /run/aside {file}", f"{file}:"),
        (
            "rm /etc/zmsvc/cluster/Orders",
            "touch /etc/zmsvc/cluster/Orders",
            "Orders is not given to the cluster",
        ),
        (f"systemctl enable -q {unit}", f"systemctl disable -q {unit}", f"{unit} is enabled, so this host"),
    ]
    for spoil, mend, why in lacking:
        machine.sh(spoil)
        status, reason = orders("start")
        assert (status, reason.startswith(why)) == (MISSING, True), (spoil, reason)
        machine.sh(mend)
    assert orders("monitor")[0] == STOPPED, "the unit has failed"
    assert orders("stop") == (0, ""), "as the cluster does after a start that has failed"
    assert orders("validate-all") == (0, "")
    machine.sh(f"cp {file} /run/aside; echo '<Context>' > {file}")
    status, reason = orders("validate-all")
    machine.sh(f"mv /run/aside {file}")
    assert (status, reason.startswith(f"{file}:")) == (MISSING, True), reason
    assert orders("start", zmsvcctl="/nowhere") == (MISSING, "/nowhere is not installed on this host")
    status, reason = orders("start", state="shared")
    assert (status, reason.partition(" (")[0]) == (
        MISSING,
        "state=shared, and nothing is mounted at /var/lib/zmsvc/Orders or /var/lib/zmsvc",
    )
    machine.sh("rm /usr/sbin/crm_attribute")
    assert orders("start") == (MISSING, "crm_attribute is not installed on this host")
    assert orders("monitor") == (STOPPED, "")


def test_bad_keys_are_told_before_anything_starts(orders: Resource, machine: Machine) -> None:
    orders.installed.ctl("keys", "make")
    machine.sh("chmod 644 /etc/zmsvc/keys/Orders/server.key_secret")
    try:
        status, why = orders("start")
        assert (status, "others may read it" in why) == (MISSING, True), why
    finally:
        machine.sh("rm -rf /etc/zmsvc/keys")


def test_monitor_of_a_context_that_runs_or_not(orders: Resource, machine: Machine) -> None:
    assert orders("monitor") == orders("monitor", interval=0) == (STOPPED, "")
    assert orders("start") == (0, "")
    assert orders("start") == (0, ""), "a second start changes nothing"
    assert orders("monitor") == orders("monitor", interval=0) == orders("reload-agent") == (0, "")
    # systemd starts a killed keeper again, and the cluster need not know.
    keeper = orders.installed.show("MainPID")
    machine.sh(f"kill -9 {keeper}")
    wait_for(lambda: orders.installed.show("MainPID") not in ("0", keeper))
    wait_for(lambda: orders.installed.show("ActiveState") == "active")
    # A unit that systemd is about to start again runs.
    machine.put(f"/etc/systemd/system/{orders.installed.unit}.d/restart.conf", "[Service]\nRestartSec=1h\n")
    machine.sh(f"systemctl daemon-reload; kill -9 {orders.installed.show('MainPID')}")
    wait_for(lambda: orders.installed.show("ActiveState") == "activating")
    assert orders("monitor") == (0, "")
    assert orders("stop") == (0, "")
    assert machine.sh(f"systemctl start {orders.installed.unit}", check=False).returncode == 1


def test_failed_tasks_and_a_supervisor_that_hangs_are_told(orders: Resource, machine: Machine) -> None:
    machine.put("/etc/zmsvc/services/Failing/__init__.py", "")
    machine.put("/etc/zmsvc/services/Failing/ServiceFailing.py", FAILING)
    deaf = task("ts_1", "Deaf", service="<stop_timeout>2s</stop_timeout>")
    orders.installed.configure(deaf, task("ts_2", "Failing"))
    orders("start")
    wait_for(lambda: orders("monitor")[0] == DEGRADED)
    why = "task ts_2 failed: exit-code (status 7)"
    assert orders("monitor") == (DEGRADED, why)
    assert orders("monitor", failed_tasks="fail") == (1, why)
    assert orders("monitor", failed_tasks="ignore") == (0, "")
    assert orders("monitor", interval=0) == (0, ""), "a probe finds what runs"
    supervisor = orders.installed.status()["pid"]
    machine.sh(f"kill -STOP {supervisor}")
    assert orders("monitor", seconds=6) == (1, "the supervisor of Orders does not answer (does it hang?)")
    machine.sh(f"kill -CONT {supervisor}; systemctl stop --no-block {orders.installed.unit}")
    wait_for(lambda: orders.installed.show("ActiveState") == "deactivating")
    assert orders("monitor") == (1, "zmsvc@Orders.service is being stopped, but not by the cluster")


# --- the state goes along


def test_the_decisions_of_the_last_host_go_along(orders: Resource, machine: Machine) -> None:
    assert orders("start") == (0, "")
    (own,) = orders.opened()
    assert orders.carried() == {"host": "h1", "open": [own], "held": [], "disabled": [], "generation": 0}
    assert orders("stop") == (0, "")

    # From another host: what was open there, and nothing of its own.
    orders.carry("T1", "T2", held=(("T2", "ts_2"),))
    assert orders("start") == (0, "")
    assert orders.opened() == {"T1", "T2"}
    assert ("T2", "ts_2") not in orders.installed.pids()
    now = {"host": "h1", "open": ["T1", "T2"], "held": [["T2", "ts_2"]], "disabled": [], "generation": 1}
    assert orders.carried() == now
    orders.installed.ctl("disable", "ts_1")
    writes = "wc -l < /run/cib/writes"
    before = machine.sh(writes).stdout
    assert orders("monitor") == orders("monitor") == (0, "")
    assert orders.carried()["disabled"] == ["ts_1"]
    assert int(machine.sh(writes).stdout) == int(before) + 1, "what has not changed is not written again"

    # The last word before the end, which no monitor has seen.
    orders.installed.ctl("stop", "--transaction", "T1")
    assert orders("stop") == (0, "")
    assert (orders.carried()["host"], orders.carried()["open"]) == ("h1", ["T2"])

    # This host was the last one, so that its own state is the newest.
    assert orders("start") == (0, "")
    assert orders.opened() == {"T2"}
    orders("stop")

    # A stop also comes after a probe, and after a start that has failed; the state here may be old then.
    orders.carry("T9")
    assert orders("stop") == (0, "")
    drop_in = f"/etc/systemd/system/{orders.installed.unit}.d/bad.conf"
    machine.put(drop_in, "[Service]\nExecStartPre=/bin/false\n")
    machine.sh("systemctl daemon-reload")
    assert orders("start")[0] == 1
    assert orders("stop") == (0, "")
    assert (orders.carried()["host"], orders.carried()["open"]) == ("h2", ["T9"])


def test_a_cluster_that_does_not_answer_prevents_a_start_and_no_stop(
    orders: Resource, machine: Machine
) -> None:
    machine.sh("mkdir -p /run/cib; touch /run/cib/broken")
    status, why = orders("start")
    assert (status, why.partition(":")[0]) == (1, "cannot ask the cluster for the open transactions")
    assert orders.installed.processes() == []
    machine.sh("rm /run/cib/broken")
    assert orders("start") == (0, "")
    machine.sh("rm /usr/sbin/crm_attribute")
    orders.installed.ctl("start", "--transaction", "T5")
    assert orders("stop") == (0, ""), "what only serves the state may not cost the host its power"
    assert orders.installed.processes() == []


def test_a_configuration_that_cannot_be_read_is_told(orders: Resource, machine: Machine) -> None:
    machine.put("/run/cib/zmsvc-Orders", '{"open": []')
    status, why = orders("start")
    assert (status, "--name zmsvc-Orders --delete" in why) == (1, True)


def test_a_shared_state_needs_no_cluster_attribute(orders: Resource, machine: Machine) -> None:
    machine.sh("rm /usr/sbin/crm_attribute; mkdir -p /run/disk /var/lib/zmsvc/Orders")
    machine.sh("mount --bind /run/disk /var/lib/zmsvc/Orders")
    try:
        assert orders("start", state="shared") == (0, "")
        (own,) = orders.opened()
        assert orders("monitor", state="shared") == orders("stop", state="shared") == (0, "")
        assert own in machine.sh("sqlite3 /run/disk/state.db 'SELECT id FROM transactions WHERE open'").stdout
    finally:
        machine.sh("umount /var/lib/zmsvc/Orders")


def test_a_context_that_ran_before_it_was_given_goes_on(orders: Resource, machine: Machine) -> None:
    machine.sh("rm /etc/zmsvc/cluster/Orders")
    orders.installed.start()
    keeper = orders.installed.show("MainPID")
    machine.sh("touch /etc/zmsvc/cluster/Orders")
    assert orders("monitor", interval=0) == (0, "")
    assert orders("monitor") == (0, "")
    assert orders.installed.show("MainPID") == keeper
    machine.sh("test -e /run/zmsvc-cluster/Orders.here")
    assert orders("stop") == (0, "")


# --- zmsvcctl cluster


def test_a_context_is_given_and_taken(context: Callable[..., Installed], machine: Machine) -> None:
    orders = context("Orders", task("ts_1", "Talker"))
    machine.sh(f"systemctl enable --quiet {orders.unit}")
    try:
        assert "only its resource agent starts it here" in orders.ctl("cluster", "give")
        assert machine.sh(f"systemctl is-enabled {orders.unit}", check=False).stdout.strip() == "disabled"
        assert machine.sh(f"systemctl start {orders.unit}", check=False).returncode == 1
        told = json.loads(orders.ctl("--json", "cluster", "give"))
        assert (told["given"], told["changed"]) == (True, False), "a second time changes nothing"
        why = "inactive (given to the cluster; cannot ask the cluster: crm_mon: it is not installed)"
        assert why in orders.ctl("status", check=False)
        assert "not given" in orders.ctl("cluster", "take")
        assert machine.sh(f"systemctl is-enabled {orders.unit}").stdout.strip() == "enabled"
        orders.start()
        assert json.loads(orders.ctl("--json", "cluster", "take"))["changed"] is False
    finally:
        machine.sh(f"systemctl disable --quiet {orders.unit}; rm -rf /etc/zmsvc/cluster", check=False)


CRM_MON = """#!/bin/sh
cat <<X
<pacemaker-result><summary><cluster_options stonith-enabled="{fencing}"/></summary>
<nodes>{nodes}</nodes>
<resources>
<resource id="fence" resource_agent="stonith:fence_x" role="Started" blocked="false" managed="true" failed="false"/>
<group id="g"><resource id="orders" resource_agent="ocf:zmsvc:context" role="{role}" blocked="false" managed="true" failed="false">
<node name="h3"/></resource></group>
</resources>
<failures><failure op_key="orders_monitor_10000" node="h3" exitreason="task ts_1 failed: signal (SIGKILL)"/></failures>
</pacemaker-result>
X
"""
CIBADMIN = """#!/bin/sh
echo '<primitive id="orders" provider="zmsvc" type="context"><nvpair name="context" value="Orders"/></primitive>'
"""


@pytest.fixture
def cluster(given: Installed, machine: Machine) -> Iterator[Callable[..., None]]:
    """Return a function that makes the programs of a cluster that runs the context on h3. `make cluster` uses the
    real ones.
    """

    def make(*, fencing: str = "true", members: int = 3, role: str = "Started") -> None:
        nodes = "".join(
            f'<node name="h{each}" online="true" unclean="false"/>' for each in range(1, members + 1)
        )
        machine.put("/usr/sbin/crm_mon", CRM_MON.format(fencing=fencing, nodes=nodes, role=role), 0o755)
        machine.put("/usr/sbin/cibadmin", CIBADMIN, 0o755)

    yield make
    machine.sh("rm -f /usr/sbin/crm_mon /usr/sbin/cibadmin")


def test_status_says_where_the_cluster_runs_it(
    given: Installed, cluster: Callable[..., None], machine: Machine
) -> None:
    cluster()
    assert "inactive (given to the cluster; runs on h3)" in given.ctl("status", check=False)
    assert given.status()["cluster"]["hosts"] == ["h3"]
    assert machine.sh("zmsvcctl cluster status").stdout.splitlines() == [
        "Orders (orders): runs on h3",
        "  h3: task ts_1 failed: signal (SIGKILL)",
        "members: h1 online, h2 online, h3 online",
        "fencing: by fence",
    ]
    done = machine.sh("zmsvcctl -c Orders cluster take", check=False)
    assert (done.returncode, "pcs resource delete orders" in done.stderr) == (1, True)
    cluster(role="Stopped")
    assert machine.sh("zmsvcctl -c Orders cluster status", check=False).returncode == 3
    assert machine.sh("zmsvcctl -c Other cluster status", check=False).returncode == 4


def findings(installed: Installed) -> list[tuple[str, str]]:
    told = json.loads(installed.ctl("--json", "cluster", "check", check=False))
    return [(each["level"], each["text"]) for each in told["findings"]]


def test_check_says_what_prevents_the_context_from_running_here(
    given: Installed, cluster: Callable[..., None], machine: Machine
) -> None:
    cluster()
    assert findings(given) == []
    assert "ready (0 faults, 0 warnings)" in given.ctl("cluster", "check")
    cluster(fencing="false", members=2)
    assert [(level, text.partition(":")[0]) for level, text in findings(given)] == [
        ("warning", "fencing is switched off"),
        ("warning", "the cluster has two members without two_node"),
    ]
    machine.sh(
        "mkdir -p /etc/corosync; printf 'quorum {\\n    two_node: 1\\n}\\n' > /etc/corosync/corosync.conf"
    )
    assert len(findings(given)) == 1
    machine.sh("rm -r /etc/corosync")
    cluster()
    spoiled = [
        ("chmod 644 {keys}/server.key_secret", "chmod 600 {keys}/server.key_secret", "others may read it"),
        ("mv {keys}/client.key_secret /run/k", "mv /run/k {keys}/client.key_secret", "client.key_secret"),
        ("mv {agent} /run/a; echo 'import x' > {agent}", "mv /run/a {agent}", "the resource agent"),
        ("mv {service} /run/s", "mv /run/s {service}", "there is no Talker/ServiceTalker.py"),
        ("rm /etc/zmsvc/cluster/Orders", "touch /etc/zmsvc/cluster/Orders", "is not given to the cluster"),
        ("mv /usr/sbin/crm_attribute /run/c", "mv /run/c /usr/sbin/crm_attribute", "crm_attribute: it is not installed"),
        ("echo '<X>' > {file}", "true", "Context-Orders.xml:"),
    ]  # fmt: skip
    given.ctl("keys", "make")
    places = {
        "keys": "/etc/zmsvc/keys/Orders",
        "agent": AGENT,
        "service": "/etc/zmsvc/services/Talker/ServiceTalker.py",
        "file": "/etc/zmsvc/Context-Orders.xml",
    }
    try:
        for spoil, mend, why in spoiled:
            machine.sh(spoil.format(**places))
            found = findings(given)
            machine.sh(mend.format(**places))
            assert {level for level, text in found if why in text} == {"fault"}, (spoil, found)
    finally:
        machine.sh("rm -rf /etc/zmsvc/keys")
