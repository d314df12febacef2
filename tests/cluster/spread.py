"""A context whose tasks run on other hosts of the bench, by docs/cluster.md, "Tasks on other hosts": what happens
when a task, an envoy, a keeper or a host fails, when a host is drained, and when the context itself moves.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from beats import AFTER, AGAIN, OTHER, SAME, SILENT, Beats, Measured
from cluster_bench import Bench, BenchError, wait_until

ADDRESS = "10.77.0.9"
DISK = "/share/spread-disk"
ADOPTED = 2.0
"""Seconds from the start of the context within which its tasks on other hosts are adopted."""
BEAT = """#!/bin/sh
echo "beats on $(hostname)"
while echo "$(date +%s.%N) $(hostname) $$ ${ZMSVC_TRANSACTION:-none}" >> /share/spread; do sleep 0.1; done
"""
TASK = """<TaskService id="{id}" instance="{id}" serviceType="Command"><Task>
<message><header><service_name>{id}</service_name></header>
<content><configuration><command>{command}</command></configuration></content></message>
<state type="{type}">{rules}</state><service>{service}</service></Task></TaskService>
"""
CONTEXT = f"""<Context>
<FrontEndEndpoint>tcp://{ADDRESS}:5556</FrontEndEndpoint><BackendEndpoint>tcp://{
    ADDRESS
}:5557</BackendEndpoint>
<FrontBind>tcp://*:5557</FrontBind><BackendBind>tcp://*:5556</BackendBind>
<hosts endpoint="tcp://{ADDRESS}:5558" bind="tcp://*:5558">h1 h2 h3</hosts>
{
    TASK.format(
        id="ts_1",
        command="/usr/local/bin/beat.sh",
        type="on_start",
        rules="<on_fail><action>restart</action><call>ts_1</call></on_fail>"
        "<on_fail><action>restart</action><call>ts_2</call></on_fail>",
        service="<placement><host>h2 h3</host></placement>",
    )
}{
    TASK.format(
        id="ts_2",
        command="/usr/bin/sleep infinity",
        type="",
        rules="",
        service="<placement><host>h3 h2</host></placement>",
    )
}</Context>
"""
"""The failure of ts_1 starts it again, and ts_2 on the other host."""


class Spread(Beats):
    """The context, whose task ts_1 beats."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench, "spread")

    def prepare(self) -> None:
        bench = self.bench
        super().prepare()
        (bench.share / "spread-disk").mkdir()
        for number in bench.numbers:
            bench.put(number, "/etc/zmsvc/Context-Spread.xml", CONTEXT)
            bench.put(number, "/usr/local/bin/beat.sh", BEAT, 0o755)
            for unit in ("zmsvc@Spread", "zmsvc-host@Spread"):
                # Not in /etc/systemd/system, which a boot of a test machine empties.
                drop_in = f"/usr/lib/systemd/system/{unit}.service.d/share.conf"
                bench.put(number, drop_in, "[Service]\nReadWritePaths=/share\n")
            bench.sh(
                number,
                "cp /usr/local/share/doc/zmsvc/drop-ins/other-hosts.conf "
                "/usr/lib/systemd/system/zmsvc@Spread.service.d/ && systemctl daemon-reload",
            )
        bench.sh(1, "zmsvcctl -c Spread keys make && tar -C /etc/zmsvc/keys -cf /share/keys.tar Spread")
        for number in bench.numbers[1:]:
            bench.sh(number, "mkdir -p /etc/zmsvc/keys && tar -C /etc/zmsvc/keys -xpf /share/keys.tar")

    def begin(self) -> None:
        """Give it to the cluster, by the commands that `cluster commands` prints."""
        # As on the page: the context may read the state of the cluster, and change nothing.
        self.bench.sh(1, "pcs acl role create zmsvc-read read xpath /cib")
        self.bench.sh(1, "pcs acl user create zmsvc zmsvc-read")
        self.bench.sh(1, "pcs acl enable")
        as_zmsvc = "setpriv --reuid zmsvc --regid zmsvc --groups haclient"
        self.bench.sh(1, f"{as_zmsvc} crm_mon --output-as=xml -1")
        change = f"{as_zmsvc} crm_attribute --name stonith-enabled --update false"
        if self.bench.on(1, "sh", "-c", change, check=False).returncode == 0:
            raise BenchError("the user of the context may change the cluster")
        for number in self.bench.numbers:
            self.bench.sh(number, "zmsvcctl -c Spread cluster give")
        wanted = f"zmsvcctl -c Spread cluster commands --ip {ADDRESS}/24 --shared {DISK}"
        for line in self.bench.sh(1, wanted).splitlines():
            self.bench.sh(1, line.replace("fstype=ext4", "fstype=none options=bind"))
        wait_until("a beat on another host", self.beats, 60)
        self.part()

    def part(self) -> None:
        """Have the context run on h1 and its task on h2, so that a fault of another host is about tasks alone."""
        if self.home() != 1:
            self.bench.sh(1, "pcs resource move spread-all h1")
            wait_until("the context runs on h1", lambda: self.home() == 1)
        self.wait_for_hosts()
        if self.last().host != 2:
            # A task that starts takes the first one of its hosts.
            self.bench.sh(1, "zmsvcctl -c Spread restart ts_1")
            wait_until("ts_1 on h2", lambda: self.last().host == 2)

    # --- what zmsvcctl says, on the host of the context

    def home(self) -> int:
        """Return the host that runs the context."""
        found: list[int] = []

        def here() -> bool:
            found[:] = [
                each
                for each in self.bench.numbers
                if self.bench.is_on(each)
                and self.bench.on(each, "zmsvcctl", "-c", "Spread", "status", check=False).returncode
                in (0, 3)
                and self.bench.on(
                    each, "systemctl", "-q", "is-active", "zmsvc@Spread", check=False
                ).returncode
                == 0
            ]
            return len(found) == 1

        wait_until("the context runs on one host", here)
        return found[0]

    def told(self, *words: str) -> dict[str, Any]:
        command = ("zmsvcctl", "--json", "-c", "Spread", *words)
        done = self.bench.on(self.home(), *command, check=False)
        return dict(json.loads(done.stdout))

    def events(self, since: float) -> list[dict[str, Any]]:
        done = self.bench.sh(self.home(), f"zmsvcctl --json -c Spread events --since @{since:.6f}")
        return [json.loads(line) for line in done.splitlines()]

    def at(self, since: float, task: str, event: str) -> list[float]:
        """Return the times of an event of a task."""
        return [
            _epoch(row["at"]) for row in self.events(since) if (row["task"], row["event"]) == (task, event)
        ]

    def wait_for_hosts(self) -> None:
        """Wait until all hosts have joined."""

        def joined() -> bool:
            hosts = self.told("status")["contexts"][0].get("hosts", ())
            return {each["name"] for each in hosts if each["state"] == "joined"} == {"h1", "h2", "h3"}

        wait_until("all hosts joined", joined)

    @contextmanager
    def ending(self, reason: str, signal: str | None) -> Iterator[None]:
        """Check that one end of ts_1 is known, with its reason, and that each of its rules fires once."""
        began = time.time()
        yield
        rows = self.events(began)
        ends = [row["detail"] for row in rows if (row["task"], row["event"]) == ("ts_1", "failed")]
        if [(each["reason"], each["signal"]) for each in ends] != [(reason, signal)]:
            raise BenchError(f"expected one end of ts_1 by {reason} {signal}: {ends}")
        known = next(_epoch(row["at"]) for row in rows if (row["task"], row["event"]) == ("ts_1", "failed"))
        print(f"{'':32} its end was known after {known - began:.3f} s", flush=True)
        fired = [row for row in rows if (row["task"], row["event"]) == ("ts_2", "launching")]
        if len(fired) != 1:
            raise BenchError(f"the rule of ts_1 has started ts_2 {len(fired)} times")


# --- the faults


def task_killed(spread: Spread) -> None:
    spread.part()
    with (
        spread.ending("signal", "SIGKILL"),
        spread.breaking("task on another host killed", SAME, 1.0) as host,
    ):
        began = time.time()
        spread.bench.sh(host, f"kill -9 {spread.last().pid}")
    at = {(row["task"], row["event"]): _epoch(row["at"]) for row in reversed(spread.events(began))}
    ready = at["ts_2", "started"] - at["ts_1", "failed"]
    print(f"{'':32} the task of its rule was ready on a third host {ready:.3f} s later", flush=True)


def envoy_and_task_killed(spread: Spread) -> None:
    with spread.ending("signal", "SIGKILL"), spread.breaking("envoy and task killed", SAME, 1.5) as host:
        envoy = "pkill -9 --cgroup $(systemctl show -p ControlGroup --value zmsvc-host@Spread)/supervisor"
        spread.bench.sh(host, f"{envoy}; kill -9 {spread.last().pid}")


def keeper_killed(spread: Spread) -> None:
    """Pacemaker starts the keeper again, as that of each unit of systemd."""
    with spread.ending("lost", None), spread.breaking("keeper of another host killed", SAME, 12.0) as host:
        spread.bench.sh(host, "kill -9 $(systemctl show -p MainPID --value zmsvc-host@Spread)")
    spread.wait_for_hosts()


def drained(spread: Spread) -> None:
    with spread.breaking("other host drained", OTHER, 1.0, SILENT) as host:
        spread.bench.sh(spread.home(), f"zmsvcctl -c Spread cluster drain h{host}")
    spread.bench.sh(spread.home(), f"zmsvcctl -c Spread cluster undrain h{host}")


def power_cut(spread: Spread) -> None:
    with spread.ending("lost", None), spread.breaking("power cut of another host", OTHER, 6.0) as host:
        spread.bench.power_off(host)
    spread.bench.rejoin(host)
    spread.wait_for_hosts()


def cable_cut(spread: Spread) -> None:
    bench = spread.bench
    with spread.ending("lost", None), spread.breaking("cable cut of another host", OTHER, 6.5) as host:
        bench.cut(host)
    wait_until(f"h{host} fenced", lambda: not bench.is_on(host))
    bench.mend(host)
    bench.rejoin(host)
    spread.wait_for_hosts()


@contextmanager
def _outliving(spread: Spread, what: str) -> Iterator[int]:
    """Check that the task on another host outlives what the body does to the host of the context, which it gets, and
    that the next supervisor adopts it.
    """
    home = spread.home()
    if spread.last().host == home:
        other = next(each for each in (2, 3) if each != home)
        spread.bench.sh(home, f"zmsvcctl -c Spread cluster drain h{home}")
        wait_until("its task on another host", lambda: spread.last().host == other)
        spread.bench.sh(home, f"zmsvcctl -c Spread cluster undrain h{home}")
    before, began = spread.last(), time.time()
    yield home
    wait_until("the context runs elsewhere", lambda: spread.home() != home, 60)
    wait_until("its tasks are adopted", lambda: spread.at(began, "ts_1", "adopted"))
    adopted = spread.at(began, "ts_1", "adopted")[-1]
    time.sleep(AFTER)
    beats = spread.beats(began)
    if {(each.host, each.pid) for each in beats} != {(before.host, before.pid)}:
        raise BenchError(f"the task on h{before.host} has not outlived: {what}")
    shown = "systemctl show -p ExecMainStartTimestamp --value --timestamp=us+utc zmsvc@Spread"
    started = datetime.strptime(spread.bench.sh(spread.home(), shown).strip(), "%a %Y-%m-%d %H:%M:%S.%f UTC")
    after = adopted - started.replace(tzinfo=UTC).timestamp()
    measured = spread.table.setdefault(f"{what}, its start", Measured(SAME, ADOPTED, AGAIN))
    measured.again.append(after)
    measured.silent.append(max(b.at - a.at for a, b in itertools.pairwise(beats)))
    measured.overlap.append(0.0)
    print(
        f"{what:32} its task on h{before.host} runs on, adopted after {adopted - began:.2f} s, "
        f"{after:.2f} s after the next start of the context",
        flush=True,
    )


def context_moved(spread: Spread) -> None:
    """In an orderly move the tasks on other hosts run on."""
    with _outliving(spread, "orderly move of the context") as home:
        spread.bench.sh(home, f"pcs resource move spread-all h{home % 3 + 1}")
    spread.wait_for_hosts()


def context_lost(spread: Spread) -> None:
    """With its disk the context adopts the tasks on other hosts, which go on."""
    with _outliving(spread, "host of the context lost") as home:
        spread.bench.power_off(home)
    spread.bench.rejoin(home)
    spread.wait_for_hosts()


def home_in_standby(spread: Spread) -> None:
    """A host with the context and a task of it is put in standby: first the task moves, then the context."""
    spread.bench.sh(1, f"pcs resource move spread-all h{spread.last().host}", check=False)
    spread.wait_for_hosts()
    home = spread.home()
    with spread.breaking("standby of the context's host", OTHER, 1.0, SILENT):
        spread.bench.sh(1, f"pcs node standby h{home} --wait=60")
    wait_until("the context runs elsewhere", lambda: spread.home() != home)
    spread.bench.sh(1, f"pcs node unstandby h{home}")
    spread.wait_for_hosts()


def disabled(spread: Spread) -> None:
    """The end of the context ends all its tasks."""
    spread.bench.sh(1, "pcs resource disable spread-all --wait=60")
    began = time.time()
    time.sleep(AFTER)
    if left := spread.beats(began):
        raise BenchError(f"the context was disabled, and its task runs on: {left[:3]}")
    spread.bench.sh(1, "pcs resource enable spread-all --wait=60")
    spread.wait_for_hosts()
    spread.last()


FAULTS: tuple[Callable[[Spread], None], ...] = (
    task_killed,
    envoy_and_task_killed,
    keeper_killed,
    drained,
    power_cut,
    cable_cut,
    context_moved,
    context_lost,
    home_in_standby,
    disabled,
)


def begin(bench: Bench) -> Spread:
    """Set the context up, and wait until its task beats on another host."""
    spread = Spread(bench)
    spread.prepare()
    spread.begin()
    bench.start_sshd()
    told = bench.sh(1, "zmsvcctl -c Spread logs ts_1 2>&1 >/dev/null", check=False)
    if "(zmsvcctl -H h2 -c Spread logs ts_1)" not in told:
        raise BenchError(f"logs does not say where the log of ts_1 is: {told}")
    shown = bench.sh(1, "zmsvcctl -H h2 -c Spread logs ts_1")
    if "beats on h2" not in shown:
        raise BenchError(f"the log of ts_1 on h2 is not shown:\n{shown}")
    return spread


def _epoch(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
